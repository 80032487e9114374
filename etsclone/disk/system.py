"""The system that a disk carries: find its root, mount it and what belongs beneath it, from this disk alone."""

import contextlib
import os
import stat
from collections.abc import Iterator

from etsclone.chroot import in_chroot
from etsclone.disk.fstab import parse_fstab, partition_for
from etsclone.disk.mounts import mount_folder, mounted
from etsclone.errors import RootNotMounted, SourceRefused, UnsafePath
from etsclone.model.brd import CloneIdentity, Filesystem
from etsclone.model.disk import Disk, Partition

_SYSTEM_FILESYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})
_NO_REPLAY = {
    "ext3": ("noload",),
    "ext4": ("noload",),
    "xfs": ("norecovery",),
    "btrfs": ("nologreplay",),
}
"""Mount options that leave a journal as it is."""

_MARKS = ("etc/fstab", "etc/passwd")
"""A filesystem that holds these is taken for the root of a Linux system."""


@contextlib.contextmanager
def mounted_system(disk: Disk, *, writable: bool, pristine: bool = False) -> Iterator[str]:
    """Mount the system of a disk and yield the folder of its root; everything is unmounted in the end.

    Args:
        disk: a snapshot with partition nodes.
        writable: mount for writing.
        pristine: do not even replay a journal (only without `writable`).

    Raises:
        RootNotMounted: when the disk holds no system, or more than one.
        SourceRefused: when its fstab mounts what is not on this disk.
        UnsafePath: when a mount point is, or lies behind, a symbolic link.
    """
    root = _find_root(disk)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(mount_folder())
        stack.enter_context(_mounted(root, folder, writable=writable, pristine=pristine))
        for entry in parse_fstab(_read_text(folder, "/etc/fstab")):
            partition = partition_for(entry, disk) if entry.where != "/" else None
            if partition is not None:
                where = _mount_point(folder, entry.where)
                stack.enter_context(
                    _mounted(partition, where, writable=writable, pristine=pristine)
                )
        yield folder


@contextlib.contextmanager
def mounted_alone(device: str, kind: str, *, writable: bool) -> Iterator[str]:
    """Mount one filesystem of blkid's type `kind`, and yield the folder; read-only, not even its journal is replayed.

    Raises:
        CommandFailed: when it cannot be mounted.
    """
    options = _options(kind, pristine=not writable)
    with mount_folder() as folder, mounted(device, folder, writable=writable, options=options):
        yield folder


def check_mounted_root(folder: str) -> None:
    """Make sure that `folder` is where a system is mounted, and not an empty mount point of this system.

    Raises:
        RootNotMounted: when it is not.
    """
    if not os.path.ismount(folder):
        raise RootNotMounted(
            f"nothing is mounted at {folder}",
            hint=f"mount the system's root there first, or name the disk: {folder}",
        )
    if not _looks_like_root(folder):
        raise RootNotMounted(
            f"what is mounted at {folder} is no root of a system: it has no {' and no '.join(_MARKS)}",
            hint="mount the root filesystem there, with /boot, /var and the like beneath it",
        )


def clone_identity(disk: Disk) -> CloneIdentity:
    """What all clones of this disk have in common."""
    contents = [part.content for part in disk.partitions] or [disk.content]
    return CloneIdentity(
        table_uuid=disk.table.uuid if disk.table else "",
        filesystems=tuple(
            Filesystem(content.type, content.uuid) for content in contents if content.uuid
        ),
    )


def _find_root(disk: Disk) -> Partition:
    whole = Partition(0, disk.device, 0, disk.size, "", content=disk.content)
    candidates = [
        part for part in disk.partitions or (whole,) if part.content.type in _SYSTEM_FILESYSTEMS
    ]
    found = [part for part in candidates if part.device and _holds_root(part)]
    if not found:
        raise RootNotMounted(
            f"no root of a system was found on {disk.path}",
            hint=f"looked for {' and '.join(_MARKS)} on {len(candidates)} filesystems; LVM, LUKS and md are not opened",
        )
    if len(found) > 1:
        devices = ", ".join(part.device for part in found)
        raise RootNotMounted(
            f"{disk.path} holds more than one system ({devices})",
            hint="mount the right one by hand and use --root DIR",
        )
    return found[0]


def _holds_root(partition: Partition) -> bool:
    with mount_folder() as folder, _mounted(partition, folder, writable=False, pristine=True):
        return _looks_like_root(folder)


def _looks_like_root(folder: str) -> bool:
    return all(os.path.lexists(os.path.join(folder, mark)) for mark in _MARKS)


def _mounted(
    partition: Partition, where: str, *, writable: bool, pristine: bool
) -> contextlib.AbstractContextManager[None]:
    options = _options(partition.content.type, pristine=pristine)
    return mounted(partition.device, where, writable=writable, options=options)


def _options(kind: str, *, pristine: bool) -> tuple[str, ...]:
    # The twin of an xfs, with the same UUID, may be mounted.
    twin = ("nouuid",) if kind == "xfs" else ()
    return (*(_NO_REPLAY.get(kind, ()) if pristine else ()), *twin)


def _read_text(root: str, path: str) -> str:
    def read() -> str:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    # In the clone, /etc or /etc/fstab could be a symbolic link to anywhere: only a chrooted process may follow it.
    return in_chroot(root, read)


def _mount_point(root: str, where: str) -> str:
    path = root
    for component in where.strip("/").split("/"):
        path = os.path.join(path, component)
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            raise SourceRefused(
                f"the system's fstab mounts at {where}, which does not exist"
            ) from error
        if not stat.S_ISDIR(mode) or component == "..":
            raise UnsafePath(
                f"the system's fstab mounts at {where}, which leads through a symbolic link or a file",
                hint="mount the whole system by hand and use --root DIR",
            )
    return path
