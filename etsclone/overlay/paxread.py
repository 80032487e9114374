"""Read the pax archives that `etsclone.overlay.pax` writes, and nothing else.

A general reader of tar files has to guess and to forgive. Here each member has one form: what was read must be, byte
for byte, what `pax.header` writes of what it was taken to mean. So it means the same to every other program.
"""

import os
import re
from dataclasses import dataclass, replace

from etsclone.errors import HostilePayload
from etsclone.model.extents import Extent, Extents
from etsclone.model.tree import Entry, Kind, printable
from etsclone.overlay.amounts import MOST_PIECES
from etsclone.overlay.compression import Source
from etsclone.overlay.files import is_kept_attribute
from etsclone.overlay.pax import (
    BLOCK,
    EXTENDED,
    FLAGS,
    HARD_LINK,
    MAGIC,
    NANO,
    TYPES,
    XATTR,
    header,
)
from etsclone.units import MIB, align_up

MAX_RECORDS = 16 * MIB
"""The most that the extended records of one member may take: more than `amounts` allows them to hold."""

_LONGEST_NUMBER = 20
"""A line of the map of a sparse file, with its end."""

_KINDS = {letter: kind for kind, letter in TYPES.items()}
_DEVICES = (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)
_SPARSE = {b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name", b"GNU.sparse.realsize"}
_KEYS = {
    b"mtime",
    b"path",
    b"linkpath",
    b"uid",
    b"gid",
    b"uname",
    b"gname",
    b"size",
    FLAGS,
    *_SPARSE,
}
_MAX_ID = 2**32 - 2
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1
"""The kernel's MINORBITS: of larger numbers, mknod(2) would take only these bits, and make another device."""

_MOST_SECONDS = 2**63
_TIME = re.compile(rb"(-?)([0-9]{1,19})\.([0-9]{9})")

Records = dict[bytes, bytes]


_ATTRIBUTE = re.compile(r"[^.\0]+\.[^\0]+")
"""A namespace, and more. Those that are not kept are passed over: captures left them in once."""


@dataclass(frozen=True, slots=True)
class PaxMember:
    """A member as the archive states it: `data` tells which bytes of a file are stored; the rest are holes.

    The entry of a file has no digest yet; `link_to` of a hard link is only a claim.
    """

    entry: Entry
    data: Extents


def next_member(source: Source) -> PaxMember | None:
    """Read up to the stored bytes of the next member; None at the end of the archive, which must be the end of all.

    Raises:
        HostilePayload: for anything that `pax.header` does not write, and for names that are not plain: absolute,
            or with components that are empty, `.` or `..`.
    """
    head = _Head(source)
    block = head.exactly(BLOCK)
    try:
        if block == bytes(BLOCK):
            _check_end(source)
            return None
        records: Records = {}
        if _letter(block) == EXTENDED:
            records = _read_records(head, block)
            block = head.exactly(BLOCK)
        member = _member(head, block, records)
    except ValueError as error:
        raise HostilePayload(f"archive member is not as captures write it: {error}") from error
    if header(member.entry, member.data) != head.read():
        raise HostilePayload(
            f"archive member has another form than captures write: {printable(member.entry.path)}"
        )
    kept = tuple(each for each in member.entry.xattrs if is_kept_attribute(each[0]))
    return replace(member, entry=replace(member.entry, xattrs=kept))


class _Head:
    """A source that remembers what was read from it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pieces: list[bytes] = []

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._pieces.append(self._source.exactly(count))
        return self._pieces[-1]

    def read(self) -> bytes:
        """All that was read."""
        return b"".join(self._pieces)


def end_member(source: Source, stored: int) -> None:
    """Pass the filling behind `stored` bytes of content.

    Raises:
        HostilePayload: when it is cut off, or is not of zeros.
    """
    if source.exactly(align_up(stored, BLOCK) - stored).strip(b"\0"):
        raise HostilePayload("archive hides bytes behind a member")


def _check_end(source: Source) -> None:
    if any(source.exactly(BLOCK)):
        raise ValueError("one block of zeros, not two")
    source.end()


def _letter(block: bytes) -> bytes:
    if block[257:265] != MAGIC:
        raise ValueError("not a pax header")
    return block[156:157]


def _member(source: _Head, block: bytes, records: Records) -> PaxMember:
    letter = _letter(block)
    if letter != HARD_LINK and letter not in _KINDS:
        raise ValueError(f"unknown type {letter!r}")
    kind = _KINDS.get(letter, Kind.FILE)
    stored = _amount(records, b"size", block[124:136])
    if stored and letter != TYPES[Kind.FILE]:
        raise ValueError("content where none can be")
    size, data = stored, Extents.between(0, stored)
    if records.keys() & _SPARSE:
        size, data = _sparse(source, records, stored)
    if letter == HARD_LINK and any(key == FLAGS or key.startswith(XATTR) for key in records):
        raise ValueError("attributes of a hard link")
    link = _text(records, b"linkpath", block[157:257])
    entry = Entry(
        path=_path(_text(records, b"path", block[:100], records.get(b"GNU.sparse.name"))),
        kind=kind,
        mode=_octal(block[100:108]),
        uid=_id(records, b"uid", block[108:116]),
        gid=_id(records, b"gid", block[116:124]),
        mtime_ns=_time(records),
        uname=os.fsdecode(_text(records, b"uname", block[265:297])),
        gname=os.fsdecode(_text(records, b"gname", block[297:329])),
        size=size,
        target=_target(link) if kind is Kind.SYMLINK else None,
        device=_device(block) if kind in _DEVICES else None,
        xattrs=_attributes(records),
        flags=tuple(records[FLAGS].decode().split(",")) if FLAGS in records else (),
        link_to=_path(link) if letter == HARD_LINK else None,
    )
    return PaxMember(entry, data)


# --- records -------------------------------------------------------------------------------------------------------


def _read_records(source: _Head, block: bytes) -> Records:
    size = _octal(block[124:136])
    if size > MAX_RECORDS:
        raise ValueError("extended records are too large")
    body = source.exactly(align_up(size, BLOCK))[:size]
    records: Records = {}
    position = 0
    while position < size:
        digits = body[position : position + 10].partition(b" ")[0]
        end = position + _number(digits)
        key, equals, value = body[position + len(digits) + 1 : end - 1].partition(b"=")
        if end > size or body[end - 1 : end] != b"\n" or not equals or key in records:
            raise ValueError("extended records are damaged")
        if key not in _KEYS and not key.startswith(XATTR):
            raise ValueError(f"unknown extended record {key!r}")
        records[key] = value
        position = end
    return records


def _text(records: Records, key: bytes, field: bytes, instead: bytes | None = None) -> bytes:
    """A name from its record, or else from the header's field, where a NUL ends it."""
    text = records.get(key, instead)
    text = field.partition(b"\0")[0] if text is None else text
    if b"\0" in text:
        raise ValueError(f"NUL in {key.decode()}")
    return text


def _path(name: bytes) -> bytes:
    if any(component in {b"", b".", b".."} for component in name.split(b"/")):
        raise ValueError(f"path {name!r} is not plain")
    return b"/" + name


def _target(link: bytes) -> bytes:
    if not link:
        raise ValueError("symbolic link to nothing")
    return link


def _device(block: bytes) -> tuple[int, int]:
    major, minor = _octal(block[329:337]), _octal(block[337:345])
    if major > _MAX_MAJOR or minor > _MAX_MINOR:
        raise ValueError(f"no device: {major}, {minor}")
    return major, minor


def _octal(field: bytes) -> int:
    if not re.fullmatch(rb"[0-7]+\0", field):
        raise ValueError(f"not an octal number: {field!r}")
    return int(field[:-1], 8)


def _number(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", digits):
        raise ValueError(f"not a number: {digits!r}")
    return int(digits)


def _amount(records: Records, key: bytes, field: bytes) -> int:
    return _number(records[key]) if key in records else _octal(field)


def _id(records: Records, key: bytes, field: bytes) -> int:
    number = _amount(records, key, field)
    if number > _MAX_ID:
        raise ValueError(f"no {key.decode()}: {number}")
    return number


def _time(records: Records) -> int:
    match = _TIME.fullmatch(records.get(b"mtime", b""))
    if not match:
        raise ValueError("no exact time")
    nanoseconds = int(match[2]) * NANO + int(match[3])
    nanoseconds = -nanoseconds if match[1] else nanoseconds
    if not -_MOST_SECONDS <= nanoseconds // NANO < _MOST_SECONDS:
        raise ValueError("a time that no kernel takes")
    return nanoseconds


def _attributes(records: Records) -> tuple[tuple[str, bytes], ...]:
    found = {
        os.fsdecode(key.removeprefix(XATTR).replace(b"%3D", b"=").replace(b"%25", b"%")): value
        for key, value in records.items()
        if key.startswith(XATTR)
    }
    for name in found:
        if not _ATTRIBUTE.fullmatch(name):
            raise ValueError(f"no name of an attribute: {name!r}")
    return tuple(sorted(found.items()))


# --- sparse files --------------------------------------------------------------------------------------------------


def _sparse(source: _Head, records: Records, stored: int) -> tuple[int, Extents]:
    """The size of a sparse file, and which of its bytes are stored behind the map that is read here."""
    if not records.keys() >= _SPARSE or b"path" in records:
        raise ValueError("sparse file without its records")
    if (records[b"GNU.sparse.major"], records[b"GNU.sparse.minor"]) != (b"1", b"0"):
        raise ValueError("sparse file of another format")
    size = _number(records[b"GNU.sparse.realsize"])
    text = _sparse_text(source)
    count, *numbers = [_number(line) for line in text.split(b"\n")[:-1]]
    pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
    if len(pieces) != count or any(length == 0 for _, length in pieces[:-1]):
        raise ValueError("map of a sparse file is damaged")
    data = Extents(tuple(Extent(start, start + length) for start, length in pieces if length))
    if (data and data.ranges[-1].end > size) or align_up(len(text), BLOCK) + data.size != stored:
        raise ValueError("map of a sparse file does not fit its size")
    return size, data


def _sparse_text(source: _Head) -> bytes:
    """The lines of the map, from whole blocks that zeros fill up."""
    blocks = [source.exactly(BLOCK)]
    pieces = _number(blocks[0].partition(b"\n")[0])
    if pieces > MOST_PIECES + 1:  # the last one may be of no bytes
        raise ValueError("map of a sparse file is too large")
    needed = 1 + 2 * pieces
    seen = blocks[0].count(b"\n")
    while seen < needed:
        if len(blocks) * BLOCK > needed * _LONGEST_NUMBER:
            raise ValueError("map of a sparse file is damaged")
        blocks.append(source.exactly(BLOCK))
        seen += blocks[-1].count(b"\n")
    text = b"".join(blocks)
    return text[: text.rindex(b"\n") + 1]
