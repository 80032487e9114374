"""What is in volume groups and mirrors of md, for `--new-ids`: where it lies on the disk, and by what it is known."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from etsclone.errors import FormatError, IdsRefused
from etsclone.model.disk import Disk, Partition
from etsclone.model.extents import Extent
from etsclone.model.ids import ARRAY, VOLUME, InnerContent, InnerGroup, Inside
from etsclone.plan.clone import content_partitions
from etsclone.plan.lvmdisk import LABEL_SCAN_SIZE, parse_label, read_text
from etsclone.plan.lvmgroup import VolumeGroup, parse_group
from etsclone.plan.lvmtext import Section, parse_config
from etsclone.usedmap.md import find_mirror
from etsclone.usedmap.region import DiskAccess, Region


def look_inside(source: Disk, disk: DiskAccess) -> Inside:
    """Find what lies in the containers of a disk.

    Args:
        source: its snapshot.
        disk: how to look at it.

    Raises:
        IdsRefused: when a container cannot be looked into, or holds something in more than one piece.
        DeviceError: when the disk cannot be read.
    """
    found = _Found(disk)
    for part in content_partitions(source):
        try:
            found.look(part.number, part.content.type, part.content.uuid, part.extent)
        except FormatError as error:
            raise _refused(part, error.message) from error
    return Inside(tuple(found.contents), tuple(found.groups), tuple(found.arrays))


def _refused(part: Partition, why: str) -> IdsRefused:
    return IdsRefused(
        f"identifiers in partition {part.number} ({part.content.type}) cannot be changed: {why}",
        hint="clone without --new-ids",
    )


@dataclass(slots=True)
class _Found:
    disk: DiskAccess
    contents: list[InnerContent] = field(default_factory=list)
    groups: list[InnerGroup] = field(default_factory=list)
    arrays: list[InnerContent] = field(default_factory=list)

    def look(self, partition: int, content: str, uuid: str, place: Extent, depth: int = 0) -> None:
        """Note what a place holds, and what is inside of it."""
        if content == VOLUME:
            group, volumes = self._group(partition, place)
            self.groups.append(replace(group, inner=depth > 0))
        elif content == ARRAY:
            if any(each.uuid == uuid for each in self.arrays):
                raise FormatError("two members of one mirror are on this disk")
            self.arrays.append(InnerContent(partition, content, uuid, place))
            volumes = iter((find_mirror(Region(self.disk, place)).shifted(place.start),))
        else:
            if depth and uuid:
                self.contents.append(InnerContent(partition, content, uuid, place))
            return
        for inner in volumes:
            inside = self.disk.content(inner)
            self.look(partition, inside.type, inside.uuid, inner, depth + 1)

    def _group(self, partition: int, place: Extent) -> tuple[InnerGroup, Iterator[Extent]]:
        region = Region(self.disk, place)
        label = parse_label(region.read(0, LABEL_SCAN_SIZE))
        texts = (read_text(region.read, start, size) for start, size in label.metadata_areas)
        configs = [parse_config(text) for text in texts if text]
        if not configs:
            raise FormatError("its metadata is on other physical volumes, or it is in no group")
        config = max(configs, key=lambda each: parse_group(each, label.uuid).seqno)
        group = parse_group(config, label.uuid)
        section = config[group.name]
        if not isinstance(section, dict) or len(_section(section, "physical_volumes")) != 1:
            raise FormatError(f"its volume group {group.name} has other physical volumes")
        own = _section(_section(section, "physical_volumes"), group.own_name)
        found = InnerGroup(partition, place, str(own["id"]), str(section["id"]), group.name)
        return found, _volumes(group, place)


def _section(section: Section, name: str) -> Section:
    value = section.get(name)
    if not isinstance(value, dict):
        raise FormatError(f"its metadata has no {name}")
    return value


def _volumes(group: VolumeGroup, place: Extent) -> Iterator[Extent]:
    for volume in group.volumes:
        whole = group.whole(volume)
        if whole is None:
            raise FormatError(f"{group.name}/{volume.name} does not lie in one piece of its own")
        yield whole.shifted(place.start)
