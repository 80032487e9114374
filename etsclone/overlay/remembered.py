"""What is remembered of the last listing of a tree, so that the next one need not read what has not changed.

The unit is a *folder record*: the names that a folder holds, a mark for each by which a change is noticed, and the
lines that an inventory has for them. It is both how a listing is made, folder by folder, and what is kept of it.

File: a first line, a digest of what the lines depend on (16 bytes), the records in the order of the inventory, an index
(paths, each ended by NUL, then their offsets as eight bytes each), the lengths of its two halves (eight bytes each),
and last the XXH3-128 digest of all before. A file whose digest is wrong is none: it is a cache, written without waiting
for the disk. That guards against damage, not against root, who alone can write it. Numbers are little-endian.
"""

import logging
import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Self

import xxhash

from etsclone.units import KIB, MIB

logger = logging.getLogger(__name__)

_FIRST_LINE = b"etsclone listing 1\n"
_DIGEST = 16
_TAIL = struct.Struct("<QQ")
_HEAD = struct.Struct("<QIIIII")
_MARK = struct.Struct("<QQIqqq")

_LEAST = len(_FIRST_LINE) + _DIGEST + _TAIL.size
_READ = 64 * KIB

NEVER = bytes(_MARK.size)
"""The mark of what must be read again the next time: nothing has the inode number 0."""


def marks_of(statuses: Sequence[os.stat_result], volume: int) -> list[bytes]:
    """By what paths are known again: device, inode, mode, size, and when content and inode last changed.

    `volume` is the id of the filesystem (statvfs(3), f_fsid): another disk may get the same device number tomorrow.
    """
    pack = _MARK.pack
    return [
        pack(
            each.st_dev ^ volume,
            each.st_ino,
            each.st_mode,
            each.st_size,
            each.st_mtime_ns,
            each.st_ctime_ns,
        )
        for each in statuses
    ]


@dataclass(frozen=True, slots=True)
class Record:
    """What stands in a folder, as `Remembered` keeps it.

    `names` are sorted, `marks` are theirs, one after another. `folders` are those of the names that were entered,
    sorted as their paths with a slash behind are: so the records of what is in them follow. `texts` are the lines, cut
    where the lines of these folders belong: one more than there are folders.
    """

    path: bytes
    names: Sequence[bytes]
    marks: bytes
    folders: Sequence[bytes]
    texts: Sequence[bytes]

    def packed(self) -> bytes:
        """As bytes."""
        names, folders, text = b"/".join(self.names), b"/".join(self.folders), b"".join(self.texts)
        cuts = array("I", map(len, self.texts)).tobytes()
        parts = (self.path, names, self.marks, folders, cuts)
        lengths = [len(part) for part in parts]
        head = _HEAD.pack(_HEAD.size + sum(lengths) + len(text), *lengths)
        return b"".join((head, *parts, text))

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """The record that `packed` made bytes of."""
        position, parts = _HEAD.size, []
        for length in _HEAD.unpack_from(data)[1:]:
            parts.append(data[position : position + length])
            position += length
        path, names, marks, folders, cuts = parts
        texts = []
        for length in array("I", cuts):
            texts.append(data[position : position + length])
            position += length
        return cls(path, _split(names), marks, _split(folders), texts)

    @staticmethod
    def is_of(packed: bytes, path: bytes, names: Sequence[bytes], marks: Sequence[bytes]) -> bool:
        """Whether a packed record is that of a folder with exactly these names and marks."""
        joined = b"/".join(names)
        lengths = (len(path), len(joined), _MARK.size * len(marks))
        same_lengths = _HEAD.unpack_from(packed)[1:4] == lengths
        return same_lengths and packed.startswith(b"".join((path, joined, *marks)), _HEAD.size)

    @staticmethod
    def folders_of(packed: bytes) -> Sequence[bytes]:
        """`folders` of a packed record."""
        _, *before, length, _ = _HEAD.unpack_from(packed)
        start = _HEAD.size + sum(before)
        return _split(packed[start : start + length])

    @staticmethod
    def outline(packed: bytes) -> tuple[bytes, int, Sequence[bytes], Sequence[bytes]]:
        """The path, how many names, the folders and the texts of a packed record; quicker than all of it."""
        _, path, names, marks, folders, cuts = _HEAD.unpack_from(packed)
        count, start = marks // _MARK.size, _HEAD.size + path
        name = packed[_HEAD.size : start]
        start += names + marks
        if not folders:
            return name, count, (), (packed[start + cuts :],)
        record = Record.unpacked(packed)
        return name, count, record.folders, record.texts

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
        self._file = file
        self._places: dict[bytes, int] = {}
        self._offsets: Sequence[int] = ()
        if file and _is_sound(file):
            self._load(file, context)

    def record(self, folder: bytes) -> bytes | None:
        """The record of a folder, packed, if there is one."""
        place = self._places.get(folder)
        if place is None or self._file is None:
            return None
        start, end = self._offsets[place : place + 2]
        return os.pread(self._file.fileno(), end - start, start)

    def _load(self, file: BinaryIO, context: bytes) -> None:
        descriptor, end = file.fileno(), os.fstat(file.fileno()).st_size - _DIGEST - _TAIL.size
        names, offsets = _TAIL.unpack(os.pread(descriptor, _TAIL.size, end))
        middle = end - offsets
        paths = os.pread(descriptor, names, middle - names).split(b"\0")[:-1]
        self._places = dict(zip(paths, range(len(paths)), strict=True))
        self._offsets = array("Q", os.pread(descriptor, offsets, middle))
        self._offsets.append(middle - names)
        self.same_context = os.pread(descriptor, _DIGEST, len(_FIRST_LINE)) == context


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
        self._write(self._digest.digest())
        if self._out:
            with self._forgiven():
                self._out.flush()  # the process may end without it: it is a child, with a copy of the file's buffer

    def _write(self, data: bytes) -> None:
        if self._out:
            self._digest.update(data)
            self._position += len(data)
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
    """The packed records that a file holds between two offsets."""
    buffer, position = b"", start
    while position < end or buffer:
        size = _HEAD.unpack_from(buffer)[0] if len(buffer) >= _HEAD.size else _HEAD.size
        if len(buffer) >= size > _HEAD.size:
            yield buffer[:size]
            buffer = buffer[size:]
            continue
        piece = os.pread(descriptor, min(max(size - len(buffer), _READ), end - position), position)
        position += len(piece)
        buffer += piece
