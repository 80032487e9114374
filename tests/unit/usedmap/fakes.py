"""A disk in memory, and physical volumes of LVM2 made byte by byte from the specification."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from etsclone.errors import DeviceError
from etsclone.model.disk import Content
from etsclone.model.extents import Extent
from etsclone.plan.lvmdisk import crc
from etsclone.usedmap.region import Unlocked

UUID = "000000AAAABBBBCCCCDDDDEEEEFFFFFF"
AREA, AREA_SIZE = 4096, 1024 * 1024 - 4096


@dataclass(frozen=True)
class FakeDisk:
    """Bytes, of which those behind `data` are zero and those from `bad` on cannot be read."""

    data: bytes
    contents: dict[Extent, str] = field(default_factory=dict)
    bad: int = 1 << 62

    def read(self, extent: Extent) -> bytes:
        if extent.end > self.bad:
            raise DeviceError("the disk cannot be read")
        return self.data[extent.start : extent.end].ljust(extent.size, b"\0")

    def content(self, extent: Extent) -> Content:
        return Content(self.contents.get(extent, ""))

    def frozen(self, _extent: Extent) -> bool:
        return False

    def unlocked(self, _extent: Extent) -> Unlocked | None:
        return None

    @contextmanager
    def window(self, extent: Extent) -> Iterator[str]:
        yield f"/dev/{extent.start}-{extent.end}"


def label(*areas: tuple[int, int], number: int = 1, used: bool = True, extension: int = 2) -> bytes:
    """A label sector: one data area from 1 MiB on, and these metadata areas."""
    pv_header = struct.pack("<32sQ", UUID.encode(), 1 << 30)
    data = struct.pack("<QQQQ", 1 << 20, 0, 0, 0)
    metadata = b"".join(struct.pack("<QQ", *area) for area in areas) + bytes(16)
    body = pv_header + data + metadata + struct.pack("<II", extension, int(used))
    rest = struct.pack("<I8s", 32, b"LVM2 001") + body
    rest = rest.ljust(512 - 20, b"\0")
    return struct.pack("<8sQI", b"LABELONE", number, crc(rest)) + rest


def area_header(
    offset: int,
    length: int,
    checksum: int,
    *,
    flags: int = 0,
    start: int = AREA,
    size: int = AREA_SIZE,
) -> bytes:
    """The header of a metadata area whose text is at `offset`."""
    rest = struct.pack("<16sIQQ", b" LVM2 x[5A%r0N*>", 1, start, size)
    rest += struct.pack("<QQII", offset, length, checksum, flags)
    rest = rest.ljust(508, b"\0")
    return struct.pack("<I", crc(rest)) + rest


def physical_volume(text: str, *, offset: int = 512, flags: int = 0, used: bool = True) -> bytes:
    """The first MiB of a physical volume with this metadata at `offset` of its only area, round the end if need be."""
    raw = text.encode() + b"\0" if text else b""
    area = bytearray(AREA_SIZE)
    area[:512] = area_header(offset if raw else 0, len(raw), crc(raw), flags=flags)
    for position, byte in enumerate(raw):
        place = offset + position
        area[place if place < AREA_SIZE else place - AREA_SIZE + 512] = byte
    head = bytes(512) + label((AREA, AREA_SIZE), used=used)
    return head.ljust(AREA, b"\0") + bytes(area)
