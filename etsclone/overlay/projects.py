"""Projects (quotas of folders): what is renamed into a folder that gives its project to all in it must have that.

Source: FS_IOC_FSGETXATTR and FS_XFLAG_PROJINHERIT of include/uapi/linux/fs.h; rename(2) fails with EXDEV otherwise.
"""

import errno
import fcntl
import struct

from etsclone.errors import ScopeConflict
from etsclone.model.tree import printable

_GETXATTR = 0x801C581F
_FSXATTR = struct.Struct(
    "=5I8x"
)  # flags, extent size, count of extents, project, extent size of copies
_INHERITS = 0x200
_UNKNOWN = {errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def check_projects(path: bytes, parent: int, staging: int, old: int | None, *, new: bool) -> None:
    """Make sure that projects let a path change hands, and be given back.

    Args:
        path: the path.
        parent: the folder that holds it, opened.
        staging: the folder that what will be there is made in, and what was there is moved to; opened.
        old: what is there and is moved aside, opened; None where that is nothing, or cannot be opened.
        new: whether something new takes its place.

    Raises:
        ScopeConflict: when they do not.
    """
    wanted, given = _given_by(parent), _given_by(staging)
    aside = set() if old is None else {_project(old)[0]}
    there = aside | ({given or 0} if new else set())
    if (wanted is not None and there - {wanted}) or (given is not None and aside - {given}):
        raise ScopeConflict(
            f"{printable(path)} is in a folder whose project (quota) cannot be given to what is put there",
            hint="take the project off that folder for the rebuild: chattr -P (ext4), xfs_quota (xfs)",
        )


def _given_by(folder: int) -> int | None:
    """The project of all that is made in a folder and must be of all that is moved into it; None: any."""
    project, inherits = _project(folder)
    return project if inherits else None


def _project(descriptor: int) -> tuple[int, bool]:
    try:
        answer = fcntl.ioctl(descriptor, _GETXATTR, bytes(_FSXATTR.size))
    except OSError as error:
        if error.errno in _UNKNOWN:
            return 0, False
        raise
    flags, _, _, project, _ = _FSXATTR.unpack(answer)
    return project, bool(flags & _INHERITS)
