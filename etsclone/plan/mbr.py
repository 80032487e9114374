"""The MBR partition table as bytes: give partitions other places, the logical ones in their chain too.

Source: UEFI specification 2.10, section 5.2.1 (the four entries), and util-linux's libfdisk/src/dos.c for the chain:
the frame (extended partition) begins with a sector whose first entry is the logical partition, counted from that
sector, and whose second entry links to the next such sector, counted from the frame's beginning.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from etsclone.errors import FormatError
from etsclone.model.extents import Extent
from etsclone.model.write import Write

MAX_SECTORS = 0xFFFFFFFF
"""Starts and sizes have 32 bits."""

FIRST_LOGICAL = 5

_IDENTIFIER = 440
_ENTRIES = 446
_ENTRY = 16
_SIGNATURE = b"\x55\xaa"
_MAX_LINKS = 128
_FRAMES = frozenset({0x05, 0x0F, 0x85})


@dataclass(frozen=True, slots=True)
class Link:
    """A sector of the chain of logical partitions: where it is (LBA of the disk), and its bytes."""

    lba: int
    sector: bytes

    @property
    def partition(self) -> tuple[int, int]:
        """Its logical partition: first LBA of the disk, sectors."""
        start, count = _span(self.sector, 0)
        return self.lba + start, count


def read_chain(head: bytes, read: Callable[[int], bytes]) -> tuple[Link, ...]:
    """The chain of logical partitions; empty where there is no frame.

    Args:
        head: the disk's first sector.
        read: gives the sector with this LBA.

    Raises:
        FormatError: when it has no end, or leads to a sector that is none of it.
    """
    frames = [number for number in range(4) if head[_at(number) + 4] in _FRAMES]
    if not frames:
        return ()
    frame, _ = _span(head, frames[0])
    links: list[Link] = []
    position = frame
    while len(links) < _MAX_LINKS:
        sector = read(position)
        if sector[510:512] != _SIGNATURE:
            raise FormatError("the chain of logical partitions is damaged")
        links.append(Link(position, sector))
        following, count = _span(sector, 1)
        if not count:
            return tuple(links)
        position = frame + following
    raise FormatError("the chain of logical partitions has no end")


def placed(head: bytes, sector_size: int, places: Mapping[int, Extent]) -> bytes:
    """Give primary partitions and the frame other places; all else stays.

    Args:
        head: the disk's first bytes.
        sector_size: bytes in a logical sector.
        places: by partition number; logical ones are passed over.
    """
    for number, place in places.items():
        if number < FIRST_LOGICAL:
            start, count = place.start // sector_size, place.size // sector_size
            head = _with_entry(head, number - 1, start, count, first=start)
    return head


def identified(head: bytes, identifier: int) -> bytes:
    """Give a disk another identifier, of 32 bits; those of its partitions are made of it."""
    return head[:_IDENTIFIER] + struct.pack("<I", identifier) + head[_IDENTIFIER + 4 :]


def enlarged(chain: tuple[Link, ...], sector_size: int, end: int) -> tuple[Write, ...]:
    """The sectors of a chain whose last logical partition ends at `end` (bytes of the disk) from now on."""
    *before, last = chain
    start, _ = last.partition
    stop = end // sector_size
    sector = _with_entry(last.sector, 0, start - last.lba, stop - start, first=start)
    writes = [_write(last.lba, sector, sector_size)]
    for link in before[-1:]:
        # What a link says of the next one's size reaches from that one's sector to its partition's end.
        offset, _ = _span(link.sector, 1)
        linked = _with_entry(link.sector, 1, offset, stop - last.lba, first=last.lba)
        writes.append(_write(link.lba, linked, sector_size))
    return tuple(writes)


def shifted(chain: tuple[Link, ...], sector_size: int, distance: int) -> tuple[Write, ...]:
    """The one sector of a frame with one logical partition that lies `distance` bytes later.

    What it says counts from itself, but for the old cylinders, heads and sectors.
    """
    (link,) = chain
    start, count = link.partition
    lba = link.lba + distance // sector_size
    sector = _with_entry(
        link.sector, 0, start - link.lba, count, first=start + distance // sector_size
    )
    return (_write(lba, sector, sector_size),)


def _write(lba: int, sector: bytes, sector_size: int) -> Write:
    return Write(lba * sector_size, sector, "table of a logical partition")


def _at(index: int) -> int:
    return _ENTRIES + index * _ENTRY


def _span(sector: bytes, index: int) -> tuple[int, int]:
    start, count = struct.unpack_from("<II", sector, _at(index) + 8)
    return start, count


def _with_entry(sector: bytes, index: int, start: int, count: int, *, first: int) -> bytes:
    """A sector with the place of one entry changed; `first` is its first LBA as counted from the disk's beginning."""
    at = _at(index)
    entry = (
        sector[at : at + 1]
        + _geometry(first)
        + sector[at + 4 : at + 5]
        + _geometry(first + count - 1)
        + struct.pack("<II", start, count)
    )
    return sector[:at] + entry + sector[at + _ENTRY :]


def _geometry(lba: int) -> bytes:
    """Head, sector and cylinder of a disk with 255 heads and 63 sectors; the largest value for all that lies beyond."""
    cylinder, rest = divmod(lba, 255 * 63)
    head, sector = divmod(rest, 63)
    if cylinder > 1023:
        return b"\xfe\xff\xff"
    return bytes([head, (sector + 1) | (cylinder >> 8 << 6), cylinder & 0xFF])
