"""One look at a folder: the lines that an inventory has for what stands in it.

A large tree has a million paths, so this is written for speed: nothing is looked at twice, the words that many paths
have in common are made once, and where a folder is as it was remembered its old record is taken over unread.
"""

import hashlib
import os
import stat
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

import xxhash

from etsclone.errors import UnsafePath
from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING, Kind, join, name_of, parent_of, printable
from etsclone.overlay.files import folder_below, open_file, opened_folder
from etsclone.overlay.flags import read_flags
from etsclone.overlay.inventory import owner_words, package_word, quoted, state_words
from etsclone.overlay.remembered import NEVER, Record, Remembered, marks_of
from etsclone.overlay.status import ATTEMPTS, TICK_NS, device_of, kind_of, owner_names, settled
from etsclone.units import KIB

GRANULARITY = 2 * 10**9
"""Nanoseconds that a filesystem's clock may stand still: two seconds on vfat, one on ext3, some milliseconds on others.

What changed that close to the beginning of a capture, or after it, could change again and leave no trace.
"""

_OPEN = 100
"""How many folders on the way down are kept open; those below are opened from the top."""

_BUFFER = 256 * KIB
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENCODING = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Look:
    """Looks at the folders of a tree; one process at a time.

    `read` counts the files that were read, `warnings` are sentences for people, `entered` are the paths of the folders
    to go on with after the last one that was looked at, in the order of an inventory.
    """

    def __init__(
        self,
        top: int,
        scope: Scope,
        skip: frozenset[bytes],
        started_ns: int,
        packages: Mapping[bytes, str],
    ) -> None:
        self.read = 0
        self.warnings: list[str] = []
        self.entered: list[bytes] = []
        self.remembered = Remembered(None, b"")
        self._top = top
        self._scope = scope
        self._skip = skip
        self._trusted_until = started_ns - GRANULARITY
        self._users = owner_names(top, b"passwd")
        self._groups = owner_names(top, b"group")
        self._owners: dict[tuple[int, int, int], bytes] = {}
        self._trail: list[tuple[bytes, int]] = []
        self._buffer = memoryview(bytearray(_BUFFER))
        self._packages = packages
        circumstances = (self._users, self._groups, scope.volatile, sorted(skip))
        self.context = xxhash.xxh3_128_digest(
            b"\0".join(
                (repr(circumstances).encode(), *packages, "\0".join(packages.values()).encode())
            )
        )
        """A digest of all that the lines depend on, but for the tree."""

    def close(self) -> None:
        """Close the folders that are still open."""
        while self._trail:
            os.close(self._trail.pop()[1])

    def top_line(self) -> bytes:
        """The line of the tree's top itself."""
        status = os.fstat(self._top)
        return (
            b"."
            + self._owner(status)
            + state_words(status.st_mtime_ns, flags=read_flags(self._top))
        )

    def folders(self, path: bytes) -> list[bytes]:
        """The folders to go on with below a folder, without a look at anything else there."""
        try:
            with opened_folder(self._top, path) as folder, os.scandir(folder) as found:
                names = [
                    os.fsencode(each.name) for each in found if each.is_dir(follow_symlinks=False)
                ]
        except (FileNotFoundError, UnsafePath):
            return []
        return self._to_enter(path, self._shown(path, names))

    def folder(self, path: bytes) -> bytes:
        """The packed record of a folder; an empty one, and a warning, when it is gone or no folder any more."""
        self.entered = []
        try:
            folder = self._open(path)
        except (FileNotFoundError, UnsafePath):
            self._warn(path)
            return Record(path, (), b"", (), (b"",)).packed()
        names, statuses, marks = self._statuses(folder, path)
        old = self.remembered.record(path)
        if old and self.remembered.same_context and Record.is_of(old, path, names, marks):
            self.entered = below(path, Record.folders_of(old))
            return old
        return self._fresh(folder, path, names, statuses, marks, old)

    def _statuses(
        self, folder: int, path: bytes
    ) -> tuple[list[bytes], list[os.stat_result], list[bytes]]:
        """The names that are not volatile, sorted, what the system tells of them, and their marks."""
        names = self._shown(path, [name.encode(*_ENCODING) for name in os.listdir(folder)])
        names.sort()
        try:
            statuses = [os.lstat(name, dir_fd=folder) for name in names]
        except FileNotFoundError:
            found = [(name, status) for name in names if (status := _status(folder, name))]
            names, statuses = [name for name, _ in found], [status for _, status in found]
        return names, statuses, marks_of(statuses, os.fstatvfs(folder).f_fsid)

    def _fresh(
        self,
        folder: int,
        path: bytes,
        names: list[bytes],
        statuses: list[os.stat_result],
        marks: list[bytes],
        old: bytes | None,
    ) -> bytes:
        """A new record, with the old lines of what has not changed."""
        known = Record.unpacked(old).lines() if old else {}
        prefix = quoted(b"." + path.rstrip(b"/")) + b"/"
        lines: dict[bytes, bytes] = {}
        kept_marks: list[bytes] = []
        folders: list[bytes] = []
        for name, status, now in zip(names, statuses, marks, strict=True):
            was, line = known.get(name, (NEVER, b""))
            if was == now:
                state, taken = line[line.index(b" time=") :], status
            else:
                found = self._state(folder, name, path, status)
                if found is None:
                    continue
                state, taken = found
                self.read += stat.S_ISREG(taken.st_mode)
            package = package_word(self._packages.get(join(path, name), ""))
            lines[name] = prefix + quoted(name) + self._owner(taken) + package + state
            kept_marks.append(now if self._is_trusted(status, taken) else NEVER)
            if stat.S_ISDIR(taken.st_mode):
                folders.append(name)
        self.entered = self._to_enter(path, folders)
        entered = [name_of(each) for each in self.entered]
        return Record(
            path, list(lines), b"".join(kept_marks), entered, _cut(lines, entered)
        ).packed()

    def _state(
        self, folder: int, name: bytes, path: bytes, status: os.stat_result
    ) -> tuple[bytes, os.stat_result] | None:
        """The words of a path's state, and the status that they belong to; None when it is gone."""
        last = None
        for _ in range(ATTEMPTS):
            began_ns = time.time_ns()
            with suppress(FileNotFoundError, UnsafePath):
                words, after = self._words(folder, name, status)
                if settled(status, after, began_ns):
                    return words, status
                last = words, after if kind_of(after) is kind_of(status) else status
            time.sleep(TICK_NS / 10**9)
            now = _status(folder, name)
            if now is None:
                return None
            status = now
        self._warn(join(path, name))
        return last

    def _words(
        self, folder: int, name: bytes, status: os.stat_result
    ) -> tuple[bytes, os.stat_result]:
        kind = kind_of(status)
        if kind is Kind.FILE:
            return self._words_of_file(folder, name)
        if kind is Kind.FOLDER:
            with opened_folder(folder, name) as descriptor:
                flags, after = read_flags(descriptor), os.fstat(descriptor)
            return state_words(after.st_mtime_ns, flags=flags), after
        target = os.readlink(name, dir_fd=folder) if kind is Kind.SYMLINK else None
        words = state_words(status.st_mtime_ns, target=target, device=device_of(status))
        return words, os.lstat(name, dir_fd=folder)

    def _words_of_file(self, folder: int, name: bytes) -> tuple[bytes, os.stat_result]:
        descriptor = open_file(folder, name)
        try:
            flags = read_flags(descriptor)
            size, digest = self._content(descriptor)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return state_words(after.st_mtime_ns, size=size, sha256=digest, flags=flags), after

    def _content(self, descriptor: int) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        while count := os.readv(descriptor, [self._buffer]):
            digest.update(self._buffer[:count])
            size += count
            # The end; a read that is short before it met a bad sector, which the next one tells.
            if count < _BUFFER and size >= os.fstat(descriptor).st_size:
                break
        return size, digest.hexdigest()

    def _is_trusted(self, status: os.stat_result, taken: os.stat_result) -> bool:
        """Whether a mark may be believed the next time."""
        if taken is not status:
            return False
        return max(status.st_ctime_ns, status.st_mtime_ns) < self._trusted_until

    def _owner(self, status: os.stat_result) -> bytes:
        key = status.st_mode, status.st_uid, status.st_gid
        if key not in self._owners:
            mode, uid, gid = key
            users, groups = self._users, self._groups
            self._owners[key] = owner_words(
                kind_of(status),
                stat.S_IMODE(mode),
                uid,
                gid,
                users.get(uid, ""),
                groups.get(gid, ""),
            )
        return self._owners[key]

    def _shown(self, path: bytes, names: list[bytes]) -> list[bytes]:
        shown = self._scope.hidden_in(path).leave(names)
        return [name for name in shown if name != STAGING] if STAGING in shown else shown

    def _to_enter(self, path: bytes, folders: Sequence[bytes]) -> list[bytes]:
        """The paths of those folders that are no other filesystem's, in the order of what is in them."""
        paths = below(path, sorted(folders, key=lambda name: name + b"/"))
        return [each for each in paths if each not in self._skip] if self._skip else paths

    def _open(self, path: bytes) -> int:
        """A folder as a descriptor that stays open for what is below it."""
        while self._trail and not path.startswith(self._trail[-1][0].rstrip(b"/") + b"/"):
            os.close(self._trail.pop()[1])
        if len(self._trail) > _OPEN:
            os.close(self._trail.pop()[1])
        if self._trail and self._trail[-1][0] == parent_of(path):
            descriptor = folder_below(self._trail[-1][1], name_of(path), path)
        else:
            with opened_folder(self._top, path) as folder:
                descriptor = os.dup(folder)
        self._trail.append((path, descriptor))
        return descriptor

    def _warn(self, path: bytes) -> None:
        self.warnings.append(f"{printable(path)} changed while it was read")


def below(folder: bytes, names: Sequence[bytes]) -> list[bytes]:
    """The paths of what stands in a folder."""
    if not names:
        return []
    start = folder.rstrip(b"/") + b"/"
    return [start + name for name in names]


def _status(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None


def _cut(lines: dict[bytes, bytes], entered: Sequence[bytes]) -> list[bytes]:
    """The lines of sorted names, cut where those of what is in the entered folders belong."""
    names, texts = list(lines), list(lines.values())
    cuts = [0, *(bisect_left(names, name + b"/") for name in entered), len(names)]
    return [b"".join(texts[start:end]) for start, end in pairwise(cuts)]
