"""Views of a source: which bytes are read where."""

import os
from pathlib import Path

import pytest
from copies import unreadable
from hypothesis import given
from hypothesis import strategies as st

from etsclone.copying.viewed import Viewed
from etsclone.errors import ReadFailed, SnapshotLost
from etsclone.model.extents import Extent, Extents
from etsclone.model.view import AS_IT_IS, Kept, Stretch, View

SIZE = 64


def random_bytes(seed: int) -> bytes:
    return bytes((seed * 31 + position * 7) % 251 for position in range(SIZE))


DISK, SNAPSHOT = random_bytes(1), random_bytes(2)


@st.composite
def views(draw: st.DrawFn) -> View:
    cuts = sorted(draw(st.sets(st.integers(0, SIZE), min_size=0, max_size=8)))
    stretches, kept = [], []
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        if draw(st.booleans()):
            offset = draw(st.integers(0, SIZE - (end - start)))
            stretches.append(Stretch(Extent(start, end), "snap", offset))
        else:
            kept.append(Kept(start, draw(st.binary(min_size=end - start, max_size=end - start))))
    return View(tuple(stretches), tuple(kept))


def expected(view: View) -> bytes:
    """What a source reads as: the model."""
    whole = bytearray(DISK)
    for part in view.stretches:
        whole[part.extent.start : part.extent.end] = SNAPSHOT[
            part.offset : part.offset + part.extent.size
        ]
    for piece in view.kept:
        whole[piece.offset : piece.offset + len(piece.data)] = piece.data
    return bytes(whole)


@given(views(), st.integers(0, SIZE - 1), st.integers(1, SIZE))
def test_every_byte_is_read_where_the_view_has_it(view: View, start: int, size: int) -> None:
    block = Extent(start, min(SIZE, start + size))
    parts = list(view.parts(block))
    assert [part.start for part, _ in parts] == [block.start, *(part.end for part, _ in parts[:-1])]
    assert parts[-1][0].end == block.end
    disk, snap = memory(DISK), memory(SNAPSHOT)
    try:
        buffer = bytearray(block.size)
        with memoryview(buffer) as memory_of_it:
            Viewed(view, {"snap": snap}, lambda: None).read(disk, block, memory_of_it)
    finally:
        os.close(disk)
        os.close(snap)
    assert bytes(buffer) == expected(view)[block.start : block.end]


def memory(content: bytes) -> int:
    descriptor = os.memfd_create("disk")
    os.write(descriptor, content)
    return descriptor


def test_what_is_read_elsewhere_has_one_place() -> None:
    with pytest.raises(ValueError, match="two places"):
        View((Stretch(Extent(0, 10), "snap"),), (Kept(5, b"x"),))
    assert not AS_IT_IS
    assert View(kept=(Kept(5, b"x"),))


def test_a_device_that_shows_an_extent() -> None:
    whole, later = Stretch(Extent(10, 20), "snap"), Stretch(Extent(30, 40), "other", 5)
    view = View((whole, later))
    assert view.shown_by(Extent(10, 20)) == "snap"
    assert view.shown_by(Extent(10, 19)) == ""
    assert view.shown_by(Extent(30, 40)) == ""
    assert view.devices == ("snap", "other")


def test_a_snapshot_that_fails_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(SNAPSHOT)

    def lost() -> None:
        raise SnapshotLost("it is full")

    view, block = View((Stretch(Extent(0, SIZE), "snap"),)), Extent(0, SIZE)
    with path.open("rb", buffering=0) as file, memoryview(bytearray(SIZE)) as buffer:
        number = file.fileno()
        with unreadable(number, Extents((block,))):
            with pytest.raises(SnapshotLost):
                Viewed(view, {"snap": number}, lost).read(-1, block, buffer)
            with pytest.raises(ReadFailed):  # a bad sector below it is one
                Viewed(view, {"snap": number}, lambda: None).read(-1, block, buffer)
