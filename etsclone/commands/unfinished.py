"""The refusal of disks that are half way between two roles, or keep what must not go into a clone."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace

from etsclone.commands.finished import check_finished
from etsclone.disk.luks import Keys
from etsclone.disk.mounts import mounts_of_system
from etsclone.disk.roots import is_candidate, mounted_whole, subvolumes
from etsclone.disk.specs import Volume
from etsclone.disk.stack import LAYERS, opened
from etsclone.disk.system import mounted_alone
from etsclone.errors import (
    CommandFailed,
    DeviceError,
    IdsRefused,
    MissingProgram,
    SourceRefused,
)
from etsclone.model.disk import Content, Disk
from etsclone.overlay.rounds import keeps_rebuild

Check = Callable[[str, str], None]
"""Looks at the system mounted at a folder, whose name for people comes second; raises unless it is as it should be."""

_UNSEEN = "not looked at, for a rebuild that was interrupted"
_OBSTACLES = (CommandFailed, MissingProgram, SourceRefused, DeviceError, OSError)


def check_nothing_kept(folder: str, name: str) -> None:
    """Make sure that the system mounted at a folder is finished, and that nothing of it can be undone.

    In a clone with identifiers of its own an undo would bring back what names those of its source.

    Raises:
        IdsRefused: when something can.
        RebuildUnfinished, FormatError, KeptExposed: as `check_finished`.
    """
    check_finished(folder, name)
    if keeps_rebuild(folder):
        raise IdsRefused(
            f"{name} keeps what it was before a rebuild; brought back on the clone, that would name this disk",
            hint="first give that up (etsclone rebuild DISK --commit) or bring it back (--undo), "
            "delete a snapshot that holds it, or clone without --new-ids",
        )


def check_disk_finished(disk: Disk, check: Check = check_finished) -> tuple[str, ...]:
    """The same, or another check, for a disk, in all filesystems that can be looked at without a passphrase.

    What is mounted is looked at where it is, the rest for a moment and read-only, not even with its journal replayed.
    What cannot be mounted is no obstacle: damaged disks are cloned, too. A clone of what is overlooked here is half way
    as well, says so when it is to be rebuilt, and can be finished or undone like its source.

    Returns:
        What was not looked at, and why; one line, or none.

    Raises:
        RebuildUnfinished, FormatError, KeptExposed, IdsRefused: as the check.
    """
    used = [use for use in disk.uses if use.how == "mounted"]
    for use in used:
        with contextlib.suppress(OSError):
            check(use.where, os.path.basename(disk.path))
    unseen = []
    try:
        with opened(_without_layers(disk) if used else disk, Keys(), read_only=True) as layers:
            for volume in filter(is_candidate, layers.volumes):
                try:
                    _check_volume(disk, volume, check)
                except _OBSTACLES as error:
                    unseen.append(f"{volume.where}: {error}")
            unseen += [*layers.missing, *(f"{each.where}: encrypted" for each in layers.locked)]
    except _OBSTACLES as error:
        unseen.append(str(error))
    if used:
        unseen += [f"{name}: in use, only what is mounted was looked at" for name in _layers(disk)]
    return (f"{_UNSEEN}: {'; '.join(unseen)}",) if unseen else ()


def _check_volume(disk: Disk, volume: Volume, check: Check) -> None:
    name, kind = os.path.basename(disk.path), volume.content.type
    device = os.stat(volume.device).st_rdev
    places = [mount.where for mount in mounts_of_system() if mount.device == device]
    for where in places:
        check(where, name)
    if kind != "btrfs" and not places:
        with mounted_alone(volume.device, kind, writable=False) as folder:
            check(folder, name)
    if kind == "btrfs":
        # The root may be in any subvolume, and the default one be another.
        with mounted_whole(volume.device, pristine=not places) as top:
            check(top, name)
            for path in subvolumes(top):
                check(os.path.join(top, path), f"{name}, subvolume /{path}")


def _layers(disk: Disk) -> list[str]:
    """What of a disk holds volumes of LVM, LUKS or md."""
    if disk.table is None:
        return ["the disk"] if disk.content.type in LAYERS else []
    return [f"partition {each.number}" for each in disk.partitions if each.content.type in LAYERS]


def _without_layers(disk: Disk) -> Disk:
    """A disk of which something is mounted: perhaps by way of a layer, which is not opened a second time."""
    if disk.table is None:
        return replace(disk, content=Content()) if disk.content.type in LAYERS else disk
    parts = tuple(each for each in disk.partitions if each.content.type not in LAYERS)
    return replace(disk, table=replace(disk.table, partitions=parts))
