"""What tells the root of a system, and what is read of one that is mounted.

Apart from all that finds and opens volumes: most commands about a mounted system need no more of disks.
"""

import os
import stat
from collections.abc import Mapping, Sequence

from etsclone.chroot import in_chroot
from etsclone.errors import RootNotMounted
from etsclone.units import MIB

MARKS = ("etc/fstab", "etc/passwd")
"""A filesystem that holds these is taken for the root of a Linux system."""

_LARGEST = 1 * MIB


def check_mounted_root(folder: str) -> None:
    """Make sure that `folder` is where a system is mounted, and not an empty mount point of this system.

    Raises:
        RootNotMounted: when it is not.
    """
    if not os.path.isdir(folder):
        raise RootNotMounted(
            f"{folder} {'is no folder' if os.path.lexists(folder) else 'does not exist'}",
            hint="name the folder where the system's root is mounted, or its disk",
        )
    if not os.path.ismount(folder):
        raise RootNotMounted(
            f"nothing is mounted at {folder}",
            hint=f"mount the system's root there first, or name the disk: {folder}",
        )
    if not has_marks(folder):
        raise RootNotMounted(
            f"what is mounted at {folder} is no root of a system: it has no {' and no '.join(MARKS)}",
            hint="mount the root filesystem there, with /boot, /var and the like beneath it",
        )


def has_marks(folder: str, marks: Sequence[str] = MARKS) -> bool:
    """Whether a system's root looks like this: a link to a folder, which could lead out of it, is not followed."""
    return all(
        is_folder(folder, os.path.dirname(mark)) and os.path.lexists(os.path.join(folder, mark))
        for mark in marks
    )


def is_folder(top: str, path: str) -> bool:
    """Whether a path below a folder leads to a folder, by way of nothing but folders."""
    at = top
    for part in path.split("/"):
        at = os.path.join(at, part)
        try:
            if part in {"", ".", ".."} or not stat.S_ISDIR(os.lstat(at).st_mode):
                return False
        except OSError:
            return False
    return True


def read_texts(root: str, paths: Sequence[str]) -> Mapping[str, str]:
    """The texts of files of a mounted system, by their paths in it; empty for what is no regular file.

    In the clone, /etc or /etc/fstab could be a symbolic link to anywhere: only a chrooted process may follow it.
    """
    read = in_chroot(root, lambda: {path: _read(path) for path in paths})
    return {path: data.decode("utf-8", "surrogateescape") for path, data in read.items()}


def read_key(root: str, path: str) -> bytes:
    """The key in a file of a mounted system; empty when there is none."""
    return in_chroot(root, lambda: _read(path))


def _read(path: str) -> bytes:
    try:
        # A FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_LARGEST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
