"""Filesystems whose map of used blocks lags behind what their journal or log holds.

A journal is replayed at the next mount: blocks that it hands out are free in the map on disk until then, and a clone
without them is silently damaged. partclone 0.3.23 maps such an ext4, xfs, btrfs or exfat as if nothing were the matter.
What it does see itself is left to it: ext2 and NTFS that were not unmounted. FAT has no map but the chains themselves.
"""

import re

from etsclone.errors import FormatError
from etsclone.run import run
from etsclone.units import KIB
from etsclone.usedmap.region import Region

UNCLEAN = "it was not cleanly unmounted, so its map of used blocks may lag behind"

_EXT_SUPER = KIB
_EXT_RECOVER = 0x4
_BTRFS_SUPER = 64 * KIB
_EXFAT_DIRTY = 0x2
_F2FS_SUPER = KIB
_F2FS_UNMOUNTED = 0x1
_XFS_CLEAN = re.compile(r"^\s*log tail: \d+ head: \d+ state: <CLEAN>$", re.MULTILINE)


def check_settled(kind: str, region: Region, device: str) -> None:
    """Make sure that the map of used blocks tells all. `kind` is a filesystem type of blkid, `device` shows the region.

    Raises:
        FormatError: when it may not.
        CommandFailed: when an xfs log cannot be read.
        DeviceError: when the disk cannot be read.
    """
    match kind:
        case "ext2" | "ext3" | "ext4":
            check_ext(region.read(_EXT_SUPER, KIB))
        case "xfs" if region.disk.frozen(region.extent):
            pass  # its log is left dirty on purpose, but all that it holds is in place too (xfs_log_quiesce)
        case "xfs":
            # -t tells the state, then lists what is to be replayed: nothing, when it is clean.
            check_xfs_log(run("xfs_logprint", ["-t", device]).stdout)
        case "btrfs":
            check_btrfs(region.read(_BTRFS_SUPER, 4 * KIB))
        case "exfat":
            check_exfat(region.read(0, 512))
        case "f2fs":
            check_f2fs(region)
        case _:
            pass


def check_ext(superblock: bytes) -> None:
    """Source: Documentation/filesystems/ext4/super.rst: s_feature_incompat, INCOMPAT_RECOVER.

    Raises:
        FormatError: when the journal is to be replayed.
    """
    if _integer(superblock, 0x60, 4) & _EXT_RECOVER:
        raise FormatError(UNCLEAN)


def check_xfs_log(printed: str) -> None:
    """Judge what `xfs_logprint -t` printed.

    Raises:
        FormatError: when the log is to be replayed, or lies on another device.
    """
    if not _XFS_CLEAN.search(printed):
        raise FormatError(UNCLEAN)


def check_btrfs(superblock: bytes) -> None:
    """Source: `struct btrfs_super_block` in include/uapi/linux/btrfs_tree.h: log_root and num_devices.

    Raises:
        FormatError: when there is a log tree, or the filesystem spans several devices.
    """
    if _integer(superblock, 0x60, 8) != 0:
        raise FormatError(UNCLEAN)
    if _integer(superblock, 0x88, 8) != 1:
        raise FormatError("it is one of several devices of a filesystem")


def check_exfat(boot_sector: bytes) -> None:
    """Source: exFAT specification, section 3.1.13, VolumeFlags.

    Raises:
        FormatError: when the volume is marked dirty.
    """
    if _integer(boot_sector, 106, 2) & _EXFAT_DIRTY:
        raise FormatError(UNCLEAN)


def check_f2fs(region: Region) -> None:
    """Source: `struct f2fs_super_block` and `struct f2fs_checkpoint` in include/linux/f2fs_fs.h.

    Of the two checkpoint packs the one with the higher version counts; its first and last block are the same when it
    is whole. Nodes that were written after it are found by their links alone, unless it is that of an unmount.

    Raises:
        FormatError: when it is not.
        DeviceError: when the disk cannot be read.
    """
    superblock = region.read(_F2FS_SUPER, KIB)
    block, segment = _integer(superblock, 16, 4), _integer(superblock, 20, 4)
    if not 9 <= block <= 16 or segment > 16:
        raise FormatError("its superblock makes no sense")
    first = _integer(superblock, 76, 4)
    packs = {
        number: region.read(number << block, 512) for number in (first, first + (1 << segment))
    }
    newest = max(packs, key=lambda number: _integer(packs[number], 0, 8))
    flags, blocks = _integer(packs[newest], 132, 4), _integer(packs[newest], 136, 4)
    last = region.read((newest + blocks - 1) << block, 512)
    if not flags & _F2FS_UNMOUNTED or last[:8] != packs[newest][:8]:
        raise FormatError(UNCLEAN)


def _integer(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")
