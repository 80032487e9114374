"""The payload of an overlay: the scope as a pax archive, compressed with zstd.

Members are in byte order of their paths, so a folder comes before what it holds and nothing comes twice. Folders on
the way that are not in the scope are not members: `tar -x` by hand must not change them. Where such a folder is
missing, etsclone and tar alike make it with mode 0755 and root as its owner.
"""

import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import IO, BinaryIO, Self

from etsclone.errors import HostilePayload, SourceRefused
from etsclone.model.extents import Extents
from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING, Entry, Kind, Tree, ancestors, printable
from etsclone.overlay import pax
from etsclone.overlay.amounts import Amounts
from etsclone.overlay.compression import Source, compressed, decompressed
from etsclone.overlay.files import CHUNK, opened_root, runs
from etsclone.overlay.paxread import PaxMember, end_member, next_member
from etsclone.overlay.steady import take
from etsclone.overlay.temporary import room_needed
from etsclone.units import GIB, MIB, human

LEVEL = 15
"""zstd's level: every byte is kept for years, but a scope of 100 MiB should not take a minute."""

PAYLOAD_LIMIT = 4 * GIB
"""The most bytes of an archive, and of its files with their holes. Larger ones are neither written nor read."""

_IN_MEMORY = 64 * MIB
"""Content up to this size never touches a disk on its way: it may be host keys."""


@dataclass(frozen=True, slots=True)
class Archived:
    """What went into a payload: `tree` as it can be read back, and sentences about what does not stop changing."""

    tree: Tree
    warnings: tuple[str, ...]


def write_payload(
    out: BinaryIO,
    root: str,
    tree: Tree,
    *,
    spool: BinaryIO | None = None,
    limit: int = PAYLOAD_LIMIT,
) -> Archived:
    """Archive what a scan of `root` found in the scope, reading the files a second time.

    A file that is no longer what the scan saw is archived as it is now, metadata included; one that changes while it is
    read is read again, and there is a warning if it does not stop. The returned tree always describes the archive.
    Sockets are left out: they mean nothing without their process.

    Args:
        out: gets the compressed archive; need not be seekable.
        root: the top of the tree; `/` inside `chroot.in_chroot`.
        tree: `Scan.scope`.
        spool: an empty file, for content of more than 64 MiB on its way; without one it is kept in memory.
        limit: the most bytes that the archive, or its files with their holes, may hold.

    Raises:
        SourceRefused: when there is too much.
        SourceChanged: when a file vanished or became something else.
        OSError: when something cannot be read or written.
    """
    expected = sum(entry.size for entry in tree.values())
    with opened_root(root) as top, compressed(out, LEVEL, expected) as archive:
        writer = _Writer(archive, top, spool, limit)
        for entry in sorted(tree.values(), key=lambda entry: entry.path):
            writer.add(entry)
        writer.end()
    return Archived(writer.tree, tuple(writer.warnings))


class _Writer:
    """Writes members and remembers what they were."""

    def __init__(self, archive: BinaryIO, top: int, spool: BinaryIO | None, limit: int) -> None:
        self.tree: dict[bytes, Entry] = {}
        self.warnings: list[str] = []
        self._archive = archive
        self._top = top
        self._spool = spool
        self._limit = limit
        self._amounts = Amounts()
        self._stored = 0
        self._restored = 0

    def add(self, entry: Entry) -> None:
        if entry.kind is Kind.SOCKET:
            return
        if entry.link_to:
            leader = self.tree[entry.link_to]
            entry = replace(leader, path=entry.path, link_to=entry.link_to)
        if entry.kind is Kind.FILE and not entry.link_to:
            entry = self._add_file(entry)
        else:
            self._write_header(entry, Extents())
        self.tree[entry.path] = entry

    def end(self) -> None:
        self._write(pax.END)

    def _add_file(self, seen: Entry) -> Entry:
        taken = take(self._top, seen, self._empty_spool)
        if not taken.steady:
            self.warnings.append(f"{printable(seen.path)} changed while it was read")
        self._restored += taken.entry.size
        self._write_header(taken.entry, taken.data)
        taken.content.seek(0)
        while piece := taken.content.read(CHUNK):
            self._write(piece)
        self._write(pax.padding(taken.data.size))
        return taken.entry

    def _empty_spool(self, size: int, data: Extents) -> BinaryIO:
        """Where the content of a file is kept while it is not known whether it is of one moment."""
        self._check_limit(self._restored + size)
        if data.size <= _IN_MEMORY or self._spool is None:
            return io.BytesIO()
        self._spool.seek(0)
        self._spool.truncate()
        return self._spool

    def _write_header(self, entry: Entry, data: Extents) -> None:
        try:
            self._amounts.add(entry, data)
        except ValueError as error:
            raise _too_much(str(error)) from error
        self._write(pax.header(entry, data))

    def _write(self, data: bytes) -> None:
        self._stored += len(data)
        self._check_limit(self._stored)
        self._archive.write(data)

    def _check_limit(self, size: int) -> None:
        """The reader's limits, so that nothing is written that could not be read."""
        if size > self._limit:
            raise _too_much(f"more than the {human(self._limit)} that an overlay may hold")


def _too_much(what: str) -> SourceRefused:
    return SourceRefused(
        f"the scope holds {what}", hint="name what is not configuration as volatile in the profile"
    )


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the stored bytes of a file begin in the spool, and which bytes of the file they are."""

    offset: int
    data: Extents


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload that was read to its end and found sound; only `read_payload` makes one. Close it after use.

    `tree` is what the overlay holds. The content is kept in memory, or in an unnamed file when it is large.
    """

    tree: Tree
    _places: Mapping[bytes, _Place] = field(repr=False)
    _spool: IO[bytes] = field(repr=False)
    _edited: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)

    def pieces(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The stored bytes of a file of `tree` that is no hard link: (offset in the file, bytes). The rest is holes."""
        if path in self._edited:
            yield 0, self._edited[path]
            return
        place = self._places[path]
        position = place.offset
        for extent in place.data:
            for offset in range(extent.start, extent.end, CHUNK):
                self._spool.seek(position)
                piece = self._spool.read(min(CHUNK, extent.end - offset))
                position += len(piece)
                yield offset, piece

    def edited(self, path: bytes, content: bytes) -> Self:
        """The same payload with other content for one of its files, under all the names that it has in the scope.

        Its metadata stays, the time included: what is rebuilt twice is the same twice. It lives as long as this one.

        Raises:
            KeyError: when it holds no such path.
        """
        leader = self.tree[path].link_to or path
        digest = hashlib.sha256(content).hexdigest()
        changed = {
            name: replace(entry, size=len(content), sha256=digest)
            for name, entry in self.tree.items()
            if leader in (name, entry.link_to)
        }
        return replace(
            self, tree={**self.tree, **changed}, _edited={**self._edited, leader: content}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.close()


def read_payload(stream: BinaryIO, scope: Scope, *, limit: int = PAYLOAD_LIMIT) -> Payload:
    """Read and check a whole payload before anything of it can be used.

    Args:
        stream: the compressed archive, to its end.
        scope: that of the signed header; a member outside of it is refused.
        limit: the most bytes that the archive, or its files with their holes, may hold.

    Raises:
        HostilePayload: for whatever `write_payload` cannot have written: paths that are not plain or not in the scope,
            out of order or twice, below something that is no folder, hard links to what is not a file before them,
            unknown kinds or forms of members, more than `amounts` allows, content that is damaged, cut off, too large
            or followed by anything.
        StoreFull: when content of more than 64 MiB needs more space than there is, or there is no folder for it.
    """
    spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the payload keeps and closes it
    try:
        reader = _Reader(Source(decompressed(stream, limit)), scope, spool, limit)
        with room_needed("the content of the overlay"):
            while reader.advance():
                pass
    except BaseException:
        spool.close()
        raise
    return Payload(reader.tree, reader.places, spool)


class _Reader:
    """Takes members one by one; what it has taken is sound."""

    def __init__(self, source: Source, scope: Scope, spool: IO[bytes], limit: int) -> None:
        self.tree: dict[bytes, Entry] = {}
        self.places: dict[bytes, _Place] = {}
        self._source = source
        self._scope = scope
        self._spool = spool
        self._left = limit
        self._amounts = Amounts()
        self._last = b""

    def advance(self) -> bool:
        member = next_member(self._source)
        if member is None:
            return False
        entry = member.entry
        self._count(member)
        self._check_path(entry.path)
        if entry.link_to is not None:
            entry = self._linked(entry)
        elif entry.kind is Kind.FILE:
            entry = self._take_content(member)
        self.tree[entry.path] = entry
        return True

    def _count(self, member: PaxMember) -> None:
        try:
            self._amounts.add(member.entry, member.data)
        except ValueError as error:
            raise HostilePayload(f"archive holds {error}") from error

    def _check_path(self, path: bytes) -> None:
        if path not in self._scope or STAGING in path.split(b"/"):
            raise HostilePayload(f"archive holds a path outside of its scope: {printable(path)}")
        if path <= self._last:
            raise HostilePayload(f"archive holds a path twice or out of order: {printable(path)}")
        self._last = path
        for ancestor in ancestors(path):
            carried = self.tree.get(ancestor)
            if carried.kind is not Kind.FOLDER if carried else ancestor in self._scope:
                raise HostilePayload(f"archive holds a path without its folder: {printable(path)}")

    def _linked(self, entry: Entry) -> Entry:
        leader = self.tree.get(entry.link_to or b"")
        if leader is None or leader.kind is not Kind.FILE or leader.link_to is not None:
            raise HostilePayload(f"hard link to what is no file before it: {printable(entry.path)}")
        linked = replace(leader, path=entry.path, link_to=leader.path)
        # Attributes and content are the file's alone; all else stands with each of its names.
        if replace(linked, size=0, sha256=None, xattrs=(), flags=()) != entry:
            raise HostilePayload(f"hard link is not as its file: {printable(entry.path)}")
        return linked

    def _take_content(self, member: PaxMember) -> Entry:
        entry, data = member.entry, member.data
        self._left -= entry.size
        if self._left < 0:
            raise HostilePayload(f"archive holds too much: {printable(entry.path)}")
        self.places[entry.path] = _Place(self._spool.tell(), data)
        digest = hashlib.sha256()
        for _, length, stored in runs(entry.size, data):
            for piece in self._source.chunks(length) if stored else _zeros(length):
                digest.update(piece)
                if stored:
                    self._spool.write(piece)
        end_member(self._source, data.size)
        return replace(entry, sha256=digest.hexdigest())


def _zeros(count: int) -> Iterator[bytes]:
    for start in range(0, count, CHUNK):
        yield bytes(min(CHUNK, count - start))
