"""Opening disks: claimed exclusively, past the page cache, and only if they are still the disks of the plan."""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator

from etsclone.disk.images import image_identity, is_image
from etsclone.disk.probe import identity_of
from etsclone.errors import DeviceError, TargetChanged, TargetRefused, UsageError, WritesLost
from etsclone.model.disk import DiskIdentity
from etsclone.model.extents import Extent
from etsclone.run import run
from etsclone.units import align_down, align_up

_BLKFLSBUF = 0x1261
_BLKDISCARD = 0x1277
_BLKZEROOUT = 0x127F
DIRECT_BLOCK = 4096
"""Offsets and sizes that every disk and filesystem takes for direct access."""


def check_identity(expected: DiskIdentity) -> None:
    """Make sure that the path still names the disk that the plan was made for.

    Raises:
        TargetChanged: when another disk, or none, is there now.
    """
    try:
        now = (
            image_identity(expected.path) if is_image(expected.path) else identity_of(expected.path)
        )
    except (OSError, UsageError) as error:
        raise TargetChanged(
            f"{expected.path} is gone", hint="start again: `etsclone disks`"
        ) from error
    if now != expected:
        raise TargetChanged(
            f"{expected.path} is not the disk that the plan was made for",
            hint="disks were plugged or renamed: start again with `etsclone disks`",
        )


@contextlib.contextmanager
def opened(path: str, *, writable: bool) -> Iterator[int]:
    """A descriptor for a disk or image that bypasses the page cache, claimed exclusively when it is for writing.

    O_EXCL on a block device fails while it, or a partition of it, is mounted or held, and keeps others from mounting
    it as long as it is open (open(2)). Image files are claimed by flock(2).

    Raises:
        TargetRefused: when it is busy.
        DeviceError: when it cannot be opened.
    """
    descriptor = _open(path, writable=writable)
    try:
        yield descriptor
    finally:
        # Where the server of a file is gone, even this fails; what had to be durable was flushed before.
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _open(path: str, *, writable: bool) -> int:
    image = is_image(path)
    flags = (
        os.O_CLOEXEC
        | (os.O_RDWR if writable else os.O_RDONLY)
        | (os.O_EXCL if writable and not image else 0)
    )
    try:
        descriptor = _open_direct(
            path, flags, whole_blocks=not image or os.stat(path).st_size % DIRECT_BLOCK == 0
        )
        if writable and image:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EBUSY, errno.EWOULDBLOCK}:
            raise TargetRefused(
                f"{path} is busy", hint="something mounted or claimed it since it was checked"
            ) from error
        raise DeviceError(f"{path} cannot be opened: {error.strerror}") from error
    return descriptor


def _open_direct(path: str, flags: int, *, whole_blocks: bool) -> int:
    if whole_blocks:
        try:
            return os.open(path, flags | os.O_DIRECT)
        except OSError as error:
            if (
                error.errno != errno.EINVAL
            ):  # EINVAL: a filesystem without direct access, such as an older tmpfs
                raise
    return os.open(path, flags)


def flush(descriptor: int) -> None:
    """Make all writes durable, and drop what the kernel caches of the disk, so that reads come from the disk.

    Raises:
        WritesLost: when a write that seemed to succeed turns out to have failed.
    """
    try:
        os.fsync(descriptor)
        if stat.S_ISBLK(os.fstat(descriptor).st_mode):
            fcntl.ioctl(descriptor, _BLKFLSBUF)
        else:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise WritesLost(
            f"writes to the target were lost: {error.strerror}", hint=WritesLost.HINT
        ) from error


def can_zero(descriptor: int) -> bool:
    """Whether a disk makes zeros by itself; for any other the kernel takes the command too, and writes them in pages.

    Source: Documentation/ABI/stable/sysfs-block, write_zeroes_max_bytes.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode):
        return False
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    try:
        with open(f"/sys/dev/block/{number}/queue/write_zeroes_max_bytes", "rb") as file:
            return int(file.read()) > 0
    except OSError:
        return False


def clear(descriptor: int, path: str, extent: Extent, *, keep_space: bool) -> None:
    """Tell a disk that bytes are no longer needed (discard), or with `keep_space` make them read as zeros.

    Args:
        descriptor: the disk, open for writing.
        path: its name, for an image file.
        extent: whole sectors.
        keep_space: write zeros rather than give the space back.

    Raises:
        DeviceError: when the disk cannot do it.
        CommandFailed: when the filesystem of an image file cannot.
    """
    if is_image(path):
        how = "--zero-range" if keep_space else "--punch-hole"
        where = ["--keep-size", "--offset", str(extent.start), "--length", str(extent.size)]
        run("fallocate", [how, *where, path])
        return
    request = _BLKZEROOUT if keep_space else _BLKDISCARD
    try:
        fcntl.ioctl(descriptor, request, struct.pack("QQ", extent.start, extent.size))
    except OSError as error:
        raise DeviceError(
            f"{path} cannot {'be wiped' if keep_space else 'discard'}: {error.strerror}",
            hint="leave out --discard: not every disk or adapter can",
        ) from error


def read_bytes(descriptor: int, extent: Extent) -> bytes:
    """The bytes of `extent`.

    Raises:
        DeviceError: when they cannot be read, or the disk ends before them.
    """
    with _aligned(descriptor, extent) as (memory, start):
        return memory[extent.start - start : extent.end - start]


def write_bytes(descriptor: int, start: int, data: bytes) -> None:
    """Put `data` at offset `start`; the rest of the blocks that it touches is written back as it was.

    Raises:
        DeviceError: when it cannot be written in full.
    """
    with _aligned(descriptor, Extent(start, start + len(data))) as (memory, block_start):
        memory[start - block_start : start - block_start + len(data)] = data
        try:
            count = os.pwritev(descriptor, [memory], block_start)
        except OSError as error:
            raise DeviceError(
                f"the disk cannot be written at byte {start}: {error.strerror}"
            ) from error
        if count != len(memory):
            raise DeviceError(f"the disk took {count} of {len(memory)} bytes at {block_start}")


@contextlib.contextmanager
def _aligned(descriptor: int, extent: Extent) -> Iterator[tuple[mmap.mmap, int]]:
    """The whole blocks around `extent` in a page-aligned buffer, and the offset of its first byte."""
    start, size = align_down(extent.start, DIRECT_BLOCK), os.lseek(descriptor, 0, os.SEEK_END)
    end = min(align_up(extent.end, DIRECT_BLOCK), size)
    if extent.end > size:
        raise DeviceError(f"the disk ends early, at byte {size}", hint="was it unplugged?")
    with mmap.mmap(-1, end - start) as memory:
        try:
            count = os.preadv(descriptor, [memory], start)
        except OSError as error:
            raise DeviceError(
                f"the disk cannot be read at byte {start}: {error.strerror}"
            ) from error
        if count != end - start:
            raise DeviceError(
                f"the disk gave {count} of {end - start} bytes at {start}", hint="was it unplugged?"
            )
        yield memory, start
