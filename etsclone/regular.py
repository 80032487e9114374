"""Regular files, where anybody may have put something else in their place: links, pipes, devices, endless ones.

Whoever writes to a stick must not choose what root opens, wait for, or fill its memory with. Only what somebody names
on the command line may be a pipe.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_WORDS = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFLNK: "it is a symbolic link",
    stat.S_IFIFO: "it is a named pipe",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


_PIPES: dict[tuple[int, int], bytes] = {}
"""What pipes gave, by device and inode."""


class UnfitFileError(OSError):
    """What has the name of a file is none, or has more bytes than it may; `strerror` says which, in plain words."""


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Open a regular file, and nothing else, without ever waiting; returns the descriptor.

    Args:
        path: the file. The folders on the way to it are followed.
        flags: as of open(2); a file that is made has mode 0600.
        follow: whether `path` itself may be a symbolic link.

    Raises:
        UnfitFileError: when it is anything else.
        OSError: when it cannot be opened.
    """
    # Looked at before: to open a device may already do something.
    try:
        _check(os.stat(path, follow_symlinks=follow), path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, 0o600)
    try:
        _check(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """All bytes of a small file, opened as by `open_regular`.

    Raises:
        UnfitFileError: also when it has more than `limit` bytes.
        OSError: when it cannot be opened or read.
    """
    with open(open_regular(path, follow=follow), "rb") as file:
        return _bounded(file, limit, path)


def read_given(path: Path, limit: int) -> bytes:
    """All bytes of a small file that somebody named: also of a pipe (`<(...)`, `/dev/stdin`), whose end is waited for.

    A pipe gives what it holds only once, and a command may need it twice: it is remembered.

    Raises:
        UnfitFileError: when it is anything else, such as a terminal, or has more than `limit` bytes.
        OSError: when it cannot be opened or read.
    """
    status = os.stat(path)
    if not stat.S_ISFIFO(status.st_mode):
        return read_regular(path, limit, follow=True)
    pipe = status.st_dev, status.st_ino
    if pipe not in _PIPES:
        with open(path, "rb") as file:
            _PIPES[pipe] = _bounded(file, limit, path)
    return _PIPES[pipe]


def _bounded(file: BinaryIO, limit: int, path: Path) -> bytes:
    data = file.read(limit + 1)
    check_amount(len(data), limit, path)
    return data


def check_amount(size: int, limit: int, path: Path) -> None:
    """Raise `UnfitFileError` when a file has more than `limit` bytes."""
    if size > limit:
        raise UnfitFileError(errno.EFBIG, f"it has more than {limit} bytes", str(path))


def _check(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        word = _WORDS[stat.S_IFMT(status.st_mode)]
        raise UnfitFileError(errno.EINVAL, f"{word}, no regular file", str(path))
