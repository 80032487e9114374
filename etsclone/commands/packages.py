"""The packages of a system whose package manager's records no other program can read."""

import os
import tempfile

from etsclone.chroot import in_chroot
from etsclone.errors import CommandFailed, MissingProgram
from etsclone.model.packages import NO_PACKAGES, Installed
from etsclone.overlay.packages import copy_rpm_database, rpm_packages


def installed_by_rpm(root: str) -> tuple[Installed, tuple[str, ...]]:
    """What rpm has installed in the system mounted at `root`, and a note where that cannot be told.

    The database is copied by a process that sees nothing but the system, and read by one that sees nothing of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        into = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not in_chroot(root, lambda: copy_rpm_database("/", into)):
                return NO_PACKAGES, ()
        finally:
            os.close(into)
        try:
            return rpm_packages(folder), ()
        except (MissingProgram, CommandFailed) as error:
            return NO_PACKAGES, (f"RPM packages are not listed: {error.message}",)
