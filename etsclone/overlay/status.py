"""What the system tells of one path: its kind, whether it changed between two looks, the names of its owners."""

import os
import stat
from operator import attrgetter

from etsclone.errors import UnsafePath
from etsclone.model.tree import Kind
from etsclone.overlay.files import chunks, opened_file, opened_folder

ATTEMPTS = 3
"""How often a file that changes while it is read is read."""

TICK_NS = 20 * 10**6
"""Nanoseconds for which a local filesystem's clock may stand still: ten milliseconds at 100 ticks a second, doubled."""

_FUTURE_NS = 10**9

KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.FOLDER,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFSOCK: Kind.SOCKET,
}

_state = attrgetter(
    "st_dev", "st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns"
)

_DEVICES = (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)


def kind_of(status: os.stat_result) -> Kind:
    """What stands at a path."""
    return KINDS[stat.S_IFMT(status.st_mode)]


def device_of(status: os.stat_result) -> tuple[int, int] | None:
    """Major and minor number of a device; None for what is none."""
    if kind_of(status) not in _DEVICES:
        return None
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether nothing happened between two looks. Access times do not count: the first may be our own."""
    return _state(before) == _state(after)


def settled(before: os.stat_result, after: os.stat_result, began_ns: int) -> bool:
    """Whether what was read between two looks is one state of the file, and the state that the second look tells of.

    The times of a file are those of the clock's last tick. So a file that was last changed in the tick in which reading
    began may have changed while it was read, and have the same time: it must be read again when the tick is over. A
    time far in the future says nothing.

    Args:
        before: the look before it was read.
        after: the look after it was read.
        began_ns: when reading began (nanoseconds since the epoch).
    """
    age_ns = began_ns - after.st_ctime_ns
    return same(before, after) and not -_FUTURE_NS < age_ns < TICK_NS


def owner_names(top: int, table: bytes) -> dict[int, str]:
    """Names by id from the tree's own /etc/passwd or /etc/group (passwd(5), group(5)); none when it has none."""
    try:
        with opened_folder(top, b"/etc") as etc, opened_file(etc, table) as descriptor:
            text = b"".join(bytes(piece) for piece in chunks(descriptor))
    except (OSError, UnsafePath):
        return {}
    names: dict[int, str] = {}
    for line in text.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit():
            names.setdefault(int(fields[2]), os.fsdecode(fields[0]))
    return names
