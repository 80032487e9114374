"""The reader of ext2, ext3 and ext4, against dumpe2fs, and against damage of every kind."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etsclone.errors import DeviceError, FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.units import KIB, MIB
from etsclone.usedmap import ext
from etsclone.usedmap.region import Region

from .fakes import FakeDisk

BEHIND = 5 * 512
_GROUP = re.compile(r"^  Free blocks: (.*)$", re.MULTILINE)
_COUNT = re.compile(r"^Block count: +(\d+)$", re.MULTILINE)


def made(folder: Path, size: int, *options: str) -> Path:
    """A filesystem in a file, with a few files in it."""
    tree, image = folder / "tree", folder / "ext.img"
    tree.mkdir(exist_ok=True)
    for number in range(20):
        (tree / f"file{number}").write_bytes(os.urandom(7001 * number % 50_000))
    command = [
        "/usr/sbin/mke2fs",
        "-q",
        "-F",
        *options,
        "-d",
        str(tree),
        str(image),
        f"{size // KIB}k",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return image


def told_by_dumpe2fs(image: Path, block_size: int, size: int) -> Extents:
    """What is used: all but what dumpe2fs lists as free."""
    command = ["/usr/sbin/dumpe2fs", str(image)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    runs = [run for line in _GROUP.findall(text) for run in line.split(", ") if run]
    pairs = [
        (int(first), int(last or first)) for first, _, last in (run.partition("-") for run in runs)
    ]
    free = Extents.of(Extent(a * block_size, (b + 1) * block_size) for a, b in pairs)
    assert free.ranges[-1].end <= int(_COUNT.findall(text)[0]) * block_size
    return Extents.between(0, size) - free


def region_of(data: bytes) -> Region:
    return Region(FakeDisk(data), Extent(0, len(data) + BEHIND))


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext2"),
        ("-t", "ext3"),
        ("-t", "ext4"),
        ("-t", "ext4", "-O", "^metadata_csum,uninit_bg"),
        ("-t", "ext4", "-O", "^metadata_csum,uninit_bg,^flex_bg,^64bit"),
        ("-t", "ext4", "-O", "^64bit,^has_journal"),
        ("-t", "ext4", "-O", "sparse_super2,^resize_inode"),
        ("-t", "ext4", "-O", "^sparse_super,^resize_inode"),
        ("-t", "ext4", "-O", "^metadata_csum,^uninit_bg", "-g", "1024"),
        ("-t", "ext4", "-O", "metadata_csum_seed,quota,inline_data,casefold,encrypt", "-I", "512"),
    ],
)
def test_it_is_the_map_of_dumpe2fs(
    options: tuple[str, ...], block_size: int, tmp_path: Path
) -> None:
    image = made(tmp_path, 41 * MIB, "-b", str(block_size), *options)
    region = region_of(image.read_bytes())
    expected = told_by_dumpe2fs(image, block_size, region.size)
    assert ext.find_used(region).extents == expected


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext4", "-O", "meta_bg,^resize_inode"),
        ("-t", "ext4", "-O", "bigalloc"),
        ("-O", "journal_dev"),
    ],
)
def test_features_that_it_does_not_know(options: tuple[str, ...], tmp_path: Path) -> None:
    image = tmp_path / "ext.img"
    command = ["/usr/sbin/mke2fs", "-q", "-F", *options, str(image), "41000k"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(FormatError):
        ext.find_used(region_of(image.read_bytes()))


CHECKSUMS = (KIB + 0x65, 0x04)
"""Byte of the disk and bit: metadata_csum of s_feature_ro_compat, without which nothing else is checked by checksum."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A filesystem whose metadata has checksums."""
    return made(tmp_path_factory.mktemp("sound"), 8 * MIB, "-t", "ext4", "-b", "1024").read_bytes()


def spots(data: bytes) -> list[Extent]:
    """The bytes that the reader goes by: superblock, descriptors, bitmaps."""
    superblock = ext.parse_super(data[KIB : 2 * KIB])
    size = superblock.block_size
    table = Extent(2 * size, 2 * size + superblock.groups * superblock.descriptor_size)
    groups = ext.parse_groups(data[table.start : table.end], superblock)
    bitmaps = [
        Extent(group.bitmap * size, group.bitmap * size + superblock.per_group // 8)
        for group in groups
        if group.has_bitmap
    ]
    assert bitmaps
    return [Extent(KIB, 2 * KIB), table, *bitmaps]


@given(data=st.data())
def test_no_bit_of_it_is_wrong_unnoticed(sound: bytes, data: st.DataObject) -> None:
    spot = data.draw(st.sampled_from(spots(sound)))
    at = data.draw(st.integers(spot.start, spot.end - 1))
    flipped = 1 << data.draw(st.integers(0, 7))
    assume((at, flipped) != CHECKSUMS)
    damaged = bytearray(sound)
    damaged[at] ^= flipped
    with pytest.raises(FormatError):
        ext.find_used(region_of(bytes(damaged)))


def test_the_bit_that_tells_of_checksums_changes_no_map(sound: bytes) -> None:
    at, bit = CHECKSUMS
    without = bytearray(sound)
    without[at] ^= bit
    assert ext.find_used(region_of(bytes(without))) == ext.find_used(region_of(sound))


def test_without_checksums_the_free_blocks_are_counted(tmp_path: Path) -> None:
    image = made(tmp_path, 8 * MIB, "-t", "ext2", "-b", "1024")
    data = bytearray(image.read_bytes())
    bitmap = int.from_bytes(data[2 * KIB : 2 * KIB + 4], "little") * KIB
    ext.find_used(region_of(bytes(data)))
    data[bitmap + 1] ^= 0x10
    with pytest.raises(FormatError, match="another count of free blocks"):
        ext.find_used(region_of(bytes(data)))


@given(st.binary(min_size=KIB, max_size=KIB))
def test_other_bytes_are_no_superblock(data: bytes) -> None:
    marked = data[:0x38] + b"\x53\xef\x01\0" + data[0x3C:]
    for each in (data, marked):
        with pytest.raises((FormatError, DeviceError)):
            ext.find_used(Region(FakeDisk(bytes(KIB) + each), Extent(0, MIB)))


def test_a_partition_that_is_too_small(sound: bytes) -> None:
    with pytest.raises(FormatError, match="larger than the partition"):
        ext.find_used(Region(FakeDisk(sound), Extent(0, len(sound) - 512)))
