"""Each server, rebuilt from the other's clone, boots and is itself."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .qemu import boot
from .servers import HOST_NAMES, Identity, assert_is, etsclone, identity_under, make_store

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


FLOPPY = 1_440_000
"""Bytes that an overlay stays under: 1.44 MB, of which a floppy that is called so holds a little more."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A folder with the disks of both roles, ROLE.raw, and a store that holds their overlays."""

    folder: Path
    identities: dict[str, Identity] = field(default_factory=dict)

    def disk(self, role: str) -> Path:
        return self.folder / f"{role}.raw"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def trust(self) -> Path:
        return self.folder / "trusted"


@contextmanager
def mounted_root(image: Path, folder: Path) -> Iterator[Path]:
    """Mount the root filesystem of an image that scripts/build-image made."""
    attach = ["losetup", "--find", "--show", "--partscan", str(image)]
    loop = subprocess.run(attach, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        if not Path(f"{loop}p2").exists():  # the kernel did not read the partition table by itself
            subprocess.run(["partx", "--add", loop], check=True)
        folder.mkdir()
        subprocess.run(["mount", f"{loop}p2", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        subprocess.run(["partx", "--delete", loop], check=False)
        subprocess.run(["losetup", "--detach", loop], check=True)


@pytest.fixture(scope="module")
def pair(
    server_image: Path, install_role: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """A primary, a clone of it that was made the secondary by hand, and the overlays of both."""
    made = Pair(tmp_path_factory.mktemp("pair"))
    try:
        make_pair(made, server_image, install_role)
        yield made
    finally:
        for disk in made.folder.glob("*.raw"):  # pytest would keep these gigabytes for three runs
            disk.unlink()


def make_pair(made: Pair, server_image: Path, install_role: Path) -> None:
    etsclone("clone", server_image, made.disk("primary"), "--yes")
    etsclone("clone", made.disk("primary"), made.disk("secondary"), "--yes")
    with mounted_root(made.disk("secondary"), made.folder / "root") as root:
        made.identities["primary"] = identity_under(root)
        subprocess.run([install_role, root, "secondary"], check=True)
        made.identities["secondary"] = identity_under(root)
    make_store(made.folder)
    for role in HOST_NAMES:
        capture = ("brd", "capture", made.store, "--role", role, "--disk", made.disk(role))
        etsclone(*capture, "--key", made.folder / f"{role}.key")


def rebuild_from_other(pair: Pair, role: str, other: str) -> Path:
    disk = pair.folder / f"{role}-on-{other}.raw"
    etsclone("clone", pair.disk(other), disk, "--yes")
    etsclone("rebuild", disk, "--store", pair.store, "--role", role, "--trust", pair.trust, "--yes")
    return disk


def assert_boots_as(role: str, pair: Pair, disk: Path, log: Path) -> None:
    with boot(disk, log) as console:
        assert_is(console, role, pair.identities[role])
        checked = console.run("dhcpd -t -cf /etc/dhcp/dhcpd.conf")
        assert checked.code == 0, checked.output
        console.power_off()


def test_an_overlay_fits_a_floppy(pair: Pair) -> None:
    sizes = {path.name: path.stat().st_size for path in pair.store.glob("*/*.brd")}
    assert sorted(sizes) == [f"{role}-000001.brd" for role in sorted(HOST_NAMES)]
    assert max(sizes.values()) < FLOPPY, sizes


def test_secondary_rebuilt_on_the_primarys_clone(pair: Pair, tmp_path: Path) -> None:
    disk = rebuild_from_other(pair, "secondary", "primary")
    assert_boots_as("secondary", pair, disk, tmp_path / "console.log")


def test_primary_rebuilt_on_the_secondarys_clone(pair: Pair, tmp_path: Path, full: bool) -> None:
    disk = rebuild_from_other(pair, "primary", "secondary")
    if full:
        assert_boots_as("primary", pair, disk, tmp_path / "console.log")
