"""Image files whose bytes are the same blocks of one filesystem: made in an instant, and proved without reading them.

Source: ioctl_ficlonerange(2), and Documentation/filesystems/fiemap.rst of the kernel.
"""

import errno
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from etsclone.copying.blocks import Blocks
from etsclone.copying.passes import CopyRun
from etsclone.errors import DeviceError
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus
from etsclone.units import GIB

_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("=qQQQ")
"""`struct file_clone_range` of linux/fs.h: the source's descriptor, its offset, length, the target's offset."""

_UNABLE = frozenset(
    {
        errno.EXDEV,
        errno.EOPNOTSUPP,
        errno.EINVAL,
        errno.ENOTTY,
        errno.ENOSYS,
        errno.EPERM,
        errno.ETXTBSY,
    }
)
"""What says that two files cannot share blocks, and nothing about their health."""

_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP = struct.Struct("=QQIIII")
"""`struct fiemap` of linux/fiemap.h: start, length, flags, extents that were mapped, room for extents, reserved."""

_FIEMAP_EXTENT = struct.Struct("=QQQQQIIII")
"""`struct fiemap_extent`: logical, physical, length in bytes, two reserved, flags, three reserved."""

_SYNC = 0x1
_ROOM = 512
_LAST, _UNWRITTEN, _MERGED, _SHARED = 0x1, 0x800, 0x1000, 0x2000
_LONGEST = GIB
"""The most that is shared at once: ^C waits for it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A range of a file, and how far its blocks lie from it on the filesystem's device, in bytes.

    `distance` is None where nothing is stored: it reads as zeros.
    """

    extent: Extent
    distance: int | None


def share(run: CopyRun, extents: Extents) -> Extents:
    """Have the target share the source's blocks in `extents`; return where it does now, and mark that as finished.

    Of the rest, the filesystem cannot share blocks, or it is less than a block. What is the same already stays.

    Raises:
        DeviceError: when the filesystem fails at it.
    """
    whole = extents.shrunk(os.fstatvfs(run.target).f_bsize)
    todo = whole - same_blocks(run.source, run.target, whole)
    run.digests.forget_all(todo)  # nothing of it is read
    run.advance((whole - todo).size)
    run.state.mark_all(whole - todo, BlockStatus.FINISHED)
    for block in Blocks(todo, _LONGEST):
        if not clone_range(run.source, run.target, block):
            logger.warning("the filesystem does not share these blocks: they are copied")
            break
        run.state.mark(block, BlockStatus.FINISHED)
        run.advance(block.size)
        run.tick()
    return run.state.area(BlockStatus.FINISHED) & whole


def clone_range(source: int, target: int, extent: Extent) -> bool:
    """Have `extent` of the target be the blocks that it is of the source; False where two files cannot share blocks.

    Both ends are multiples of the filesystem's blocks. Other writes to the source go to disk first, by the kernel.

    Raises:
        DeviceError: for any other failure, such as no space.
    """
    start = extent.start
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, start, extent.size, start))
    except OSError as error:
        if error.errno in _UNABLE:
            return False
        raise DeviceError(
            f"the target cannot share blocks with the source at byte {start}: {error.strerror}",
            hint="the target is unfinished and will not boot: is its filesystem full?",
        ) from error
    return True


def same_blocks(source: int, target: int, extents: Extents) -> Extents:
    """What of `extents` two files have in common by their filesystem's own word: the same blocks, or none at all.

    The answer is exact: bytes that are the same blocks cannot differ. Where the filesystem is not sure of a place
    (compressed, inside of metadata, not yet allocated) the bytes are not in it, and neither are those of files on two
    filesystems, whose places mean different things.
    """
    if os.fstat(source).st_dev != os.fstat(target).st_dev:
        return Extents()
    try:
        common = [
            extent
            for wanted in extents
            for extent in _common(mappings(source, wanted), mappings(target, wanted))
        ]
    except OSError:  # a filesystem that does not tell; if it cannot be read, reading will say so
        return Extents()
    return Extents.of(common) & extents


def mappings(descriptor: int, wanted: Extent) -> Iterator[Mapping]:
    """Where the bytes of a file lie, in its order; what is not known for certain is left out.

    Raises:
        OSError: when its filesystem does not tell.
    """
    position, last = wanted.start, False
    while position < wanted.end and not last:
        answer = bytearray(_FIEMAP.size + _ROOM * _FIEMAP_EXTENT.size)
        _FIEMAP.pack_into(answer, 0, position, wanted.end - position, _SYNC, 0, _ROOM, 0)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, answer)
        count = _FIEMAP.unpack_from(answer)[3]
        if count == 0:
            break
        for number in range(count):
            logical, physical, size, _, _, flags, *_ = _FIEMAP_EXTENT.unpack_from(
                answer, _FIEMAP.size + number * _FIEMAP_EXTENT.size
            )
            if logical > position:
                yield Mapping(Extent(position, logical), None)
            if flags & _UNWRITTEN:
                yield Mapping(Extent(logical, logical + size), None)
            elif not flags & ~(_LAST | _MERGED | _SHARED) and flags & _SHARED:
                yield Mapping(Extent(logical, logical + size), physical - logical)
            position, last = logical + size, bool(flags & _LAST)
    if position < wanted.end:
        yield Mapping(Extent(position, wanted.end), None)


def _common(left: Iterator[Mapping], right: Iterator[Mapping]) -> Iterator[Extent]:
    mine, theirs = next(left, None), next(right, None)
    while mine and theirs:
        start = max(mine.extent.start, theirs.extent.start)
        end = min(mine.extent.end, theirs.extent.end)
        if start < end and mine.distance == theirs.distance:
            yield Extent(start, end)
        if mine.extent.end <= theirs.extent.end:
            mine = next(left, None)
        else:
            theirs = next(right, None)
