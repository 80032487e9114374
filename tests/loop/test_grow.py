"""`--grow`: the last partition and its filesystem fill a larger target, and nothing else changes."""

import os
import re
import shutil
from pathlib import Path

import pytest

from etsclone.disk.resize import obstacle

from . import disks
from .conftest import Cli, MadeWith, make
from .disks import MIB, Sample, loop_device, node, tool
from .grown import MBR, check_grown, digest, entries, filesystem_size, identity
from .lvm import linear, lvm

pytestmark = pytest.mark.loop


@pytest.fixture
def target(tmp_path: Path, ext4_disk: Sample) -> Path:
    """A larger disk that was in use."""
    path = disks.blank(tmp_path / "target.img", ext4_disk.size + 40 * MIB)
    disks.scrawl(path, 0, path.stat().st_size)
    return path


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        *((kind, "image") for kind in ("ext2", "ext3", "ext4", "xfs", "btrfs")),
        ("ext4", "device"),
        ("btrfs", "device"),
    ],
)
def test_it_fills_the_target_and_swap_moves(
    where: str, kind: str, etsclone: Cli, disk_with: MadeWith, tmp_path: Path, scratch: Path
) -> None:
    sample = disk_with(kind)
    target = disks.blank(tmp_path / "target.img", sample.size + 60 * MIB)
    before = digest(sample.image)
    if where == "image":
        result = etsclone("clone", sample.image, target, "--yes", "--grow")
        assert (result.code, result.err) == (0, "")
        assert re.search(r"partition 2 \(\w+\) is enlarged from \S+ MiB to \S+ MiB", result.out)
        assert "partition 3 (swap) moves from byte " in result.out
    else:
        with loop_device(sample.image) as first, loop_device(target) as second:
            # The kernel knows the source's btrfs by name.
            tool("btrfs", "device", "scan", node(first, 2), accept=(0, 1))
            assert etsclone("clone", first, second, "--yes", "--grow").code == 0
            assert node(second, 3).exists()
    check_grown(sample, target, scratch)
    assert disks.is_sound_gpt(target)
    assert digest(sample.image) == before


def test_the_facts(etsclone: Cli, ext4_disk: Sample, target: Path) -> None:
    before = digest(target)
    facts = etsclone("clone", ext4_disk.image, target, "--grow", "--dry-run", "--json").facts
    end = target.stat().st_size - MIB
    assert facts["grow"] == {
        "partition": 2,
        "content": "ext4",
        "start": 2 * MIB,
        "old_size": 32 * MIB,
        "new_size": end - 8 * MIB - 2 * MIB,
        "moved": {
            "partition": 3,
            "old_start": 34 * MIB,
            "new_start": end - 8 * MIB,
            "size": 8 * MIB,
        },
    }
    assert facts["steps"] == ["Erase", "Copy", "Grow", "Seal"]
    assert digest(target) == before
    plain = etsclone("clone", ext4_disk.image, target, "--dry-run", "--json").facts
    assert plain["grow"] is None
    assert plain["steps"] == ["Erase", "Copy", "Seal"]


@pytest.mark.parametrize("unused", ["--wipe", "--discard"])
def test_with_unused_space_cleared(
    unused: str, etsclone: Cli, ext4_disk: Sample, target: Path, scratch: Path
) -> None:
    assert etsclone("clone", ext4_disk.image, target, "--yes", "--grow", unused).code == 0
    check_grown(ext4_disk, target, scratch)


def test_a_filesystem_at_the_end_of_a_disk_with_many(
    etsclone: Cli, gpt_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    target = disks.blank(tmp_path / "target.img", gpt_disk.size + 60 * MIB)
    assert etsclone("clone", gpt_disk.image, target, "--yes", "--grow").code == 0
    check_grown(gpt_disk, target, scratch, number=5)


def test_sectors_of_4096_bytes(
    etsclone: Cli, four_k_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    target = disks.blank(tmp_path / "target.img", four_k_disk.size + 60 * MIB)
    with loop_device(target, sector_size=4096) as device:
        assert etsclone("clone", four_k_disk.image, device, "--yes", "--grow").code == 0
    check_grown(four_k_disk, target, scratch, number=1)


@pytest.mark.parametrize(("script", "kinds", "number"), MBR.values(), ids=MBR)
def test_mbr(
    script: str,
    kinds: dict[int, str],
    number: int,
    etsclone: Cli,
    tmp_path: Path,
    scratch: Path,
) -> None:
    sample = make(tmp_path, "mbr", 80 * MIB, f"label: dos\n{script}", kinds)
    target = disks.blank(tmp_path / "target.img", 128 * MIB)
    result = etsclone("clone", sample.image, target, "--yes", "--grow")
    assert (result.code, result.err) == (0, "")
    disks.check_clone(sample, target, scratch)
    assert "No errors detected" in tool("sfdisk", "--verify", target)
    with loop_device(sample.image) as old, loop_device(target, read_only=True) as new:
        assert [row["type"] for row in entries(new)] == [row["type"] for row in entries(old)]
        for each in kinds:
            assert identity(node(new, each)) == identity(node(old, each))
        assert filesystem_size(node(new, number), "ext4") > 60 * MIB


def test_an_mbr_with_sectors_of_4096_bytes(etsclone: Cli, tmp_path: Path, scratch: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 80 * MIB)
    script, kinds, _ = MBR["a logical"]
    with loop_device(image, sector_size=4096) as device:
        tool("sfdisk", "--quiet", device, typed=f"label: dos\n{script}", accept=(0, 1))
    sample = disks.furnish(image, kinds, scratch, sector_size=4096)
    target = disks.blank(tmp_path / "target.img", 128 * MIB)
    with (
        loop_device(image, sector_size=4096, read_only=True) as source,
        loop_device(target, sector_size=4096) as clone,
    ):
        assert etsclone("clone", source, clone, "--yes", "--grow").code == 0
        assert "No errors detected" in tool("sfdisk", "--verify", clone)
        disks.check_clone(sample, clone, scratch)
        assert filesystem_size(node(clone, 6), "ext4") > 60 * MIB


def test_a_physical_volume(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "lvm.img", 64 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=1MiB\nsize=60MiB, type=lvm\n")
    with loop_device(image) as device:
        physical = node(device, 2)
        lvm("pvcreate", physical, devices=[physical])
        lvm("vgcreate", "grown", physical, devices=[physical])
        linear("root", "grown", "--size", "32M", devices=[physical])
        disks.scrawl(physical, MIB, 32 * MIB)
    target = disks.blank(tmp_path / "target.img", 128 * MIB)
    with loop_device(image) as source, loop_device(target) as clone:
        # Both twins are there, and none is confused with the other.
        before = digest(source)
        result = etsclone("clone", source, clone, "--yes", "--grow")
        assert (result.code, result.err) == (0, "")
        assert "no logical volume grows with it" in result.out
        assert digest(source) == before
        physical = node(clone, 2)
        show = ("--noheadings", "--units", "m", "--nosuffix", "--options", "pv_size,pv_free")
        size, free = map(float, lvm("pvs", *show, physical, devices=[physical]).split()[-2:])
        assert (size, free) == (124.0, 92.0)
        lvm("pvck", physical, devices=[physical])
        assert disks.part_of(physical, MIB, 33 * MIB) == disks.part_of(
            node(source, 2), MIB, 33 * MIB
        )


def test_a_group_on_several_disks_is_refused(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "lvm.img", 64 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=30MiB\nsize=30MiB, type=lvm\n")
    with loop_device(image) as device:
        both = [node(device, 1), node(device, 2)]
        for physical in both:
            lvm("pvcreate", physical, devices=both)
        lvm("vgcreate", "wide", *both, devices=both)
    refused(etsclone, image, tmp_path, "its volume group wide has 2 physical volumes")


def refused(etsclone: Cli, source: Path, folder: Path, message: str) -> None:
    with source.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
    target = disks.blank(folder / "target.img", size + 40 * MIB)
    disks.scrawl(target, 0, 4 * MIB)
    before = digest(target)
    result = etsclone("clone", source, target, "--yes", "--grow")
    assert result.code == 3
    assert message in result.err
    assert "clone without --grow" in result.err
    assert digest(target) == before
    assert etsclone("clone", source, target, "--dry-run", "--grow").code == 3


@pytest.mark.parametrize(
    ("command", "content"),
    [
        (("mkfs.vfat",), "vfat"),
        (("mkfs.f2fs", "-q", "-f"), "f2fs"),
        (("mkntfs", "-Q", "-F"), "ntfs"),
        (("mkfs.exfat",), "exfat"),
        (("true",), "something unknown"),
    ],
)
def test_what_cannot_grow_is_refused(
    command: tuple[str, ...], content: str, etsclone: Cli, tmp_path: Path
) -> None:
    image = disks.blank(tmp_path / "source.img", 64 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=60MiB\n")
    with loop_device(image) as device:
        tool(*command, node(device, 1))
    refused(etsclone, image, tmp_path, f"partition 1, the last, holds {content}, which cannot")


def test_without_a_table_it_is_refused(etsclone: Cli, bare_disk: Sample, tmp_path: Path) -> None:
    refused(etsclone, bare_disk.image, tmp_path, "has no partition table")


def test_a_mounted_btrfs_is_refused(
    etsclone: Cli, disk_with: MadeWith, tmp_path: Path, scratch: Path
) -> None:
    image = Path(shutil.copy(disk_with("btrfs").image, tmp_path / "source.img"))
    with (
        loop_device(image, read_only=True) as device,
        disks.mounted(node(device, 2), scratch, "ro"),
    ):
        refused(etsclone, device, tmp_path, "a btrfs with its UUID is mounted")
    with (
        loop_device(Path(shutil.copy(image, tmp_path / "twin.img"))) as twin,
        disks.mounted(node(twin, 2), scratch),
    ):
        refused(etsclone, image, tmp_path, "a btrfs with its UUID is mounted")


def test_an_ext4_with_errors_is_refused(etsclone: Cli, ext4_disk: Sample, tmp_path: Path) -> None:
    image = Path(shutil.copy(ext4_disk.image, tmp_path / "source.img"))
    with loop_device(image) as device:
        tool("debugfs", "-w", "-R", "ssv state 2", node(device, 2))
    refused(etsclone, image, tmp_path, "it is marked as having errors")


def test_an_ext3_ends_at_16_tib(ext4_disk: Sample, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "plain.img", 64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^64bit", image)
    sixteen = 16 * 1024 * 1024 * MIB
    assert obstacle(str(image), "ext4", "", sixteen - MIB) == ""
    assert (
        obstacle(str(image), "ext4", "", sixteen)
        == "without the feature 64bit it cannot have 16.0 TiB"
    )
    with loop_device(ext4_disk.image, read_only=True) as device:
        assert obstacle(str(node(device, 2)), "ext4", "", sixteen) == ""


def test_a_btrfs_that_stays_small_is_refused(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 130 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=120MiB\n")
    with loop_device(image) as device:
        tool("mkfs.btrfs", "-q", node(device, 1))
    refused(etsclone, image, tmp_path, "btrfs can only be enlarged to 256 MiB or more")


def test_a_btrfs_of_several_devices_is_refused(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 260 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=128MiB\nsize=128MiB\n")
    with loop_device(image) as device:
        tool("mkfs.btrfs", "-q", "-d", "raid0", node(device, 1), node(device, 2))
        tool("btrfs", "device", "scan", "--forget", accept=(0, 1))
    refused(etsclone, image, tmp_path, "its btrfs has 2 devices")


def test_a_missing_program_is_told_before_anything_is_written(
    etsclone: Cli, ext4_disk: Sample, target: Path
) -> None:
    before = digest(target)
    bind = (
        "unshare",
        "--mount",
        "sh",
        "-ec",
        'mount --bind /dev/null /usr/sbin/resize2fs; exec "$@"',
        "sh",
    )
    result = etsclone("clone", ext4_disk.image, target, "--yes", "--grow", before=bind)
    assert result.code == 3
    assert "resize2fs is not installed" in result.err
    assert "apt install e2fsprogs" in result.err
    assert digest(target) == before


def test_without_room_it_is_a_plain_clone(
    etsclone: Cli, small_disk: Sample, tmp_path: Path
) -> None:
    target = tmp_path / "new.img"
    result = etsclone("clone", small_disk.image, target, "--yes", "--grow")
    assert result.code == 0
    assert "partition 2: nothing grows: there is no room behind it on the target" in result.out
    assert etsclone("verify", small_disk.image, target).code == 0


def test_verify_does_not_compare_blocks_that_cannot_be_equal(
    etsclone: Cli, ext4_disk: Sample, target: Path
) -> None:
    assert etsclone("clone", ext4_disk.image, target, "--yes", "--grow").code == 0
    result = etsclone("verify", ext4_disk.image, target)
    assert result.code == 3
    assert f"partition 2 of {target} was enlarged" in result.err
