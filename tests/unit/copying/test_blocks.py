"""Extents cut into blocks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.copying.blocks import Blocks
from etsclone.model.extents import Extent, Extents

extents = st.lists(
    st.tuples(st.integers(0, 500), st.integers(1, 100)).map(
        lambda pair: Extent(pair[0], sum(pair))
    ),
    max_size=6,
).map(Extents.of)
sizes = st.sampled_from([1, 4, 16, 100])


@given(extents, sizes)
def test_blocks_partition_the_extents(some: Extents, size: int) -> None:
    blocks = list(Blocks(some, size))
    assert all(left.end <= right.start for left, right in itertools.pairwise(blocks))
    assert sum(block.size for block in blocks) == some.size
    assert Extents.of(blocks) == some


@given(extents, sizes)
def test_a_block_never_crosses_a_multiple_of_the_block_size(some: Extents, size: int) -> None:
    for block in Blocks(some, size):
        assert block.start // size == (block.end - 1) // size


@given(extents, sizes)
def test_numbers_agree_with_iteration(some: Extents, size: int) -> None:
    blocks = Blocks(some, size)
    assert [blocks[number] for number in range(len(blocks))] == list(blocks)


@pytest.mark.parametrize("number", [-1, 2])
def test_a_number_outside_is_an_error(number: int) -> None:
    with pytest.raises(IndexError):
        Blocks(Extents.between(0, 8), 4)[number]
