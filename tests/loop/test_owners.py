"""What was lost is told by name: files and folders, metadata, volumes, and what lies between partitions."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from etsclone.model.extents import Extent, Extents

from . import disks
from .conftest import Cli, make
from .disks import MIB, Sample, loop_device, node, tool
from .failing import SECTOR, failing
from .lvm import linear, lvm

pytestmark = pytest.mark.loop

MARK = b"the only place where this stands"


@pytest.fixture(scope="module")
def furnished(workshop: Path) -> dict[str, Sample]:
    """A disk for each filesystem, with a marked file in a folder (and in a subvolume), and a folder of many files."""
    made = {}
    for kind, size in {"ext4": 64, "xfs": 320, "btrfs": 160}.items():
        script = "label: gpt\nstart=4MiB, type=linux\n"
        sample = make(workshop, f"owned-{kind}", (size + 6) * MIB, script, {1: kind})
        with (
            loop_device(sample.image) as device,
            disks.mounted(node(device, 1), workshop / "mnt") as root,
        ):
            (root / "deep" / "er").mkdir(parents=True)
            (root / "deep" / "er" / "marked").write_bytes(MARK + os.urandom(300_000))
            (root / "many").mkdir()
            for number in range(500):
                (root / "many" / f"a-name-that-takes-some-space-{number}").write_bytes(b"x" * 3000)
            if kind == "btrfs":
                tool("btrfs", "subvolume", "create", root / "vol")
                (root / "vol" / "inner").write_bytes(b"sub" + MARK + os.urandom(300_000))
        made[kind] = sample
    return made


def find(image: Path, what: bytes) -> int:
    """Where the sector begins in which some bytes stand."""
    position = image.read_bytes().find(what)
    assert position >= 0
    return position - position % SECTOR


def lost_owners(etsclone: Cli, image: Path, bad: Extents, folder: Path) -> set[str]:
    """What a clone of a disk says that it lost."""
    copy = folder / "disk"
    tool("cp", "--sparse=always", image, copy)
    with failing(copy, bad) as source:
        result = etsclone("clone", source, folder / "target.img", "--yes", "--json")
    assert result.code == 5, result.err
    return set(result.facts["lost_owners"])


def one(position: int) -> Extents:
    return Extents((Extent(position, position + SECTOR),))


Place = Callable[[Path, Path], int]
"""Given the image and its partition, where it is to be bad, in bytes of the disk."""


def ext_place(pattern: str) -> Place:
    def place(_image: Path, part: Path) -> int:
        shown = tool("dumpe2fs", part)
        (size,) = re.findall(r"Block size: +(\d+)", shown)
        found = re.search(pattern, shown)
        assert found is not None
        return 4 * MIB + int(found[1]) * int(size)

    return place


def ext_inode(name: str) -> Place:
    def place(_image: Path, part: Path) -> int:
        blocks = tool("debugfs", "-R", f"blocks {name}", part).splitlines()[-1].split()
        (size,) = re.findall(r"Block size: +(\d+)", tool("dumpe2fs", "-h", part))
        return 4 * MIB + int(blocks[len(blocks) // 2]) * int(size)

    return place


def fixed(position: int) -> Place:
    return lambda _image, _part: position


def content(what: bytes) -> Place:
    return lambda image, _part: find(image, what)


def xfs_log(_image: Path, part: Path) -> int:
    (start,) = re.findall(r"logstart = (\d+)", tool("xfs_db", "-r", "-c", "sb 0", "-c", "p", part))
    shown = tool("xfs_db", "-r", "-c", f"convert fsblock {start} daddr", part)
    (daddr,) = re.findall(r"\((\d+)\)", shown)
    return 4 * MIB + int(daddr) * SECTOR


def xfs_header(_image: Path, part: Path) -> int:
    (blocks,) = re.findall(r"agblocks = (\d+)", tool("xfs_db", "-r", "-c", "sb 0", "-c", "p", part))
    return 4 * MIB + 2 * int(blocks) * 4096


def btrfs_tree(_image: Path, part: Path) -> int:
    roots = tool("btrfs", "inspect-internal", "dump-tree", "--noscan", "-r", part)
    (logical,) = re.findall(r"FS_TREE ROOT_ITEM 0\) (\d+) level", roots)
    copies = tool("btrfs-map-logical", "-l", logical, part)
    return 4 * MIB + int(re.findall(r"physical (\d+)", copies)[0])


CASES: dict[str, tuple[str, Place, str]] = {
    "ext4 file": ("ext4", content(MARK), "partition 1: file /deep/er/marked"),
    "ext4 folder": ("ext4", ext_inode("/many"), "partition 1: folder /many"),
    "ext4 journal": ("ext4", ext_inode("<8>"), "partition 1: journal"),
    "ext4 inodes": ("ext4", ext_place(r"Inode table at (\d+)"), "partition 1: inode table"),
    "ext4 backup": (
        "ext4",
        ext_place(r"Backup superblock at (\d+)"),
        "partition 1: superblock",
    ),
    "ext4 bitmap": ("ext4", ext_place(r"Block bitmap at (\d+)"), "partition 1: block bitmap"),
    "xfs file": ("xfs", content(MARK), "partition 1: file /deep/er/marked"),
    "xfs free space": (
        "xfs",
        fixed(4 * MIB + 4096),
        "partition 1: bytes 4096 to 4608 of xfs",  # its tools give up
    ),
    "xfs header": (
        "xfs",
        xfs_header,
        "partition 1: header of an allocation group",
    ),
    "xfs journal": ("xfs", xfs_log, "partition 1: journal"),
    "btrfs file": ("btrfs", content(MARK), "partition 1: file /deep/er/marked"),
    "btrfs subvolume": (
        "btrfs",
        content(b"sub" + MARK),
        "partition 1: file /inner of subvolume vol",
    ),
    "btrfs tree": (
        "btrfs",
        btrfs_tree,
        "partition 1: metadata: files and folders of the top subvolume (there is another copy)",
    ),
    "boot loader": (
        "ext4",
        fixed(300 * SECTOR),
        "bytes 153600 to 154112: boot loader area",
    ),
    "between": ("ext4", fixed(2 * MIB), "bytes 2097152 to 2097664: boot loader area"),
    "behind": (
        "ext4",
        fixed(70 * MIB - 100 * SECTOR),
        "bytes 73349120 to 73349632: outside of all partitions",
    ),
}


@pytest.mark.parametrize(("kind", "place", "expected"), CASES.values(), ids=CASES)
def test_the_owner_is_named(
    kind: str,
    place: Place,
    expected: str,
    etsclone: Cli,
    furnished: dict[str, Sample],
    tmp_path: Path,
) -> None:
    image = furnished[kind].image
    with loop_device(image, read_only=True) as device:
        position = place(image, node(device, 1))
    assert lost_owners(etsclone, image, one(position), tmp_path) == {expected}


def test_a_file_inside_a_logical_volume_is_named(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "lvm.img", 128 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nstart=4MiB, type=lvm\n")
    with loop_device(image) as device:
        part = node(device, 1)
        lvm("pvcreate", "--yes", part, devices=[part])
        lvm("vgcreate", "group", part, devices=[part])
        linear("data", "group", "--size", "80M", devices=[part])
    # Its first extent begins at 1 MiB of the partition.
    place = ["--offset", str(5 * MIB), "--sizelimit", str(80 * MIB)]
    volume = Path(tool("losetup", "--find", "--show", *place, image).strip())
    try:
        tool("mkfs.ext4", "-q", volume)
        with disks.mounted(volume, tmp_path / "mnt") as root:
            (root / "marked").write_bytes(MARK + os.urandom(200_000))
    finally:
        tool("losetup", "--detach", volume)
    bad = one(find(image, MARK)) | one(4 * MIB + 600 * 1024)
    assert lost_owners(etsclone, image, bad, tmp_path) == {
        "partition 1: volume group/data: file /marked",
        "partition 1: metadata of LVM",
    }


def test_swap_is_named(etsclone: Cli, gpt_disk: Sample, tmp_path: Path) -> None:
    start = (1 + 1 + 128) * MIB
    assert lost_owners(etsclone, gpt_disk.image, one(start + MIB), tmp_path) == {
        "partition 3: swap space"
    }


def test_a_disk_without_partitions(etsclone: Cli, bare_disk: Sample, tmp_path: Path) -> None:
    image = Path(shutil.copy(bare_disk.image, tmp_path / "bare.img"))
    with loop_device(image) as device, disks.mounted(device, tmp_path / "mnt") as root:
        (root / "marked").write_bytes(MARK + os.urandom(9000))
    assert lost_owners(etsclone, image, one(find(image, MARK)), tmp_path) == {"file /marked"}
