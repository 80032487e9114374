"""Sources that cannot be read everywhere: what is lost is exactly what is bad."""

from pathlib import Path

import pytest
from copies import (
    ALL,
    PIECE,
    SECTOR,
    SIZE,
    TUNING,
    content_of,
    contents,
    copying,
    extents,
    one_at_a_time,
    overlaid,
    unreadable,
)
from hypothesis import given
from hypothesis import strategies as st

from etsclone.copying.passes import CopyRun, copy_pass
from etsclone.copying.pieces import UNKNOWN, digests_of
from etsclone.copying.rescue import blank, rescue
from etsclone.copying.verify import read_back
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus, Mapfile

OLD = b"\xff" * SIZE


def copied(run: CopyRun, wanted: Extents, retries: int = 0) -> Extents:
    """All passes over `wanted`; returns what is lost."""
    copy_pass(run, run.state.not_tried(wanted))
    lost = rescue(run, wanted, sector_size=SECTOR, retries=retries)
    blank(run, lost, sector_size=SECTOR)
    return lost


@given(contents, extents(SECTOR), extents(SECTOR), st.booleans(), st.integers(0, 2))
def test_what_is_lost_is_exactly_what_is_bad(
    folder: Path, new: bytes, wanted: Extents, bad: Extents, short: bool, retries: int
) -> None:
    with copying(folder, new, OLD, wanted) as run:
        with unreadable(run.source, bad, short=short):
            lost = copied(run, wanted, retries)
        assert lost == bad & wanted
        expected = overlaid(overlaid(OLD, new, wanted), bytes(SIZE), lost)
        assert content_of(run.target) == expected
        assert run.state.area(BlockStatus.BAD_SECTOR) == lost
        assert run.state.area(BlockStatus.FINISHED) == wanted - lost
        assert run.state.not_tried(wanted) == Extents()
        read_back(run, wanted - lost)


@given(contents, extents(SECTOR), extents(SECTOR))
def test_what_can_be_read_later_is_read_when_it_goes_on(
    folder: Path, new: bytes, bad: Extents, still_bad: Extents
) -> None:
    with copying(folder, new, OLD) as run:
        with unreadable(run.source, bad):
            copied(run, ALL)
        first = run.state.mapfile()
        after = content_of(run.target)
    with copying(folder, new, after, earlier=first) as run:
        with unreadable(run.source, bad & still_bad) as tried:
            lost = copied(run, ALL, retries=1)
        assert lost == bad & still_bad
        assert content_of(run.target) == overlaid(new, bytes(SIZE), lost)
        assert Extents.of(tried) == bad  # and nothing that is done is read again


statuses = st.sampled_from([*BlockStatus])


@given(
    contents, st.lists(statuses, min_size=SIZE // SECTOR, max_size=SIZE // SECTOR), extents(PIECE)
)
def test_any_map_is_taken_up_but_only_where_something_is_wanted(
    folder: Path, new: bytes, found: list[BlockStatus], wanted: Extents
) -> None:
    earlier = Mapfile(
        tuple((Extent(n * SECTOR, (n + 1) * SECTOR), status) for n, status in enumerate(found))
    )
    done = earlier.with_status(BlockStatus.FINISHED)
    with copying(folder, new, OLD, wanted, earlier=earlier) as run:
        assert copied(run, wanted, retries=1) == Extents()
        assert content_of(run.target) == overlaid(OLD, new, wanted - done)
        assert run.state.area(BlockStatus.FINISHED) == wanted | done


def test_a_sector_is_tried_again_as_often_as_asked(tmp_path: Path) -> None:
    bad = Extents.between(2 * SECTOR, 3 * SECTOR)
    for retries in (0, 3):
        with copying(tmp_path, b"x" * SIZE, OLD) as run, unreadable(run.source, bad) as tried:
            copied(run, ALL, retries)
        # Once as a block, once as it is trimmed from either side, and then as often as asked.
        assert tried.count(bad.ranges[0]) == 1 + retries


def test_the_order_of_passes_is_that_of_ddrescue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = TUNING.block_size
    monkeypatch.setattr("etsclone.copying.passes._Forward._FIRST_JUMP", 2 * block)
    bad = Extents.between(4 * block + SECTOR, 4 * block + 3 * SECTOR)
    with copying(tmp_path, b"x" * SIZE, OLD) as run, unreadable(run.source, bad) as tried:
        copied(one_at_a_time(run), ALL, retries=2)
    blocks = [extent.start // block for extent in tried if extent.size == block]
    # Forward with a jump over what lies behind the error, then from behind over what was left out.
    assert blocks == [*range(5), *range(7, SIZE // block), 6, 5]
    first = 4 * block // SECTOR
    sectors = [extent.start // SECTOR - first for extent in tried if extent.size == SECTOR]
    ends = [*range(block // SECTOR - 1, 1, -1)]
    # Trimmed from the front and from behind up to what is bad (nothing is left to scrape), then tried again twice.
    assert sectors == [0, 1, *ends, 1, 2, 1, 2]


def test_trimming_comes_from_both_sides(tmp_path: Path) -> None:
    bad = Extents.of([Extent(3 * SECTOR, 4 * SECTOR), Extent(9 * SECTOR, 10 * SECTOR)])
    with copying(tmp_path, b"x" * SIZE, OLD) as run, unreadable(run.source, bad) as tried:
        copied(run, ALL)
    sectors = [extent.start // SECTOR for extent in tried if extent.size == SECTOR]
    assert sectors == [0, 1, 2, 3, 15, 14, 13, 12, 11, 10, 9, 4, 5, 6, 7, 8]


def test_pieces_that_were_read_in_parts_have_no_digest(tmp_path: Path) -> None:
    bad = Extents.between(2 * SECTOR, 3 * SECTOR)
    with copying(tmp_path, b"x" * SIZE, OLD) as run:
        with unreadable(run.source, bad):
            copied(run, ALL)
        unknown = [
            n
            for n in range(SIZE // PIECE)
            if not any(run.digests.known(Extent(n * PIECE, (n + 1) * PIECE)))
        ]
        assert unknown == [0, 1, 2, 3]  # the block that failed
        read_back(run, ALL - bad)
        assert run.digests.known(Extent(0, PIECE)) == UNKNOWN  # of which some is lost
        for number in range(1, 4):
            piece = Extent(number * PIECE, (number + 1) * PIECE)
            assert run.digests.known(piece) == digests_of(piece, memoryview(b"x" * PIECE))
