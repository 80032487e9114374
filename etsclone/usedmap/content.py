"""Which bytes of a partition matter, whatever it contains: the entry to this package.

A reader that knows the content tells. Where none does, where it fails, or where what it tells makes no sense,
everything matters, and the note says why.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace

from etsclone.errors import CommandFailed, DeviceError, FormatError
from etsclone.model.disk import Partition
from etsclone.model.extents import Extent
from etsclone.model.plan import UsedMap, Volume
from etsclone.units import KIB
from etsclone.usedmap import ext, fat, partclone, swap
from etsclone.usedmap.region import DiskAccess, Finding, Region, everything

WHOLE = {
    "swap": "",
    "crypto_LUKS": "encrypted with LUKS, free and used look alike",
    "BitLocker": "encrypted with BitLocker, free and used look alike",
    "linux_raid_member": "a member of an md array, which may use all of it",
    "swsuspend": "a hibernated system is kept in it",
}
"""Contents, as blkid calls them, of which everything matters, and what is to be said of it."""

_PHYSICAL_VOLUME = "LVM2_member"

_TOLD_BY = 128 * KIB
"""The first bytes of a partition, which hold the superblock of every filesystem that a reader knows."""

_Reader = Callable[[Region], Finding]


def used_map(partition: Partition, disk: DiskAccess, *, swap_header_only: bool = False) -> UsedMap:
    """The bytes of a partition that matter, in bytes of the disk.

    Args:
        partition: a partition, or a whole disk without a table in the shape of one.
        disk: how to look at the disk that it is on.
        swap_header_only: of swap space, keep only what makes it one, with its UUID and label; what was swapped out
            is lost.

    Raises:
        MissingProgram: when the program that knows the content is not installed.
    """
    region = Region(disk, Extent(partition.start, partition.end))
    found = _find(partition.content.type, region, swap_header_only=swap_header_only)
    return UsedMap(
        partition.number,
        partition.content.type,
        partition.start,
        partition.size,
        found.extents.shifted(partition.start),
        found.method,
        found.note,
        found.volumes,
    )


def _find(kind: str, region: Region, *, swap_header_only: bool) -> Finding:
    reader = _reader(kind, swap_header_only=swap_header_only)
    if reader is None:
        return everything(region, _why_everything(kind, region))
    try:
        return _checked(reader(region), region)
    except (CommandFailed, DeviceError, FormatError) as error:
        return everything(region, error.message)


def _why_everything(kind: str, region: Region) -> str:
    if kind:
        return WHOLE.get(kind, f"nothing is known of the inside of {kind}")
    try:
        region.read(0, min(region.size, _TOLD_BY))
    except DeviceError:
        return "its beginning cannot be read, so nobody can tell what it is"
    return ""


def _reader(kind: str, *, swap_header_only: bool) -> _Reader | None:
    def find_in_volume(region: Region) -> Finding:
        inside = region.disk.content(region.extent).type
        # A physical volume inside a logical one is not looked into: nothing would bound the depth.
        if inside == _PHYSICAL_VOLUME:
            return everything(region, "it holds another physical volume")
        found = _find(inside, region, swap_header_only=swap_header_only)
        return replace(found, volumes=(Volume(region.extent, inside),))

    if kind == fat.CONTENT:
        return fat.find_used
    if kind in ext.CONTENTS:
        return lambda region: _find_ext(kind, region)
    if kind in partclone.READERS:
        return lambda region: partclone.find_used(kind, region)
    if kind == _PHYSICAL_VOLUME:
        from etsclone.usedmap import lvm  # noqa: PLC0415 - five modules, which only LVM pays for

        return lambda region: lvm.find_used(region, find_in_volume)
    if kind == "swap" and swap_header_only:
        return swap.find_header
    return None


def _find_ext(kind: str, region: Region) -> Finding:
    # Mounted and held still it is in order, but does not look so: that is left to partclone too.
    if not region.disk.frozen(region.extent):
        with contextlib.suppress(FormatError, DeviceError):
            return ext.find_used(region)
    return partclone.find_used(kind, region)


def _checked(found: Finding, region: Region) -> Finding:
    ranges = found.extents.ranges
    if not ranges:
        raise FormatError("its map has no used block")
    if ranges[-1].end > region.size:
        raise FormatError("its map does not fit the partition")
    return found
