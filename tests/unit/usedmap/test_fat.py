"""The reader of FAT, against tables that are made entry by entry from the specification."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.plan.fat import Layout, parse_boot_sector
from etsclone.usedmap import fat
from etsclone.usedmap.region import Region

from .fakes import FakeDisk

SECTOR = 512
RESERVED = 4
ROOT_ENTRIES = 32
BEHIND = 3 * SECTOR
WIDTHS = {12: 300, 16: 4500, 32: 70000}
"""How many clusters the filesystem of each kind has here."""


def boot_sector(width: int, clusters: int, tables: int = 2, **other: int) -> bytearray:
    sector = bytearray(SECTOR)
    size = -(-(clusters + 2) * width // 8 // SECTOR) + 1
    roots = 0 if width == 32 else ROOT_ENTRIES
    total = RESERVED + tables * size + roots * 32 // SECTOR + clusters
    struct.pack_into("<HBHBHH", sector, 11, SECTOR, 1, RESERVED, tables, roots, 0)
    struct.pack_into("<H", sector, 22, 0 if width == 32 else size)
    struct.pack_into("<II", sector, 32, total, size if width == 32 else 0)
    sector[510:] = b"\x55\xaa"
    for place, value in other.items():
        sector[int(place[2:])] = value
    return sector


def table(width: int, entries: list[int], size: int) -> bytes:
    if width == 12:
        bits = sum(entry << (12 * number) for number, entry in enumerate(entries))
        return bits.to_bytes(size, "little")
    return struct.pack(f"<{len(entries)}{'H' if width == 16 else 'I'}", *entries).ljust(size, b"\0")


def filesystem(width: int, entries: list[int], clusters: int) -> tuple[Region, Layout]:
    sector = boot_sector(width, clusters)
    layout = parse_boot_sector(bytes(sector))
    one = table(width, [0xFF8, 0xFFF, *entries], layout.table_size)
    data = bytes(sector).ljust(RESERVED * SECTOR, b"\0") + one + one
    return Region(FakeDisk(data), Extent(0, layout.end + BEHIND)), layout


def plain_model(width: int, entries: list[int], layout: Layout, end: int) -> Extents:
    bad = (1 << min(width, 28)) - 9
    mask = (1 << min(width, 28)) - 1
    used = [
        Extent(layout.data_start + number * SECTOR, layout.data_start + (number + 1) * SECTOR)
        for number, entry in enumerate(entries)
        if entry & mask not in {0, bad}
    ]
    last = layout.data_start + layout.clusters * SECTOR
    return Extents.of([Extent(0, layout.data_start), *used, Extent(last, end)])


@given(st.sampled_from(sorted(WIDTHS)), st.data())
def test_every_entry_counts(width: int, data: st.DataObject) -> None:
    top = (1 << width) - 1
    interesting = st.sampled_from(
        [0, 1, 7, 0xF7, top - 8, top, top & 0x0FFFFFF7, top & 0x0FFFFFFF, top & 0xF0000000]
    )
    runs = data.draw(st.lists(st.tuples(interesting | st.integers(0, top), st.integers(1, 40))))
    entries = [entry for entry, times in runs for _ in range(times)][: WIDTHS[width]]
    region, layout = filesystem(width, entries, WIDTHS[width])
    assert layout.width == width
    found = fat.find_used(region)
    assert found.method == f"FAT{width}"
    assert found.extents == plain_model(width, entries, layout, region.size)


@pytest.mark.parametrize("chunk", [12, 24, 1200])
def test_a_table_may_be_read_in_parts(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fat, "_CHUNK", chunk)
    entries = [number % 3 * (number % 5) for number in range(WIDTHS[12])]
    for width in (12, 16):
        region, layout = filesystem(width, entries, WIDTHS[width])
        expected = plain_model(width, entries, layout, region.size)
        assert fat.find_used(region).extents == expected


def test_a_small_filesystem_without_16_bit_sizes_is_fat32() -> None:
    region, layout = filesystem(32, [0, 5, 0x0FFFFFFF], 3000)
    assert layout.width == 32
    assert fat.find_used(region).extents == plain_model(32, [0, 5, 0x0FFFFFFF], layout, region.size)


def test_tables_that_differ_are_not_believed() -> None:
    region, layout = filesystem(16, [0, 0, 3], WIDTHS[16])
    assert isinstance(region.disk, FakeDisk)
    data = bytearray(region.disk.data)
    data[layout.tables[1] + 100] ^= 1
    with pytest.raises(FormatError, match="tables differ"):
        fat.find_used(Region(FakeDisk(bytes(data)), region.extent))


@pytest.mark.parametrize(
    "damage",
    [
        {"at510": 0},  # no signature
        {"at12": 0},  # bytes in a sector
        {"at13": 3},  # sectors in a cluster
        {"at14": 0},  # reserved sectors
        {"at16": 0},  # tables
        {"at36": 1, "at37": 0, "at38": 0},  # a table that is too small
        {"at33": 0, "at34": 0},  # fewer sectors than the tables take
        {"at40": 0x80},  # one table is active, the others are old
    ],
)
def test_a_boot_sector_that_makes_no_sense(damage: dict[str, int]) -> None:
    with pytest.raises(FormatError):
        parse_boot_sector(bytes(boot_sector(32, WIDTHS[32], **damage)))


def test_a_filesystem_that_is_larger_than_its_partition() -> None:
    region, layout = filesystem(16, [3], WIDTHS[16])
    with pytest.raises(FormatError, match="larger than the partition"):
        fat.find_used(Region(region.disk, Extent(0, layout.end - SECTOR)))
