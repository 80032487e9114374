"""Used maps of real filesystems: what a map leaves out is really not needed, and a doubtful map is not believed."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from etsclone.commands.survey import used_maps
from etsclone.disk.images import attached
from etsclone.model.extents import Extents
from etsclone.model.plan import UsedMap

from . import disks, filesystems
from .disks import MIB, loop_device, tool
from .filesystems import KINDS, Kind, only_used

pytestmark = pytest.mark.loop

UNCLEAN = (
    "everything is copied: it was not cleanly unmounted, so its map of used blocks may lag behind"
)

# Blocks are not smaller than sectors; mtools cannot read a FAT with sectors of 4096 bytes, nor partclone an f2fs.
ONLY_512 = ("ext4 with small blocks", "fat32", "fat16", "fat12", "f2fs")
CASES = [
    (name, size) for name in KINDS for size in (512, 4096) if size == 512 or name not in ONLY_512
]


@contextmanager
def partition(image: Path, sector_size: int = 512) -> Iterator[Path]:
    """The only partition of an image, which is made with its table when it is not there."""
    new = not image.stat().st_blocks
    with loop_device(image, sector_size=sector_size) as device:
        if new:
            tool("sfdisk", "--quiet", device, typed="label: gpt\n-\n")
            disks.know_partitions(device)
        yield disks.node(device, 1)


def new_disk(path: Path, kind: Kind) -> Path:
    """An image with room for a filesystem, a table, and a few sectors that the filesystem cannot use."""
    return disks.blank(path, kind.size + 2 * MIB + 5 * 4096)


def map_of(image: Path, sector_size: int = 512) -> UsedMap:
    """The map of the only partition of an image, or of the image itself."""
    with (
        loop_device(image, sector_size=sector_size, read_only=True) as device,
        attached(str(device), writable=False) as disk,
    ):
        (found,) = used_maps(disk)
        return found


def unused(found: UsedMap) -> Extents:
    return Extents.between(found.start, found.start + found.size) - found.extents


def is_whole(found: UsedMap) -> bool:
    return found.extents == Extents.between(found.start, found.start + found.size)


@pytest.mark.parametrize(("name", "sector_size"), CASES)
def test_the_used_blocks_are_enough(name: str, sector_size: int, tmp_path: Path) -> None:
    kind = KINDS[name]
    image = new_disk(tmp_path / "source.img", kind)
    with partition(image, sector_size) as device:
        expected = filesystems.furnish(kind, device, tmp_path)
    found = map_of(image, sector_size)
    assert found.note == ""
    assert found.extents.size < kind.size // 2
    clone = only_used(image, unused(found), tmp_path / "clone.img")
    with partition(clone, sector_size) as device:
        filesystems.check(kind, device, expected, tmp_path)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.mount])
def test_the_used_blocks_of_a_fragmented_and_full_filesystem(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    image = new_disk(tmp_path / "source.img", kind)
    with partition(image) as device:
        filesystems.furnish(kind, device, tmp_path)
        with filesystems.mounted(kind.mount, device, tmp_path) as root:
            filesystems.crowd(root)
        expected = filesystems.contents(kind, device, tmp_path)
    found = map_of(image)
    assert found.note == ""
    assert 0.7 * kind.size < found.extents.size < found.size
    assert len(found.extents) > 20
    clone = only_used(image, unused(found), tmp_path / "clone.img")
    with partition(clone) as device:
        filesystems.check(kind, device, expected, tmp_path)


def test_every_copy_and_snapshot_of_btrfs(tmp_path: Path) -> None:
    kind = replace(KINDS["btrfs"], size=320 * MIB)
    image = new_disk(tmp_path / "source.img", kind)
    with partition(image) as device:
        tool(*kind.make, "--data", "dup", "--metadata", "dup", device)
        with filesystems.mounted((*kind.mount[:2], "compress=zstd"), device, tmp_path) as root:
            tool("btrfs", "subvolume", "create", root / "volume")
            (root / "volume" / "old").write_bytes(os.urandom(3 * MIB))
            (root / "volume" / "text").write_bytes(b"as before " * MIB)
            tool("btrfs", "subvolume", "snapshot", root / "volume", root / "snapshot")
            (root / "volume" / "old").write_bytes(os.urandom(3 * MIB))
        expected = filesystems.contents(kind, device, tmp_path)
    disks.scrawl(image, 2 * MIB - 512, 512)  # what a boot loader may have put there
    found = map_of(image)
    clone = only_used(image, unused(found), tmp_path / "clone.img")
    with partition(clone) as device:
        filesystems.check(kind, device, expected, tmp_path)
    assert disks.part_of(clone, MIB, 2 * MIB) == disks.part_of(image, MIB, 2 * MIB)


@pytest.mark.parametrize("name", ["ext3", "ext4", "xfs", "btrfs"])
def test_after_a_power_cut_the_map_is_not_believed(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    image = new_disk(tmp_path / "source.img", kind)
    with partition(image) as device:
        filesystems.furnish(kind, device, tmp_path)
        with filesystems.mounted(kind.mount, device, tmp_path) as root:
            for number in range(20):
                with (root / f"new{number}").open("wb") as file:
                    file.write(os.urandom(20_000))
                    os.fsync(file.fileno())
            cut = Path(shutil.copy(image, tmp_path / "cut.img"))
    found = map_of(cut)
    assert (found.note, found.method) == (UNCLEAN, "every block")
    assert is_whole(found)
    assert map_of(image).note == ""


def poke(position: int, value: int) -> Callable[[Path], None]:
    def spoil(device: Path) -> None:
        with device.open("r+b") as file:
            file.seek(position)
            file.write(bytes([value]))

    return spoil


@pytest.mark.parametrize(
    ("name", "spoil", "note"),
    [
        ("exfat", poke(106, 2), "not cleanly unmounted"),
        ("ext2", poke(1024 + 58, 0), "partclone.ext4 failed"),
        ("ntfs", lambda device: tool("ntfsfix", device), "partclone.ntfs failed"),
        ("f2fs", poke(512 * 4096 + 132, 0x80), "not cleanly unmounted"),
    ],
)
def test_one_that_is_marked_dirty_or_damaged(
    name: str, spoil: Callable[[Path], object], note: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    image = new_disk(tmp_path / "source.img", kind)
    with partition(image) as device:
        tool(*kind.make, device)
    assert map_of(image).note == ""
    with partition(image) as device:
        spoil(device)
    found = map_of(image)
    assert note in found.note
    assert is_whole(found)


def test_a_feature_that_the_reader_does_not_know(tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-O", "bigalloc", image)
    found = map_of(image)
    assert found.note.startswith("everything is copied: partclone.ext4 failed")
    assert is_whole(found)


def test_f2fs_with_large_sectors_is_copied_whole(tmp_path: Path) -> None:
    image = new_disk(tmp_path / "source.img", KINDS["f2fs"])
    with partition(image, 4096) as device:
        tool(*KINDS["f2fs"].make, device)
    found = map_of(image, 4096)
    assert found.note.startswith("everything is copied: partclone.f2fs failed")
    assert is_whole(found)


def test_the_used_blocks_of_a_fat_with_large_sectors(tmp_path: Path) -> None:
    # No tool that runs here without a mount can put files into it.
    image = new_disk(tmp_path / "source.img", KINDS["fat32"])
    with partition(image, 4096) as device:
        tool(*KINDS["fat32"].make, device)
    found = map_of(image, 4096)
    assert found.note == ""
    clone = only_used(image, unused(found), tmp_path / "clone.img")
    with partition(clone, 4096) as device:
        tool(*KINDS["fat32"].check, device)


def test_one_of_two_devices_of_a_btrfs(tmp_path: Path) -> None:
    images = [disks.blank(tmp_path / f"{number}.img", 160 * MIB) for number in range(2)]
    with loop_device(images[0]) as first, loop_device(images[1]) as second:
        tool("mkfs.btrfs", "-q", "-f", "--data", "single", first, second)
    for image in images:
        found = map_of(image)
        assert "one of several devices" in found.note
        assert is_whole(found)


def test_a_filesystem_smaller_than_its_partition(tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", image, "8192")
    found = map_of(image)
    assert found.note == ""
    assert found.extents.ranges[-1].end == 64 * MIB
    assert found.extents & Extents.between(32 * MIB, 64 * MIB) == Extents.between(
        32 * MIB, 64 * MIB
    )
    assert found.extents.size < 48 * MIB


def test_partitions_without_a_node_are_looked_at_through_a_window(
    gpt_disk: disks.Sample, four_k_disk: disks.Sample
) -> None:
    for sample in (gpt_disk, four_k_disk):
        with attached(str(sample.image), writable=False) as disk:
            assert disk.table is not None
            parts = tuple(replace(part, device="") for part in disk.table.partitions)
            bare = replace(disk, table=replace(disk.table, partitions=parts))
            assert disk.sector_size == sample.sector_size
            found = used_maps(disk)
            assert used_maps(bare) == found
            assert all(not each.note for each in found)


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("page", [4096, 65536])
def test_of_swap_only_the_header_is_kept_on_request(
    page: int, sector_size: int, tmp_path: Path
) -> None:
    image = disks.blank(tmp_path / "source.img", 8 * MIB)
    tool("mkswap", "--pagesize", str(page), "--label", "twin", image)
    disks.scrawl(image, page, MIB)
    with (
        loop_device(image, sector_size=sector_size, read_only=True) as device,
        attached(str(device), writable=False) as disk,
    ):
        (whole,) = used_maps(disk)
        (found,) = used_maps(disk, swap_header_only=True)
    assert (whole.method, whole.note, is_whole(whole)) == ("every block", "", True)
    assert (found.method, found.extents) == ("swap header", Extents.between(0, page))
    clone = only_used(image, unused(found), tmp_path / "clone.img")
    assert tool("swaplabel", clone) == tool("swaplabel", image)
    assert "twin" in tool("swaplabel", clone)


def test_luks_is_copied_whole(tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 32 * MIB)
    words = ("--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "-")
    tool("cryptsetup", "luksFormat", *words[:-1], image, typed="secret")
    found = map_of(image)
    assert found.content == "crypto_LUKS"
    assert "encrypted with LUKS" in found.note
    assert is_whole(found)


@pytest.mark.parametrize("name", ["fat32", "exfat", "ntfs"])
def test_a_boot_sector_is_no_partition_table(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    image = disks.blank(tmp_path / "source.img", kind.size)
    with loop_device(image) as device:
        expected = filesystems.furnish(kind, device, tmp_path)
    found = map_of(image)
    assert found.note == ""
    assert found.extents.size < kind.size // 2
    clone = only_used(image, unused(found), tmp_path / "clone.img")
    with loop_device(clone) as device:
        filesystems.check(kind, device, expected, tmp_path)
