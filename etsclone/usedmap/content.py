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
    "BitLocker": "encrypted with BitLocker, free and used look alike",
    "swsuspend": "a hibernated system is kept in it",
}
"""Contents, as blkid calls them, of which everything matters, and what is to be said of it."""

_LVM, _LUKS, _MD = "LVM2_member", "crypto_LUKS", "linux_raid_member"
_CONTAINERS = {_LVM: "physical volume", _LUKS: "LUKS volume", _MD: "member of an md array"}

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


def _find(
    kind: str, region: Region, *, swap_header_only: bool, around: frozenset[str] = frozenset()
) -> Finding:
    """`around` are the kinds of content that the region is inside of."""
    reader = _reader(kind, around | {kind}, swap_header_only=swap_header_only)
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


def _reader(kind: str, around: frozenset[str], *, swap_header_only: bool) -> _Reader | None:
    def find_inside(region: Region) -> Finding:
        inside = region.disk.content(region.extent).type
        # Nothing that may hold others is looked for in its own kind: nothing would bound the depth.
        if inside in around:
            return everything(region, f"it holds another {_CONTAINERS[inside]}")
        found = _find(inside, region, swap_header_only=swap_header_only, around=around)
        return replace(found, volumes=(Volume(region.extent, inside), *found.volumes))

    if kind == fat.CONTENT:
        return fat.find_used
    if kind in ext.CONTENTS:
        return lambda region: _find_ext(kind, region)
    if kind in partclone.READERS:
        return lambda region: partclone.find_used(kind, region)
    if kind in _CONTAINERS:
        return lambda region: _find_around(kind, region, find_inside)
    if kind == "swap" and swap_header_only:
        return swap.find_header
    return None


def _find_around(kind: str, region: Region, find_inside: _Reader) -> Finding:
    # Each is several modules, which only those pay for who have it.
    if kind == _LVM:
        from etsclone.usedmap import lvm  # noqa: PLC0415

        return lvm.find_used(region, find_inside)
    if kind == _LUKS:
        from etsclone.usedmap import luks  # noqa: PLC0415

        return luks.find_used(region, find_inside)
    from etsclone.usedmap import md  # noqa: PLC0415

    return md.find_used(region, find_inside)


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
