"""A source that is in use: what is held still while it is copied, and what is copied from snapshots."""

import contextlib
import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from etsclone.commands.survey import refuse
from etsclone.commands.volumes import Volumes, mounted_volumes
from etsclone.disk.hold import Freeze, Hold, held
from etsclone.disk.snapshots import TakeSnapshot, node_of, room_of
from etsclone.errors import UsageError
from etsclone.model.disk import Disk
from etsclone.model.view import AS_IT_IS, Snapshot, View
from etsclone.plan.live import (
    active_swap,
    live_refusals,
    plan_snapshots,
    room_refusals,
    snapshot_name,
    to_freeze,
)
from etsclone.store.receipts import state_folder
from etsclone.units import human


@dataclass(frozen=True, slots=True)
class Stillness:
    """What of a source is held still, by device and folder, what is read of snapshots, and since when (UTC)."""

    folders: dict[str, str]
    swap_in_use: bool
    since: datetime
    snapshots: tuple[Snapshot, ...] = ()
    view: View = AS_IT_IS
    unseen: tuple[str, ...] = ()
    """What of the source was not looked at before, in words."""

    @property
    def devices(self) -> frozenset[str]:
        """The devices whose filesystems are frozen."""
        return frozenset(self.folders)

    def notes(self) -> list[str]:
        """What the plan says of it: which consistency the clone has."""
        lines = [
            f"{device} is mounted at {folder}: frozen from now until the clone is verified; whoever writes there waits"
            for device, folder in self.folders.items()
        ]
        lines += [
            f"{each.group}/{each.volume} is mounted at {each.folder}: copied as it was a moment ago,"
            f" from a snapshot with room for {human(each.size)} of changes"
            for each in self.snapshots
        ]
        if len(self.snapshots) > 1:
            lines.append(
                "the snapshots were taken one after the other: each volume is as it was at its own moment"
            )
        swap = ["swap space is in use: only its header is copied"] if self.swap_in_use else []
        return [*lines, *swap, *self.unseen]

    def facts(self) -> dict[str, object]:
        """For receipts and programs: each of these filesystems is as it was at one moment."""
        snapshots = {
            f"{each.group}/{each.volume}": {
                "folder": each.folder,
                "room": each.size,
                "places": [
                    {
                        "start": part.extent.start,
                        "end": part.extent.end,
                        "device": part.device,
                        "offset": part.offset,
                    }
                    for part in each.stretches
                ],
            }
            for each in self.snapshots
        }
        return {
            "frozen": self.folders,
            "snapshots": snapshots,
            "since": self.since.isoformat(),
            "not_looked_at": list(self.unseen),
        }


@contextlib.contextmanager
def held_still(
    arguments: Namespace, source: Disk, target: Disk, unseen: tuple[str, ...] = ()
) -> Iterator[Stillness]:
    """With `--live`, hold what is mounted for writing of the source as long as the context lasts.

    `unseen` is what was not looked at, for the plan and the receipt.

    Raises:
        UsageError: when there would be time to think about the plan meanwhile.
        SourceRefused: when something cannot be held still, and no snapshot be taken of it.
    """
    if not arguments.live:
        yield Stillness({}, swap_in_use=False, since=datetime.now(UTC), unseen=unseen)
        return
    if not (arguments.yes or arguments.dry_run):
        raise UsageError(
            "--live holds the source still, and whoever writes to it would wait for your answer",
            hint="look at the plan with --dry-run first, then give --yes",
        )
    volumes = mounted_volumes(source)
    snapshots = _snapshots(volumes)
    devices = [each.device for each in snapshots]
    refuse(live_refusals(source, _needed(target), devices))
    folders = to_freeze(source, devices)
    stretches = tuple(part for each in snapshots for part in each.stretches)
    view = View(stretches, volumes.metadata) if snapshots else AS_IT_IS
    # What is frozen must be so before the snapshots are taken: nobody has written it since then.
    holds: list[Hold] = [Freeze(folder) for folder in folders.values()]
    holds += [TakeSnapshot(each) for each in snapshots]
    with held(holds):
        swap = bool(active_swap(source))
        yield Stillness(folders, swap, datetime.now(UTC), snapshots, view, unseen)


def _snapshots(volumes: Volumes) -> tuple[Snapshot, ...]:
    mounted = volumes.mounted
    rooms = {group: room_of(group) for group in {volume.group for volume in mounted}}
    refuse(volumes.refusals or room_refusals(mounted, rooms))
    suffix = str(os.getpid())
    nodes = {
        volume.device: node_of(volume.group, snapshot_name(volume.name, suffix))
        for volume in mounted
    }
    return plan_snapshots(mounted, rooms, suffix, nodes)


def _needed(target: Disk) -> frozenset[str]:
    """Where the filesystems are mounted that a clone writes to, apart from the target's."""
    outputs = (f"/proc/self/fd/{number}" for number in (1, 2))
    paths = [str(state_folder()), tempfile.gettempdir(), target.path, *outputs]
    return frozenset(_mount_point(os.path.realpath(path)) for path in paths)


def _mount_point(path: str) -> str:
    while not os.path.ismount(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
