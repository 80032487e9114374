"""FAT: where things are in such a filesystem, and its files as they lie in folders, read from its bytes.

Source: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03; all integers are little-endian. Long names:
section "FAT Long Directory Entries".
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from etsclone.errors import FormatError

Read = Callable[[int, int], bytes]
"""Gives a number of bytes from a byte on, counted from the filesystem's beginning."""

_MAX_FOLDER = 2 * 1024 * 1024
"""Folders have at most 65,536 entries of 32 bytes."""

_ENTRY = 32
_LONG_NAME = 0x0F
_VOLUME_LABEL = 0x08
_FOLDER = 0x10
_DELETED = 0xE5


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a FAT filesystem, in bytes from its beginning; `width` is the bits of an entry."""

    width: int
    tables: tuple[int, ...]
    table_size: int
    data_start: int
    cluster_size: int
    clusters: int
    end: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder: its name, its first cluster (0 for an empty file), and a file's size in bytes."""

    name: str
    folder: bool
    cluster: int
    size: int


class FatTree:
    """The folders and files of a FAT filesystem. Names are compared without regard to case.

    Raises (all methods, and making one):
        FormatError: when the filesystem makes no sense.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._boot = read(0, 512)
        self._layout = parse_boot_sector(self._boot)

    def entries(self, path: str) -> tuple[Entry, ...]:
        """What a folder holds (`/EFI/BOOT`), in its own order; nothing where there is no such folder."""
        found: tuple[Entry, ...] = tuple(_entries(self._root()))
        for name in path.strip("/").split("/"):
            if name:
                entry = _named(found, name)
                if entry is None or not entry.folder:
                    return ()
                found = tuple(_entries(self._chain(entry.cluster, _MAX_FOLDER)))
        return found

    def read(self, path: str, limit: int) -> bytes | None:
        """The first `limit` bytes of a file; None where there is none."""
        folder, _, name = path.rpartition("/")
        entry = _named(self.entries(folder), name)
        if entry is None or entry.folder:
            return None
        size = min(entry.size, limit)
        content = self._chain(entry.cluster, size) if size else b""
        if len(content) < size:
            raise FormatError(f"{path} ends too early")
        return content[:size]

    def _root(self) -> bytes:
        if self._layout.width == 32:
            return self._chain(_integer(self._boot, 44, 4), _MAX_FOLDER)
        start = self._layout.tables[-1] + self._layout.table_size
        return self._read(start, self._layout.data_start - start)

    def _chain(self, cluster: int, limit: int) -> bytes:
        """What the chain from a cluster on holds, until it ends or `limit` bytes are there."""
        layout, pieces, size = self._layout, [], 0
        while 2 <= cluster < layout.clusters + 2 and size < limit:
            start = layout.data_start + (cluster - 2) * layout.cluster_size
            pieces.append(self._read(start, layout.cluster_size))
            size += layout.cluster_size
            cluster = self._next(cluster)
        return b"".join(pieces)

    def _next(self, cluster: int) -> int:
        table, width = self._layout.tables[0], self._layout.width
        if width == 12:
            both = _integer(self._read(table + cluster * 3 // 2, 2), 0, 2)
            return both >> 4 if cluster % 2 else both & 0xFFF
        raw = self._read(table + cluster * width // 8, width // 8)
        return _integer(raw, 0, 4) & 0x0FFFFFFF


def parse_boot_sector(sector: bytes) -> Layout:
    """Read the BIOS parameter block.

    Raises:
        FormatError: when it makes no sense.
    """
    sector_size, per_cluster, count = _integer(sector, 11, 2), sector[13], sector[16]
    reserved, root_entries = _integer(sector, 14, 2), _integer(sector, 17, 2)
    total = _integer(sector, 19, 2) or _integer(sector, 32, 4)
    table = _integer(sector, 22, 2) or _integer(sector, 36, 4)
    if (
        sector[510:512] != b"\x55\xaa"
        or sector_size not in {512, 1024, 2048, 4096}
        or per_cluster not in {1, 2, 4, 8, 16, 32, 64, 128}
        or not (reserved and count and table)
    ):
        raise FormatError("its boot sector makes no sense")
    root = -(-root_entries * 32 // sector_size)
    data = reserved + count * table + root
    clusters = (total - data) // per_cluster
    # The specification goes by the number of clusters alone. Linux (fs/fat/inode.c) takes for FAT32 whatever has no
    # 16-bit table size, and so do those who make small EFI system partitions: there is no reading it as anything else.
    width = 32 if not _integer(sector, 22, 2) else 12 if clusters < 4085 else 16
    if clusters <= 0 or (clusters + 2) * width > table * sector_size * 8:
        raise FormatError("its tables are too small")
    if width == 16 and clusters >= 65525:
        raise FormatError("it has more clusters than FAT16 can have")
    starts = tuple((reserved + number * table) * sector_size for number in range(count))
    if width == 32 and _integer(sector, 40, 2) & 0x80:
        raise FormatError("its tables are not mirrored")
    return Layout(
        width,
        starts,
        table * sector_size,
        data * sector_size,
        per_cluster * sector_size,
        clusters,
        total * sector_size,
    )


def _named(entries: tuple[Entry, ...], name: str) -> Entry | None:
    return next((each for each in entries if each.name.lower() == name.lower()), None)


def _entries(folder: bytes) -> Iterator[Entry]:
    long: dict[int, bytes] = {}
    for at in range(0, len(folder) - _ENTRY + 1, _ENTRY):
        raw = folder[at : at + _ENTRY]
        if raw[0] == 0:
            return
        if raw[0] == _DELETED:
            long.clear()
        elif raw[11] & 0x3F == _LONG_NAME:
            long[raw[0] & 0x1F] = raw[1:11] + raw[14:26] + raw[28:32]
        else:
            if not raw[11] & _VOLUME_LABEL and raw[0] != ord("."):
                high, low = (
                    struct.unpack_from("<H", raw, 20)[0],
                    struct.unpack_from("<H", raw, 26)[0],
                )
                name = _long_name(long) or _short_name(raw)
                yield Entry(name, bool(raw[11] & _FOLDER), high << 16 | low, _integer(raw, 28, 4))
            long.clear()


def _long_name(parts: dict[int, bytes]) -> str:
    raw = b"".join(parts[number] for number in sorted(parts))
    return raw.decode("utf-16-le", "replace").partition("\0")[0]


def _short_name(raw: bytes) -> str:
    # Source of bits 3 and 4 of byte 12 (base and extension in lower case): Linux, include/uapi/linux/msdos_fs.h.
    base, extension = (part.decode("ascii", "replace").rstrip() for part in (raw[:8], raw[8:11]))
    base = base.lower() if raw[12] & 0x08 else base
    extension = extension.lower() if raw[12] & 0x10 else extension
    return f"{base}.{extension}" if extension else base


def _integer(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")
