"""Reading and writing whole blocks of a disk, with errors that know where they happened."""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator

from etsclone.errors import DeviceError, ReadFailed
from etsclone.model.extents import Extent

_BLKZEROOUT = 0x127F

_GONE = frozenset(
    {
        errno.ENXIO,
        errno.ENODEV,
        errno.ENOMEDIUM,
        errno.ENOTCONN,
        errno.ECONNABORTED,
        errno.ESTALE,
    }
)
"""What a read fails with when there is no longer anything to read from: a disk, or the server of a file."""


def read_block(descriptor: int, block: Extent, buffer: memoryview, which: str) -> None:
    """Fill `buffer` with a block's bytes; `which` names the disk in the error.

    Raises:
        ReadFailed: when some of it cannot be read.
        DeviceError: when the disk ends early, or is gone: then there is no use in trying the next sector.
    """
    done = 0
    while done < block.size:
        try:
            count = os.preadv(descriptor, [buffer[done:]], block.start + done)
        except OSError as error:
            if _is_gone(descriptor, block, error):
                raise DeviceError(
                    f"the {which} is gone, at byte {block.start + done}: {error.strerror}",
                    hint="plug it in again and go on with --resume",
                ) from error
            raise ReadFailed(
                f"the {which} cannot be read at byte {block.start + done}: {error.strerror}",
                hint="look at the kernel's messages (dmesg) and at the disk's health (smartctl -a)",
            ) from error
        if count == 0:
            raise DeviceError(
                f"the {which} ends early, at byte {block.start + done}",
                hint="was it unplugged? plug it in again and go on with --resume",
            )
        done += count


def _is_gone(descriptor: int, block: Extent, error: OSError) -> bool:
    if error.errno in _GONE:
        return True
    try:
        return (
            os.lseek(descriptor, 0, os.SEEK_END) < block.end
        )  # what was unplugged has no size left
    except OSError:
        return True


def write_block(descriptor: int, block: Extent, buffer: memoryview) -> None:
    """Write a block's bytes.

    Raises:
        DeviceError: when they cannot be written.
    """
    done = 0
    while done < block.size:
        try:
            done += os.pwritev(descriptor, [buffer[done:]], block.start + done)
        except OSError as error:
            raise DeviceError(
                f"the target cannot be written at byte {block.start + done}: {error.strerror}",
                hint="the target is unfinished and will not boot: look at the kernel's messages (dmesg); "
                "once it is mended or plugged in again, go on with --resume",
            ) from error


@contextlib.contextmanager
def single_sectors(size: int, *descriptors: int) -> Iterator[memoryview]:
    """A buffer for one sector of `size` bytes, while disks are read or written in single ones."""
    with contextlib.ExitStack() as stack:
        for descriptor in descriptors:
            stack.enter_context(small_blocks(descriptor, size))
        memory = stack.enter_context(mmap.mmap(-1, size))
        yield stack.enter_context(memoryview(memory))


@contextlib.contextmanager
def small_blocks(descriptor: int, size: int) -> Iterator[None]:
    """Let reads and writes of `size` bytes pass, through the page cache where direct access wants larger ones.

    An image file on a disk with larger sectors than its own refuses them with EINVAL (open(2), O_DIRECT). Nobody else
    may use the descriptor meanwhile.
    """
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if not flags & os.O_DIRECT or _takes(descriptor, size):
        yield
        return
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    try:
        yield
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _takes(descriptor: int, size: int) -> bool:
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        return True
    with mmap.mmap(-1, size) as memory:
        try:
            # Of a hole any size can be read. Where there is no data yet, ENXIO says so: then nobody can tell.
            data = os.lseek(descriptor, 0, os.SEEK_DATA)
            os.preadv(descriptor, [memory], data + size)
        except OSError as error:
            return error.errno not in {errno.EINVAL, errno.ENXIO}
    return True


def zero_block(descriptor: int, block: Extent, zeros: memoryview, *, by_command: bool) -> None:
    """Make a block read as zeros; `zeros` holds as many. With `by_command` the disk is asked to, and not sent any.

    Raises:
        DeviceError: when that fails.
    """
    if by_command:
        with contextlib.suppress(OSError):  # then it cannot after all
            fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("QQ", block.start, block.size))
            return
    if not _is_hole(descriptor, block):
        write_block(descriptor, block, zeros)


def _is_hole(descriptor: int, block: Extent) -> bool:
    try:
        return os.lseek(descriptor, block.start, os.SEEK_DATA) >= block.end
    except OSError as error:
        return (
            error.errno == errno.ENXIO
        )  # no data from there on; what else fails is no file with holes
