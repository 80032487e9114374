"""GRUB's first sectors on their way to another place. The bytes are laid out as GRUB's sources say."""

import struct

import pytest

from etsclone.model.disk import Partition
from etsclone.model.extents import Extent
from etsclone.model.fit import How, Place
from etsclone.plan.boot import moved_loader
from etsclone.units import MIB

CORE = 40 * MIB // 512


def head_of(core: int, *, code: bytes = b"GRUB \0Geom") -> bytes:
    head = bytearray(MIB)
    head[0x180 : 0x180 + len(code)] = code
    struct.pack_into("<Q", head, 0x5C, core)
    return bytes(head)


def first_sector(*entries: tuple[int, int]) -> bytes:
    sector = bytearray(b"\x52" * 0x40 + bytes(512 - 0x40))
    for number, (start, count) in enumerate(entries):
        struct.pack_into("<QHH", sector, 0x1F4 - 12 * number, start, count, 0x820)
    return bytes(sector)


def place(number: int, start: int, new: int, how: How = How.BLOCKS) -> Place:
    part = Partition(number, "", start, 2 * MIB, "")
    return Place(part, Extent(new, new + 2 * MIB), how)


def nothing(position: int) -> bytes:
    raise AssertionError(position)


ROOT = place(1, MIB, MIB, How.FILES)
MOVED = place(2, 40 * MIB, 24 * MIB)


def test_a_core_that_moves_is_found_at_its_new_place() -> None:
    sector = first_sector((CORE + 1, 50), (CORE + 60, 40))
    head, writes, notes = moved_loader(
        head_of(CORE), (ROOT, MOVED), {CORE * 512: sector}.__getitem__
    )
    new = 24 * MIB // 512
    assert struct.unpack_from("<Q", head, 0x5C) == (new,)
    assert head[:0x5C] + head[0x64:] == head_of(CORE)[:0x5C] + head_of(CORE)[0x64:]
    (write,) = writes
    assert write.offset == 24 * MIB
    assert write.data == first_sector((new + 1, 50), (new + 60, 40))
    assert notes == ("GRUB is installed anew in partition 2",)


@pytest.mark.parametrize("core", [1, 40 * MIB // 512])
def test_a_core_in_the_gap_or_in_a_partition_that_stays_is_left(core: int) -> None:
    staying = place(2, 40 * MIB, 40 * MIB)
    head, writes, notes = moved_loader(head_of(core), (ROOT, staying), nothing)
    assert (head, writes) == (head_of(core), ())
    assert notes == ("GRUB stays where it is, and finds its files by UUID",)


@pytest.mark.parametrize(
    ("core", "sector", "note"),
    [
        (2 * MIB // 512, b"", "a file of partition 1"),
        (CORE, first_sector((CORE + 1, 50), (9, 9)), "not in one piece"),
        (CORE, b"\x01" * 512, "not in one piece"),
    ],
)
def test_a_loader_that_would_not_be_found_is_warned_of(core: int, sector: bytes, note: str) -> None:
    head, writes, notes = moved_loader(head_of(core), (ROOT, MOVED), lambda _: sector)
    assert (head, writes) == (head_of(core), ())
    assert note in notes[0]
    assert "grub-install" in notes[0]


def test_other_boot_code_is_copied_with_a_warning() -> None:
    head = head_of(CORE, code=b"SYSLINUX")
    assert moved_loader(head, (MOVED,), nothing)[:2] == (head, ())
    assert "not GRUB's" in moved_loader(head, (MOVED,), nothing)[2][0]


def test_without_boot_code_there_is_nothing_to_say() -> None:
    assert moved_loader(bytes(MIB), (MOVED,), nothing) == (bytes(MIB), (), ())
