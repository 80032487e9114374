"""Which logical volumes of a source are mounted, and where they lie on it."""

from collections.abc import Iterator
from dataclasses import dataclass

from etsclone.commands.survey import SourceAccess, parts_with_content
from etsclone.disk.device import opened
from etsclone.disk.probe import read_content
from etsclone.disk.snapshots import mapper_fact, node_of
from etsclone.errors import DeviceError, FormatError
from etsclone.model.disk import Disk
from etsclone.model.extents import Extent
from etsclone.model.plan import Guard, Refusal
from etsclone.model.view import Kept
from etsclone.plan.live import MARK, SNAPSHOT_CONTENTS, MountedVolume, to_freeze
from etsclone.plan.lvmdisk import LABEL_SCAN_SIZE, Label, parse_label
from etsclone.plan.lvmgroup import LogicalVolume, VolumeGroup
from etsclone.usedmap import lvm
from etsclone.usedmap.region import Region


@dataclass(frozen=True, slots=True)
class Volumes:
    """The mounted volumes of which snapshots can be taken, LVM's metadata of their groups as it is now, and what is in
    the way."""

    mounted: tuple[MountedVolume, ...] = ()
    metadata: tuple[Kept, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class _Physical:
    """A physical volume on the source, with its label and group."""

    region: Region
    label: Label
    group: VolumeGroup


def mounted_volumes(source: Disk) -> Volumes:
    """Look for logical volumes on a disk that are mounted for writing.

    Raises:
        DeviceError: when the disk cannot be read.
    """
    used = to_freeze(source)
    if not any(device.startswith("/dev/dm-") for device in used):
        return Volumes()
    with opened(source.path, writable=False) as descriptor:
        physical = list(_physical_volumes(source, SourceAccess(source, descriptor)))
        found = (_mounted(physical, device, folder) for device, folder in used.items())
        mounted = tuple(volume for volume in found if volume is not None)
        groups = {volume.group for volume in mounted}
        concerned = [each for each in physical if each.group.name in groups]
        metadata = tuple(kept for each in concerned for kept in _metadata(each))
    refusals = dict.fromkeys(refusal for each in concerned for refusal in _leftovers(each.group))
    return Volumes(mounted, metadata, tuple(refusals))


def _physical_volumes(source: Disk, access: SourceAccess) -> Iterator[_Physical]:
    for part in parts_with_content(source):
        if part.content.type != lvm.CONTENT:
            continue
        region = Region(access, Extent(part.start, part.end))
        try:
            label = parse_label(region.read(0, LABEL_SCAN_SIZE))
            group = lvm.read_group(region, label)
        except (FormatError, DeviceError):
            continue  # then its volumes have to be frozen
        if group is not None:
            yield _Physical(region, label, group)


def _mounted(physical: list[_Physical], device: str, folder: str) -> MountedVolume | None:
    name = mapper_fact(device, "name")
    found = [
        (each, volume)
        for each in physical
        for volume in each.group.volumes
        if name and node_of(each.group.name, volume.name).endswith(f"/{name}")
    ]
    try:
        places = tuple(place for each, volume in found for place in _places(each, volume))
    except FormatError:
        return None
    if not places:
        return None
    ((where, volume), *_) = found
    count, extent_size = where.group.extents_of(volume), where.group.extent_size
    if read_content(device, 0, count * extent_size).type not in SNAPSHOT_CONTENTS:
        return None
    return MountedVolume(where.group.name, volume.name, device, folder, count, extent_size, places)


def _places(where: _Physical, volume: LogicalVolume) -> list[tuple[Extent, int]]:
    start = where.region.extent.start
    return [(extent.shifted(start), offset) for extent, offset in where.group.places(volume)]


def _metadata(where: _Physical) -> Iterator[Kept]:
    start = where.region.extent.start
    for offset, size in where.label.metadata_areas:
        yield Kept(start + offset, where.region.read(offset, size))


def _leftovers(group: VolumeGroup) -> Iterator[Refusal]:
    names = [_full_name(group, volume) for volume in group.volumes if volume.name.startswith(MARK)]
    if names:
        yield Refusal(
            Guard.SOURCE_MOUNTED,
            f"there are snapshots of another clone: {', '.join(names)}",
            f"wait until it is done; if none is running: lvremove {' '.join(names)}",
        )


def _full_name(group: VolumeGroup, volume: LogicalVolume) -> str:
    return f"{group.name}/{volume.name}"
