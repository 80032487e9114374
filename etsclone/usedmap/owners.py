"""What lost bytes belonged to: which file, folder or metadata, which volume, or nothing, as far as anybody can tell."""

from collections.abc import Callable, Iterator

from etsclone.errors import CommandFailed, DeviceError, FormatError, MissingProgram
from etsclone.model.disk import Disk, Partition
from etsclone.model.extents import Extent, Extents
from etsclone.plan.lvmdisk import LABEL_SCAN_SIZE, parse_label
from etsclone.units import SECTOR
from etsclone.usedmap import lvm
from etsclone.usedmap.btrfsowners import btrfs_owners
from etsclone.usedmap.extowners import ext_owners
from etsclone.usedmap.region import DiskAccess, Region
from etsclone.usedmap.xfsowners import xfs_owners

_GPT_SECTORS = 34
"""Protective MBR, header and 128 entries of 128 bytes (UEFI 5.3); as many at the end, but for the MBR."""


def disk_owners(
    source: Disk, parts: tuple[Partition, ...], access: DiskAccess, lost: Extents
) -> tuple[str, ...]:
    """Name what `lost` bytes of a disk belonged to, one line each, without repetition.

    Args:
        source: the disk; its table says what lies outside of partitions.
        parts: the partitions that have content; the one in the place of the whole disk has number 0.
        access: how to look at the disk.
        lost: in bytes of the disk.
    """
    lines: list[str] = []
    for part in parts:
        where = f"partition {part.number}: " if part.number else ""
        region = Region(access, Extent(part.start, part.end))
        inside = (lost & Extents((region.extent,))).shifted(-part.start)
        lines += [f"{where}{line}" for line in owners(region, part.content.type, inside)]
    outside = lost - Extents.of(Extent(part.start, part.end) for part in parts)
    return tuple(dict.fromkeys((*lines, *(_gap(source, extent) for extent in outside))))


def owners(region: Region, kind: str, lost: Extents) -> tuple[str, ...]:
    """Name what `lost` bytes of a region belonged to; `kind` is what blkid calls its content.

    Where nobody can tell, the bytes themselves are named.
    """
    if not lost.ranges:
        return ()
    ask = _TELLERS.get(kind)
    try:
        if ask is not None:
            return tuple(dict.fromkeys(ask(region, lost)))
    except (CommandFailed, DeviceError, FormatError, MissingProgram, ValueError):
        pass
    return tuple(
        f"bytes {extent.start} to {extent.end} of {kind or 'unknown content'}" for extent in lost
    )


def _gap(source: Disk, extent: Extent) -> str:
    where = f"bytes {extent.start} to {extent.end}"
    if source.table is None:
        return where
    table = _GPT_SECTORS * source.sector_size if source.table.label == "gpt" else SECTOR
    if extent.start < table:
        return f"{where}: boot code and partition table"
    if extent.end <= min((part.start for part in source.partitions), default=0):
        return f"{where}: boot loader area"
    if source.table.label == "gpt" and extent.start >= source.size - table + source.sector_size:
        return f"{where}: backup partition table"
    return f"{where}: outside of all partitions"


def _in_window(
    ask: Callable[[str, Extents], list[str]],
) -> Callable[[Region, Extents], list[str]]:
    def ask_there(region: Region, lost: Extents) -> list[str]:
        with region.disk.window(region.extent) as device:
            return ask(device, lost)

    return ask_there


def _swap_owners(_region: Region, _lost: Extents) -> list[str]:
    return ["swap space"]


def _lvm_owners(region: Region, lost: Extents) -> list[str]:
    group = lvm.read_group(region, parse_label(region.read(0, LABEL_SCAN_SIZE)))
    if group is None:
        raise FormatError("it belongs to no volume group")
    lines: list[str] = []
    for volume in group.volumes:
        name, place = f"{group.name}/{volume.name}", group.whole(volume)
        if place is None:
            continue
        part = region.part(place.start, place.size)
        inside = (lost & Extents((place,))).shifted(-place.start)
        if inside.ranges:
            kind = region.disk.content(part.extent).type
            lines += [f"volume {name}: {line}" for line in owners(part, kind, inside)]
        lost -= Extents((place,))
    return [*lines, *_lvm_rest(lost, group.data, group.allocated, group.name)]


def _lvm_rest(lost: Extents, data: Extents, allocated: Extents, group: str) -> Iterator[str]:
    for extent in lost & allocated:
        yield f"bytes {extent.start} to {extent.end}: volumes of {group} that are in several pieces"
    if (lost & data - allocated).ranges:
        yield f"free space of volume group {group}"
    if (lost - data).ranges:
        yield "metadata of LVM"


_TELLERS: dict[str, Callable[[Region, Extents], list[str]]] = {
    "ext2": _in_window(ext_owners),
    "ext3": _in_window(ext_owners),
    "ext4": _in_window(ext_owners),
    "xfs": _in_window(xfs_owners),
    "btrfs": _in_window(btrfs_owners),
    "swap": _swap_owners,
    lvm.CONTENT: _lvm_owners,
}
