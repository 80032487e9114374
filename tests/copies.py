"""Copies between plain files, with pieces small enough for hundreds of examples, and sources that cannot be read."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from etsclone.copying.passes import CopyRun
from etsclone.copying.pieces import opened_digests
from etsclone.copying.state import CopyState
from etsclone.copying.workers import Tuning
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import Mapfile

SIZE = 4096
SECTOR = 16
PIECE = 64
"""What the tests of the engine put in the place of `etsclone.model.plan.PIECE`."""

TUNING = Tuning(block_size=4 * PIECE, workers=3)
ALL = Extents.between(0, SIZE)


def extents(step: int = 1, size: int = SIZE) -> st.SearchStrategy[Extents]:
    """A few ranges at multiples of `step`."""
    ends = st.tuples(st.integers(0, size // step - 1), st.integers(1, 700 // step))
    ranges = ends.map(lambda pair: Extent(pair[0] * step, min(sum(pair) * step, size)))
    return st.lists(ranges, max_size=6).map(Extents.of)


contents = st.lists(
    st.tuples(st.sampled_from([b"\0", b"\0", b"a", b"b"]), st.integers(1, 600)), max_size=12
).map(lambda runs: b"".join(byte * count for byte, count in runs)[:SIZE].ljust(SIZE, b"\0"))
"""Bytes with long runs of zeros, as disks have them."""


@contextmanager
def disks(folder: Path, *contents: bytes) -> Iterator[list[int]]:
    """Descriptors of files with these contents."""
    with ExitStack() as stack:
        descriptors = []
        for number, content in enumerate(contents):
            path = folder / f"disk{number}"
            path.write_bytes(content)
            descriptor = os.open(path, os.O_RDWR)
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        yield descriptors


@contextmanager
def copying(
    folder: Path,
    source: bytes,
    target: bytes,
    wanted: Extents = ALL,
    *,
    earlier: Mapfile | None = None,
    target_is_zero: bool = False,
) -> Iterator[CopyRun]:
    """All that a copy of `wanted` needs; digests live in memory."""
    with (
        disks(folder, source, target) as (first, second),
        opened_digests(None, wanted, keep=False) as digests,
    ):
        state = CopyState(len(source), earlier)
        yield CopyRun(first, second, digests, state, TUNING, target_is_zero)


def one_at_a_time(run: CopyRun) -> CopyRun:
    """The same with a single worker."""
    return replace(run, tuning=replace(run.tuning, workers=1))


def content_of(descriptor: int) -> bytes:
    """All bytes of a file."""
    return os.pread(descriptor, 2 * SIZE, 0)


def overlaid(old: bytes, new: bytes, places: Extents) -> bytes:
    """`old`, with `new` in some places."""
    result = bytearray(old)
    for extent in places:
        result[extent.start : extent.end] = new[extent.start : extent.end]
    return bytes(result)


def flip(descriptor: int, position: int) -> None:
    """Change one bit."""
    (byte,) = os.pread(descriptor, 1, position)
    os.pwrite(descriptor, bytes([byte ^ 1]), position)


@contextmanager
def unreadable(descriptor: int, bad: Extents, *, short: bool = False) -> Iterator[list[Extent]]:
    """Let reads of `descriptor` fail that touch `bad`; yields the reads that were tried.

    With `short`, a read ends before the first bad byte and fails only when it begins there, as buffered ones do.
    """
    real, tried = os.preadv, []

    def preadv(which: int, buffers: Any, offset: int) -> int:  # noqa: ANN401
        if which != descriptor:
            return real(which, buffers, offset)
        (buffer,) = buffers
        asked = Extent(offset, offset + len(buffer))
        tried.append(asked)
        broken = Extents((asked,)) & bad
        if broken.ranges:
            good = broken.ranges[0].start - offset
            if not short or good == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            buffer = memoryview(buffer)[:good]
        return real(which, [buffer], offset)

    with mock.patch("os.preadv", preadv):
        yield tried
