"""Partitions that are mounted by their type, where fstab says nothing.

Source: the Discoverable Partitions Specification (uapi-group.org) and systemd-gpt-auto-generator(8). That a /var must
have a UUID made of the machine's ID is not asked for: a rebuild changes that ID. Which partitions go by their types at
all, `specs` knows: not those that are marked so, and of one type the first.
"""

import os
import stat

from etsclone.disk.fstab import FstabEntry
from etsclone.disk.specs import AUTO, USRS
from etsclone.model.disk import ESP

_TYPES = (
    *((guid, "/usr") for guid in USRS),
    ("4D21B016-B534-45C2-A9FB-5C16E091FD2D", "/var"),
    ("933AC7E1-2EB4-4F13-B844-0E14E2AEF915", "/home"),
    ("3B8F8425-20E0-4F3B-907F-1A25A76F98E8", "/srv"),
    ("7EC6F557-3BC5-4ACA-B293-16EF5DF639D1", "/var/tmp"),  # noqa: S108 - a mount point of the clone
    ("BC13C2FF-59E6-4262-A352-B275FD6F7172", "/boot"),
)


def discoverable(root: str, types: frozenset[str]) -> tuple[FstabEntry, ...]:
    """What would be mounted where in the system whose root is seen at `root`, as lines of fstab.

    Args:
        root: a mounted root.
        types: the names of the partition types that its disk has (`specs.AUTO`).
    """
    wanted = [*_TYPES]
    if f"{AUTO}{ESP}" in types:
        taken = {where for guid, where in _TYPES if f"{AUTO}{guid}" in types}
        wanted += [
            (ESP, where)
            for where in ("/efi", "/boot")
            if where not in taken and _is_folder(root, where)
        ][:1]
    return tuple(
        FstabEntry(f"{AUTO}{guid}", where, "auto", ("nofail",))
        for guid, where in wanted
        if f"{AUTO}{guid}" in types and _is_folder(root, where)
    )


def _is_folder(root: str, where: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(f"{root}{where}").st_mode)
    except OSError:
        return False
