"""What a tree holds, seen with nothing of etsclone: plain paths, os.walk, lstat. And trees to look at."""

import array
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Seen:
    """All that a test may compare of one path; the content is bytes, a target, or a device number."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: bytes | int
    attributes: tuple[tuple[str, bytes], ...]
    flags: int = 0


Sight = dict[bytes, Seen]


def look(root: Path) -> Sight:
    """Every path below `root`, and `/` for itself."""
    return {inside(root, path): _seen(path) for path in _paths(root)}


def links(root: Path) -> set[frozenset[bytes]]:
    """Which paths of files are names of one inode."""
    names: dict[int, set[bytes]] = {}
    for path in _paths(root):
        if path.is_file() and not path.is_symlink():
            names.setdefault(path.lstat().st_ino, set()).add(inside(root, path))
    return {frozenset(group) for group in names.values()}


def inside(root: Path, path: Path) -> bytes:
    """The path as it is called inside the tree."""
    return b"/" + b"/".join(os.fsencode(part) for part in path.relative_to(root).parts)


def acl(user: int, permissions: int, mode: int) -> bytes:
    """An ACL in the kernel's form (linux/posix_acl_xattr.h): the mode's classes, one more user, and the mask."""
    owner, group, others = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    nobody = 0xFFFFFFFF
    entries = [
        (0x01, owner, nobody),
        (0x02, permissions, user),
        (0x04, group, nobody),
        (0x10, group, nobody),
        (0x20, others, nobody),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _paths(root: Path) -> Iterator[Path]:
    yield root
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder) / name


def _seen(path: Path) -> Seen:
    status = path.lstat()
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return Seen(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        _content(path, status),
        tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
        inode_flags(path) if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else 0,
    )


GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
STATE_FLAGS = {"a": 0x20, "i": 0x10, "d": 0x40, "A": 0x80, "D": 0x10000, "S": 0x08}
"""chattr's letters and FS_*_FL of linux/fs.h."""


def inode_flags(path: Path | bytes, change: int | None = None) -> int:
    """The flags of a file or folder that are its state, after those of `change` were set; 0 where there are none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    value = array.array("i", [0, 0])
    try:
        fcntl.ioctl(descriptor, GETFLAGS, value)
        if change is not None:
            value[0] = value[0] & ~sum(STATE_FLAGS.values()) | change
            fcntl.ioctl(descriptor, SETFLAGS, value)
    except OSError as error:
        if error.errno != errno.ENOTTY or change:
            raise
    finally:
        os.close(descriptor)
    return value[0] & sum(STATE_FLAGS.values())


def _content(path: Path, status: os.stat_result) -> bytes | int:
    if stat.S_ISREG(status.st_mode):
        return path.read_bytes()
    if stat.S_ISLNK(status.st_mode):
        return os.fsencode(os.readlink(path))
    return status.st_rdev
