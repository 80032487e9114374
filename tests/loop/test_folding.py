"""Names that a filesystem takes for one: on a real exFAT (ext4's and vfat's are in tests/vm)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from folded import CASES, SCOPE, apply, build, foreseen, outcomes, payload_of, picture, wrong
from killed import killed_before

from etsclone.errors import ScopeConflict
from etsclone.execute.bootkeep import Work, keep_for
from etsclone.model.scope import Scope
from etsclone.overlay.apply import verify_scope
from etsclone.overlay.kept import look_kept, settle, undo
from etsclone.overlay.restored import verify_restored
from etsclone.plan.bootwork import BootCommand
from etsclone.units import MIB
from loop.small_system import common_files, etsclone, mounted_system, write_tree

pytestmark = pytest.mark.loop


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    with image.open("xb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.exfat", image], check=True, stdout=subprocess.DEVNULL)
    mounted.mkdir()
    losetup = ["losetup", "--find", "--show", str(image)]
    loop = subprocess.run(losetup, capture_output=True, text=True, check=True).stdout.strip()
    try:
        # Private, as a staging folder has to be.
        subprocess.run(["mount.exfat-fuse", "-o", "umask=077", loop, mounted], check=True)
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=False)
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_on_exfat(stick: Path) -> None:
    def new_root(name: str) -> Path:
        (stick / name).mkdir()
        return stick / name

    told = outcomes(new_root)
    assert {name: wrong(told[name], case) for name, case in CASES.items()} == dict.fromkeys(
        CASES, ""
    )
    assert {name for name, case in CASES.items() if case.twins and not told[name].folds} == {
        # exFAT's table has pairs of letters and nothing else.
        *("composed-and-not", "sharp-s", "kelvin", "nothing-that-shows"),
    }
    assert {
        name for name, each in told.items() if each.refused and each.foreseen != "refused"
    } == set()
    assert told["nothing-folded"].foreseen == "untried"


def test_what_programs_write_to_by_another_spelling_is_not_kept(stick: Path) -> None:
    (stick / "Grub").mkdir()

    def kept(name: str) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
        path = os.fsencode(stick / name)
        command = BootCommand(("update-grub",), "GRUB's menu", (path,))
        keep = keep_for([Work("the boot loader", [command])], Scope(()), ())
        return keep.paths, keep.lost

    assert kept("Grub") == ((os.fsencode(stick / "Grub"),), ())
    assert kept("new") == ((os.fsencode(stick / "new"),), ())
    why = f"the boot loader: {stick}/grub is there by another spelling of its name"
    assert kept("grub") == ((), (why,))


def test_a_dry_run_refuses_what_the_rebuild_refuses(stick: Path, tmp_path: Path) -> None:
    store, key = tmp_path / "store", tmp_path / "key"
    with mounted_system(tmp_path / "system") as system:
        for words in (
            ("init", store, "--pair", "school", "--profile", "ltsp-isc-dhcp"),
            ("keygen", key, "--no-passphrase"),
            ("trust", store, "--role", "primary", f"{key}.pub"),
            ("capture", store, "--role", "primary", "--key", key, "--root", system),
        ):
            assert etsclone("brd", *words).returncode == 0
    write_tree(stick, common_files())
    rebuild = ("rebuild", "--root", stick, "--store", store, "--role", "primary")
    trust = ("--trust", store / "allowed_signers")
    result = etsclone(*rebuild, *trust, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "whether names in /etc, /etc/ssh, /etc/dhcp are one to that filesystem" in result.stdout
    (stick / "etc/DHCP").write_text("a file that is not of the role\n")
    before = picture(stick)
    for way in ("--dry-run", "--yes"):
        result = etsclone(*rebuild, *trust, way)
        assert (result.returncode, result.stdout) == (3, "")
        assert "/etc/DHCP and /etc/dhcp would be one on this filesystem" in result.stderr
        assert picture(stick) == before


def test_a_name_that_the_kernel_only_remembers_refuses_nothing(stick: Path) -> None:
    remembered = False
    while not remembered:  # on a busy machine the second may be over
        build(stick, ("etc/Hosts",))
        assert (stick / "etc/hosts").exists()
        (stick / "etc/Hosts").unlink()
        remembered = (stick / "etc/hosts").exists()
    with payload_of(("etc/hosts",)) as (payload, _):
        assert foreseen(stick, payload) == "untried"


@pytest.mark.parametrize("name", ["etc/a:b", "etc/new/a:b", "etc/new/a:b/c"])
def test_a_name_that_it_cannot_hold(name: str, stick: Path) -> None:
    build(stick, ())
    before = picture(stick)
    refused = pytest.raises(ScopeConflict, match=r"cannot hold the name /etc/(new/)?a:b$")
    with payload_of((name,)) as (payload, _), refused as caught:
        apply(stick, payload)
    assert "take another filesystem" in caught.value.hint
    assert picture(stick) == before


def test_killed_at_any_moment_of_it(stick: Path) -> None:
    """Whether the old name is there, the new one, or neither for the moment: both ways lead to what is right."""
    case, moment, gaps = CASES["other-case-back"], 1, 0
    with payload_of(case.role) as (payload, wanted):
        while True:
            root = stick / f"{moment}"
            root.mkdir()
            build(root, case.disk)
            before = picture(root)
            killed = killed_before(moment, lambda root: apply(root, payload), root)
            gaps += len(os.listdir(root / "etc")) < len(before) - 1
            kept = look_kept(str(root))
            if kept and (moment % 2 or not kept.unfinished):
                verify_restored(str(root), undo(str(root)))
                assert picture(root) == before, moment
            elif kept:
                settle(str(root))
                verify_scope(str(root), payload.tree, SCOPE)
                killed_before(moment % 20 + 1, lambda root: undo(str(root)), root)
                undo(str(root)) if look_kept(str(root)) else None
                assert picture(root) == before, moment
            shutil.rmtree(root)
            if not killed:
                break
            moment += 1
    assert wanted
    assert moment > 50
    assert gaps > 1
