"""The GUID partition table as bytes: read its header, move its backup to another disk's end, place its partitions anew.

Source: UEFI specification 2.10, section 5.3 (all integers little-endian). The primary header is in LBA 1 and its
entries usually from LBA 2; the backup header is in the last LBA with its entries before it.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from etsclone.errors import FormatError
from etsclone.model.extents import Extent
from etsclone.model.write import Write

_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_SIGNATURE = b"EFI PART"
_MAX_ENTRIES_SIZE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GptHeader:
    """The fields of a GPT header that moving needs; LBAs count sectors of the disk. `raw` is the whole sector."""

    raw: bytes
    header_size: int
    own_lba: int
    other_lba: int
    first_usable: int
    last_usable: int
    guid: bytes
    entries_lba: int
    entries_size: int
    entries_crc: int

    def encode(self) -> bytes:
        """The sector with these fields and fresh checksums; bytes after the header are kept as they were."""
        signature, revision, size, _, reserved, *_, count, entry_size, _ = _HEADER.unpack_from(
            self.raw
        )

        def packed(crc: int) -> bytes:
            return _HEADER.pack(
                signature, revision, size, crc, reserved, self.own_lba, self.other_lba, self.first_usable,
                self.last_usable, self.guid, self.entries_lba, count, entry_size, self.entries_crc,
            ) + self.raw[_HEADER.size : self.header_size]  # fmt: skip

        return packed(zlib.crc32(packed(0))) + self.raw[self.header_size :]


def parse_header(sector: bytes) -> GptHeader:
    """Read the header in one whole sector.

    Raises:
        FormatError: when it is none, or its checksum does not hold.
    """
    if len(sector) < 512 or not sector.startswith(_SIGNATURE):
        raise FormatError(
            "no GPT header where one must be",
            hint="repair the table of the source with gdisk first",
        )
    _, _, size, crc, _, own, other, first, last, guid, entries, count, entry_size, entries_crc = (
        _HEADER.unpack_from(sector)
    )
    if not _HEADER.size <= size <= len(sector) or not 0 < count * entry_size <= _MAX_ENTRIES_SIZE:
        raise FormatError(
            "GPT header with impossible sizes",
            hint="repair the table of the source with gdisk first",
        )
    blank = sector[:16] + bytes(4) + sector[20:size]
    if zlib.crc32(blank) != crc:
        raise FormatError(
            "GPT header with a wrong checksum",
            hint="repair the table of the source with gdisk first",
        )
    return GptHeader(
        sector, size, own, other, first, last, guid, entries, count * entry_size, entries_crc
    )


def relocate(head: bytes, sector_size: int, disk_size: int) -> tuple[bytes, Write]:
    """Fit a GPT to a disk of `disk_size` bytes.

    Args:
        head: the source's first bytes: protective MBR, primary header and all entries.
        sector_size: bytes in a logical sector, the same on both disks.
        disk_size: size of the target in bytes.

    Returns:
        The head with the primary header naming the new end of the disk, and the backup copy for that end. Where the
        target has the source's size, the head comes back unchanged.

    Raises:
        FormatError: when the head holds no intact GPT.
    """
    header, entries = _parse(head, sector_size)
    last_lba = disk_size // sector_size - 1
    entry_sectors = -(-header.entries_size // sector_size)
    primary, new_head = header, head
    if header.other_lba != last_lba:
        primary = replace(header, other_lba=last_lba, last_usable=last_lba - entry_sectors - 1)
        new_head = protective(head, last_lba)
        new_head = new_head[:sector_size] + primary.encode() + new_head[2 * sector_size :]
    backup = replace(primary, own_lba=last_lba, other_lba=1, entries_lba=last_lba - entry_sectors)
    tail = entries.ljust(entry_sectors * sector_size, b"\0") + backup.encode()
    return new_head, Write((last_lba + 1) * sector_size - len(tail), tail, "backup partition table")


def usable_end(head: bytes, sector_size: int, disk_size: int) -> int:
    """The first byte that no partition may have on a disk of `disk_size` bytes; arguments and errors as `relocate`."""
    moved, _ = relocate(head, sector_size, disk_size)
    return (parse_header(moved[sector_size : 2 * sector_size]).last_usable + 1) * sector_size


def placed(head: bytes, sector_size: int, places: Mapping[int, Extent]) -> bytes:
    """Give partitions other places; all else that is said of them stays.

    Args:
        head: a disk's first bytes: protective MBR, primary header and all entries.
        sector_size: bytes in a logical sector.
        places: by partition number, in bytes of the disk and whole sectors.

    Returns:
        The head with fresh checksums. Its backup is to be made of it by `relocate`.

    Raises:
        FormatError: when the head holds no intact GPT, or one without such a partition.
    """
    header, found = _parse(head, sector_size)
    entries = bytearray(found)
    for number, place in places.items():
        # An entry (table 5.6): type and unique GUID, first LBA at 32, last LBA (inclusive) at 40.
        first, last = place.start // sector_size, place.end // sector_size - 1
        struct.pack_into("<QQ", entries, _entry(header, entries, number) + 32, first, last)
    return _with_entries(head, sector_size, header, bytes(entries))


def identified(head: bytes, sector_size: int, disk: UUID, partitions: Mapping[int, UUID]) -> bytes:
    """Give a disk and its partitions (by number) other GUIDs; the rest, and what is returned, is as for `placed`."""
    header, found = _parse(head, sector_size)
    entries = bytearray(found)
    for number, guid in partitions.items():
        at = _entry(header, entries, number) + 16
        entries[at : at + 16] = guid.bytes_le
    return _with_entries(head, sector_size, replace(header, guid=disk.bytes_le), bytes(entries))


def is_hybrid(head: bytes) -> bool:
    """Whether the protective MBR lists partitions too, whose places would have to change with those of the GPT."""
    return any(head[at + 4] not in {0, 0xEE} for at in range(446, 510, 16))


def protective(head: bytes, last_lba: int) -> bytes:
    """A head whose protective MBR spans the disk up to an LBA, or as much of it as 32 bits can say (UEFI 5.2.3)."""
    for entry in range(446, 510, 16):
        if head[entry + 4] == 0xEE and head[entry + 8 : entry + 12] == struct.pack("<I", 1):
            length = struct.pack("<I", min(last_lba, 0xFFFFFFFF))
            return head[: entry + 12] + length + head[entry + 16 :]
    return head


def _parse(head: bytes, sector_size: int) -> tuple[GptHeader, bytes]:
    header = parse_header(head[sector_size : 2 * sector_size])
    start = header.entries_lba * sector_size
    entries = head[start : start + header.entries_size]
    if len(entries) != header.entries_size or zlib.crc32(entries) != header.entries_crc:
        raise FormatError(
            "GPT entries with a wrong checksum",
            hint="repair the table of the source with gdisk first",
        )
    return header, entries


def _entry(header: GptHeader, entries: bytes | bytearray, number: int) -> int:
    """Where the entry of a partition begins."""
    (entry_size,) = struct.unpack_from("<I", header.raw, 84)
    position: int = (number - 1) * entry_size
    if not 0 <= position < len(entries) or not any(entries[position : position + 16]):
        raise FormatError(f"the GPT has no partition {number}")
    return position


def _with_entries(head: bytes, sector_size: int, header: GptHeader, entries: bytes) -> bytes:
    sector = replace(header, entries_crc=zlib.crc32(entries)).encode()
    start = header.entries_lba * sector_size
    changed = head[:sector_size] + sector + head[2 * sector_size :]
    return changed[:start] + entries + changed[start + len(entries) :]
