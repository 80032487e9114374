"""The pax interchange format (POSIX.1-2017, pax(1)), as far as a payload needs it.

Times, long and odd names, large ids and attributes stand in extended records, byte for byte. Attributes are
`SCHILY.xattr.NAME` records as star, GNU tar and libarchive write them, flags `SCHILY.fflags` as libarchive does; sparse
files are in GNU tar's format 1.0 ("PAX Format, Version 1.0" in its manual). So `tar --xattrs --xattrs-include='*' -xpf`
restores all of it but the flags, and `bsdtar -xpf` these too.
"""

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain

from etsclone.model.extents import Extents
from etsclone.model.tree import Entry, Kind
from etsclone.units import align_up

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two blocks of zeros end an archive."""

MAGIC = b"ustar\x00" + b"00"
NANO = 10**9
_NAME, _OWNER = 100, 31
_SMALL_ID, _SMALL_SIZE = 8**7, 8**11
TYPES = {
    Kind.FILE: b"0",
    Kind.SYMLINK: b"2",
    Kind.CHAR_DEVICE: b"3",
    Kind.BLOCK_DEVICE: b"4",
    Kind.FOLDER: b"5",
    Kind.FIFO: b"6",
}
HARD_LINK, EXTENDED = b"1", b"x"
XATTR = b"SCHILY.xattr."
FLAGS = b"SCHILY.fflags"


def header(entry: Entry, data: Extents) -> bytes:
    """All that stands before the stored bytes of a member, its sparse map included.

    `data` is what of the file's `entry.size` bytes will follow (`padding(data.size)` after it); for everything that
    is no file, and for a hard link, it is empty.
    """
    name, link = entry.path[1:], (entry.link_to or b"/")[1:] or entry.target or b""
    sparse_map = b"" if _is_plain(entry, data) else _sparse_map(entry, data)
    stored = len(sparse_map) + data.size
    records = _sparse_records(entry, name) if sparse_map else _name_record(b"path", name)
    records |= _name_record(b"linkpath", link) | dict(_records(entry, stored))
    letter = HARD_LINK if entry.link_to else TYPES[entry.kind]
    block = _block(entry, letter, name[:_NAME], link[:_NAME], stored)
    return _extended(records) + block + sparse_map


def padding(size: int) -> bytes:
    """The zeros that fill the last block of `size` bytes."""
    return bytes(align_up(size, BLOCK) - size)


def _is_plain(entry: Entry, data: Extents) -> bool:
    return entry.kind is not Kind.FILE or bool(entry.link_to) or data.size == entry.size


def _name_record(key: bytes, name: bytes) -> dict[bytes, bytes]:
    return {key: name} if len(name) > _NAME else {}


def _records(entry: Entry, stored: int) -> Iterator[tuple[bytes, bytes]]:
    """What does not fit into the plain header, and the exact time always."""
    yield b"mtime", _time(entry.mtime_ns)
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number >= _SMALL_ID:
            yield key, b"%d" % number
    for key, owner in ((b"uname", entry.uname), (b"gname", entry.gname)):
        if len(os.fsencode(owner)) > _OWNER:
            yield key, os.fsencode(owner)
    if stored >= _SMALL_SIZE:
        yield b"size", b"%d" % stored
    if not entry.link_to:
        for attribute, value in entry.xattrs:
            yield XATTR + _escaped(os.fsencode(attribute)), value
        if entry.flags:
            yield FLAGS, ",".join(entry.flags).encode()


def _sparse_records(entry: Entry, name: bytes) -> dict[bytes, bytes]:
    return {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % entry.size,
    }


def _sparse_map(entry: Entry, data: Extents) -> bytes:
    """How many pieces, then offset and length of each. One of no bytes marks the end of a file that ends in a hole."""
    pieces = [(extent.start, extent.size) for extent in data]
    if not pieces or sum(pieces[-1]) < entry.size:
        pieces.append((entry.size, 0))
    text = b"".join(b"%d\n" % number for number in (len(pieces), *chain.from_iterable(pieces)))
    return text + padding(len(text))


def _block(entry: Entry, letter: bytes, name: bytes, link: bytes, stored: int) -> bytes:
    seconds = entry.mtime_ns // NANO
    major, minor = entry.device or (0, 0)
    fields = (
        name.ljust(_NAME, b"\0"),
        _octal(entry.mode, 8, _SMALL_ID),
        _octal(entry.uid, 8, _SMALL_ID),
        _octal(entry.gid, 8, _SMALL_ID),
        _octal(stored, 12, _SMALL_SIZE),
        _octal(seconds, 12, _SMALL_SIZE),
        b" " * 8,
        letter,
        link.ljust(_NAME, b"\0"),
        MAGIC,
        os.fsencode(entry.uname)[:_OWNER].ljust(_OWNER + 1, b"\0"),
        os.fsencode(entry.gname)[:_OWNER].ljust(_OWNER + 1, b"\0"),
        _octal(major, 8, _SMALL_ID),
        _octal(minor, 8, _SMALL_ID),
    )
    return _with_checksum(b"".join(fields).ljust(BLOCK, b"\0"))


def _extended(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records.items())
    return _carrier(len(body)) + body + padding(len(body))


@lru_cache(maxsize=256)
def _carrier(size: int) -> bytes:
    entry = Entry(b"/PaxHeader", Kind.FILE, 0o644, 0, 0, 0)
    return _block(entry, EXTENDED, b"PaxHeader", b"", size)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest


def _octal(number: int, width: int, limit: int) -> bytes:
    """An octal field with its NUL; what does not fit stands in a record, and the field is 0."""
    return b"%0*o\0" % (width - 1, number if 0 <= number < limit else 0)


def _with_checksum(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _time(mtime_ns: int) -> bytes:
    seconds, nanos = divmod(abs(mtime_ns), NANO)
    return b"%s%d.%09d" % (b"-" if mtime_ns < 0 else b"", seconds, nanos)


def _escaped(attribute: bytes) -> bytes:
    """GNU tar's way to keep `=` out of a key."""
    return attribute.replace(b"%", b"%25").replace(b"=", b"%3D")
