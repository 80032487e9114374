"""The files of a system, read from inside it."""

import os
import stat

_LIMIT = 16 * 1024 * 1024
"""What is larger is no configuration."""


class SystemFiles:
    """`model.edit.Folders` of the tree that the process has for its root; see `chroot.in_chroot`."""

    def read(self, path: bytes) -> bytes | None:
        """The content of a regular file of at most 16 MiB, or None for all else; no link is followed to it."""
        folder = os.path.dirname(path)
        if os.path.realpath(folder) != folder:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT:
                return None
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(_LIMIT)
        finally:
            os.close(descriptor)

    def is_folder(self, path: bytes) -> bool:
        """Whether there is a folder at this path, and no link to one."""
        try:
            return stat.S_ISDIR(os.lstat(path).st_mode)
        except OSError:
            return False

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        """What a folder holds, in byte order; nothing where there is none."""
        try:
            return tuple(sorted(os.listdir(folder)))
        except OSError:
            return ()
