"""Whether two image files can share their blocks, told without changing anything."""

import fcntl
import os
import struct

from etsclone.model.disk import Disk

_XFS_GEOMETRY = 0x8100587E
"""XFS_IOC_FSGEOMETRY of libxfs/xfs_fs.h: `struct xfs_fsop_geom`, 256 bytes, with its flags at byte 92."""

_XFS_REFLINK = 1 << 20
_BTRFS_INFO = 0x8400941F
"""BTRFS_IOC_FS_INFO of linux/btrfs.h: 1024 bytes. Only a btrfs answers; all of them share blocks."""


def may_share(source: Disk, target: Disk) -> bool:
    """Whether these are files of one xfs or btrfs that shares blocks between files.

    That it may is known beforehand, that it does for these very files only when it is tried: btrfs keeps files without
    checksums apart from those with them.
    """
    if source.identity.device is not None or target.identity.device is not None:
        return False
    folder = os.path.dirname(os.path.abspath(target.path))
    try:
        descriptor = os.open(target.path if target.exists else folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # opening it for the clone will say why
        return False
    try:
        same = os.fstat(descriptor).st_dev == os.stat(source.path).st_dev
        return same and (_is_xfs_with_reflinks(descriptor) or _is_btrfs(descriptor))
    finally:
        os.close(descriptor)


def _is_xfs_with_reflinks(descriptor: int) -> bool:
    answer = bytearray(256)
    try:
        fcntl.ioctl(descriptor, _XFS_GEOMETRY, answer)
    except OSError:
        return False
    return bool(struct.unpack_from("=I", answer, 92)[0] & _XFS_REFLINK)


def _is_btrfs(descriptor: int) -> bool:
    try:
        fcntl.ioctl(descriptor, _BTRFS_INFO, bytearray(1024))
    except OSError:
        return False
    return True
