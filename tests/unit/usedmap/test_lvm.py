"""LVM2's metadata: what it says when it is sound, and that nothing else is ever believed."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.plan.lvmdisk import (
    AREA_HEADER_SIZE,
    LABEL_SCAN_SIZE,
    crc,
    parse_area_header,
    parse_label,
)
from etsclone.plan.lvmgroup import VolumeGroup, parse_group
from etsclone.plan.lvmtext import Section, parse_config
from etsclone.units import MIB
from etsclone.usedmap import lvm
from etsclone.usedmap.region import Finding, Region, everything

from .fakes import AREA, AREA_SIZE, UUID, FakeDisk, area_header, label, physical_volume

GOLDEN = (Path(__file__).parents[2] / "golden" / "lvm" / "every-kind.vg").read_text()
SIZE = 200 * MIB
EXTENT = 4 * MIB


T = TypeVar("T")


def refused_or(read: Callable[[], T]) -> T | None:
    """What `read` returns; None when it refuses. Any other error is a failure."""
    try:
        return read()
    except FormatError:
        return None


def extents(*pieces: tuple[int, int]) -> Extents:
    """Extents of the physical volume, given as (first, number)."""
    return Extents.of(
        Extent(MIB + first * EXTENT, MIB + (first + count) * EXTENT) for first, count in pieces
    )


def golden() -> VolumeGroup:
    return parse_group(parse_config(GOLDEN), UUID)


def volume(data: bytes, size: int = SIZE) -> Region:
    return Region(FakeDisk(data), Extent(0, size))


# --- the syntax ------------------------------------------------------------------------------------------------------


def test_the_syntax() -> None:
    text = 'a = 1 # "no\n b{c="x \\"y\\" \\\\" d=[1, "two", -3.5]\n\n"e#f" { } g=[]}\0 } = garbage'
    inner: Section = {"c": 'x "y" \\', "d": [1, "two", -3.5], "e#f": {}, "g": []}
    assert parse_config(text) == {"a": 1, "b": inner}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            "a =",
            "a = }",
            "= 1",
            "a { ",
            "a { } }",
            "a = [1",
            'a = "x',
            "a = b",
            "a { b = 1 ] }",
        ),
        *("a {" * 500, "a = " + "9" * 5000),
    ],
)
def test_what_is_no_such_text(text: str) -> None:
    with pytest.raises(FormatError, match="metadata with"):
        parse_config(text)


@given(st.text(st.sampled_from(' \n{}[]=,"\\#a1.-\0'), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    refused_or(lambda: parse_config(text))


# --- label and areas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
def test_the_label_is_in_one_of_four_sectors(number: int) -> None:
    found = parse_label(bytes(512 * number) + label((AREA, AREA_SIZE), (9, 9), number=number))
    assert found.uuid == UUID
    assert found.data_areas == ((MIB, 0),)
    assert found.metadata_areas == ((AREA, AREA_SIZE), (9, 9))
    assert found.used is True


def test_an_old_label_does_not_tell_whether_it_is_used() -> None:
    assert parse_label(label(number=0, extension=1)).used is None


@pytest.mark.parametrize(
    "head", [b"", bytes(LABEL_SCAN_SIZE), label(number=2), bytes(2048) + label(number=4)]
)
def test_no_label(head: bytes) -> None:
    with pytest.raises(FormatError, match="label"):
        parse_label(head)


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_label_with_any_other_byte_is_none(position: int, change: int) -> None:
    sector = bytearray(label((AREA, AREA_SIZE), number=0))
    sector[position] ^= change
    with pytest.raises(FormatError):
        parse_label(bytes(sector))


@given(st.binary(max_size=480))
def test_a_label_with_any_content_is_read_or_refused(body: bytes) -> None:
    rest = (b"\x20\0\0\0LVM2 001" + body).ljust(492, b"\xff")
    sector = b"LABELONE" + bytes(8) + crc(rest).to_bytes(4, "little") + rest
    refused_or(lambda: parse_label(sector))


@given(*[st.integers(0, 1 << 64 - 1)] * 2, st.integers(0, 3))
def test_any_area_header_is_read_or_refused(offset: int, length: int, flags: int) -> None:
    header = area_header(offset, length, 0, flags=flags)
    slot = refused_or(lambda: parse_area_header(header, AREA, AREA_SIZE))
    if slot is not None:
        inside = Extents.between(AREA_HEADER_SIZE, AREA_SIZE)
        assert Extents.of(slot.pieces) & inside == Extents.of(slot.pieces)
        assert sum(piece.size for piece in slot.pieces) in (0, length)


@given(st.binary(max_size=600))
def test_garbage_is_no_area_header(header: bytes) -> None:
    with pytest.raises(FormatError):
        parse_area_header(header, AREA, AREA_SIZE)


def test_an_area_that_was_moved_is_not_believed() -> None:
    with pytest.raises(FormatError, match="makes no sense"):
        parse_area_header(area_header(512, 9, 0), AREA + 4096, AREA_SIZE)


# --- the volume group ------------------------------------------------------------------------------------------------


def test_what_is_allocated() -> None:
    group = golden()
    assert (group.name, group.own_name, group.seqno) == ("vg", "pv0", 17)
    assert group.data == extents((0, 49))
    assert group.data - group.allocated == extents((11, 1), (16, 4), (23, 2), (37, 8), (47, 2))


def test_the_other_physical_volume() -> None:
    group = parse_group(parse_config(GOLDEN), UUID.replace("000000", "000001"))
    assert group.own_name == "pv1"
    assert group.allocated == extents((0, 6), (8, 4), (20, 3))


def test_only_what_is_in_one_piece_and_nobody_elses_may_be_looked_into() -> None:
    group = golden()
    whole = {each.name: group.whole(each) for each in group.volumes if group.whole(each)}
    assert whole == {
        "linear": extents((0, 4)).ranges[0],
        "behind": extents((45, 2)).ranges[0],
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('type = "thin-pool"', 'type = "tomorrow"', "unknown type: tomorrow"),
        ("extent_size = 8192", "extent_size = 0", "without a size"),
        ("extent_size = 8192", "", "no extent_size"),
        ("segment_count = 2", "segment_count = 3", "lacks segments of grown"),
        ("stripe_count = 2", "stripe_count = 3", "without its areas"),
        ("stripe_count = 2", "stripe_count = 0", "without its areas"),
        ('"pv0", 12,', "12, 12,", "areas that make no sense"),
        ("id = ", "uuid = ", "does not know it"),
        ("physical_volumes {", "physical_volumes = 1 nothing {", "no section"),
        ("extent_count = 4", "extent_count = -4", "no extent_count"),
        ("vg {", "other { } vg {", "no volume group, or several"),
    ],
)
def test_metadata_that_makes_no_sense(old: str, new: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_group(parse_config(GOLDEN.replace(old, new)), UUID)


@pytest.mark.parametrize(("old", "new"), [('"pv0", 45', '"pv0", 48'), ('"pv0", 45', '"pv0", 3')])
def test_extents_that_are_not_there_or_given_twice(old: str, new: str) -> None:
    group = parse_group(parse_config(GOLDEN.replace(old, new)), UUID)
    with pytest.raises(FormatError, match="extents"):
        _ = group.allocated


@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 40), st.text('{}[]="\n#,0915pv', max_size=9))
def test_any_change_of_the_text_is_read_or_refused(start: int, size: int, new: str) -> None:
    text = GOLDEN[:start] + new + GOLDEN[start + size :]
    refused_or(lambda: lvm.find_used(volume(physical_volume(text)), everything))


# --- the whole volume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [512, 700_032, AREA_SIZE - 1024, AREA_SIZE - 512])
def test_the_text_may_be_anywhere_in_the_ring(offset: int) -> None:
    found = lvm.find_used(volume(physical_volume(GOLDEN, offset=offset)), everything)
    free = golden().data - golden().allocated
    assert found.extents == Extents.between(0, SIZE) - free
    assert found.method == "lvm2 metadata"


def test_free_blocks_of_a_filesystem_inside_are_left_out() -> None:
    def half(region: Region) -> Finding:
        if region.size == 4 * EXTENT:
            return Finding(Extents.between(0, region.size // 2), "reader")
        return everything(region, "no reader")

    found = lvm.find_used(volume(physical_volume(GOLDEN)), half)
    free = golden().data - golden().allocated
    assert Extents.between(0, SIZE) - found.extents == free | extents((2, 2))
    assert found.method == "lvm2 metadata, reader"
    assert found.note.startswith("vg/behind: everything is copied: no reader; vg/grown, vg/across")


def test_a_volume_of_no_group_holds_nothing() -> None:
    found = lvm.find_used(volume(physical_volume("", used=False)), everything)
    assert found.extents == Extents.between(0, MIB)


def test_two_areas_of_which_one_is_older() -> None:
    second = SIZE - AREA_SIZE
    older = physical_volume(
        GOLDEN.replace("seqno = 17", "seqno = 16").replace('"pv0", 45', '"pv0", 47')
    )
    raw = GOLDEN.encode()
    data = bytearray(older.ljust(SIZE, b"\0"))
    data[512:1024] = label((AREA, AREA_SIZE), (second, AREA_SIZE))
    data[second : second + 512] = area_header(512, len(raw), crc(raw), start=second)
    data[second + 512 : second + 512 + len(raw)] = raw
    for _ in range(2):
        found = lvm.find_used(volume(bytes(data)), everything)
        assert Extents.between(0, SIZE) - found.extents == golden().data - golden().allocated
        data[AREA] ^= 1  # and once more, with the first one damaged


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (physical_volume(GOLDEN)[:MIB], 100 * MIB, "smaller than its metadata says"),
        (physical_volume(GOLDEN, flags=1), SIZE, "on other physical volumes"),
        (physical_volume("", used=True), SIZE, "on other physical volumes"),
        (physical_volume(GOLDEN).replace(b"seqno = 17", b"seqno = 18"), SIZE, "text is damaged"),
        (bytes(512) + label((SIZE, MIB)), SIZE, "but has"),
        (bytes(512) + label((AREA, 100)), SIZE, "area is damaged"),
    ],
)
def test_volumes_that_are_not_believed(data: bytes, size: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        lvm.find_used(volume(data, size), everything)
