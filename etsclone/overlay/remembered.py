"""What is remembered of the last listing of a tree, so that the next one need not read what has not changed.

The unit is a *folder record*: the names that a folder holds, a mark for each and for the folder by which a change is
noticed, and the lines that an inventory has for them, with a digest of what they say but for times. It is both how a
listing is made, folder by folder, and what is kept of it; one that is as it was is told by its place in what is
remembered. A folder of very many names (`etsclone.overlay.names`) has several records, its parts, in the order of the
names: none of them is large.

File: a first line, a digest of what the lines depend on (16 bytes), the records in the order of the inventory, an index
(paths, each ended by NUL, then their offsets as eight bytes each), the lengths of its two halves (eight bytes each),
and last the XXH3-128 digest of all before. A file whose digest is wrong is none: it is a cache, written without waiting
for the disk. That guards against damage, not against root, who alone can write it. Numbers are little-endian.
"""

import logging
import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, Self

import xxhash

from etsclone.overlay.content import lines_digest
from etsclone.overlay.names import Part
from etsclone.units import KIB, MIB

logger = logging.getLogger(__name__)

_FIRST_LINE = b"etsclone listing 5\n"
_DIGEST = 16
_TAIL = struct.Struct("<QQ")
_SIZE = struct.Struct("<Q")
_SAME = struct.Struct("<QQ")
"""What stands for the record at a place: its size, which no record has, and the place."""

_MARK = struct.Struct("<QQIqQQ")
_HEAD = struct.Struct(f"<QIIIIII32s{_MARK.size}s")
_TIMES = 2**64
"""Nanoseconds in 64 bits, signed, would end in 2262; filesystems hold later times: these are kept modulo this."""

_LEAST = len(_FIRST_LINE) + _DIGEST + _TAIL.size
_READ = 64 * KIB
_WINDOW = 128 * KIB

GRANULARITY = 2 * 10**9
"""Nanoseconds that a filesystem's clock may stand still: two seconds on vfat, one on ext3, some milliseconds on others.

What changed that close to the beginning of a capture, or after it, could change again and leave no trace.
"""

NEVER = bytes(_MARK.size)
"""The mark of what must be read again the next time: nothing has the inode number 0."""


def marks_of(statuses: Iterable[os.stat_result], volume: int) -> list[bytes]:
    """The marks of several paths; see `mark_of`."""
    return [mark_of(each, volume) for each in statuses]


def mark_of(status: os.stat_result, volume: int) -> bytes:
    """By what a path is known again: device, inode, mode, size, and when content and inode last changed.

    `volume` is the id of the filesystem (statvfs(3), f_fsid): another disk may get the same device number tomorrow.
    """
    return _MARK.pack(
        status.st_dev ^ volume,
        status.st_ino,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns % _TIMES,
        status.st_ctime_ns % _TIMES,
    )


@dataclass(frozen=True, slots=True)
class Record:
    """What stands in a folder, or a part of that, as `Remembered` keeps it.

    `names` are sorted, `marks` are theirs, one after another. `own` is the folder's own mark: while it is the same, so
    are the names; `NEVER` where that is not certain, and in all parts but the last. `until` is the first name of the
    next part, empty in the last one: what sorts before it, and was in no part before, belongs here. `folders` are the
    folders that were entered, sorted as their paths with a slash behind are, which are before `until` too: so the
    records of what is in them follow. `texts` are the lines, cut where the lines of these folders belong, and those of
    the next part: one more than there are folders, and one more, which is empty, where a part follows.
    """

    path: bytes
    names: Sequence[bytes]
    marks: bytes
    folders: Sequence[bytes]
    texts: Sequence[bytes]
    own: bytes = NEVER
    until: bytes = b""

    @classmethod
    def of(
        cls,
        path: bytes,
        lines: Mapping[bytes, bytes],
        marks: Iterable[bytes],
        folders: Sequence[bytes],
        own: bytes = NEVER,
        until: bytes = b"",
    ) -> Self:
        """The record of sorted names with their lines and marks; `folders` are those that were entered."""
        names, texts = list(lines), list(lines.values())
        cuts = [0, *(bisect_left(names, name + b"/") for name in folders), len(names)]
        if until:
            cuts.append(len(names))
        cut = [b"".join(texts[start:end]) for start, end in pairwise(cuts)]
        return cls(path, names, b"".join(marks), folders, cut, own, until)

    def packed(self) -> bytes:
        """As bytes."""
        names, folders, text = b"/".join(self.names), b"/".join(self.folders), b"".join(self.texts)
        cuts = array("I", map(len, self.texts)).tobytes()
        parts = (self.path, self.until, names, self.marks, folders, cuts)
        lengths = [len(part) for part in parts]
        size = _HEAD.size + sum(lengths) + len(text)
        head = _HEAD.pack(size, *lengths, lines_digest(text), self.own)
        return b"".join((head, *parts, text))

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """The record that `packed` made bytes of."""
        position, parts = _HEAD.size, []
        *lengths, _, own = _HEAD.unpack_from(data)
        for length in lengths[1:]:
            parts.append(data[position : position + length])
            position += length
        path, until, names, marks, folders, cuts = parts
        texts = []
        for length in array("I", cuts):
            texts.append(data[position : position + length])
            position += length
        return cls(path, _split(names), marks, _split(folders), texts, own, until)

    @staticmethod
    def is_of(
        packed: bytes,
        path: bytes,
        until: bytes,
        names: Collection[bytes],
        marks: Sequence[bytes],
    ) -> bool:
        """Whether a packed record is that of a folder, or part, with exactly these names and marks."""
        joined = b"/".join(names)
        lengths = (len(path), len(until), len(joined), _MARK.size * len(marks))
        same_lengths = _HEAD.unpack_from(packed)[1:5] == lengths
        return same_lengths and packed.startswith(
            b"".join((path, until, joined, *marks)), _HEAD.size
        )

    @staticmethod
    def path_of(packed: bytes) -> bytes:
        """`path` of a packed record."""
        return packed[_HEAD.size : _HEAD.size + _HEAD.unpack_from(packed)[1]]

    @staticmethod
    def own_of(packed: bytes) -> bytes:
        """`own` of a packed record."""
        return packed[_HEAD.size - _MARK.size : _HEAD.size]

    @staticmethod
    def names_of(packed: bytes) -> Part:
        """`names` and `until` of a packed record."""
        _, path, until, length, *_ = _HEAD.unpack_from(packed)
        middle = _HEAD.size + path
        start = middle + until
        return _split(packed[start : start + length]), packed[middle:start]

    @staticmethod
    def folders_of(packed: bytes) -> Sequence[bytes]:
        """`folders` of a packed record."""
        _, *before, length, _, _, _ = _HEAD.unpack_from(packed)
        start = _HEAD.size + sum(before)
        return _split(packed[start : start + length])

    @staticmethod
    def outline(packed: bytes) -> tuple[bytes, int, Sequence[bytes], Sequence[bytes], bytes]:
        """Path, how many names, folders, texts and digest of a packed record; quicker than all of it."""
        _, path, until, names, marks, folders, cuts, digest, _ = _HEAD.unpack_from(packed)
        count, start = marks // _MARK.size, _HEAD.size + path
        name = packed[_HEAD.size : start]
        start += names + marks
        if not (folders or until):
            return name, count, (), (packed[start + cuts :],), digest
        record = Record.unpacked(packed)
        return name, count, record.folders, record.texts, digest

    def lines(self) -> dict[bytes, tuple[bytes, bytes]]:
        """The mark and the line of each name."""
        lines = b"".join(self.texts).splitlines(keepends=True)
        marks = [self.marks[at : at + _MARK.size] for at in range(0, len(self.marks), _MARK.size)]
        return dict(zip(self.names, zip(marks, lines, strict=True), strict=True))


def _split(joined: bytes) -> list[bytes]:
    return joined.split(b"/") if joined else []


class Remembered:
    """The records of the last listing, by path; empty when there is none that is sound."""

    def __init__(self, file: BinaryIO | None, context: bytes) -> None:
        self.same_context = False
        """Whether the lines were made under the same circumstances, so that whole records can be taken over."""
        self._descriptor = file.fileno() if file else -1
        self._places: dict[bytes, int] = {}
        self._before: dict[bytes, list[int]] = {}
        self._offsets: Sequence[int] = ()
        self._window, self._window_at = b"", 0
        if file and _is_sound(file):
            self._load(file, context)

    def record(self, folder: bytes) -> bytes | None:
        """The packed record of a folder, if it has just one."""
        place = self._places.get(folder)
        return None if place is None or folder in self._before else self._record(place)

    def same(self, folder: bytes) -> bytes:
        """What stands for the last record of a folder, which must have one."""
        return _SAME.pack(_SAME.size, self._places[folder])

    def folder(self, path: bytes) -> "Earlier":
        """All that is remembered of a folder."""
        last = self._places.get(path)
        places = () if last is None else (*self._before.get(path, ()), last)
        return Earlier(places, self._record)

    def meant(self, told: bytes) -> bytes:
        """The packed record that `told` is, or stands for."""
        return self._record(_SAME.unpack(told)[1]) if len(told) == _SAME.size else told

    def _record(self, place: int) -> bytes:
        start, end = self._offsets[place], self._offsets[place + 1]
        at = start - self._window_at
        if at < 0 or end > self._window_at + len(self._window):
            # They are mostly asked for one after another.
            self._window = os.pread(self._descriptor, max(end - start, _WINDOW), start)
            self._window_at, at = start, 0
        return self._window[at : at + end - start]

    def _load(self, file: BinaryIO, context: bytes) -> None:
        descriptor, end = file.fileno(), os.fstat(file.fileno()).st_size - _DIGEST - _TAIL.size
        names, offsets = _TAIL.unpack(os.pread(descriptor, _TAIL.size, end))
        middle = end - offsets
        paths = os.pread(descriptor, names, middle - names).split(b"\0")[:-1]
        self._places = dict(zip(paths, range(len(paths)), strict=True))
        if len(self._places) < len(paths):  # some have parts
            for place, path in enumerate(paths):
                if place != self._places[path]:
                    self._before.setdefault(path, []).append(place)
        self._offsets = array("Q", os.pread(descriptor, offsets, middle))
        self._offsets.append(middle - names)
        self.same_context = os.pread(descriptor, _DIGEST, len(_FIRST_LINE)) == context


class Earlier:
    """The records of one folder, its parts; none when nothing is remembered of it.

    `count` is how many there are, `own` the folder's own mark.
    """

    def __init__(self, places: Sequence[int], record: Callable[[int], bytes]) -> None:
        self._places = places
        self._record = record
        self._lines_from = 0
        self.count = len(places)
        self._number = self.count - 1
        self._packed = record(places[-1]) if places else b""
        self.own = Record.own_of(self._packed) if places else NEVER

    def record(self, number: int) -> bytes:
        """The packed record of a part."""
        if number != self._number:
            self._packed, self._number = self._record(self._places[number]), number
        return self._packed

    def same(self, number: int) -> bytes:
        """What stands for the record of a part."""
        return _SAME.pack(_SAME.size, self._places[number])

    def names(self) -> Iterator[Part]:
        """All names."""
        for number in range(self.count):
            yield Record.names_of(self.record(number))

    def lines(self, names: Sequence[bytes]) -> dict[bytes, tuple[bytes, bytes]]:
        """The mark and the line of each of these sorted names that is remembered, and of others.

        When it is called again, the names must sort behind those before.
        """
        found: dict[bytes, tuple[bytes, bytes]] = {}
        for number in range(self._lines_from, self.count if names else 0):
            record = Record.unpacked(self.record(number))
            if record.until and record.until <= names[0]:
                self._lines_from = number + 1
                continue
            found |= record.lines()
            if record.until > names[-1]:
                break
        return found


def _is_sound(file: BinaryIO) -> bool:
    """Whether this is a whole file of ours."""
    descriptor, position = file.fileno(), 0
    left = os.fstat(descriptor).st_size - _DIGEST
    if left < _LEAST or os.pread(descriptor, len(_FIRST_LINE), 0) != _FIRST_LINE:
        return False
    digest = xxhash.xxh3_128()
    while left:
        data = os.pread(descriptor, min(left, MIB), position)
        if not data:
            return False
        digest.update(data)
        position += len(data)
        left -= len(data)
    return os.pread(descriptor, _DIGEST, position) == digest.digest()


class Keeper:
    """Writes what is to be remembered, record by record."""

    def __init__(self, out: BinaryIO | None, context: bytes) -> None:
        self._out = out
        self._digest = xxhash.xxh3_128()
        self._position = 0
        self._held: list[bytes] = []
        self._held_size = 0
        self._paths: list[bytes] = []
        self._offsets = array("Q")
        self._write(_FIRST_LINE + context)

    def add(self, path: bytes, packed: bytes) -> None:
        """Keep a record."""
        self._paths.append(path)
        self._offsets.append(self._position)
        self._write(packed)

    def end(self) -> None:
        """Write what makes the file whole; until then it is none."""
        names = b"".join(path + b"\0" for path in self._paths)
        offsets = self._offsets.tobytes()
        self._write(names + offsets + _TAIL.pack(len(names), len(offsets)))
        self._put()
        self._write(self._digest.digest())
        self._put()
        if self._out:
            with self._forgiven():
                self._out.flush()  # the process may end without it: it is a child, with a copy of the file's buffer

    def _write(self, data: bytes) -> None:
        self._held.append(data)
        self._position += len(data)
        self._held_size += len(data)
        if self._held_size >= _WINDOW:
            self._put()

    def _put(self) -> None:
        data = b"".join(self._held)
        self._held, self._held_size = [], 0
        if self._out:
            self._digest.update(data)
            with self._forgiven():
                self._out.write(data)

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        """No space for what is only kept to be quick is no reason to fail: without its end the file is none."""
        try:
            yield
        except OSError as error:
            logger.warning("what is listed is not remembered: %s", error.strerror)
            self._out = None


def packed_records(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """The packed records, or what stands for them, that a file holds between two offsets."""
    buffer, at, position = b"", 0, start
    while position < end or at < len(buffer):
        left = len(buffer) - at
        size = _SIZE.unpack_from(buffer, at)[0] if left >= _SIZE.size else _SIZE.size
        if left >= size > _SIZE.size:
            yield buffer[at : at + size]
            at += size
            continue
        piece = os.pread(descriptor, min(max(size - left, _READ), end - position), position)
        position += len(piece)
        buffer, at = buffer[at:] + piece, 0
