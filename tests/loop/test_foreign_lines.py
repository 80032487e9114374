"""Lines of fstab by which the system mounts another disk: nothing of the target is taken for that.

The target has, beside its root, a filesystem of the same number and kind that no line is about.
"""

import hashlib
from pathlib import Path

import pytest

from . import disks
from .conftest import Cli, Result
from .disks import MIB, loop_device, node, tool
from .small_system import common_files, role_files, write_tree

pytestmark = pytest.mark.loop

CRONTAB = "var/spool/cron/crontabs/root"
FOREIGN = ["/dev/sdb1", "/dev/disk/by-id/ata-DATA-part1", "/dev/md1", "/dev/md/data"]
ROOT = "11111111-2222-3333-4444-555555555555"
HOME_TYPE = "933AC7E1-2EB4-4F13-B844-0E14E2AEF915"


def disk_of(folder: Path, role: str, fstab: str) -> Path:
    """A disk with somebody's files on partition 1 and a system on partition 2."""
    image = disks.blank(folder / f"{role}.img", 100 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=32MiB\nsize=60MiB\n")
    with loop_device(image) as device:
        tool("mkfs.ext4", "-q", node(device, 1))
        tool("mkfs.ext4", "-q", "-U", ROOT, node(device, 2))
        with disks.mounted(node(device, 1), folder / "mnt") as data:
            write_tree(data, {"spool/cron/crontabs/alice": "of somebody\n", "vmlinuz": "none\n"})
        with disks.mounted(node(device, 2), folder / "mnt") as root:
            write_tree(root, common_files() | role_files(role))
            write_tree(root, {CRONTAB: f"# of {role}\n", "etc/fstab": fstab, "srv/in-root": ""})
    return image


def bytes_of(image: Path) -> str:
    with image.open("rb") as file:
        file.seek(MIB)
        return hashlib.sha256(file.read(32 * MIB)).hexdigest()


class Pair:
    """Two disks and a store; `options` make the first one the second one's role."""

    def __init__(self, etsclone: Cli, folder: Path, fstab: str) -> None:
        self.disk = disk_of(folder, "primary", fstab)
        donor = disk_of(folder, "secondary", f"UUID={ROOT} / ext4 defaults 0 1\n")
        store, key = folder / "store", folder / "secondary.key"
        for words in (
            ("brd", "init", store, "--pair", "school", "--profile", "ltsp-isc-dhcp"),
            ("brd", "keygen", key, "--no-passphrase"),
            ("brd", "trust", store, "--role", "secondary", f"{key}.pub"),
            ("brd", "capture", store, "--role", "secondary", "--key", key, "--disk", donor),
        ):
            done = etsclone(*words)
            assert done.code == 0, done.err
        trust = store / "allowed_signers"
        self.options = ("--store", store, "--role", "secondary", "--trust", trust, "--yes")


def refused(done: Result, spec: str) -> None:
    assert done.code == 3, done.err
    assert f"fstab mounts {spec} at " in done.err
    assert "--root DIR" in done.err


@pytest.mark.parametrize("spec", [*FOREIGN, "/dev/sdb2", "ID=ata-DATA-part1"])
def test_another_disks_line_is_refused_and_nothing_is_written(
    spec: str, etsclone: Cli, tmp_path: Path
) -> None:
    fstab = f"UUID={ROOT} / ext4 defaults 0 1\n{spec} /srv ext4 defaults 0 2\n"
    image = disk_of(tmp_path, "primary", fstab)
    before, folder = image.read_bytes(), tmp_path / "system"
    folder.mkdir()
    for options in ((), ("--rw",)):
        refused(etsclone("mount", image, folder, *options), spec)
        assert not folder.is_mount()
    assert bytes_of(image) == hashlib.sha256(before[MIB : 33 * MIB]).hexdigest()


@pytest.mark.parametrize("spec", FOREIGN[:2])
def test_a_rebuild_with_another_disks_line_is_refused(
    spec: str, etsclone: Cli, tmp_path: Path
) -> None:
    fstab = f"UUID={ROOT} / ext4 defaults 0 1\n{spec} /var ext4 defaults 0 2\n"
    pair = Pair(etsclone, tmp_path, fstab)
    before = bytes_of(pair.disk)
    refused(etsclone("rebuild", pair.disk, *pair.options), spec)
    assert bytes_of(pair.disk) == before
    with (
        loop_device(pair.disk) as device,
        disks.mounted(node(device, 2), tmp_path / "mnt") as root,
    ):
        assert (root / "etc/hostname").read_text() == "primary\n"


@pytest.mark.parametrize("spec", FOREIGN[:2])
def test_a_line_that_may_fail_is_left_out_and_told(
    spec: str, etsclone: Cli, tmp_path: Path
) -> None:
    fstab = f"UUID={ROOT} / ext4 defaults 0 1\n{spec} /var ext4 nofail 0 2\n"
    pair = Pair(etsclone, tmp_path, fstab)
    before, folder = bytes_of(pair.disk), tmp_path / "system"
    folder.mkdir()
    told = f"{spec} is not mounted at /var: nothing proves that "
    done = etsclone("mount", pair.disk, folder, "--rw")
    assert done.code == 0, done.err
    assert told in done.err
    assert not (folder / "var").is_mount()
    assert etsclone("umount", folder).code == 0
    done = etsclone("rebuild", pair.disk, *pair.options)
    assert done.code == 0, done.err
    assert done.err.count(told) == 1
    assert etsclone("rebuild", pair.disk, "--commit", "--yes").code == 0
    assert bytes_of(pair.disk) == before
    with (
        loop_device(pair.disk) as device,
        disks.mounted(node(device, 2), tmp_path / "mnt") as root,
    ):
        assert (root / "etc/hostname").read_text() == "secondary\n"
        assert (root / CRONTAB).read_text() == "# of secondary\n"


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ("UUID={root} / ext4\n/dev/sdb1 /boot ext4\n", "boot"),  # it holds a kernel
        ("/dev/sda2 / ext4\n/dev/sda1 /srv ext4\n/dev/sdb1 /var ext4 nofail\n", "srv"),
        ("/dev/disk/by-id/ata-X-part2 / ext4\n/dev/disk/by-id/ata-X-part1 /srv ext4\n", "srv"),
    ],
)
def test_lines_that_are_proved_to_be_of_this_disk(
    lines: str, where: str, etsclone: Cli, tmp_path: Path
) -> None:
    image, folder = disk_of(tmp_path, "primary", lines.format(root=ROOT)), tmp_path / "system"
    with (
        loop_device(image) as device,
        disks.mounted(node(device, 2), tmp_path / "mnt") as root,
    ):
        (root / "boot").mkdir()
    folder.mkdir()
    done = etsclone("mount", image, folder)
    assert done.code == 0, done.err
    try:
        assert (folder / where / "vmlinuz").exists()
        assert not (folder / "var").is_mount()
    finally:
        assert etsclone("umount", folder).code == 0


def test_partitions_that_are_marked_are_not_mounted_for_their_type(
    etsclone: Cli, tmp_path: Path
) -> None:
    image, folder = disks.blank(tmp_path / "typed.img", 100 * MIB), tmp_path / "system"
    attributes = {1: "", 2: 'attrs="GUID:63"', 3: 'attrs="GUID:60"', 4: ""}
    table = "label: gpt\nsize=40MiB\n" + "".join(
        f"size=16MiB, type={HOME_TYPE}, {attributes[number]}\n" for number in (2, 3, 4)
    )
    tool("sfdisk", "--quiet", image, typed=table)
    with loop_device(image) as device:
        for number in attributes:
            tool("mkfs.ext4", "-q", node(device, number))
            with disks.mounted(node(device, number), tmp_path / "mnt") as top:
                if number == 1:
                    write_tree(top, common_files() | {"etc/fstab": "", "home/in-root": ""})
                else:
                    write_tree(top, {"number": str(number)})
    folder.mkdir()
    done = etsclone("mount", image, folder, "--rw")
    assert done.code == 0, done.err
    try:
        (folder / "etc/new").write_text("")
        assert (folder / "home/number").read_text() == "3"
        with pytest.raises(OSError, match="Read-only"):
            (folder / "home/new").write_text("")
    finally:
        assert etsclone("umount", folder).code == 0
