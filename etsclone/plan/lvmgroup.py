"""What the metadata of an LVM2 volume group says of one physical volume: which extents belong to which volume.

Source: lib/format_text/import_vsn1.c of LVM2 and the segment types in lib/*/; offsets and sizes in the text are in
sectors of 512 bytes or in extents, here they are in bytes and in extents.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.plan.lvmtext import Section, Value
from etsclone.units import SECTOR

_WITHOUT_AREAS = frozenset(
    {
        *("thin", "thin-pool", "cache", "cache-pool", "writecache", "snapshot", "integrity"),
        *("vdo", "vdo-pool", "error", "zero"),
    }
)
"""Segment types that lie on other logical volumes only, never on a physical one; with those that begin with `raid`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a logical volume: its type, its extents in the volume, and its areas.

    Areas are (name of a physical or logical volume, first extent there); each has `area_count` extents. `mentions` are
    all names in it, `facts` all values, as its type has them.
    """

    kind: str
    start: int
    count: int
    area_count: int
    areas: tuple[tuple[str, int], ...]
    mentions: frozenset[str]
    facts: Mapping[str, Value] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume; `visible` means that it is one for users, not a part of another."""

    name: str
    visible: bool
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A volume group as one of its physical volumes sees it: what it calls that one, where its extents begin (in bytes
    of the volume), how large one is (in bytes) and how many there are. `seqno` counts the changes.
    """

    name: str
    seqno: int
    own_name: str
    data_start: int
    extent_size: int
    extent_count: int
    volumes: tuple[LogicalVolume, ...]

    @property
    def data(self) -> Extents:
        """All extents of the physical volume, in its bytes."""
        return Extents.between(
            self.data_start, self.data_start + self.extent_count * self.extent_size
        )

    @property
    def allocated(self) -> Extents:
        """The extents that belong to logical volumes, in bytes of the physical volume.

        Raises:
            FormatError: when two belong to the same, or it has no such extents.
        """
        areas = [
            self.bytes_of(start, segment.area_count)
            for volume in self.volumes
            for segment in volume.segments
            for name, start in segment.areas
            if name == self.own_name
        ]
        allocated = Extents.of(areas)
        if allocated.size != sum(area.size for area in areas):
            raise FormatError("its metadata gives extents away twice")
        return allocated

    def has_part_of(self, volume: LogicalVolume) -> bool:
        """Whether extents of the physical volume belong to this logical volume."""
        return any(name == self.own_name for part in volume.segments for name, _ in part.areas)

    def whole(self, volume: LogicalVolume) -> Extent | None:
        """Where a logical volume lies in one piece on this physical volume, in its bytes; None when it does not.

        Nor may another volume be made of it, such as a snapshot: that may need what is free in this one.
        """
        others = (other for other in self.volumes if other is not volume)
        mentioned = any(volume.name in part.mentions for other in others for part in other.segments)
        if mentioned or not volume.visible or len(volume.segments) != 1:
            return None
        (segment,) = volume.segments
        linear = segment.kind in {"striped", "linear"} and len(segment.areas) == 1
        if not linear or segment.start != 0 or segment.areas[0][0] != self.own_name:
            return None
        return self.bytes_of(segment.areas[0][1], segment.count)

    def places(self, volume: LogicalVolume) -> tuple[tuple[Extent, int], ...]:
        """Where parts of a logical volume lie on the physical volume: in its bytes, and where in the logical volume.

        Raises:
            FormatError: when it is not plainly one piece behind another (striped, mirrored, thin).
        """
        found = []
        for part in volume.segments:
            if part.kind not in {"striped", "linear"} or len(part.areas) != 1:
                raise FormatError(f"{self.name}/{volume.name} is not linear")
            ((name, start),) = part.areas
            if name == self.own_name:
                found.append((self.bytes_of(start, part.count), part.start * self.extent_size))
        return tuple(found)

    def extents_of(self, volume: LogicalVolume) -> int:
        """How many extents a logical volume has, on whatever physical volumes."""
        return sum(part.count for part in volume.segments)

    def bytes_of(self, start: int, count: int) -> Extent:
        """Where `count` extents from `start` on lie on the physical volume, in its bytes.

        Raises:
            FormatError: when it has no such extents.
        """
        if start < 0 or count <= 0 or start + count > self.extent_count:
            raise FormatError("its metadata names extents that it does not have")
        first = self.data_start + start * self.extent_size
        return Extent(first, first + count * self.extent_size)


def parse_group(config: Section, uuid: str) -> VolumeGroup:
    """Read the metadata of a volume group, for the physical volume with this UUID (without dashes).

    Raises:
        FormatError: when it makes no sense, has segments of an unknown type, or does not know the physical volume.
    """
    groups = [(name, entry) for name, entry in config.items() if isinstance(entry, dict)]
    if len(groups) != 1:
        raise FormatError("its metadata names no volume group, or several")
    ((name, group),) = groups
    own_name, own = _own(group, uuid)
    if _number(group, "extent_size") == 0:
        raise FormatError("its metadata has extents without a size")
    return VolumeGroup(
        name,
        _number(group, "seqno"),
        own_name,
        _number(own, "pe_start") * SECTOR,
        _number(group, "extent_size") * SECTOR,
        _number(own, "pe_count"),
        tuple(_volume(key, entry) for key, entry in _sections(group, "logical_volumes")),
    )


def members_of(config: Section) -> frozenset[str]:
    """The UUIDs, without dashes, of all physical volumes that the metadata of a volume group names."""
    return frozenset(
        str(entry.get("id", "")).replace("-", "")
        for group in config.values()
        if isinstance(group, dict)
        for _, entry in _sections(group, "physical_volumes")
    )


def _own(group: Section, uuid: str) -> tuple[str, Section]:
    for name, entry in _sections(group, "physical_volumes"):
        if str(entry.get("id", "")).replace("-", "") == uuid:
            return name, entry
    raise FormatError("its metadata does not know it")


def _volume(name: str, entry: Section) -> LogicalVolume:
    status = entry.get("status")
    visible = isinstance(status, list) and "VISIBLE" in status
    segments = tuple(
        _segment(value)
        for key, value in entry.items()
        if key.startswith("segment") and isinstance(value, dict)
    )
    if len(segments) != _number(entry, "segment_count"):
        raise FormatError(f"its metadata lacks segments of {name}")
    return LogicalVolume(name, visible, segments)


def _segment(entry: Section) -> Segment:
    # A type may carry flags: `cache+METADATA_FORMAT`.
    kind = str(entry.get("type", "")).split("+")[0]
    count = _number(entry, "extent_count")
    areas: tuple[tuple[str, int], ...] = ()
    area_count = count
    if kind in {"striped", "linear"}:
        areas = _areas(entry, "stripes", _number(entry, "stripe_count"))
        area_count = -(-count // len(areas))
    elif kind == "mirror":
        areas = _areas(entry, "mirrors", _number(entry, "mirror_count"))
    elif kind not in _WITHOUT_AREAS and not kind.startswith("raid"):
        raise FormatError(f"its metadata has segments of an unknown type: {kind}")
    start = _number(entry, "start_extent")
    facts = {key: value for key, value in entry.items() if not isinstance(value, dict)}
    return Segment(kind, start, count, area_count, areas, frozenset(_names(entry)), facts)


def _areas(entry: Section, key: str, count: int) -> tuple[tuple[str, int], ...]:
    """Pairs of a name and a first extent, in one flat array."""
    flat = entry.get(key)
    if not isinstance(flat, list) or count < 1 or len(flat) != 2 * count:
        raise FormatError("its metadata has a segment without its areas")
    areas = []
    for name, start in zip(flat[::2], flat[1::2], strict=True):
        if not isinstance(name, str) or not isinstance(start, int):
            raise FormatError("its metadata has a segment with areas that make no sense")
        areas.append((name, start))
    return tuple(areas)


def _names(entry: Section) -> Iterator[str]:
    for value in entry.values():
        values = value if isinstance(value, list) else [value]
        yield from (each for each in values if isinstance(each, str))


def _sections(group: Section, key: str) -> Iterator[tuple[str, Section]]:
    entries = group.get(key, {})
    if not isinstance(entries, dict):
        raise FormatError(f"its metadata has {key} that are no section")
    for name, entry in entries.items():
        if isinstance(entry, dict):
            yield name, entry


def _number(entry: Section, key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or value < 0:
        raise FormatError(f"its metadata has no {key}")
    return value
