"""How LVM2 stores its metadata on a physical volume: label, metadata areas, and the text inside, as bytes.

Source: lib/label/label.h, lib/format_text/layout.h and lib/misc/crc.h of LVM2. All numbers are little-endian. Labels
count sectors of 512 bytes, whatever the disk's own are.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from etsclone.errors import FormatError
from etsclone.model.extents import Extent
from etsclone.units import MIB, SECTOR

LABEL_SCAN_SIZE = 4 * SECTOR
"""The label is in one of the first four sectors."""

AREA_HEADER_SIZE = 512
LARGEST_TEXT = 64 * MIB
"""More than any volume group has: what claims more is not read."""

_INITIAL_CRC = 0xF597A6CF
_LABEL = struct.Struct("<8sQII8s")
_PV_HEADER = struct.Struct("<32sQ")
_LOCATION = struct.Struct("<QQ")
_EXTENSION = struct.Struct("<II")
_EXTENSION_USED = 0x1
_AREA_HEADER = struct.Struct("<I16sIQQ")
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_SLOT = struct.Struct("<QQII")
_SLOT_IGNORED = 0x1


@dataclass(frozen=True, slots=True)
class Label:
    """What a physical volume tells of itself: its UUID without dashes, and where its areas are.

    Areas are (start, size) in bytes of the volume; a size of 0 means up to its end. `used` is whether a volume group
    claims it; None where the label is too old to tell.
    """

    uuid: str
    data_areas: tuple[tuple[int, int], ...]
    metadata_areas: tuple[tuple[int, int], ...]
    used: bool | None


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the metadata text is in its area: one range, or two when it goes round the area's end; and its CRC."""

    pieces: tuple[Extent, ...]
    checksum: int


def crc(data: bytes) -> int:
    """LVM2's checksum: CRC-32 with its own first value, and not inverted in the end."""
    return zlib.crc32(data, _INITIAL_CRC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def parse_label(head: bytes) -> Label:
    """Read the label from the first `LABEL_SCAN_SIZE` bytes of a physical volume.

    Raises:
        FormatError: when there is none that is whole.
    """
    for number in range(LABEL_SCAN_SIZE // SECTOR):
        sector = head[number * SECTOR : (number + 1) * SECTOR]
        if len(sector) == SECTOR and sector.startswith(b"LABELONE"):
            return _parse_label_sector(sector, number)
    raise FormatError("it has no label of LVM2")


def _parse_label_sector(sector: bytes, number: int) -> Label:
    _, own_number, checksum, offset, kind = _LABEL.unpack_from(sector)
    if kind != b"LVM2 001" or own_number != number or checksum != crc(sector[20:]):
        raise FormatError("its label of LVM2 is damaged")
    try:
        uuid, _ = _PV_HEADER.unpack_from(sector, offset)
        data, offset = _locations(sector, offset + _PV_HEADER.size)
        metadata, offset = _locations(sector, offset)
        version, flags = _EXTENSION.unpack_from(sector, offset)
        name = uuid.decode("ascii")
    except (struct.error, UnicodeDecodeError) as error:
        raise FormatError(f"its label of LVM2 makes no sense: {error}") from error
    # Since version 2 of the extension a flag tells whether a volume group uses the volume.
    return Label(name, data, metadata, bool(flags & _EXTENSION_USED) if version >= 2 else None)


def _locations(sector: bytes, offset: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """A list that an offset of 0 ends, and the position behind it."""
    found: list[tuple[int, int]] = []
    while True:
        start, size = _LOCATION.unpack_from(sector, offset)
        offset += _LOCATION.size
        if start == 0:
            return tuple(found), offset
        found.append((start, size))


def parse_area_header(header: bytes, start: int, size: int) -> Slot | None:
    """Read the header of the metadata area that has `size` bytes and lies at byte `start` of the physical volume.

    Returns:
        Where its text is, counted from the area's start; without pieces when it holds none. None when the area says
        that it is to be ignored.

    Raises:
        FormatError: when the header is not whole.
    """
    if len(header) != AREA_HEADER_SIZE or crc(header[4:]) != int.from_bytes(header[:4], "little"):
        raise FormatError("its metadata area is damaged")
    _, magic, version, own_start, own_size = _AREA_HEADER.unpack_from(header)
    if (magic, version, own_start, own_size) != (_AREA_MAGIC, 1, start, size):
        raise FormatError("its metadata area makes no sense")
    offset, length, checksum, flags = _SLOT.unpack_from(header, _AREA_HEADER.size)
    if flags & _SLOT_IGNORED:
        return None
    if offset == 0 or length == 0:
        return Slot((), 0)
    longest = min(size - AREA_HEADER_SIZE, LARGEST_TEXT)
    if not AREA_HEADER_SIZE <= offset < size or length > longest:
        raise FormatError("its metadata text does not fit its area")
    return Slot(_around(offset, length, size), checksum)


def _around(offset: int, length: int, size: int) -> tuple[Extent, ...]:
    # The area is a ring: behind its end the text goes on after the header.
    beyond = offset + length - size
    if beyond <= 0:
        return (Extent(offset, offset + length),)
    return (Extent(offset, size), Extent(AREA_HEADER_SIZE, AREA_HEADER_SIZE + beyond))


def check_text(raw: bytes, slot: Slot) -> str:
    """The metadata text, checked.

    Raises:
        FormatError: when it is not what was written.
    """
    if crc(raw) != slot.checksum:
        raise FormatError("its metadata text is damaged")
    return raw.decode("utf-8", "surrogateescape")


def read_text(read: Callable[[int, int], bytes], start: int, size: int) -> str | None:
    """The text of the metadata area that has `size` bytes and lies at byte `start` of a physical volume.

    Args:
        read: gives so many bytes (second) of the volume from a position (first) on.

    Returns:
        Empty when the area has none, None when it is to be ignored.

    Raises:
        FormatError: when it is not whole.
    """
    slot = parse_area_header(read(start, AREA_HEADER_SIZE), start, size)
    if slot is None:
        return None
    raw = b"".join(read(start + piece.start, piece.size) for piece in slot.pieces)
    return check_text(raw, slot) if slot.pieces else ""
