"""One look at a folder: the lines that an inventory has for what stands in it.

A large tree has a million paths, so this is written for speed: nothing is looked at twice, the words that many paths
have in common are made once, and where a folder is as it was remembered its old record is taken over unread. A million
may also stand in one folder: no more than a part of them is held at a time, but for their names.
"""

import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import xxhash

from etsclone.errors import UnsafePath
from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING, Kind, join, name_of, parent_of, printable
from etsclone.overlay.brought import Brought
from etsclone.overlay.files import folder_below, open_file, opened_folder, read_link
from etsclone.overlay.flags import read_flags
from etsclone.overlay.inventory import (
    LONGEST_LINE,
    file_words,
    owner_words,
    package_word,
    quoted,
    state_words,
    tags_of,
)
from etsclone.overlay.names import MOST, Part, in_parts
from etsclone.overlay.remembered import (
    GRANULARITY,
    NEVER,
    Earlier,
    Record,
    Remembered,
    mark_of,
    marks_of,
)
from etsclone.overlay.status import (
    ATTEMPTS,
    KINDS,
    TICK_NS,
    device_of,
    kind_of,
    owner_names,
    settled,
)
from etsclone.units import KIB

_OPEN = 100
"""How many folders on the way down are kept open, about; of more, every other one is closed."""

_LONGEST = LONGEST_LINE + len(b"\n")
_SHOWN = 200
"""How much is told of a path that is too long: the folders that somebody who wants to remove it begins with."""

_BUFFER = 256 * KIB
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNKNOWN = (NEVER, b"")
_MENDED = b"/lost+found"
"""Where programs that mend a filesystem put what they find: they do not date that."""

_NO_FILE = b"\0"
"""Stands behind the name of what is no file, and leaves its place in the order as it is: it sorts before all others."""

_ENCODING = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class _Made(dict[Any, bytes]):
    """Words that many paths have in common, made when they are first asked for."""

    def __init__(self, make: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Any) -> bytes:  # noqa: ANN401
        self[key] = words = self._make(key)
        return words


@dataclass(slots=True)
class _At:
    """A folder that is looked at, and its next part.

    `folder` is it opened, `own` its mark. `waiting` are the names of folders that are in the parts so far, but sort
    behind them with a slash behind: what is in them comes later. `is_whole` tells whether every name so far has a line.
    """

    path: bytes
    folder: int
    volume: int
    own: bytes
    until: bytes = b""
    waiting: Sequence[bytes] = ()
    is_whole: bool = True

    def parted(self, folders: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Those that wait and the part's own folders: whose content comes before the next part, and who waits on."""
        names = (*self.waiting, *folders)
        due = [name for name in names if not self.until or name + b"/" < self.until]
        return due, [name for name in names if self.until and name + b"/" >= self.until]


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
        brought: Brought,
        *,
        dated: Collection[int] = (),
        quick: bool = False,
    ) -> None:
        self.read = 0
        self.warnings: list[str] = []
        self.entered: list[bytes] = []
        self.remembered = Remembered(None, b"")
        self._top = top
        self._scope = scope
        self._skip = skip
        self._dated = dated
        self._quick = quick
        self._volumes: dict[int, int] = {}
        self._trusted_until = started_ns - GRANULARITY
        self._users = owner_names(top, b"passwd")
        self._groups = owner_names(top, b"group")
        self._owner_words = _Made(self._words_of_owner)
        self._package_words = _Made(package_word)
        self._trail: list[tuple[bytes, int]] = []
        self._buffer = memoryview(bytearray(_BUFFER))
        self._buffers = [self._buffer]
        self._packages = brought.owners
        circumstances = (self._users, self._groups, scope.volatile, sorted(skip), brought.digest)
        self.context = xxhash.xxh3_128_digest(repr(circumstances).encode())
        """A digest of all that the lines depend on, but for the tree."""

    def close(self) -> None:
        """Close the folders that are still open."""
        while self._trail:
            os.close(self._trail.pop()[1])

    def top_line(self) -> bytes:
        """The line of the tree's top itself."""
        status = os.fstat(self._top)
        flags = () if self._quick else read_flags(self._top)
        owner = self._owner_words[status.st_mode, status.st_uid, status.st_gid]
        return b"." + owner + state_words(status.st_mtime_ns, flags=flags)

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

    def folder(self, path: bytes) -> Iterable[bytes]:
        """The packed records of a folder's parts, or what stands for one that is as it was remembered.

        After each, `entered` tells what follows before the next part. The last one is empty, with a warning, when the
        folder is gone or is none any more.
        """
        try:
            folder = self._open(path)
        except (FileNotFoundError, UnsafePath):
            return (self._gone(path),)
        status = os.fstat(folder)
        volume = self._volume(folder, status.st_dev)
        own = self._own_mark(path, status, volume)
        if same := self._same(path, folder, volume, own):
            return (same,)
        at = _At(path, folder, volume, own)
        old = self.remembered.folder(path)
        if self.remembered.same_context and old.own == at.own != NEVER:
            parts = old.names()
        else:
            parts = in_parts(self._listed(at, tells_files=not (old.count or self._quick)))
        first = self._part(at, next(parts), old, 0)
        return chain((first,), self._others(at, parts, old)) if at.until else (first,)

    def _same(self, path: bytes, folder: int, volume: int, own: bytes) -> bytes | None:
        """What stands for the record of a folder in which nothing changed, as in nearly all, if it has only one."""
        old = self.remembered.record(path)
        if (
            old is None
            or not self.remembered.same_context
            or not Record.own_of(old) == own != NEVER
        ):
            return None
        names, until = Record.names_of(old)
        seen = _statuses(folder, names)
        if not Record.is_of(old, path, until, seen, marks_of(seen.values(), volume)):
            return None
        self.entered = below(path, Record.folders_of(old))
        return self.remembered.same(path)

    def _others(self, at: _At, parts: Iterator[Part], old: Earlier) -> Iterator[bytes]:
        """All but the first; what is below may be looked at in between."""
        try:
            for number, part in enumerate(parts, 1):
                at.folder = self._open(at.path)
                yield self._part(at, part, old, number)
        except (FileNotFoundError, UnsafePath):
            yield self._gone(at.path)

    def _gone(self, path: bytes) -> bytes:
        self.entered = []
        self._warn(path)
        return Record(path, (), b"", (), (b"",)).packed()

    def _part(self, at: _At, part: Part, old: Earlier, number: int) -> bytes:
        names, until = part
        at.until = until.rstrip(_NO_FILE)
        if not (old.count or self._quick):
            return self._fresh(at, _all_but_files(at.folder, names), {})
        seen = _statuses(at.folder, names)
        if number < old.count and self._is_same(at, seen, old, number):
            return old.same(number)
        return self._fresh(at, seen, old.lines(names))

    def _is_same(
        self, at: _At, seen: Mapping[bytes, os.stat_result], old: Earlier, number: int
    ) -> bool:
        """Whether the next part is as it was remembered; then that is what was looked at."""
        if not self.remembered.same_context or not (at.until or old.own == at.own):
            return False
        packed, marks = old.record(number), marks_of(seen.values(), at.volume)
        if not Record.is_of(packed, at.path, at.until, seen, marks):
            return False
        entered = below(at.path, Record.folders_of(packed))
        if old.count > 1:  # then folders of the parts before may belong here
            folders = [name for name, status in seen.items() if stat.S_ISDIR(status.st_mode)]
            due, waiting = at.parted(folders)
            if self._to_enter(at.path, due) != entered:
                return False
            at.waiting = waiting
        self.entered = entered
        return True

    def _volume(self, folder: int, device: int) -> int:
        """The id of the filesystem that a folder is on."""
        if device not in self._volumes:
            self._volumes[device] = os.fstatvfs(folder).f_fsid
        return self._volumes[device]

    def _own_mark(self, path: bytes, status: os.stat_result, volume: int) -> bytes:
        """The mark of a folder whose names are listed next; `NEVER` if they could change and leave it as it is."""
        is_dated = status.st_dev in self._dated and not path.endswith(_MENDED)
        is_trusted = is_dated and self._is_old(status)
        return mark_of(status, volume) if is_trusted else NEVER

    def _is_old(self, status: os.stat_result) -> bool:
        """Whether what changes from now on will have other times."""
        return status.st_ctime_ns < self._trusted_until > status.st_mtime_ns

    def _listed(self, at: _At, *, tells_files: bool) -> Iterator[list[bytes]]:
        """The names that are not volatile; `tells_files` is to let `_NO_FILE` stand behind those of what is none."""
        with os.scandir(at.folder) as found:
            while True:
                some = {each.name.encode(*_ENCODING): each for each in islice(found, MOST)}
                names = self._shown(at.path, list(some))
                if tells_files:
                    names = [
                        name if some[name].is_file(follow_symlinks=False) else name + _NO_FILE
                        for name in names
                    ]
                yield names
                if len(some) < MOST:
                    return

    def _fresh(
        self,
        at: _At,
        seen: Mapping[bytes, os.stat_result | None],
        known: Mapping[bytes, tuple[bytes, bytes]],
    ) -> bytes:
        """A new record of what was seen, with the old marks and lines that are `known` where they still hold."""
        path, volume = at.path, at.volume
        start = path.rstrip(b"/") + b"/"
        prefix = quoted(b"." + start)
        lines: dict[bytes, bytes] = {}
        marks: list[bytes] = []
        folders: list[bytes] = []
        for name, status in seen.items():
            was, line = known.get(name, _UNKNOWN)
            if status and was == mark_of(status, volume):
                state, taken, is_sure = line[line.index(b" time=") :], status, True
            else:
                found = self._state(at.folder, name, path, status)
                if found is None:
                    continue
                state, taken, is_sure = found
                self.read += stat.S_ISREG(taken.st_mode) and not self._quick
            if line and self.remembered.same_context:
                package = tags_of(line)
            else:
                package = self._package_words[self._packages.get(start + name, "")]
            owner = self._owner_words[taken.st_mode, taken.st_uid, taken.st_gid]
            line = prefix + quoted(name) + owner + package + state
            if len(line) > _LONGEST:
                self._warn_of_length(start + name)
                continue
            lines[name] = line
            marks.append(mark_of(taken, volume) if is_sure and self._is_old(taken) else NEVER)
            if stat.S_ISDIR(taken.st_mode):
                folders.append(name)
        due, at.waiting = at.parted(folders)
        self.entered = self._to_enter(path, due)
        at.is_whole &= len(lines) == len(seen)  # what was left out must be met again
        own = at.own if at.is_whole and not at.until else NEVER
        entered = [name_of(each) for each in self.entered]
        return Record.of(path, lines, marks, entered, own, at.until).packed()

    def _state(
        self, folder: int, name: bytes, path: bytes, status: os.stat_result | None
    ) -> tuple[bytes, os.stat_result, bool] | None:
        """The words of a path's state, the status that they belong to, and whether both are of one moment.

        None when the path is gone. `status` is what was seen of it; of a file it need not have been.
        """
        last = None
        for _ in range(ATTEMPTS):
            began_ns = time.time_ns()
            try:
                if status is None or (stat.S_ISREG(status.st_mode) and not self._quick):
                    words, before, after = self._words_of_file(folder, name)
                else:
                    before = status
                    words, after = self._words(folder, name, status)
                if settled(before, after, began_ns):
                    return words, before, True
                last = words, after if kind_of(after) is kind_of(before) else before, False
            except (FileNotFoundError, UnsafePath):
                pass  # gone, or something else now: the next look tells
            time.sleep(TICK_NS / 10**9)
            status = _status(folder, name)
            if status is None:
                return None
        self._warn(join(path, name))
        return last

    def _words(
        self, folder: int, name: bytes, status: os.stat_result
    ) -> tuple[bytes, os.stat_result]:
        kind = kind_of(status)
        if self._quick and kind in (Kind.FILE, Kind.FOLDER):
            size = status.st_size if kind is Kind.FILE else None
            return state_words(status.st_mtime_ns, size=size), status
        if kind is Kind.FOLDER:
            descriptor = folder_below(folder, name, name)
            try:
                flags, after = read_flags(descriptor), os.fstat(descriptor)
            finally:
                os.close(descriptor)
            return state_words(after.st_mtime_ns, flags=flags), after
        target = read_link(name, folder) if kind is Kind.SYMLINK else None
        words = state_words(status.st_mtime_ns, target=target, device=device_of(status))
        return words, os.lstat(name, dir_fd=folder)

    def _words_of_file(
        self, folder: int, name: bytes
    ) -> tuple[bytes, os.stat_result, os.stat_result]:
        """Also what the system told of it before it was read, and after."""
        descriptor, before = open_file(folder, name)
        try:
            flags = read_flags(descriptor)
            size, digest, after = self._content(descriptor)
        finally:
            os.close(descriptor)
        return file_words(after.st_mtime_ns, size, digest, flags), before, after

    def _content(self, descriptor: int) -> tuple[int, str, os.stat_result]:
        """How many bytes a file holds, their digest, and what the system told of it when they had been read."""
        size = count = os.readv(descriptor, self._buffers)
        digest = hashlib.sha256(self._buffer[:count])
        while True:
            if count < _BUFFER:
                after = os.fstat(descriptor)
                # The end; a read that is short before it met a bad sector, which the next one tells.
                if not count or size >= after.st_size:
                    return size, digest.hexdigest(), after
            count = os.readv(descriptor, self._buffers)
            digest.update(self._buffer[:count])
            size += count

    def _words_of_owner(self, key: tuple[int, int, int]) -> bytes:
        mode, uid, gid = key
        user, group = self._users.get(uid, ""), self._groups.get(gid, "")
        return owner_words(KINDS[stat.S_IFMT(mode)], stat.S_IMODE(mode), uid, gid, user, group)

    def _shown(self, path: bytes, names: list[bytes]) -> list[bytes]:
        shown = self._scope.hidden_in(path).leave(names)
        return [name for name in shown if name != STAGING] if STAGING in shown else shown

    def _to_enter(self, path: bytes, folders: Sequence[bytes]) -> list[bytes]:
        """The paths of those folders that are no other filesystem's, in the order of what is in them."""
        paths = below(path, sorted(folders, key=lambda name: name + b"/"))
        return [each for each in paths if each not in self._skip] if self._skip else paths

    def _open(self, path: bytes) -> int:
        """A folder as a descriptor that stays open for what is below it."""
        inside = path.rstrip(b"/") + b"/"
        while self._trail and not inside.startswith(self._trail[-1][0].rstrip(b"/") + b"/"):
            os.close(self._trail.pop()[1])
        if self._trail and self._trail[-1][0] == path:
            return self._trail[-1][1]
        if len(self._trail) > _OPEN:
            self._thin()
        above, nearest = self._trail[-1] if self._trail else (b"/", self._top)
        if self._trail and above == parent_of(path):
            descriptor = folder_below(nearest, name_of(path), path)
        else:
            with opened_folder(nearest, path.removeprefix(above)) as folder:
                descriptor = os.dup(folder)
        self._trail.append((path, descriptor))
        return descriptor

    def _thin(self) -> None:
        """Close every other folder of the trail, but not the last: whatever comes next is not far below one of them."""
        for _, descriptor in self._trail[:-1:2]:
            os.close(descriptor)
        self._trail[:-1] = self._trail[1:-1:2]

    def _warn_of_length(self, path: bytes) -> None:
        self.warnings.append(
            f"{printable(path[:_SHOWN])}... is too long a path to be listed, as is all that is beneath"
        )

    def _warn(self, path: bytes) -> None:
        self.warnings.append(f"{printable(path)} changed while it was read")


def below(folder: bytes, names: Sequence[bytes]) -> list[bytes]:
    """The paths of what stands in a folder."""
    if not names:
        return []
    start = folder.rstrip(b"/") + b"/"
    return [start + name for name in names]


def _statuses(folder: int, names: Sequence[bytes]) -> dict[bytes, os.stat_result]:
    """What the system tells of names of a folder; those that are gone are left out."""
    try:
        return {name: os.lstat(name, dir_fd=folder) for name in names}
    except FileNotFoundError:
        return {name: status for name in names if (status := _status(folder, name))}


def _all_but_files(folder: int, names: Sequence[bytes]) -> dict[bytes, os.stat_result | None]:
    """The same, with None for files: the system tells of them in less time when they are open."""
    seen: dict[bytes, os.stat_result | None] = {}
    for name in names:
        if not name.endswith(_NO_FILE):
            seen[name] = None
        elif status := _status(folder, name[:-1]):
            seen[name[:-1]] = status
    return seen


def _status(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None
