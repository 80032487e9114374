"""Read the pax archives that `etsclone.overlay.pax` writes, and nothing else.

A general reader of tar files has to guess and to forgive. This one refuses whatever no capture writes, so that what it
accepts means the same to every other program.
"""

import os
import re
from dataclasses import dataclass

from etsclone.errors import HostilePayload
from etsclone.model.extents import Extent, Extents
from etsclone.model.tree import Entry, Kind
from etsclone.overlay.compression import Source
from etsclone.overlay.pax import BLOCK, EXTENDED, FLAGS, HARD_LINK, MAGIC, NANO, TYPES, XATTR
from etsclone.units import MIB, align_up

MAX_RECORDS = 16 * MIB
"""The most that the extended records of one member, or the map of a sparse file, may take."""

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
_TIME = re.compile(rb"(-?)([0-9]{1,12})\.([0-9]{9})")

Records = dict[bytes, bytes]


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
    block = source.exactly(BLOCK)
    try:
        if block == bytes(BLOCK):
            _check_end(source)
            return None
        records: Records = {}
        if _letter(block) == EXTENDED:
            records = _read_records(source, block)
            block = source.exactly(BLOCK)
        return _member(source, block, records)
    except ValueError as error:
        raise HostilePayload(f"archive member is not as captures write it: {error}") from error


def end_member(source: Source, stored: int) -> None:
    """Pass the filling behind `stored` bytes of content.

    Raises:
        HostilePayload: when it is cut off, or is not of zeros.
    """
    if any(source.exactly(align_up(stored, BLOCK) - stored)):
        raise HostilePayload("archive hides bytes behind a member")


def _check_end(source: Source) -> None:
    if any(source.exactly(BLOCK)):
        raise ValueError("one block of zeros, not two")
    source.end()


def _letter(block: bytes) -> bytes:
    if block[257:265] != MAGIC or any(block[345:]):
        raise ValueError("not a pax header")
    if _octal(block[148:155]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise ValueError("wrong header checksum")
    return block[156:157]


def _member(source: Source, block: bytes, records: Records) -> PaxMember:
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
        device=(_octal(block[329:337]), _octal(block[337:345])) if kind in _DEVICES else None,
        xattrs=_attributes(records),
        flags=tuple(records[FLAGS].decode().split(",")) if FLAGS in records else (),
        link_to=_path(link) if letter == HARD_LINK else None,
    )
    return PaxMember(entry, data)


# --- records -------------------------------------------------------------------------------------------------------


def _read_records(source: Source, block: bytes) -> Records:
    size = _octal(block[124:136])
    if size > MAX_RECORDS:
        raise ValueError("extended records are too large")
    body = source.exactly(size)
    end_member(source, size)
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
    return -nanoseconds if match[1] else nanoseconds


def _attributes(records: Records) -> tuple[tuple[str, bytes], ...]:
    found = {
        os.fsdecode(key.removeprefix(XATTR).replace(b"%3D", b"=").replace(b"%25", b"%")): value
        for key, value in records.items()
        if key.startswith(XATTR)
    }
    return tuple(sorted(found.items()))


# --- sparse files --------------------------------------------------------------------------------------------------


def _sparse(source: Source, records: Records, stored: int) -> tuple[int, Extents]:
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


def _sparse_text(source: Source) -> bytes:
    """The lines of the map, from whole blocks that zeros fill up."""
    text = bytearray(source.exactly(BLOCK))
    needed = 1 + 2 * _number(bytes(text.partition(b"\n")[0]))
    seen = text.count(b"\n")
    while seen < needed:
        if len(text) > MAX_RECORDS:
            raise ValueError("map of a sparse file is too large")
        block = source.exactly(BLOCK)
        seen += block.count(b"\n")
        text += block
    end = text.rindex(b"\n") + 1
    if any(text[end:]):
        raise ValueError("map of a sparse file is damaged")
    return bytes(text[:end])
