"""The system that `capture` and `rebuild` work on: carried by a disk or image, or mounted at a folder already."""

import contextlib
import os
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass

from etsclone.disk.images import attached
from etsclone.disk.mounts import foreign_mounts
from etsclone.disk.probe import disk_below
from etsclone.disk.system import check_mounted_root, clone_identity, mounted_system
from etsclone.model.brd import CloneIdentity
from etsclone.model.disk import Disk


@dataclass(frozen=True, slots=True)
class System:
    """A mounted system.

    `folder` is where its root is mounted, `clone` the identity of its disk (empty when that is not known), `skip` the
    paths inside where something foreign is mounted, `name` what a person calls it.
    """

    folder: str
    clone: CloneIdentity
    skip: frozenset[bytes]
    name: str
    disk: Disk | None = None


@contextlib.contextmanager
def system_on_disk(path: str, *, writable: bool, pristine: bool = False) -> Iterator[System]:
    """Attach and mount the system of a disk or image, from this disk's partitions alone.

    Raises:
        RootNotMounted, SourceRefused, UnsafePath: when its system cannot be found or mounted.
    """
    with (
        attached(path, writable=writable) as disk,
        mounted_system(disk, writable=writable, pristine=pristine) as folder,
    ):
        yield System(folder, clone_identity(disk), frozenset(), os.path.basename(path), disk)


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
        clone_identity(disk) if disk else CloneIdentity(),
        foreign_mounts(folder),
        folder,
        disk,
    )


def add_root(parser: ArgumentParser, help_: str) -> None:
    """Give a command `--root DIR`."""
    parser.add_argument("--root", metavar="DIR", help=help_)
