"""Names that a filesystem takes for one: folders of ext4 with chattr's F, and vfat, by Debian's own kernel."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from folded import CASES, Outcome, wrong

from etsclone.units import MIB

from .helper import Helper, helper

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

MOUNTS = {
    "ext4": "mkfs.ext4 -qF -O casefold {disk}; mount {disk} /srv; mkdir -m 700 /srv/folds; chattr +F /srv/folds",
    "ext4-etc": "mkfs.ext4 -qF -O casefold {disk}; mount {disk} /srv; mkdir -m 700 /srv/folds",
    "vfat": "mkfs.vfat -I {disk} > /dev/null; mount -o umask=077,utf8 {disk} /srv; mkdir /srv/folds",
    # Looks for names as they are spelled, and takes them for one when they are made.
    "half": "mkfs.vfat -I {disk} > /dev/null; mount -o umask=077,iocharset=utf8 {disk} /srv; mkdir /srv/folds",
}
NO_TWINS = {
    "ext4": set[str](),
    "ext4-etc": {"nobody's-folder", "nobody's-folder-on-the-way", "two-in-a-new-folder"},
    # By code points, and a table of its own for case.
    "vfat": {"composed-and-not", "sharp-s", "kelvin", "nothing-that-shows"},
    "half": {"composed-and-not", "sharp-s", "kelvin", "nothing-that-shows"},
}


@pytest.fixture(scope="module")
def vm(helper_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    folder = tmp_path_factory.mktemp("folding")
    (folder / "more").mkdir()
    shutil.copy(Path(__file__).parents[1] / "folded.py", folder / "more")
    with helper(helper_image, folder, {"disk": 64 * MIB}, folder / "more") as machine:
        yield machine


@pytest.mark.parametrize("kind", MOUNTS)
def test_what_is_one_there(vm: Helper, kind: str) -> None:
    vm.check(MOUNTS[kind].format(disk=vm.disk("disk")))
    said = vm.check(
        f"python3 /mnt/more/folded.py /srv/folds {'etc' if kind == 'ext4-etc' else ''}; umount /srv"
    )
    told = {name: Outcome(**each) for name, each in json.loads(said).items()}
    if (
        kind == "ext4-etc"
    ):  # a new folder is not made where it will be, and does not inherit the flag
        told["two-in-a-new-folder"].folds = False
    assert {name: wrong(told[name], case) for name, case in CASES.items()} == dict.fromkeys(
        CASES, ""
    )
    two = {name for name, case in CASES.items() if case.twins and not told[name].folds}
    assert two == NO_TWINS[kind]
