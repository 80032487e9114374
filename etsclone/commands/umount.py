"""`etsclone umount`: undo what `etsclone mount` did: mounts, volumes, encrypted ones, arrays, loop devices.

Also what a command that was killed left open: its mounts are gone with it, its volumes are not.
"""

import os
from argparse import ArgumentParser, Namespace

from etsclone.chroot import require_root
from etsclone.disk.mounts import foreign_mounts
from etsclone.disk.standing import Standing, close_volumes, standing_systems
from etsclone.errors import SourceRefused, UsageError


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument(
        "place",
        metavar="DIR",
        help="where a system is mounted; or the disk or image file that carries it",
    )


def run(arguments: Namespace) -> None:
    """Undo what stands.

    Raises:
        NotRoot, UsageError: when nothing is mounted there by `etsclone mount`, nor left open on that disk.
        SourceRefused: when something else is mounted inside.
        CommandFailed: when something of it is in use; the same command goes on with the rest.
    """
    require_root()
    place = os.path.realpath(arguments.place)
    found = [each for each in standing_systems() if place in {each.folder, each.disk}]
    if not found:
        _close_left(place)
    for standing in found:
        _check_alone(standing)
        standing.undo()
        print(f"the system of {standing.disk} is no longer mounted at {standing.folder}")


def _close_left(place: str) -> None:
    closed = () if os.path.isdir(place) else close_volumes(place)
    if not closed:
        raise UsageError(
            f"nothing is mounted at or from {place} by etsclone, nor left open",
            hint="name the folder, or the disk, that was given to `etsclone mount`",
        )
    print(f"closed what was left open on {place}: {', '.join(closed)}")


def _check_alone(standing: Standing) -> None:
    inside = sorted(os.fsdecode(path) for path in foreign_mounts(standing.folder))
    if inside:
        raise SourceRefused(
            f"something else is mounted inside {standing.folder}: {', '.join(inside)}",
            hint="unmount: " + " ".join(f"{standing.folder}{path}" for path in reversed(inside)),
        )
