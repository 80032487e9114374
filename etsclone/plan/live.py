"""What a source that is in use needs so that it can be copied all the same. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from etsclone.model.disk import Disk, Use
from etsclone.model.extents import Extent
from etsclone.model.plan import Guard, Refusal
from etsclone.model.view import Snapshot, Stretch
from etsclone.units import counted, human

SNAPSHOT_CONTENTS = frozenset({"ext2", "ext3", "ext4", "xfs"})
"""Filesystems that LVM freezes for the moment of a snapshot. A btrfs spans devices that it finds by itself, by a UUID
that the snapshot would have too."""

MARK = "etsclone-"
"""How the names of our snapshots begin."""

_LEAST = 10
"""A snapshot gets room for a change of a tenth of its volume at least, and of the whole at most."""

_OTHERWISE = "start a rescue system, or unmount it"


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A linear logical volume that is mounted for writing, with a filesystem of which a snapshot can be taken.

    `extents` is its size in extents of `extent_size` bytes; `places` are where its parts lie on the disk, and where in
    the volume, in bytes.
    """

    group: str
    name: str
    device: str
    folder: str
    extents: int
    extent_size: int
    places: tuple[tuple[Extent, int], ...]


@dataclass(frozen=True, slots=True)
class Room:
    """What LVM says of a volume group: how many extents of it are free, and which devices it lies on."""

    free: int
    physical: tuple[str, ...]


def plan_snapshots(
    volumes: Sequence[MountedVolume],
    rooms: Mapping[str, Room],
    suffix: str,
    node: Mapping[str, str],
) -> tuple[Snapshot, ...]:
    """Share the free extents of volume groups between snapshots of their mounted volumes.

    Args:
        volumes: the volumes, with enough free extents in their groups (`room_refusals`).
        rooms: what there is of each group.
        suffix: makes the snapshots' names differ from all others.
        node: the device that each snapshot will be, by its volume's device.
    """
    ordered = sorted(volumes, key=lambda volume: volume.group)
    return tuple(
        _snapshot(volume, count, rooms[name].physical, suffix, node[volume.device])
        for name, group in groupby(ordered, lambda volume: volume.group)
        for volume, count in _shares(list(group), rooms[name].free)
    )


def snapshot_name(volume: str, suffix: str) -> str:
    """What the snapshot of a volume is called."""
    return f"{MARK}{volume}-{suffix}"


def _snapshot(
    volume: MountedVolume, count: int, physical: tuple[str, ...], suffix: str, node: str
) -> Snapshot:
    return Snapshot(
        volume.group,
        physical,
        volume.name,
        snapshot_name(volume.name, suffix),
        volume.device,
        volume.folder,
        count,
        count * volume.extent_size,
        tuple(Stretch(extent, node, offset) for extent, offset in volume.places),
    )


def _shares(volumes: list[MountedVolume], free: int) -> Iterator[tuple[MountedVolume, int]]:
    total = sum(volume.extents for volume in volumes)
    spare = free - sum(_least(volume) for volume in volumes)
    for volume in volumes:
        yield volume, min(volume.extents, _least(volume) + spare * volume.extents // total)


def _least(volume: MountedVolume) -> int:
    return -(-volume.extents // _LEAST)


def room_refusals(
    volumes: Sequence[MountedVolume], rooms: Mapping[str, Room]
) -> tuple[Refusal, ...]:
    """Why snapshots of these volumes may not be taken: too few free extents in their groups; empty when they may."""
    return tuple(_room_refusals(volumes, rooms))


def _room_refusals(
    volumes: Sequence[MountedVolume], rooms: Mapping[str, Room]
) -> Iterator[Refusal]:
    for name, room in rooms.items():
        mine = [volume for volume in volumes if volume.group == name]
        missing = sum(_least(volume) for volume in mine) - room.free
        if missing > 0:
            size = missing * mine[0].extent_size
            yield Refusal(
                Guard.SOURCE_MOUNTED,
                f"volume group {name} has no room for snapshots of what is mounted of it:"
                f" {counted(missing, 'free extent', 'is', 'are')} missing ({human(size)})",
                "make room there with lvreduce, lvremove or vgextend; a tenth of each mounted volume is wanted",
            )


def to_freeze(source: Disk, snapshots: Collection[str] = ()) -> dict[str, str]:
    """The devices of the source with filesystems that must be held still, and a folder where each is mounted.

    A filesystem may be mounted at several places, for some of them read-only: one place is enough to hold all.
    `snapshots` are devices that need not be, since snapshots of them are taken.
    """
    writable = (use for use in source.uses if use.how == "mounted" and use.writable)
    return {use.device: use.where for use in writable if use.device not in snapshots}


def live_refusals(
    source: Disk, needed: Collection[str], snapshots: Collection[str] = ()
) -> tuple[Refusal, ...]:
    """Why `source` may not be copied while it is in use; empty when it may.

    Args:
        source: the source's snapshot.
        needed: mount points of the filesystems that a clone itself must be able to write to.
        snapshots: devices of which snapshots are taken.
    """
    return tuple(_refusals(source, needed, snapshots))


def _refusals(
    source: Disk, needed: Collection[str], snapshots: Collection[str]
) -> Iterator[Refusal]:
    for device, folder in to_freeze(source, snapshots).items():
        places = [use.where for use in source.uses if use.device == device]
        if "/" in places:
            yield Refusal(
                Guard.SOURCE_MOUNTED,
                f"{device} holds the root of the running system, which cannot be held still",
                f"{_OTHERWISE}; of a root on a linear volume of LVM with ext4 or xfs a snapshot would be taken",
            )
        elif wanted := sorted(set(places) & set(needed)):
            yield Refusal(
                Guard.SOURCE_MOUNTED,
                f"{folder} cannot be held still: the clone itself writes to {wanted[0]}",
                "put the target, $ETSCLONE_STATE, $TMPDIR and the output elsewhere, or unmount it",
            )


def active_swap(source: Disk) -> tuple[Use, ...]:
    """The swap space of the source that is in use: nothing can hold it still, and nobody needs what it holds."""
    return tuple(use for use in source.uses if use.how == "swap")
