"""Tables of device-mapper made of LVM's metadata."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import FormatError
from etsclone.plan.lvmgroup import VolumeGroup, parse_group
from etsclone.plan.lvmtables import Tables, plan_tables
from etsclone.plan.lvmtext import parse_config

GOLDEN = (Path(__file__).parents[1] / "golden" / "lvm" / "every-kind.vg").read_text()
FIRST = "000000AAAABBBBCCCCDDDDEEEEFFFFFF"
SECOND = "000001AAAABBBBCCCCDDDDEEEEFFFFFF"
EXTENT = 8192
"""Sectors of an extent; the first begins at sector 2048."""


def group(uuid: str, text: str = GOLDEN) -> VolumeGroup:
    return parse_group(parse_config(text), uuid)


def planned(*, both: bool = True, read_only: bool = True, text: str = GOLDEN) -> Tables:
    views = {"/dev/vdc1": group(FIRST, text)}
    if both:
        views["/dev/vdc2"] = group(SECOND, text)
    return plan_tables(views, lambda volume: f"/dev/mapper/own-{volume}", read_only=read_only)


def text_of(tables: Tables, volume: str) -> str:
    (found,) = (table.text for table in tables.tables if table.volume == volume)
    return found


def at(extent: int) -> int:
    return 2048 + extent * EXTENT


def test_volumes_in_one_piece_and_in_several() -> None:
    tables = planned()
    assert text_of(tables, "linear") == f"0 {4 * EXTENT} linear /dev/vdc1 {at(0)}\n"
    assert text_of(tables, "grown") == (
        f"0 {2 * EXTENT} linear /dev/vdc1 {at(4)}\n"
        f"{2 * EXTENT} {3 * EXTENT} linear /dev/vdc1 {at(8)}\n"
    )


def test_a_volume_on_two_physical_ones() -> None:
    assert text_of(planned(), "across") == (
        f"0 {2 * EXTENT} linear /dev/vdc1 {at(6)}\n"
        f"{2 * EXTENT} {2 * EXTENT} linear /dev/vdc2 {at(4)}\n"
    )
    without = planned(both=False)
    assert without.missing["across"] == "a part of it is on pv1, which is not on this disk"
    assert "across" not in {table.volume for table in without.tables}


def test_a_striped_volume() -> None:
    words = text_of(planned(), "striped").split()
    assert words[2:4] == ["striped", "2"]
    assert words[5::2] == ["/dev/vdc1", "/dev/vdc2"]


def test_a_thin_volume_comes_behind_its_pool_and_the_pool_behind_its_parts() -> None:
    tables = planned()
    names = [table.volume for table in tables.tables]
    parts = ["pool_tmeta", "pool_tdata", "pool", "thin"]
    assert [name for name in names if name in parts] == parts
    shown = {table.volume: table.shown for table in tables.tables}
    assert [shown[name] for name in parts] == [False, False, False, True]
    pool = "/dev/mapper/own-pool_tmeta /dev/mapper/own-pool_tdata 128 0 1 read_only"
    assert text_of(tables, "pool") == f"0 {5 * EXTENT} thin-pool {pool}\n"
    assert text_of(tables, "thin") == f"0 {25 * EXTENT} thin /dev/mapper/own-pool 1\n"


def test_the_features_of_a_pool_that_is_written_to() -> None:
    text = GOLDEN.replace("zero_new_blocks = 1", "zero_new_blocks = 0").replace(
        '"passdown"', '"nopassdown"'
    )
    words = text_of(planned(read_only=False, text=text), "pool").split()
    assert words[7:] == ["3", "error_if_no_space", "skip_block_zeroing", "no_discard_passdown"]


def test_an_origin_is_not_written_beneath_its_snapshots() -> None:
    assert "origin" in {table.volume for table in planned().tables}
    written = planned(read_only=False)
    assert "origin" not in {table.volume for table in written.tables}
    assert "snapshots" in written.missing["origin"]


def test_what_cannot_be_shown_alone_is_told() -> None:
    missing = planned().missing
    assert missing["mirror"] == "it is of the type raid1"
    assert "snap" not in {table.volume for table in planned().tables}  # the store of a snapshot


def test_a_thin_volume_without_a_pool_makes_no_sense() -> None:
    with pytest.raises(FormatError):
        planned(text=GOLDEN.replace('thin_pool = "pool"', 'thin_pool = "lost"'))


@given(st.integers(0, len(GOLDEN) - 1), st.sampled_from('{}[]="09apz_\n'))
def test_nothing_outside_the_physical_volumes_is_ever_mapped(place: int, letter: str) -> None:
    text = GOLDEN[:place] + letter + GOLDEN[place + 1 :]
    try:
        view = group(FIRST, text)
        tables = planned(both=False, text=text)
    except FormatError:
        return
    size = view.extent_size // 512
    for line in (line for table in tables.tables for line in table.text.splitlines()):
        words = line.split()
        if words[2] == "linear":
            assert words[3] == "/dev/vdc1"
            end = int(words[4]) + int(words[1])
            assert view.data_start // 512 <= int(words[4])
            assert end <= view.data_start // 512 + view.extent_count * size
