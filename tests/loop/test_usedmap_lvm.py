"""Used maps of LVM2 physical volumes: what LVM's own tools call free, and what the filesystems inside do not use."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etsclone.commands.survey import used_maps
from etsclone.disk.images import attached
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import UsedMap

from . import disks, filesystems
from .disks import MIB, loop_device, tool
from .filesystems import KINDS, only_used
from .lvm import linear, lvm, segments

pytestmark = pytest.mark.loop

GOLDEN = Path(__file__).parents[1] / "golden" / "lvm" / "every-kind.vg"
FIRST = "000000-AAAA-BBBB-CCCC-DDDD-EEEE-FFFFFF"
SECOND = "000001-AAAA-BBBB-CCCC-DDDD-EEEE-FFFFFF"
BROKEN = {
    *("grown", "across", "striped", "mirror_rmeta_0", "mirror_rimage_0", "origin", "snap"),
    *("pool_tmeta", "pool_tdata", "lvol0_pmspare"),
}
EXTENT = 4 * MIB
START = MIB
TABLE = 2 * MIB
"""Where the physical volume begins on the disk: not where most do."""


@contextmanager
def physical_volume(image: Path, sector_size: int = 512) -> Iterator[Path]:
    """The partition of an image that is a physical volume; made when the image is new."""
    new = not image.stat().st_blocks
    with loop_device(image, sector_size=sector_size) as device:
        if new:
            script = f"label: gpt\nstart={TABLE // sector_size}, size=198M, type=lvm\n"
            tool("sfdisk", "--quiet", device, typed=script)
            disks.know_partitions(device)
        yield disks.node(device, 1)


def new_disk(path: Path) -> Path:
    return disks.blank(path, 204 * MIB)


def map_of(image: Path, sector_size: int = 512) -> UsedMap:
    with (
        loop_device(image, sector_size=sector_size, read_only=True) as device,
        attached(str(device), writable=False) as disk,
    ):
        (found,) = used_maps(disk)
        return found


def unused(found: UsedMap) -> Extents:
    return Extents.between(found.start, found.start + found.size) - found.extents


def free(rows: dict[tuple[int, int], str]) -> Extents:
    """What LVM's tools call free, in bytes of the disk."""
    return Extents.of(
        Extent(TABLE + START + first * EXTENT, TABLE + START + (first + count) * EXTENT)
        for (first, count), name in rows.items()
        if not name
    )


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("copies", [1, 2])
def test_what_lvm_calls_free_is_left_out(copies: int, sector_size: int, tmp_path: Path) -> None:
    image = new_disk(tmp_path / "source.img")
    with physical_volume(image, sector_size) as device:
        lvm("pvcreate", "--metadatacopies", str(copies), device, devices=[device])
        empty = free({(0, 49 - (copies - 1)): ""})
        assert unused(map_of(image, sector_size)).size >= empty.size
        lvm("vgcreate", "group", device, devices=[device])
        # Enough changes to go round the ring of the metadata area.
        for number in range(6):
            linear(f"volume{number}", "group", "--extents", "3", devices=[device])
        for number in (1, 4):
            lvm("lvremove", "--force", f"group/volume{number}", devices=[device])
        rows = segments(device, [device])
    found = map_of(image, sector_size)
    assert (found.content, found.method, found.note) == ("LVM2_member", "lvm2 metadata", "")
    assert len(free(rows)) == 3
    assert unused(found) == free(rows)
    clone = only_used(image, unused(found), tmp_path / "clone.img")
    with physical_volume(clone, sector_size) as device:
        assert segments(device, [device]) == rows
        assert "Found volume group" in lvm("vgscan", devices=[device])


def test_every_kind_of_segment(tmp_path: Path) -> None:
    first, second = (new_disk(tmp_path / f"{number}.img") for number in range(2))
    with physical_volume(first) as one, physical_volume(second) as two:
        both = [one, two]
        for uuid, device in ((FIRST, one), (SECOND, two)):
            # As large as the metadata says.
            words = ("--norestorefile", "--uuid", uuid, "--setphysicalvolumesize", "197M", "--yes")
            lvm("pvcreate", *words, device, devices=both)
        lvm("vgcfgrestore", "--force", "--yes", "--file", GOLDEN, "vg", devices=both)
        rows = [segments(device, both) for device in both]
    for image, expected in zip((first, second), rows, strict=True):
        found = map_of(image)
        assert found.method == "lvm2 metadata"
        assert unused(found) == free(expected)
    names, why = map_of(first).note.split(": ", 1)
    assert why == "everything is copied: not in one piece of their own"
    assert {name.removeprefix("vg/") for name in names.split(", ")} == BROKEN


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_inside_the_volumes_too_only_what_is_used(sector_size: int, tmp_path: Path) -> None:
    image = new_disk(tmp_path / "source.img")
    kind = KINDS["ext4"]
    with physical_volume(image, sector_size) as device:
        lvm("vgcreate", "group", device, devices=[device])
        linear("other", "group", "--extents", "5", devices=[device])
        linear("root", "group", "--extents", "20", devices=[device])
        linear("swap", "group", "--extents", "2", devices=[device])
        linear("grown", "group", "--extents", "3", devices=[device])
        linear("behind", "group", "--extents", "1", devices=[device])
        lvm("lvextend", "--extents", "+2", "group/grown", devices=[device])
        lvm("lvremove", "--force", "group/other", devices=[device])
        with window(image, 5, 20, sector_size) as root:
            expected = filesystems.furnish(kind, root, tmp_path)
        with window(image, 25, 2, sector_size) as swap:
            tool("mkswap", swap)
        rows = segments(device, [device])
    found = map_of(image, sector_size)
    assert found.method == "lvm2 metadata, block bitmaps"
    assert found.note == "group/grown: everything is copied: not in one piece of their own"
    assert (unused(found) & free(rows)) == free(rows)
    assert unused(found).size > free(rows).size + 40 * MIB
    clone = only_used(image, unused(found), tmp_path / "clone.img")
    with physical_volume(clone, sector_size) as device:
        assert segments(device, [device]) == rows
    with window(clone, 5, 20, sector_size) as root:
        filesystems.check(kind, root, expected, tmp_path)
    for start, count in ((25, 2), (27, 3), (30, 1), (31, 2)):
        begin = TABLE + START + start * EXTENT
        end = begin + count * EXTENT
        assert disks.part_of(clone, begin, end) == disks.part_of(image, begin, end)


@contextmanager
def window(image: Path, start: int, count: int, sector_size: int) -> Iterator[Path]:
    """A logical volume of the image as a device."""
    place = TABLE + START + start * EXTENT
    size = ("--sizelimit", str(count * EXTENT), "--sector-size", str(sector_size))
    device = Path(tool("losetup", "--find", "--show", "--offset", str(place), *size, image).strip())
    try:
        yield device
    finally:
        tool("losetup", "--detach", device)


def test_a_dirty_filesystem_inside_is_copied_whole(tmp_path: Path) -> None:
    image = new_disk(tmp_path / "source.img")
    with physical_volume(image) as device:
        lvm("vgcreate", "group", device, devices=[device])
        linear("root", "group", "--extents", "20", devices=[device])
        with window(image, 0, 20, 512) as root:
            tool("mkfs.ext4", "-q", "-F", root)
            tool("debugfs", "-w", "-R", "feature needs_recovery", root)
        rows = segments(device, [device])
    found = map_of(image)
    assert found.note.startswith("group/root: everything is copied: it was not cleanly unmounted")
    assert unused(found) == free(rows)


@pytest.mark.parametrize(
    ("position", "note"),
    [
        pytest.param(4096 + 30, "its metadata area is damaged", id="area"),
        pytest.param(None, "its metadata is on other physical volumes", id="none"),
    ],
)
def test_damaged_or_absent_metadata(position: int | None, note: str, tmp_path: Path) -> None:
    image = new_disk(tmp_path / "source.img")
    with physical_volume(image) as device:
        copies = ("--metadatacopies", "1" if position else "0")
        lvm("pvcreate", *copies, device, devices=[device])
        if position:
            lvm("vgcreate", "group", device, devices=[device])
            disks.flip(device, position)
    found = map_of(image)
    assert found.note == f"everything is copied: {note}"
    assert unused(found) == Extents()
