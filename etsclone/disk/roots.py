"""Which volume of a disk is the root of its system, and what its own files say of the others."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from etsclone.disk.filesystems import mounted_filesystem
from etsclone.disk.fstab import FstabEntry, parse_fstab
from etsclone.disk.marks import has_marks, is_folder, read_texts
from etsclone.disk.mounts import mount_folder
from etsclone.disk.specs import AUTO, ROOTS, Volume
from etsclone.run import run

SYSTEM_FILESYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})
"""What blkid calls the filesystems that a root can be on."""

_MARKS_WITHOUT_FSTAB = ("etc/os-release", "etc/passwd")
"""The same for systems that find their partitions by type."""

ROOT_TYPES = frozenset(f"{AUTO}{guid}" for guid in ROOTS)
"""The names of partitions that are taken for a root because of their type."""

FSTAB, CRYPTTAB = "/etc/fstab", "/etc/crypttab"
MDADM_CONF = ("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf")
_SUBVOLUME = re.compile(r"(?m)^ID (\d{1,20}) gen \d+ top level \d+ path (.+)$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Root:
    """A root: its volume, the mount option of its subvolume of btrfs if it is in one, and whether it has an fstab.

    `name` is what that subvolume is called, where its number is the option.
    """

    volume: Volume
    subvolume: tuple[str, ...] = ()
    has_fstab: bool = True
    name: str = ""

    @property
    def where(self) -> str:
        """In words."""
        return " ".join((self.volume.device, *([self.name] if self.name else self.subvolume)))


def find_roots(volumes: Sequence[Volume]) -> tuple[Root, ...]:
    """The roots of systems among volumes; those that have no fstab count only where none has one.

    Raises:
        SourceRefused: when a btrfs cannot be told from its mounted twin.
        CommandFailed: when a filesystem cannot be mounted.
    """
    found = [root for volume in volumes if is_candidate(volume) for root in _roots_on(volume)]
    with_fstab = tuple(root for root in found if root.has_fstab)
    typed = tuple(root for root in found if ROOT_TYPES & root.volume.names)
    return with_fstab or typed or tuple(found)


def is_candidate(volume: Volume) -> bool:
    """Whether a root could be on a volume."""
    return volume.content.type in SYSTEM_FILESYSTEMS


@contextlib.contextmanager
def mounted_whole(device: str, *, pristine: bool) -> Iterator[str]:
    """Mount a btrfs read-only from its top, whatever its default subvolume is, and yield the folder.

    Args:
        device: its node.
        pristine: do not replay its log; not for one that is mounted already.

    Raises:
        SourceRefused: when its twin is mounted.
        CommandFailed: when it cannot be mounted.
    """
    with (
        mount_folder() as folder,
        mounted_filesystem(
            device, "btrfs", folder, writable=False, pristine=pristine, subvolume=("subvolid=5",)
        ),
    ):
        yield folder


def subvolumes(top: str) -> dict[str, str]:
    """The numbers of a btrfs' subvolumes, by their paths below its top, where that is mounted.

    Raises:
        CommandFailed, MissingProgram: when they cannot be listed.
    """
    listed = _SUBVOLUME.findall(run("btrfs", ["subvolume", "list", top]).stdout)
    return {path: number for number, path in listed if path.isprintable() and is_folder(top, path)}


def _roots_on(volume: Volume) -> Iterator[Root]:
    with _looked_at(volume) as folder:
        kind = _kind(folder)
        if kind is not None:
            entry = _root_entry(folder)
            yield Root(volume, entry.subvolume if entry else (), has_fstab=kind)
            return
    if volume.content.type == "btrfs":
        with mounted_whole(volume.device, pristine=True) as top:
            yield from _subvolumes(volume, top)


def _subvolumes(volume: Volume, top: str) -> Iterator[Root]:
    """The subvolumes that are roots: those whose own fstab says so, unlike a snapshot's; else all that look it.

    Whoever named them could have put mount options behind a comma, so that they are mounted by their numbers; and a
    line break, so that a line may name anything.
    """
    numbers = subvolumes(top)
    kinds = {path: _kind(os.path.join(top, path)) for path in numbers}
    roots = {path: kind for path, kind in kinds.items() if kind is not None}
    own = {
        path: kind
        for path, kind in roots.items()
        if (entry := _root_entry(os.path.join(top, path))) and _path_of(entry.subvolume) == path
    }
    for path, kind in (own or roots).items():
        yield Root(volume, (f"subvolid={numbers[path]}",), has_fstab=kind, name=f"subvol=/{path}")


def _kind(folder: str) -> bool | None:
    """Whether a root that is seen at `folder` has an fstab; None when it is no root."""
    if has_marks(folder):
        return True
    return False if has_marks(folder, _MARKS_WITHOUT_FSTAB) else None


def _root_entry(folder: str) -> FstabEntry | None:
    entries = parse_fstab(read_texts(folder, [FSTAB])[FSTAB])
    return next((entry for entry in entries if entry.where == "/"), None)


def _path_of(subvolume: Sequence[str]) -> str:
    return "".join(each.removeprefix("subvol=").strip("/") for each in subvolume)


@contextlib.contextmanager
def _looked_at(volume: Volume) -> Iterator[str]:
    with (
        mount_folder() as folder,
        mounted_filesystem(
            volume.device,
            volume.content.type,
            folder,
            writable=False,
            pristine=True,
        ),
    ):
        yield folder
