"""Telling whether a disk was written to: a digest of what every use of a filesystem changes."""

import hashlib
import struct
from collections.abc import Callable, Sequence

from etsclone.errors import DeviceError
from etsclone.model.disk import Disk
from etsclone.model.extents import Extent
from etsclone.model.plan import UsedMap
from etsclone.units import KIB, MIB

_SUPERBLOCKS = 128 * KIB
"""Holds the superblock of ext4 (at 1 KiB, with the times of the last mount and write), btrfs (at 64 KiB, with its
generation), FAT and NTFS (dirty flags), LVM and LUKS metadata."""

_MAX_LOG = 64 * MIB


Read = Callable[[Extent], bytes]
"""The bytes of an extent of the disk; raises DeviceError when they cannot be read."""


def fingerprint(read: Read, disk: Disk, maps: Sequence[UsedMap]) -> str:
    """A sha256 (hex) over partition table, superblocks, the logs of xfs, also in LVM, and which blocks are used.

    Mounting a filesystem for writing changes it even if no file is touched: ext4 and btrfs note it in the superblock,
    xfs in its log, FAT and NTFS when something is allocated.
    """
    total = hashlib.sha256()
    for extent in _places(read, disk, maps):
        total.update(f"{extent.start} {extent.size} ".encode())
        total.update(_readable(read, extent))
    for used in maps:
        total.update(repr([(extent.start, extent.end) for extent in used.extents]).encode())
    return total.hexdigest()


def _places(read: Read, disk: Disk, maps: Sequence[UsedMap]) -> list[Extent]:
    places = []
    regions = [(Extent(0, disk.size), disk.content.type)]
    regions += [(Extent(part.start, part.end), part.content.type) for part in disk.partitions]
    regions += [(volume.extent, volume.content) for used in maps for volume in used.volumes]
    for region, content in regions:
        places.append(Extent(region.start, min(region.start + _SUPERBLOCKS, region.end)))
        if content == "xfs":
            places += _xfs_log(read, region)
    return places


def _readable(read: Read, extent: Extent) -> bytes:
    try:
        return read(extent)
    except DeviceError:  # a dying disk is still the same disk
        return b""


def _xfs_log(read: Read, place: Extent) -> list[Extent]:
    # Source: XFS Algorithms and Data Structures, "Superblocks": big-endian; sb_logstart at 48 is a filesystem block
    # number whose high bits are the allocation group (sb_agblklog at 124 tells how many are low); an external log is 0.
    block = _readable(read, Extent(place.start, place.start + 512))
    if len(block) < 512 or block[:4] != b"XFSB":
        return []
    (block_size,) = struct.unpack_from(">I", block, 4)
    (log_start,) = struct.unpack_from(">Q", block, 48)
    (group_blocks,) = struct.unpack_from(">I", block, 84)
    (log_blocks,) = struct.unpack_from(">I", block, 96)
    low_bits = block[124]
    if not log_start:
        return []
    first = (log_start >> low_bits) * group_blocks + (log_start & ((1 << low_bits) - 1))
    start = place.start + first * block_size
    end = min(start + min(log_blocks * block_size, _MAX_LOG), place.end)
    return [Extent(start, end)] if start < end else []
