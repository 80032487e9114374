"""Logical volumes as tables of device-mapper: what makes them readable without LVM, under names of one's own.

LVM knows volumes by UUIDs, which a clone has in common with its twin: asked for a volume it may well show the twin's.
A table names devices.

Source: the kernel's Documentation/admin-guide/device-mapper/{linear,striped,thin-provisioning}.rst; lengths and
positions are in sectors of 512 bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from etsclone.errors import FormatError
from etsclone.plan.lvmgroup import LogicalVolume, Segment, VolumeGroup
from etsclone.units import SECTOR

_PLAIN = frozenset({"striped", "linear"})

_DISCARDS = {"ignore": "ignore_discard", "nopassdown": "no_discard_passdown"}
"""What the metadata of a pool says of discards, and what device-mapper calls it."""


@dataclass(frozen=True, slots=True)
class Table:
    """The table of a logical volume; `shown` means that it is one for users, not a part of another.

    Where it is a `pool`, device-mapper takes no read-only table; then the table says itself that nothing is written.
    """

    volume: str
    text: str
    shown: bool = True
    pool: bool = False


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a volume group, each behind those that it needs; and why other volumes have none, by name."""

    tables: tuple[Table, ...]
    missing: Mapping[str, str]


def plan_tables(
    views: Mapping[str, VolumeGroup], node: Callable[[str], str], *, read_only: bool
) -> Tables:
    """The tables of all volumes that lie on the physical volumes at hand alone.

    Args:
        views: a volume group as each of its physical volumes sees it, by the device of the physical volume.
        node: the device node that a logical volume will have, by its name.
        read_only: nothing will be written, not even the metadata of a thin pool.

    Raises:
        FormatError: when the metadata makes no sense.
    """
    return _Planner(views, node, read_only=read_only).plan()


class _Planner:
    def __init__(
        self, views: Mapping[str, VolumeGroup], node: Callable[[str], str], *, read_only: bool
    ) -> None:
        self._places = {view.own_name: (device, view) for device, view in views.items()}
        self._group = next(iter(views.values()))
        self._volumes = {volume.name: volume for volume in self._group.volumes}
        self._node = node
        self._read_only = read_only

    def plan(self) -> Tables:
        done: dict[str, Table] = {}
        missing: dict[str, str] = {}
        for volume in self._group.volumes:
            if not volume.visible or _kind(volume) == "thin-pool" or self._is_store(volume):
                continue
            try:
                for table in self._with_needed(volume):
                    done.setdefault(table.volume, table)
            except _Unusable as error:
                missing[volume.name] = str(error)
        return Tables(tuple(done.values()), missing)

    def _with_needed(self, volume: LogicalVolume) -> Iterator[Table]:
        """The tables that a volume needs, and its own."""
        if _kind(volume) != "thin":
            yield self._plain(volume, shown=True)
            return
        (segment,) = volume.segments
        if "external_origin" in segment.facts:
            raise _Unusable("it has an origin outside its thin pool")
        pool = self._named(segment, "thin_pool")
        yield from self._pool(pool)
        device = _fact(segment, "device_id")
        yield Table(
            volume.name, f"0 {self._length(volume)} thin {self._node(pool.name)} {device}\n"
        )

    def _pool(self, pool: LogicalVolume) -> Iterator[Table]:
        if _kind(pool) != "thin-pool":
            raise _Unusable(f"its thin pool is of the type {_kind(pool)}")
        (segment,) = pool.segments
        metadata, data = self._named(segment, "metadata"), self._named(segment, "pool")
        yield self._plain(metadata, shown=False)
        yield self._plain(data, shown=False)
        nodes = f"{self._node(metadata.name)} {self._node(data.name)}"
        features = tuple(self._features(segment))
        words = f"{nodes} {_fact(segment, 'chunk_size')} 0 {len(features)} {' '.join(features)}"
        yield Table(
            pool.name, f"0 {self._length(pool)} thin-pool {words}\n", shown=False, pool=True
        )

    def _features(self, segment: Segment) -> Iterator[str]:
        yield "read_only" if self._read_only else "error_if_no_space"
        if segment.facts.get("zero_new_blocks") == 0:
            yield "skip_block_zeroing"
        discards = _DISCARDS.get(str(segment.facts.get("discards")))
        if discards:
            yield discards

    def _plain(self, volume: LogicalVolume, *, shown: bool) -> Table:
        if not self._read_only and self._is_origin(volume):
            raise _Unusable("it has snapshots, which would no longer fit it")
        lines = (self._line(segment) for segment in volume.segments)
        return Table(volume.name, "".join(lines), shown)

    def _line(self, segment: Segment) -> str:
        if segment.kind not in _PLAIN:
            raise _Unusable(f"it is of the type {segment.kind}")
        areas = [self._area(name, start, segment.area_count) for name, start in segment.areas]
        size = self._group.extent_size // SECTOR
        where = f"{segment.start * size} {segment.count * size}"
        if len(areas) == 1:
            return f"{where} linear {areas[0]}\n"
        stripe = _fact(segment, "stripe_size")
        return f"{where} striped {len(areas)} {stripe} {' '.join(areas)}\n"

    def _area(self, name: str, start: int, count: int) -> str:
        if name not in self._places:
            raise _Unusable(f"a part of it is on {name}, which is not on this disk")
        device, view = self._places[name]
        return f"{device} {view.bytes_of(start, count).start // SECTOR}"

    def _named(self, segment: Segment, fact: str) -> LogicalVolume:
        volume = self._volumes.get(str(segment.facts.get(fact)))
        if volume is None:
            raise FormatError(f"its metadata has a thin volume without its {fact}")
        return volume

    def _length(self, volume: LogicalVolume) -> int:
        return self._group.extents_of(volume) * self._group.extent_size // SECTOR

    def _is_origin(self, volume: LogicalVolume) -> bool:
        return volume.name in self._in_snapshots("origin")

    def _is_store(self, volume: LogicalVolume) -> bool:
        return volume.name in self._in_snapshots("cow_store", "merging_store")

    def _in_snapshots(self, *facts: str) -> set[str]:
        return {
            str(segment.facts[fact])
            for volume in self._group.volumes
            for segment in volume.segments
            for fact in facts
            if segment.kind == "snapshot" and fact in segment.facts
        }


class _Unusable(Exception):
    """Why a volume has no table."""


def _kind(volume: LogicalVolume) -> str:
    kinds = {segment.kind for segment in volume.segments}
    return kinds.pop() if len(kinds) == 1 and len(volume.segments) == 1 else "several segments"


def _fact(segment: Segment, name: str) -> int:
    value = segment.facts.get(name)
    if not isinstance(value, int) or value < 0:
        raise FormatError(f"its metadata has a segment of the type {segment.kind} without {name}")
    return value
