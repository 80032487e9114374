"""The state of a copy, against a model that is one status for every byte."""

from pathlib import Path

import pytest
from copies import extents
from hypothesis import given
from hypothesis import strategies as st

from etsclone.copying.state import CopyState
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus, Mapfile, parse_mapfile
from etsclone.run import PROGRAMS, Program, run

SIZE = 200
ORDER = (
    BlockStatus.NOT_TRIED,
    BlockStatus.NOT_TRIMMED,
    BlockStatus.NOT_SCRAPED,
    BlockStatus.BAD_SECTOR,
    BlockStatus.FINISHED,
)
blocks = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 60)).map(
    lambda pair: Extent(pair[0], min(sum(pair), SIZE))
)


def area(model: list[int], status: BlockStatus) -> Extents:
    return Extents.of(
        Extent(position, position + 1)
        for position, rank in enumerate(model)
        if ORDER[rank] is status
    )


def states(model: list[int]) -> Mapfile:
    return Mapfile.of({status: area(model, status) for status in ORDER[1:]}, SIZE)


models = st.lists(st.tuples(blocks, st.integers(0, 4)), max_size=6).map(
    lambda marks: [
        next((rank for block, rank in marks if block.start <= position < block.end), 0)
        for position in range(SIZE)
    ]
)
"""Where an earlier run may have stopped."""


@given(
    models,
    st.lists(st.tuples(blocks, st.integers(0, 4), st.booleans()), max_size=20),
    extents(1, SIZE),
)
def test_every_byte_has_the_state_of_the_model(
    model: list[int], marks: list[tuple[Extent, int, bool]], wanted: Extents
) -> None:
    state = CopyState(SIZE, states(model))
    for block, more, look in marks:
        rank = max(model[block.start : block.end]) + more  # states only ever go forward
        if 0 < rank < len(ORDER):
            model[block.start : block.end] = [rank] * block.size
            state.mark(block, ORDER[rank])
        if look:
            assert state.area(BlockStatus.FINISHED) == area(model, BlockStatus.FINISHED)
    assert state.mapfile() == states(model)
    assert parse_mapfile(state.mapfile().text()) == state.mapfile()
    assert state.not_tried(wanted) == wanted & area(model, BlockStatus.NOT_TRIED)
    for status in ORDER[1:]:
        assert state.area(status) == area(model, status)


def test_several_blocks_at_once() -> None:
    state = CopyState(SIZE)
    state.mark_all([Extent(0, 3), Extent(7, 9)], BlockStatus.FINISHED)
    assert state.area(BlockStatus.FINISHED) == Extents.of([Extent(0, 3), Extent(7, 9)])


def test_nothing_was_tried_of_a_new_copy() -> None:
    assert CopyState(SIZE).mapfile().blocks == ((Extent(0, SIZE), BlockStatus.NOT_TRIED),)


@pytest.mark.usefixtures("real_programs")
@pytest.mark.parametrize(
    "ranks", [[0] * SIZE, [4] * SIZE, [n % 5 for n in range(SIZE)], [4, 3] * 100]
)
def test_ddrescue_reads_our_map(
    ranks: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROGRAMS, "ddrescuelog", Program("ddrescuelog", "gddrescue", "reads maps"))
    path = tmp_path / "map"
    path.write_text(CopyState(SIZE, states(ranks)).mapfile().text("a comment\nof two lines"))
    shown = run("ddrescuelog", ["--show-status", path]).stdout
    assert f"rescued: {ranks.count(4)} B" in " ".join(shown.split())
    listed = run("ddrescuelog", ["--list-blocks=-", "--block-size=1", path]).stdout
    assert [int(line) for line in listed.split()] == [n for n in range(SIZE) if ranks[n] == 3]
