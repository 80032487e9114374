"""Holes of image files: they read as zeros, and nobody has to read them to know."""

import contextlib
import errno
import os
from collections.abc import Iterator

from etsclone.copying.passes import CopyRun
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus
from etsclone.model.plan import PIECE


def skip_holes(run: CopyRun, extents: Extents) -> Extents:
    """Mark as finished, with the digests of zeros, what is a hole on both sides already; return what that was."""
    skipped = common_holes(run.source, run.target, extents).shrunk(PIECE)
    for hole in skipped:
        run.digests.take_zeros(hole)
        run.advance(hole.size)
    run.state.mark_all(skipped, BlockStatus.FINISHED)
    return skipped


def common_holes(source: int, target: int, extents: Extents) -> Extents:
    """What of `extents` is in holes of both files: zeros, by the word of their filesystems."""
    return holes(target, holes(source, extents))


def holes(descriptor: int, extents: Extents) -> Extents:
    """What of `extents` is in holes of a file (lseek(2), SEEK_HOLE); nothing of it on a disk, which has none."""
    with contextlib.suppress(OSError):  # the filesystem does not tell, or it is a disk
        return Extents.of(hole for extent in extents for hole in _holes(descriptor, extent))
    return Extents()


def _holes(descriptor: int, extent: Extent) -> Iterator[Extent]:
    position = extent.start
    while (start := os.lseek(descriptor, position, os.SEEK_HOLE)) < extent.end:
        position = min(_data_after(descriptor, start, extent.end), extent.end)
        if position > start:  # else somebody wrote there just now
            yield Extent(start, position)
        if position == extent.end:
            return


def _data_after(descriptor: int, position: int, end: int) -> int:
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # which says that only a hole follows
            raise
        return end
