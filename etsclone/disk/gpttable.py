"""A sound GUID partition table, read from its bytes; the judge of all other tables is sfdisk.

Source: UEFI specification 2.10, section 5.3; table 5.6 for an entry: type and unique GUID, first LBA at 32, last LBA
(inclusive) at 40, attributes at 48, name in UTF-16 from 56 on.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator, Mapping

from etsclone.errors import FormatError
from etsclone.model.disk import Partition, PartitionTable
from etsclone.plan.gpt import GptHeader, is_hybrid, parse_header

_ENTRY_SIZE = 128
_ENTRY = struct.Struct("<16s16sQQQ72s")
_PROTECTIVE = 0xEE
_MBR_MARK = b"\x55\xaa"


def parse_gpt(
    head: bytes, sector_size: int, disk_size: int, nodes: Mapping[int, str]
) -> PartitionTable | None:
    """The table that a disk begins with; None where it is none, or there is anything odd about it.

    Args:
        head: the disk's first bytes: protective MBR, header and all entries.
        sector_size: bytes in a logical sector.
        disk_size: in bytes.
        nodes: the device node of the partition that starts at a byte.
    """
    last_lba = disk_size // sector_size - 1
    try:
        header = parse_header(head[sector_size : 2 * sector_size])
        if not _is_protected(head) or not _is_whole(header, head, sector_size, last_lba):
            return None
        start = header.entries_lba * sector_size
        entries = head[start : start + header.entries_size]
        found = tuple(_partitions(entries, header, sector_size, nodes))
    except (FormatError, UnicodeDecodeError):
        return None
    partitions = tuple(sorted(found, key=lambda part: part.start))
    neighbours = itertools.pairwise(partitions)
    if any(one.end > other.start for one, other in neighbours):
        return None
    return PartitionTable("gpt", _guid(header.guid), partitions)


def _is_protected(head: bytes) -> bool:
    types = [head[at + 4] for at in range(446, 510, 16)]
    return (
        head[510:512] == _MBR_MARK
        and types.count(_PROTECTIVE) == 1
        and not is_hybrid(head)
        and struct.unpack_from("<I", head, 446 + 16 * types.index(_PROTECTIVE) + 8) == (1,)
    )


def _is_whole(header: GptHeader, head: bytes, sector_size: int, last_lba: int) -> bool:
    (entry_size,) = struct.unpack_from("<I", header.raw, 84)
    start = header.entries_lba * sector_size
    entries = head[start : start + header.entries_size]
    return (
        (header.own_lba, header.other_lba, header.entries_lba) == (1, last_lba, 2)
        and entry_size == _ENTRY_SIZE
        and start + header.entries_size <= header.first_usable * sector_size
        and header.first_usable <= header.last_usable < last_lba
        and len(entries) == header.entries_size
        and zlib.crc32(entries) == header.entries_crc
    )


def _partitions(
    entries: bytes, header: GptHeader, sector_size: int, nodes: Mapping[int, str]
) -> Iterator[Partition]:
    for number, fields in enumerate(_ENTRY.iter_unpack(entries), 1):
        kind, guid, first, last, attributes, name = fields
        if not any(kind):
            continue
        text = name.decode("utf-16-le").partition("\0")[0]
        if not (header.first_usable <= first <= last <= header.last_usable and _is_plain(text)):
            raise FormatError(f"partition {number} is odd")
        start = first * sector_size
        size = (last - first + 1) * sector_size
        yield Partition(
            number,
            nodes.get(start, ""),
            start,
            size,
            _guid(kind),
            _guid(guid),
            text,
            attributes=attributes,
        )


def _is_plain(text: str) -> bool:
    return not text or text.isprintable()


def _guid(raw: bytes) -> str:
    first, second, third = struct.unpack_from("<IHH", raw)
    return f"{first:08X}-{second:04X}-{third:04X}-{raw[8:10].hex()}-{raw[10:].hex()}".upper()
