"""Reading and writing whole blocks of a disk, with errors that know where they happened."""

import errno
import fcntl
import os
import struct

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
                hint="the target is unfinished and will not boot: look at the kernel's messages (dmesg)",
            ) from error


def zero_block(descriptor: int, block: Extent, zeros: memoryview) -> None:
    """Make a block read as zeros; `zeros` holds as many. The disk may do it without being sent any (BLKZEROOUT).

    Raises:
        DeviceError: when that fails.
    """
    try:
        fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("QQ", block.start, block.size))
    except OSError:  # an image file, or a disk that cannot
        write_block(descriptor, block, zeros)
