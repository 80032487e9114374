"""`etsclone mount`: the system of a disk as its own fstab puts it together, mounted until `etsclone umount`."""

import contextlib
import os
from argparse import ArgumentParser, Namespace

from etsclone.chroot import forked, require_root
from etsclone.commands.keyfile import add_unlock
from etsclone.commands.survey import existing_disk, refuse
from etsclone.commands.unlock import given_keys
from etsclone.disk.images import attached
from etsclone.disk.luks import Keys
from etsclone.disk.standing import Standing, standing_systems
from etsclone.disk.system import mounted_system
from etsclone.errors import UsageError
from etsclone.plan.guards import target_refusals


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument("disk", metavar="DISK", help="disk or image file that carries a system")
    parser.add_argument("folder", metavar="DIR", help="where to mount its root: an empty folder")
    parser.add_argument(
        "--rw",
        action="store_true",
        help="mount for writing (default: read-only, nothing on the disk changes)",
    )
    add_unlock(parser)


def run(arguments: Namespace) -> None:
    """Mount a system, and leave it mounted.

    Raises:
        NotRoot, UsageError, TargetRefused, RootNotMounted, SourceRefused, KeyRefused, UnsafePath: nothing is mounted.
    """
    require_root()
    folder = _checked(arguments.folder)
    keys = given_keys(arguments)
    if arguments.rw:
        refuse(target_refusals(existing_disk(arguments.disk)))
    standing = Standing(folder, os.path.realpath(arguments.disk))
    # Contexts would undo all of it when this process ends: so they are entered in one that is ended without.
    with forked(
        lambda: _mount(standing, keys, writable=arguments.rw), "the mounting process"
    ) as child:
        child.result()
    access = "for writing" if arguments.rw else "read-only"
    print(f"the system of {arguments.disk} is mounted {access} at {folder}")
    print(f"to undo it: etsclone umount {folder}")


_kept: list[contextlib.ExitStack] = []
"""Contexts that stay entered: whatever nobody refers to any more would be left at once."""


def _mount(standing: Standing, keys: Keys, *, writable: bool) -> None:
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(attached(standing.disk, writable=writable))
        stack.callback(standing.forget)
        standing.remember()
        stack.enter_context(
            mounted_system(
                disk, writable=writable, pristine=not writable, keys=keys, where=standing.folder
            )
        )
        _kept.append(stack.pop_all())


def _checked(folder: str) -> str:
    path = os.path.realpath(folder)
    if not os.path.isdir(path):
        raise UsageError(f"{folder} is no folder", hint=f"mkdir {folder}")
    if os.path.ismount(path) or os.listdir(path):
        raise UsageError(f"{folder} is not empty, or in use", hint="name an empty folder")
    if any(standing.folder == path for standing in standing_systems()):
        raise UsageError(f"{folder} is not undone yet", hint=f"etsclone umount {folder}")
    return path
