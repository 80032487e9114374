"""`Extents` against the plainest model there is: a set of byte positions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.model.extents import Extent, Extents

END = 200
pieces = st.builds(
    lambda start, size: Extent(start, start + size), st.integers(0, END - 1), st.integers(1, 40)
).map(lambda extent: Extent(extent.start, min(extent.end, END)))
extents = st.lists(pieces, max_size=8).map(Extents.of)


def positions(found: Extents) -> set[int]:
    return {position for extent in found for position in range(extent.start, extent.end)}


@given(st.lists(pieces, max_size=8))
def test_of_is_the_union_in_normal_form(ranges: list[Extent]) -> None:
    union = Extents.of(ranges)
    assert positions(union) == {n for each in ranges for n in range(each.start, each.end)}
    assert Extents(union.ranges) == union


@given(extents, extents)
def test_set_operations_are_those_of_sets(left: Extents, right: Extents) -> None:
    assert positions(left | right) == positions(left) | positions(right)
    assert positions(left & right) == positions(left) & positions(right)
    assert positions(left - right) == positions(left) - positions(right)


@given(extents, extents)
def test_equal_sets_are_equal_values(left: Extents, right: Extents) -> None:
    assert (left == right) == (positions(left) == positions(right))
    assert (left - right) | (left & right) == left


@given(extents, st.integers(0, END + 50))
def test_complement_is_what_is_missing(some: Extents, end: int) -> None:
    assert positions(some.complement(end)) == set(range(end)) - positions(some)


@given(extents)
def test_size_and_shift(some: Extents) -> None:
    assert some.size == len(positions(some))
    assert positions(some.shifted(7)) == {position + 7 for position in positions(some)}


@given(extents, st.sampled_from([1, 4, 16, 64]))
def test_aligned_covers_with_whole_blocks(some: Extents, step: int) -> None:
    blocks = {position // step for position in positions(some)}
    assert positions(some.aligned(step, END)) == {n for n in range(END) if n // step in blocks}


@given(extents, st.sampled_from([1, 4, 16, 64]))
def test_shrunk_keeps_what_is_whole_blocks(some: Extents, step: int) -> None:
    inside = positions(some)
    whole = {
        n for n in inside if all(m in inside for m in range(n - n % step, n - n % step + step))
    }
    assert positions(some.shrunk(step)) == whole


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (7, 3), (-1, 3)])
def test_an_extent_is_never_empty_nor_backward(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Extent(start, end)


@pytest.mark.parametrize(
    "ranges",
    [
        pytest.param((Extent(0, 5), Extent(5, 9)), id="touching"),
        pytest.param((Extent(0, 5), Extent(3, 9)), id="overlapping"),
        pytest.param((Extent(6, 9), Extent(0, 5)), id="out of order"),
    ],
)
def test_only_the_normal_form_is_accepted(ranges: tuple[Extent, ...]) -> None:
    with pytest.raises(ValueError, match="ranges"):
        Extents(ranges)


def test_between_may_be_empty() -> None:
    assert Extents.between(4, 4) == Extents()
    assert Extents.between(4, 6) == Extents((Extent(4, 6),))
