"""How much of everything a payload may hold, so that what its reader keeps of it fits into the memory of any server.

Content goes to a spool and is bounded by the payload's limit. All else is kept in memory until the rebuild is done: a
few KiB of zstd could hold gigabytes of it. Writers count the same, so nothing is written that could not be read.
"""

import os

from etsclone.model.extents import Extents
from etsclone.model.tree import Entry, printable
from etsclone.units import KIB, MIB

MOST_MEMBERS = 2**18
MOST_PIECES = 2**18
"""Of sparse files, all together."""

MOST_ATTRIBUTES = 2**20
MOST_TEXT = 128 * MIB
"""Bytes of paths, targets, owners' names, attributes' names and values, all together."""

LONGEST_PATH = 4095
"""Of a path with its leading slash, or a target: the kernel's PATH_MAX without the NUL."""

LONGEST_NAME = 255
"""The kernel's NAME_MAX, and XATTR_NAME_MAX for attributes; for owners' names as well."""

LARGEST_VALUE = LARGEST_LIST = 64 * KIB
"""The kernel's XATTR_SIZE_MAX; and XATTR_LIST_MAX, for an inode's names of attributes, each with its NUL."""

LARGEST_ATTRIBUTES = 8 * MIB
"""Names and values of one member together; only filesystems with no limit of their own (XFS, btrfs) could have more."""


class Amounts:
    """What a payload holds so far."""

    def __init__(self) -> None:
        self._members = 0
        self._pieces = 0
        self._attributes = 0
        self._text = 0

    def add(self, entry: Entry, data: Extents) -> None:
        """Count a member; what a hard link shares with its file is counted there.

        Raises:
            ValueError: when it is too large in itself, or when there is too much by now; says of what.
        """
        _check(entry)
        self._members += 1
        self._text += len(entry.path) + len(entry.link_to or b"")
        if not entry.link_to:
            self._text += len(entry.target or b"") + _length(entry.uname) + _length(entry.gname)
            self._text += sum(_length(name) + len(value) for name, value in entry.xattrs)
            self._attributes += len(entry.xattrs)
            self._pieces += len(data) if data.size != entry.size else 0
        for amount, most, what in (
            (self._members, MOST_MEMBERS, "files and folders"),
            (self._pieces, MOST_PIECES, "pieces of sparse files"),
            (self._attributes, MOST_ATTRIBUTES, "extended attributes"),
            (self._text, MOST_TEXT, "bytes of names and attributes"),
        ):
            if amount > most:
                raise ValueError(f"more than {most} {what}")


def _length(name: str) -> int:
    return len(name) if name.isascii() else len(os.fsencode(name))


def _check(entry: Entry) -> None:
    if len(entry.path) > LONGEST_PATH or max(map(len, entry.path.split(b"/"))) > LONGEST_NAME:
        raise ValueError(f"a path or name that is too long: {printable(entry.path[:80])}...")
    if len(entry.target or b"") > LONGEST_PATH:
        raise ValueError(f"a target that is too long: {printable(entry.path)}")
    if max(_length(entry.uname), _length(entry.gname)) > LONGEST_NAME:
        raise ValueError(f"an owner's name that is too long: {printable(entry.path)}")
    if entry.xattrs:
        _check_attributes(entry)


def _check_attributes(entry: Entry) -> None:
    names = [_length(name) for name, _ in entry.xattrs]
    values = [len(value) for _, value in entry.xattrs]
    if max(names) > LONGEST_NAME or max(values) > LARGEST_VALUE:
        raise ValueError(f"an attribute that is too large: {printable(entry.path)}")
    if sum(names) + len(names) > LARGEST_LIST or sum(names) + sum(values) > LARGEST_ATTRIBUTES:
        raise ValueError(f"too many attributes of one file: {printable(entry.path)}")
