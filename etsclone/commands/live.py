"""A source that is in use: what is held still while it is copied."""

import contextlib
import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from etsclone.commands.survey import refuse
from etsclone.disk.freeze import frozen
from etsclone.errors import UsageError
from etsclone.model.disk import Disk
from etsclone.plan.live import active_swap, live_refusals, to_freeze
from etsclone.store.receipts import state_folder


@dataclass(frozen=True, slots=True)
class Stillness:
    """What of a source is held still, by device and folder, and since when (UTC)."""

    folders: dict[str, str]
    swap_in_use: bool
    since: datetime

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
        swap = ["swap space is in use: only its header is copied"] if self.swap_in_use else []
        return lines + swap

    def facts(self) -> dict[str, object]:
        """For receipts and programs: each of these filesystems is as it was at one moment."""
        return {"frozen": self.folders, "since": self.since.isoformat()}


@contextlib.contextmanager
def held_still(arguments: Namespace, source: Disk, target: Disk) -> Iterator[Stillness]:
    """With `--live`, freeze what is mounted for writing of the source as long as the context lasts.

    Raises:
        UsageError: when there would be time to think about the plan meanwhile.
        SourceRefused: when something cannot be held still.
    """
    if not arguments.live:
        yield Stillness({}, swap_in_use=False, since=datetime.now(UTC))
        return
    if not (arguments.yes or arguments.dry_run):
        raise UsageError(
            "--live holds the source still, and whoever writes to it would wait for your answer",
            hint="look at the plan with --dry-run first, then give --yes",
        )
    refuse(live_refusals(source, _needed(target)))
    folders = to_freeze(source)
    with frozen(list(folders.values())):
        yield Stillness(folders, bool(active_swap(source)), datetime.now(UTC))


def _needed(target: Disk) -> frozenset[str]:
    """Where the filesystems are mounted that a clone writes to, apart from the target's."""
    outputs = (f"/proc/self/fd/{number}" for number in (1, 2))
    paths = [str(state_folder()), tempfile.gettempdir(), target.path, *outputs]
    return frozenset(_mount_point(os.path.realpath(path)) for path in paths)


def _mount_point(path: str) -> str:
    while not os.path.ismount(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
