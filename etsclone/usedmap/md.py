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

_BITMAP = 0x1
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
    data = find_mirror(region)
    inside = find_inside(region.part(data.start, data.size))
    free = (Extents.between(0, data.size) - inside.extents).shifted(data.start)
    used = Extents.between(0, region.size) - free
    return Finding(used, f"md mirror, {inside.method}", inside.note, inside.volumes)


def find_mirror(region: Region) -> Extent:
    """Where the whole content of a mirror lies in one of its members, in bytes of the member.

    Raises:
        FormatError: when it is a member of something else, or not in sync.
        DeviceError: when the disk cannot be read.
    """
    member = _read_member(region)
    if member is None or member.level != _MIRROR:
        raise FormatError("a member of an md array, which may use all of it")
    if member.features & ~_IN_PLACE:
        raise FormatError("a member of an md array that is not in sync, or changes its shape")
    return member.data


def with_uuid(
    read: Callable[[int, int], bytes], size: int, uuid: bytes
) -> tuple[tuple[int, bytes], ...]:
    """What makes another UUID (16 bytes) that of a member's array: offsets in the member, and bytes to write there.

    `read` gives bytes of the member, which has `size`, by offset and number. The bitmap in the member has it too
    (`struct bitmap_super_s` in drivers/md/md-bitmap.h: at 8), or the kernel would not take it for the array's.

    Raises:
        FormatError: when there is no superblock, or it is damaged.
        DeviceError: when the disk cannot be read.
    """
    for position in _positions(size):
        block = bytearray(read(position, _SIZE))
        if parse_superblock(bytes(block), position) is None:
            continue
        block[16:32] = uuid
        (devices,) = struct.unpack_from("<I", block, 220)
        struct.pack_into("<I", block, 216, _checksum(bytes(block), devices))
        changes = [(position, bytes(block))]
        (features,) = struct.unpack_from("<I", block, 8)
        if features & _BITMAP:
            (offset,) = struct.unpack_from("<i", block, 96)
            changes.append((position + offset * SECTOR + 8, uuid))
        return tuple(changes)
    raise FormatError("it has no superblock of md")


def _read_member(region: Region) -> Member | None:
    for position in _positions(region.size):
        member = parse_superblock(region.read(position, _SIZE), position)
        if member is not None:
            return member
    return None


def _positions(size: int) -> tuple[int, ...]:
    # Source: super_1_load in drivers/md/md.c: 8 KiB before the end, at a multiple of 4 KiB.
    last = align_down(size - 16 * SECTOR, 8 * SECTOR)
    return (8 * SECTOR, 0, last)
