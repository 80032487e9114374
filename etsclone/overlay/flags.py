"""Flags of inodes (chattr(1)): those that are state of a file and not of the filesystem that it lies on.

Only regular files and folders have them. What concerns the place of the blocks (no copy on write, compression, extents)
or is no longer heeded by any filesystem (secure deletion, undelete) is not kept: a clone's filesystem may be another.
Source: FS_IOC_GETFLAGS and its kin in include/uapi/linux/fs.h.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from etsclone.errors import EtscloneError
from etsclone.model.tree import FLAGS

_GETFLAGS, _SETFLAGS = (
    0x80086601,
    0x40086602,
)  # as 64-bit machines have them; the value is an int all the same
_ROOM = bytes(8)
_APPEND, _IMMUTABLE = 0x20, 0x10
_BITS = dict(zip(FLAGS, (_APPEND, _IMMUTABLE, 0x40, 0x80, 0x10000, 0x08), strict=True))
_KEPT = sum(_BITS.values())
_CASEFOLD = 0x40000000
_LOCKS = _APPEND | _IMMUTABLE
LOCKS = tuple(name for name, bit in _BITS.items() if bit & _LOCKS)
"""The flags that forbid to rename, remove or change something, append-only and immutable; for a folder, its names."""
_UNKNOWN = {errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def read_flags(descriptor: int) -> tuple[str, ...]:
    """The flags of a file or folder, in the order of `FLAGS`; none where the filesystem has none."""
    bits = _get(descriptor) & _KEPT
    return tuple(name for name, bit in _BITS.items() if bits & bit) if bits else ()


def write_flags(descriptor: int, wanted: tuple[str, ...]) -> bool:
    """Give a file or folder these flags, and leave alone what is not kept; whether that changed anything.

    Raises:
        EtscloneError: when its filesystem cannot hold them.
        OSError: when the system refuses anything else.
    """
    old = _get(descriptor)
    new = old & ~_KEPT | sum(_BITS[name] for name in wanted)
    if new == old:
        return False
    try:
        _set(descriptor, new)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        raise EtscloneError(
            f"the filesystem cannot hold the flags {', '.join(wanted)}",
            hint="remove them with chattr on the captured server and capture again, or take another filesystem",
        ) from error
    if _get(descriptor) & _KEPT != new & _KEPT:
        raise EtscloneError(f"the filesystem did not take the flags {', '.join(wanted)}")
    return True


def folds_case(descriptor: int) -> bool:
    """Whether names that differ in case only are one in this folder (chattr's F: ext4, f2fs)."""
    return bool(_get(descriptor) & _CASEFOLD)


def set_folding(descriptor: int, *, folds: bool) -> None:
    """Let an empty folder fold names, or not, as `folds_case` said of another one of its filesystem."""
    if folds_case(descriptor) != folds:
        _set(descriptor, _get(descriptor) ^ _CASEFOLD)


def unlock(descriptor: int) -> None:
    """Take away what forbids changes, for good."""
    flags = _get(descriptor)
    if flags & _LOCKS:
        _set(descriptor, flags & ~_LOCKS)


@contextmanager
def unlocked(descriptor: int) -> Iterator[None]:
    """Take away what forbids changes (immutable, append-only), and give it back, if the last name is not gone then."""
    old = _get(descriptor)
    if old & _LOCKS:
        _set(descriptor, old & ~_LOCKS)
    try:
        yield
    finally:
        if old & _LOCKS and os.fstat(descriptor).st_nlink:
            _set(descriptor, old)


def _get(descriptor: int) -> int:
    # Of bytes Python would find out, by an exception, that they cannot be written to: that takes longer than the call.
    answer = bytearray(_ROOM)
    try:
        fcntl.ioctl(descriptor, _GETFLAGS, answer)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return 0
        raise
    return int.from_bytes(answer[:4], "little")


def _set(descriptor: int, flags: int) -> None:
    fcntl.ioctl(descriptor, _SETFLAGS, flags.to_bytes(8, "little"))
