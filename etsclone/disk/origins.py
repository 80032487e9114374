"""The list of what a clone was cloned from (see `plan.origins`), in its system."""

import os
from functools import partial

from etsclone.chroot import in_chroot
from etsclone.disk.marks import read_key
from etsclone.model.brd import CloneIdentity, Filesystem
from etsclone.plan.origins import ORIGINS, parse_origins, with_origin


def read_origins(root: str) -> tuple[Filesystem, ...]:
    """The identifiers of those disks that the mounted system was cloned from, and that it no longer has."""
    return parse_origins(read_key(root, ORIGINS))


def note_origin(root: str, source: CloneIdentity, label: str) -> str:
    """Add the source of a clone, whose partition table is of this kind, to the list in the clone's mounted system.

    Returns:
        Why it cannot be written; empty when it is.
    """
    text = with_origin(read_key(root, ORIGINS), source, label)
    return in_chroot(root, partial(_write, text))


def _write(text: bytes) -> str:
    folder, aside = os.path.dirname(ORIGINS), f"{ORIGINS}.new"
    above = os.path.dirname(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.makedirs(above, exist_ok=True)
        if not os.path.isdir(folder):
            # For all who compare times that folder is as it was.
            status = os.stat(above)
            os.mkdir(folder, 0o700)
            os.utime(above, ns=(status.st_atime_ns, status.st_mtime_ns))
        with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, ORIGINS)
    except OSError as error:
        return error.strerror or str(error)
    return ""
