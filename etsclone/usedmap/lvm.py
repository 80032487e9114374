"""Which bytes of an LVM2 physical volume matter.

Left out are only extents that no logical volume has, and, inside a volume that lies here in one piece and has a
filesystem that a reader knows, the filesystem's free blocks. All else matters: label, metadata, boot loader area, the
rest behind the last extent.
"""

from collections.abc import Callable, Iterator

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import Volume
from etsclone.plan.lvmdisk import (
    LABEL_SCAN_SIZE,
    Label,
    parse_label,
    read_text,
)
from etsclone.plan.lvmgroup import VolumeGroup, parse_group
from etsclone.plan.lvmtext import parse_config
from etsclone.usedmap.region import Finding, Region

CONTENT = "LVM2_member"
"""What blkid calls a physical volume."""

_METHOD = "lvm2 metadata"


def find_used(region: Region, find_in_volume: Callable[[Region], Finding]) -> Finding:
    """The bytes of a physical volume that matter; `find_in_volume` tells those of a logical volume.

    Raises:
        FormatError: when its metadata is elsewhere, damaged or not understood.
        DeviceError: when the disk cannot be read.
    """
    label = parse_label(region.read(0, LABEL_SCAN_SIZE))
    group = read_group(region, label)
    if group is None:
        return Finding(Extents.between(0, region.size) - _data_of(label, region), _METHOD)
    if group.data.ranges and group.data.ranges[-1].end > region.size:
        raise FormatError("it is smaller than its metadata says")
    unused = group.data - group.allocated
    methods, notes = [_METHOD], []
    volumes: list[Volume] = []
    for volume in group.volumes:
        place = group.whole(volume)
        if place is None:
            continue
        found = find_in_volume(region.part(place.start, place.size))
        unused |= (Extents.between(0, place.size) - found.extents).shifted(place.start)
        methods += [found.method] if found.extents.size < place.size else []
        volumes += found.volumes
        notes += [f"{group.name}/{volume.name}: {found.note}"] if found.note else []
    used = Extents.between(0, region.size) - unused
    note = "; ".join((*notes, *_broken(group)))
    return Finding(used, ", ".join(dict.fromkeys(methods)), note, tuple(volumes))


def _broken(group: VolumeGroup) -> Iterator[str]:
    names = [
        f"{group.name}/{volume.name}"
        for volume in group.volumes
        if group.has_part_of(volume) and group.whole(volume) is None
    ]
    if names:
        yield f"{', '.join(names)}: everything is copied: not in one piece of their own"


def read_group(region: Region, label: Label) -> VolumeGroup | None:
    """The volume group that a physical volume belongs to; None when it belongs to none.

    Raises:
        FormatError: when no metadata area on it tells, or all that do are damaged.
        DeviceError: when the disk cannot be read.
    """
    groups: list[VolumeGroup] = []
    errors: list[FormatError] = []
    told = False
    for start, size in label.metadata_areas:
        try:
            text = read_text(region.read, start, size)
            told |= text is not None
            groups += [parse_group(parse_config(text), label.uuid)] if text else []
        except FormatError as error:
            errors.append(error)
    if groups:
        # An interrupted change may have reached one of two areas only.
        return max(groups, key=lambda group: group.seqno)
    if errors:
        raise errors[0]
    if not told or label.used:
        raise FormatError("its metadata is on other physical volumes")
    return None


def _data_of(label: Label, region: Region) -> Extents:
    ends = ((start, start + size if size else region.size) for start, size in label.data_areas)
    areas = Extents.of(Extent(start, end) for start, end in ends if start < end <= region.size)
    metadata = (Extent(start, start + size) for start, size in label.metadata_areas if size)
    return areas - Extents.of(metadata)
