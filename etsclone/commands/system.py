"""The system that `capture` and `rebuild` work on: carried by a disk or image, or mounted at a folder already."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from etsclone.disk.images import attached
from etsclone.disk.luks import Keys
from etsclone.disk.marks import check_mounted_root
from etsclone.disk.mounts import foreign_mounts, second_mounts
from etsclone.disk.origins import read_origins
from etsclone.disk.probe import disk_below
from etsclone.errors import TargetRefused
from etsclone.kernel import mount_privately
from etsclone.model.brd import CloneIdentity
from etsclone.model.disk import Disk
from etsclone.model.scope import Scope
from etsclone.plan.origins import clone_identity


@dataclass(frozen=True, slots=True)
class System:
    """A mounted system.

    `folder` is where its root is mounted, `clone` the identity of its disk, and of those that
    it was cloned from with other identifiers (empty when that is not known), `skip` the
    paths inside where something foreign is mounted, `name` what a person calls it.
    """

    folder: str
    clone: CloneIdentity
    skip: frozenset[bytes]
    name: str
    disk: Disk | None = None


@contextlib.contextmanager
def system_on_disk(
    path: str,
    *,
    writable: bool,
    pristine: bool = False,
    replay: bool = False,
    keys: Keys | None = None,
) -> Iterator[System]:
    """Attach and mount the system of a disk or image, from this disk's partitions alone, for this process alone.

    Args:
        path: the disk or image.
        writable: mount for writing.
        pristine: do not even replay a journal (only without `writable`).
        replay: let the kernel replay the journals of an image file too, which needs the file to be written to.
        keys: what opens encrypted volumes.

    Raises:
        RootNotMounted, SourceRefused, UnsafePath: when its system cannot be found or mounted.
        KeyRefused: when none of `keys` opens an encrypted volume that is needed.
    """
    # A mounted system, which most captures are of, needs none of what surveys disks and opens volumes.
    from etsclone.commands.survey import refuse  # noqa: PLC0415
    from etsclone.disk.system import mounted_system  # noqa: PLC0415
    from etsclone.plan.guards import quarantine_refusals  # noqa: PLC0415

    mount_privately()
    with attached(path, writable=writable or replay) as disk, contextlib.ExitStack() as stack:
        refuse(quarantine_refusals(disk))
        mounting = mounted_system(disk, writable=writable, pristine=pristine, keys=keys)
        folder = stack.enter_context(mounting)
        yield System(folder, _known(disk, folder), frozenset(), os.path.basename(path), disk)


@contextlib.contextmanager
def system_at(folder: str) -> Iterator[System]:
    """A system that is mounted already.

    Raises:
        RootNotMounted: when nothing, or no system, is mounted there.
    """
    check_mounted_root(folder)
    disk = disk_below(folder)
    yield System(
        folder,
        _known(disk, folder) if disk else CloneIdentity(),
        foreign_mounts(folder),
        folder,
        disk,
    )


def _known(disk: Disk, folder: str) -> CloneIdentity:
    """The identity of a disk, with that of those which it was cloned from with other identifiers."""
    own = clone_identity(disk)
    return replace(own, filesystems=(*own.filesystems, *read_origins(folder)))


def check_mounted_once(system: System, scope: Scope) -> None:
    """Make sure that no change of the scope reaches, through a second (bind) mount, what lies outside of it.

    Raises:
        TargetRefused: when it could, even files of the system that etsclone runs on.
    """
    for path in sorted(second_mounts(system.folder)):
        if scope.may_hold(path) or path in scope:
            raise TargetRefused(
                f"what is mounted at {system.folder}{os.fsdecode(path)} is mounted elsewhere, too",
                hint="unmount it there: what is written to the one place is written to both",
            )
