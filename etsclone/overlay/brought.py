"""What a listing tells of packages, kept so that dpkg's records, some megabytes of text, need not be parsed each time.

It is believed as long as the records are as they were: the status, every list of paths, the links at the top of the
tree. The marks by which that is seen are those of the listing itself (`etsclone.overlay.remembered`), and the same rule
holds: nothing is kept that was changed shortly before the capture began.

File: a first line, a digest of names and marks, the digest of what it tells (16 bytes each), the length of the head
(eight bytes, little-endian), the head, the paths by package, compressed, and last the XXH3-128 digest of all before.
"""

import logging
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO, Self

import xxhash
import zstandard

from etsclone.errors import UnsafePath
from etsclone.model.packages import NO_PACKAGES, Installed
from etsclone.overlay.files import opened_folder, opened_root
from etsclone.overlay.inventory import head
from etsclone.overlay.packages import DPKG, LIST, dpkg_packages, top_links
from etsclone.overlay.remembered import GRANULARITY, marks_of

logger = logging.getLogger(__name__)

_FIRST_LINE = b"etsclone packages 2\n"
_DIGEST = 16
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class _State:
    """What dpkg's records are known again by, and when any of them last changed (nanoseconds since the epoch)."""

    digest: bytes
    newest: int


@dataclass(frozen=True, slots=True)
class Brought:
    """The first lines of an inventory, which name the packages; by path which of them brought it; a digest of both.

    `parsed` is the state of dpkg's records if they had to be parsed for it: then it is worth keeping.
    """

    head: bytes
    owners: Mapping[bytes, str] = field(repr=False)
    digest: bytes
    parsed: _State | None = None

    @classmethod
    def by(cls, installed: Installed, parsed: _State | None = None) -> Self:
        """What these packages brought."""
        first = head(installed.packages)
        names = "\0".join(installed.owners.values()).encode()
        digest = xxhash.xxh3_128_digest(b"\0".join((first, names, *installed.owners)))
        return cls(first, installed.owners, digest, parsed)


NOTHING = Brought.by(NO_PACKAGES)
"""Of a system whose packages are not known."""


def brought_by_dpkg(root: str, old: BinaryIO | None = None) -> Brought:
    """What dpkg has installed in the system below `root`, and nothing when it has no dpkg.

    Args:
        root: the top of the tree.
        old: what was kept the last time; the records are not parsed anew if it still holds.

    Raises:
        OSError: when the records cannot be read.
    """
    state = _state(root)
    known = _read(old, state) if old and state else None
    return known or Brought.by(dpkg_packages(root), state)


def keep_brought(found: Brought, root: str, file: BinaryIO, *, started_ns: int) -> None:
    """Write what the next capture will want to know to an empty file, if it is new and can be believed then.

    Args:
        found: what `brought_by_dpkg` found.
        root: the top of the tree.
        file: it stays empty, or without an end, when nothing can be kept: then it is none.
        started_ns: when the capture began (nanoseconds since the epoch); what changed shortly before is not kept.
    """
    state = found.parsed
    if state and state.newest < started_ns - GRANULARITY and _state(root) == state:
        try:
            _write(file, state, found)
        except OSError as error:
            logger.warning("what packages brought is not remembered: %s", error.strerror)


def _state(root: str) -> _State | None:
    """None when the system has no such records."""
    with opened_root(root) as top:
        try:
            with opened_folder(top, DPKG) as folder, opened_folder(top, DPKG + b"/info") as info:
                lists = sorted(
                    name for name in map(os.fsencode, os.listdir(info)) if LIST.fullmatch(name)
                )
                statuses = [os.lstat(b"status", dir_fd=folder)]
                statuses += [os.lstat(name, dir_fd=info) for name in lists]
                volume = os.fstatvfs(info).f_fsid
        except (FileNotFoundError, UnsafePath):
            return None
        links = [part for link in sorted(top_links(top).items()) for part in link]
    marks = marks_of(statuses, volume)
    return _State(
        xxhash.xxh3_128_digest(b"\0".join((*lists, b"", *links, b"", *marks))),
        max(max(each.st_mtime_ns, each.st_ctime_ns) for each in statuses),
    )


class _Late(Mapping[bytes, str]):
    """Owners by path, unpacked when the first is asked for: where nothing is new, nobody asks."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    @cached_property
    def _owners(self) -> dict[bytes, str]:
        owners: dict[bytes, str] = {}
        for group in zstandard.decompress(self._packed).split(b"\n"):
            name, *paths = group.split(b"\0")
            owners.update(dict.fromkeys(paths, name.decode()))
        return owners

    def __getitem__(self, path: bytes) -> str:
        return self._owners[path]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._owners)

    def __len__(self) -> int:
        return len(self._owners)


def _read(file: BinaryIO, state: _State) -> Brought | None:
    """What was kept, if it is whole and of this state."""
    data = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
    start = len(_FIRST_LINE) + 2 * _DIGEST + _LENGTH.size
    content, digest = data[:-_DIGEST], data[-_DIGEST:]
    if len(content) < start or xxhash.xxh3_128_digest(content) != digest:
        return None
    if not content.startswith(_FIRST_LINE + state.digest):
        return None
    told = content[start - _LENGTH.size - _DIGEST : start - _LENGTH.size]
    end = start + _LENGTH.unpack_from(content, start - _LENGTH.size)[0]
    return Brought(content[start:end], _Late(content[end:]), told)


def _write(file: BinaryIO, state: _State, found: Brought) -> None:
    groups: dict[str, list[bytes]] = {}
    for path, name in found.owners.items():
        groups.setdefault(name, [name.encode()]).append(path)
    lines = [b"\0".join(group) for group in groups.values()]
    if b"\n" in b"".join(lines) or sum(line.count(b"\0") for line in lines) > len(found.owners):
        return  # what parts them here is in one of them; no sound record holds such
    packed = zstandard.compress(b"\n".join(lines), 1)
    parts = (
        _FIRST_LINE,
        state.digest,
        found.digest,
        _LENGTH.pack(len(found.head)),
        found.head,
        packed,
    )
    content = b"".join(parts)
    file.write(content + xxhash.xxh3_128_digest(content))
    file.flush()
