"""Take a file of a running system as it was at one moment: what changes while it is read is read again."""

import hashlib
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from etsclone.errors import SourceChanged, UnsafePath
from etsclone.model.extents import Extents
from etsclone.model.tree import Entry, name_of, parent_of, printable
from etsclone.overlay.files import (
    CHUNK,
    data_extents,
    opened_file,
    opened_folder,
    read_attributes,
    runs,
)
from etsclone.overlay.flags import read_flags
from etsclone.overlay.status import ATTEMPTS, TICK_NS, settled

Spool = Callable[[int, Extents], BinaryIO]
"""Gives an empty file for content, told how large it is with its holes and what will come; may raise at too much."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A file as it was found, with size and digest; `data` are the bytes that are stored, the rest are holes.

    `content` holds these bytes, from its beginning to its end. `steady` tells whether all of it is of one moment.
    """

    entry: Entry
    data: Extents
    content: BinaryIO
    steady: bool


def take(top: int, seen: Entry, spool: Spool) -> Taken:
    """Read a file with all that belongs to it, again while it changes meanwhile, and a few times at most.

    Args:
        top: the top folder of the tree.
        seen: the file as a scan saw it.
        spool: gives the file that each look copies the content to.

    Raises:
        SourceChanged: when it is gone, or something else by now.
        OSError: when it cannot be read.
    """
    for _ in range(ATTEMPTS):
        taken = _look(top, seen, spool)
        if taken and taken.steady:
            return taken
        time.sleep(TICK_NS / 10**9)
    if not taken:
        raise SourceChanged(
            f"{printable(seen.path)} vanished while it was captured", hint="capture again"
        )
    return taken


def _look(top: int, seen: Entry, spool: Spool) -> Taken | None:
    """The file as one look finds it; None when there is none, as between the old and the new one may be the case."""
    name = name_of(seen.path)
    with (
        suppress(FileNotFoundError, UnsafePath),
        opened_folder(top, parent_of(seen.path)) as folder,
        opened_file(folder, name) as descriptor,
    ):
        before, began_ns = os.fstat(descriptor), time.time_ns()
        entry = _as_it_is(seen, descriptor, before)
        data = data_extents(descriptor, entry.size)
        content = spool(entry.size, data)
        size, digest = _copy(descriptor, entry.size, data, content)
        after = os.lstat(name, dir_fd=folder)
        steady = settled(before, after, began_ns) and entry == _as_it_is(seen, descriptor, after)
        # It may have shrunk: what is said of it is true of the bytes that were there.
        entry = replace(entry, size=size, sha256=digest)
        return Taken(entry, data & Extents.between(0, size), content, steady)
    return None


def _as_it_is(seen: Entry, descriptor: int, status: os.stat_result) -> Entry:
    """A file with all that it has by now, but for its digest."""
    return replace(
        seen,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        uname=seen.uname if seen.uid == status.st_uid else "",
        gname=seen.gname if seen.gid == status.st_gid else "",
        mtime_ns=status.st_mtime_ns,
        size=status.st_size,
        xattrs=read_attributes(descriptor),
        flags=read_flags(descriptor),
    )


def _copy(descriptor: int, size: int, data: Extents, content: BinaryIO) -> tuple[int, str]:
    """Copy the stored bytes; return how many bytes the file had, `size` at most, and their digest, holes included."""
    digest = hashlib.sha256()
    for start, length, stored in runs(size, data):
        position, end = start, start + length
        while position < end:
            count = min(CHUNK, end - position)
            piece = os.pread(descriptor, count, position) if stored else bytes(count)
            if not piece:
                return position, digest.hexdigest()
            digest.update(piece)
            if stored:
                content.write(piece)
            position += len(piece)
    return size, digest.hexdigest()
