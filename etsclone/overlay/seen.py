"""Look at what stands at a path, with all beneath it, so that it is known again; and tell in words what is other."""

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import replace

from etsclone.errors import TargetChanged, UnsafePath
from etsclone.model.journal import Seen, Standing
from etsclone.model.tree import Kind, join, name_of, parent_of, printable
from etsclone.overlay.files import (
    chunks,
    opened_any,
    opened_folder,
    read_attributes,
    read_link,
    working_in,
)
from etsclone.overlay.flags import LOCKS, read_flags
from etsclone.overlay.status import device_of, kind_of
from etsclone.units import counted

Sight = Mapping[bytes, Seen]
"""What is seen, by path, the topmost first; empty: nothing is there."""

_NO_ATTRIBUTE = "trusted.etsclone.none"


def sight(top: int, place: bytes, path: bytes) -> Sight:
    """What stands at a place and beneath it, told as if it were at `path`.

    Raises:
        TargetChanged: when it changes while it is looked at.
        OSError: when it cannot be read.
    """
    try:
        with opened_folder(top, parent_of(place)) as folder:
            os.lstat(name_of(place), dir_fd=folder)
    except (FileNotFoundError, UnsafePath):
        return {}
    found: dict[bytes, Seen] = {}
    try:
        with opened_folder(top, parent_of(place)) as folder:
            _look(folder, name_of(place), path, found, whole=keeps_metadata(folder))
    except FileNotFoundError as error:
        raise TargetChanged(
            f"{printable(path)} changed while it was looked at",
            hint="see that nothing writes there",
        ) from error
    return found


def keeps_metadata(folder: int) -> bool:
    """Whether owners, modes and times of a filesystem are kept in it, and not made up by whoever mounts it (vfat).

    Those that keep them have extended attributes, too.
    """
    try:
        os.getxattr(folder, _NO_ATTRIBUTE)
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def unlike(wanted: Seen, found: Seen | None) -> str:
    """In words, what is other than it should be; empty when nothing is."""
    if found is None:
        return f"nothing in place of {name(wanted)}"
    if found.kind is not wanted.kind:
        return f"{name(found)} in place of {name(wanted)}"
    words = []
    if found.size != wanted.size:
        words.append(f"{counted(found.size, 'byte')} in place of {wanted.size}")
    elif found.content != wanted.content:
        words.append("other content")
    if wanted.standing and found.standing:
        words += unlike_standing(wanted.standing, found.standing)
    return ", ".join(words)


def unlike_standing(wanted: Standing, found: Standing) -> list[str]:
    """The same of what is no content."""
    words = []
    if found.mode != wanted.mode:
        words.append(f"mode {found.mode:04o} in place of {wanted.mode:04o}")
    if (found.uid, found.gid) != (wanted.uid, wanted.gid):
        words.append(f"owner {found.uid}:{found.gid} in place of {wanted.uid}:{wanted.gid}")
    others = (
        ("time", found.mtime_ns, wanted.mtime_ns),
        ("attributes", found.xattrs, wanted.xattrs),
        ("flags", found.flags, wanted.flags),
    )
    return words + [f"other {name}" for name, one, two in others if one != two]


def name(seen: Seen) -> str:
    """What it is, in words."""
    names = {Kind.FOLDER: "a folder", Kind.SYMLINK: "a link"}
    return names.get(seen.kind, f"a {seen.kind.value}")


def without_locks(seen: Seen) -> Seen:
    """Without the flags that something has only as long as it is not to be moved."""
    standing = seen.standing
    if standing is None:
        return seen
    flags = tuple(flag for flag in standing.flags if flag not in LOCKS)
    return replace(seen, standing=replace(standing, flags=flags))


def without_times(seen: Seen) -> Seen:
    """Without those flags and the time of its last change."""
    seen = without_locks(seen)
    return replace(seen, standing=seen.standing and replace(seen.standing, mtime_ns=0))


def standing_of(descriptor: int) -> Standing:
    """All that a file or folder is, but for what it holds."""
    return _standing(os.fstat(descriptor), descriptor, read_flags(descriptor))


def _look(folder: int, name: bytes, path: bytes, found: dict[bytes, Seen], *, whole: bool) -> None:
    with opened_any(folder, name) as opened:
        if opened is None:
            found[path] = _special(folder, name, path, whole=whole)
            return
        status = os.fstat(opened)
        kind = kind_of(status)
        size, content = (status.st_size, _digest(opened)) if kind is Kind.FILE else (0, "")
        found[path] = Seen(path, kind, size, content, standing_of(opened) if whole else None)
        if kind is Kind.FOLDER:
            for each in sorted(map(os.fsencode, os.listdir(opened))):
                _look(opened, each, join(path, each), found, whole=whole)


def _special(folder: int, name: bytes, path: bytes, *, whole: bool) -> Seen:
    status = os.lstat(name, dir_fd=folder)
    kind, size, content = kind_of(status), 0, ""
    if kind is Kind.SYMLINK:
        target = read_link(name, folder)
        size, content = len(target), hashlib.sha256(target).hexdigest()
    elif device := device_of(status):
        content = "{}:{}".format(*device)
    with working_in(folder):
        standing = _standing(status, name, ()) if whole else None
    return Seen(path, kind, size, content, standing)


def _standing(status: os.stat_result, target: int | bytes, flags: tuple[str, ...]) -> Standing:
    return Standing(
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        read_attributes(target),
        flags,
    )


def _digest(file: int) -> str:
    digest = hashlib.sha256()
    for piece in chunks(file):
        digest.update(piece)
    return digest.hexdigest()
