"""Which bytes of a member of an md array matter.

Of a mirror (RAID 1) each member holds the whole content in one piece: what its filesystem does not use is left out.
Members of other arrays, and those that are not in sync or are being reshaped, matter whole.

Source: `struct mdp_superblock_1` in the kernel's include/uapi/linux/raid/md_p.h, and md(4). All numbers are
little-endian; sizes and offsets are in sectors of 512 bytes. A superblock of version 1.0 is near the end, of 1.1 at the
beginning, of 1.2 at 4 KiB.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.units import KIB, SECTOR, align_down
from etsclone.usedmap.region import Finding, Region

CONTENT = "linux_raid_member"
"""What blkid calls a member."""

_SIZE = 4 * KIB
_MAGIC = 0xA92B4EFC
_MIRROR = 1
_IN_PLACE = 0x1 | 0x8
"""Features that change nothing about where data is: MD_FEATURE_BITMAP_OFFSET and MD_FEATURE_BAD_BLOCKS."""

_FIXED = 256
_MOST_DEVICES = (_SIZE - _FIXED) // 2


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an array: its level, its features, and where its data lies, in bytes of the member."""

    level: int
    features: int
    data: Extent


def parse_superblock(block: bytes, position: int) -> Member | None:
    """Read the superblock that begins at byte `position` of a member; None when there is none.

    Raises:
        FormatError: when it is damaged.
    """
    magic, major, features = struct.unpack_from("<III", block)
    if (magic, major) != (_MAGIC, 1) or _number(block, 144) * SECTOR != position:
        return None
    (devices,) = struct.unpack_from("<I", block, 220)
    checksum = int.from_bytes(block[216:220], "little")
    if devices > _MOST_DEVICES or checksum != _checksum(block, devices):
        raise FormatError("its superblock of md is damaged")
    (level,) = struct.unpack_from("<i", block, 72)
    start, size = _number(block, 128) * SECTOR, _number(block, 80) * SECTOR
    # What the array shows is `size`; a member may have room for more.
    return Member(level, features, Extent(start, start + size)) if size else None


def _number(block: bytes, offset: int) -> int:
    return int.from_bytes(block[offset : offset + 8], "little")


def _checksum(block: bytes, devices: int) -> int:
    """Source: calc_sb_1_csum in drivers/md/md.c: the sum of all words, itself left out, the carry added."""
    raw = bytearray(block[: _FIXED + 2 * devices])
    raw[216:220] = bytes(4)
    # Half a word may be left at the end: it counts as it stands.
    total = sum(int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4))
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


def find_used(region: Region, find_inside: Callable[[Region], Finding]) -> Finding:
    """The bytes of a member of a mirror that matter; `find_inside` tells those of what the array holds.

    Raises:
        FormatError: when it is a member of something else, or not in sync.
        DeviceError: when the disk cannot be read.
    """
    member = _read_member(region)
    if member is None or member.level != _MIRROR:
        raise FormatError("a member of an md array, which may use all of it")
    if member.features & ~_IN_PLACE:
        raise FormatError("a member of an md array that is not in sync, or changes its shape")
    inside = find_inside(region.part(member.data.start, member.data.size))
    free = (Extents.between(0, member.data.size) - inside.extents).shifted(member.data.start)
    used = Extents.between(0, region.size) - free
    return Finding(used, f"md mirror, {inside.method}", inside.note, inside.volumes)


def _read_member(region: Region) -> Member | None:
    # Source: super_1_load in drivers/md/md.c: 8 KiB before the end, at a multiple of 4 KiB.
    last = align_down(region.size - 16 * SECTOR, 8 * SECTOR)
    for position in (8 * SECTOR, 0, last):
        member = parse_superblock(region.read(position, _SIZE), position)
        if member is not None:
            return member
    return None
