"""The digests of pieces: by position, kept in a file, never of other bytes than they seem to be of."""

import hashlib
from pathlib import Path

import pytest
import xxhash
from copies import PIECE, SIZE, contents, extents
from hypothesis import given
from hypothesis import strategies as st

from etsclone.copying.blocks import Blocks
from etsclone.copying.pieces import DIGEST_SIZE, UNKNOWN, digests_of, opened_digests, pieces_of
from etsclone.errors import EtscloneError
from etsclone.model.extents import Extent, Extents
from etsclone.units import GIB, MIB


def block_of(content: bytes, block: Extent) -> memoryview:
    return memoryview(content)[block.start : block.end]


def digest(data: bytes | memoryview) -> bytes:
    return xxhash.xxh3_128_digest(data)


blocks = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 5 * PIECE)).map(
    lambda pair: Extent(pair[0], min(sum(pair), SIZE))
)


@given(blocks)
def test_pieces_lie_at_multiples_of_their_size(block: Extent) -> None:
    pieces = [Extent(start, end).shifted(block.start) for start, end in pieces_of(block)]
    assert Extents.of(pieces) == Extents((block,))
    assert sum(piece.size for piece in pieces) == block.size
    for piece in pieces:
        assert piece.start // PIECE == (piece.end - 1) // PIECE
        assert piece.start in {block.start, piece.start // PIECE * PIECE}


@given(contents, blocks)
def test_a_digest_for_each_piece(content: bytes, block: Extent) -> None:
    expected = [digest(block_of(content, block)[start:end]) for start, end in pieces_of(block)]
    assert digests_of(block, block_of(content, block)) == b"".join(expected)


@given(st.integers(0, 40), st.integers(1, 40))
def test_zeros_are_known_without_reading_them(first: int, count: int) -> None:
    extent = Extent(first * PIECE, (first + count) * PIECE)
    with opened_digests(None, Extents.between(0, 100 * PIECE), keep=False) as digests:
        digests.take_zeros(extent)
        assert digests.known(extent) == digest(bytes(PIECE)) * count
        around = digests.known(Extent(0, 100 * PIECE))
        assert around.count(UNKNOWN) == 100 - count


@given(contents, extents(), st.lists(blocks, max_size=12))
def test_what_is_known_is_the_digest_of_a_whole_piece(
    content: bytes, some: Extents, taken: list[Extent]
) -> None:
    """Whatever was taken or forgotten before, a piece that has a digest has the right one."""
    with opened_digests(None, some | Extents.between(0, SIZE), keep=False) as digests:
        model: dict[int, bytes] = {}
        for number, block in enumerate(taken):
            first, last = block.start // PIECE, (block.end - 1) // PIECE
            if number % 3 == 2:
                digests.forget(block)
                model |= dict.fromkeys(range(first, last + 1), UNKNOWN)
                continue
            digests.take(block, block_of(content, block))
            for piece in range(first, last + 1):
                start, end = piece * PIECE, (piece + 1) * PIECE
                whole = block.start <= start and end <= block.end
                model[piece] = digest(content[start:end]) if whole else UNKNOWN
        for piece in range(SIZE // PIECE):
            known = digests.known(Extent(piece * PIECE, (piece + 1) * PIECE))
            assert known == model.get(piece, UNKNOWN)


@pytest.mark.parametrize(
    ("block", "is_known"),
    [
        pytest.param(Extent(20, 64), True, id="first piece, which begins late"),
        pytest.param(Extent(21, 64), False, id="a part of it"),
        pytest.param(Extent(192, 200), True, id="last piece, which ends early"),
        pytest.param(Extent(192, 199), False, id="a part of that"),
    ],
)
def test_the_pieces_at_both_ends_may_be_shorter(block: Extent, is_known: bool) -> None:
    with opened_digests(None, Extents.between(20, 200), keep=False) as digests:
        digests.take(block, memoryview(bytes(block.size)))
        assert (digests.known(block) != UNKNOWN) is is_known


def test_they_are_kept_in_a_file_until_they_are_dropped(tmp_path: Path) -> None:
    path, whole, piece = tmp_path / "digests", Extents.between(0, SIZE), Extent(PIECE, 2 * PIECE)
    with opened_digests(path, whole, keep=False) as digests:
        digests.take(piece, memoryview(b"x" * PIECE))
        digests.sync()
    assert path.stat().st_mode & 0o777 == 0o600
    # Also when the disk has grown or shrunk by the next time.
    for now in (whole, Extents.between(0, 3 * SIZE), Extents.between(0, 2 * PIECE)):
        with opened_digests(path, now, keep=True) as digests:
            assert digests.known(piece) == digest(b"x" * PIECE)
    with opened_digests(path, whole, keep=False) as digests:
        assert digests.known(piece) == UNKNOWN


def test_what_lies_outside_can_be_forgotten() -> None:
    inside, wide = Extent(0, PIECE), Extents.of([Extent(1, 2), Extent(SIZE, 8 * GIB)])
    with opened_digests(None, Extents.between(0, SIZE), keep=False) as digests:
        digests.take(inside, memoryview(bytes(PIECE)))
        digests.forget_all(Extents.between(PIECE, 8 * GIB))
        assert digests.known(inside) != UNKNOWN
        digests.forget_all(wide)
        assert digests.known(inside) == UNKNOWN


def test_the_file_takes_no_more_space_than_the_used_pieces(tmp_path: Path) -> None:
    far = Extents.of([Extent(0, PIECE), Extent(64 * MIB, 64 * MIB + PIECE)])
    with opened_digests(tmp_path / "digests", far, keep=False):
        pass
    status = (tmp_path / "digests").stat()
    assert status.st_size > 16 * MIB
    assert status.st_blocks * 512 < MIB


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(EtscloneError, match="digests cannot be kept in"),
        opened_digests(tmp_path / "no" / "folder", Extents.between(0, SIZE), keep=False),
    ):
        pass


def test_tree_hash_is_what_its_description_says() -> None:
    some = Extents.of([Extent(4, 2 * PIECE), Extent(5 * PIECE, 6 * PIECE)])
    with opened_digests(None, some, keep=False) as digests:
        for block in Blocks(some, PIECE):
            digests.take(block, memoryview(bytes(block.size)))
        whole = digest(bytes(PIECE))
        plain = b"".join(
            start.to_bytes(8, "big") + size.to_bytes(8, "big") + taken
            for start, size, taken in (
                (4, 2 * PIECE - 4, digest(bytes(PIECE - 4)) + whole),
                (5 * PIECE, PIECE, whole),
            )
        )
        found = digests.tree_hash(some)
    assert found == hashlib.sha256(plain).hexdigest()
    assert len(digest(b"")) == DIGEST_SIZE
