"""Filesystems of a clone, mounted while its twin may be there too: with the same UUIDs, perhaps even mounted."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

from etsclone.disk.mounts import mounted
from etsclone.disk.signatures import find_content
from etsclone.errors import CommandFailed, SourceRefused
from etsclone.run import run
from etsclone.units import SECTOR

# Without its journal ext4 takes no option that is about it, and the superblock may name some: what comes after them
# counts. 0 stands for the kernel's own (ext4(5); the kernel's fs/ext4/super.c, can't mount with commit=).
_EXT_NO_REPLAY = ("noload", "commit=0", "data_err=ignore")
_NO_REPLAY = {
    "ext3": _EXT_NO_REPLAY,
    "ext4": _EXT_NO_REPLAY,
    "xfs": ("norecovery",),
    # Since Linux 5.9; the older word for it, nologreplay, is gone from newer ones.
    "btrfs": ("rescue=nologreplay",),
}
"""Mount options that leave a journal as it is."""

_EXT_OPTIONS = slice(0x600, 0x640)
"""Where an ext3 or ext4 has s_mount_opts: at 0x200 of its superblock, which is at 1024 (e2fsprogs' ext2_fs.h)."""

_EXT_JOURNAL = frozenset({"journal_checksum", "journal_async_commit"})
"""What no other option takes back: the kernel remembers that it was asked for."""

_BTRFS = "/sys/fs/btrfs"
"""A folder for each btrfs that is mounted, by its UUID: sysfs(5), the kernel's fs/btrfs/sysfs.c."""

_PATIENCE = 2.0
"""Seconds that the kernel may take to let go of a btrfs that was unmounted."""


@contextlib.contextmanager
def mounted_filesystem(
    device: str,
    kind: str,
    where: str,
    *,
    writable: bool,
    pristine: bool = False,
    subvolume: tuple[str, ...] = (),
) -> Iterator[None]:
    """Mount what a device holds at `where`, for as long as the context lasts.

    Args:
        device: a device node.
        kind: what it holds, as blkid calls it.
        where: a folder.
        writable: mount for writing.
        pristine: do not even replay a journal (only without `writable`).
        subvolume: the mount option that names a subvolume of btrfs.

    Raises:
        SourceRefused: when it is a btrfs whose twin is mounted, or an ext3 or ext4 that is not mounted without its
            journal.
        CommandFailed: when it cannot be mounted.
    """
    # The twin of an xfs, with the same UUID, may be mounted.
    twin = ("nouuid",) if kind == "xfs" else ()
    options = (*(_NO_REPLAY.get(kind, ()) if pristine else ()), *twin, *subvolume)
    alone = _without_twins(device) if kind == "btrfs" else contextlib.nullcontext()
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone)
        try:
            stack.enter_context(mounted(device, where, writable=writable, options=options))
        except CommandFailed:
            if pristine and kind in ("ext3", "ext4"):
                _check_options(device)
            raise
        yield


def _check_options(device: str) -> None:
    """Raise `SourceRefused` where the superblock of an ext3 or ext4 asks for what cannot be without a journal."""
    with open(device, "rb", buffering=0) as file:
        block = os.pread(file.fileno(), _EXT_OPTIONS.stop, 0)
    options = block[_EXT_OPTIONS].partition(b"\0")[0].decode("ascii", "replace")
    found = sorted(_EXT_JOURNAL.intersection(options.split(",")))
    if found:
        raise SourceRefused(
            f"the filesystem on {device} cannot be looked at without replaying its journal: its default mount"
            f" options have {' and '.join(found)}",
            hint="mount it by hand and use --root DIR, or take these options away: tune2fs -E mount_opts=, DEVICE",
        )


def awaits_replay(device: str, kind: str, where: str) -> bool:
    """Whether a filesystem that could not be mounted can be without its journal, which must be replayed first.

    Args:
        device, kind, where: as for `mounted_filesystem`, which failed, for a device that cannot be written to.

    Raises:
        SourceRefused: as `mounted_filesystem`.
    """
    try:
        with mounted_filesystem(device, kind, where, writable=False, pristine=True):
            return kind in _NO_REPLAY
    except CommandFailed:
        return False


@contextlib.contextmanager
def _without_twins(device: str) -> Iterator[None]:
    """Have the kernel know no other device of a btrfs: it would take the other's blocks for this one's."""
    own = os.path.basename(os.path.realpath(device))
    uuid = _uuid_of(own)
    members = _mounted_members(uuid)
    until = time.monotonic() + _PATIENCE
    while members and own not in members and time.monotonic() < until:
        time.sleep(0.1)
        members = _mounted_members(uuid)
    if members and own not in members:
        raise SourceRefused(
            f"a btrfs with the same UUID as that on {device} is mounted, from /dev/{members[0]}",
            hint=f"btrfs cannot tell twins apart: unmount /dev/{members[0]}, or detach that disk",
        )
    if not members:
        forget_btrfs(other for other in _twins(uuid) if other != own)
    try:
        yield
    finally:
        # What is not forgotten now would stand in the way of the twin, if this one has become newer.
        if not _mounted_members(uuid):
            forget_btrfs([own])


def _mounted_members(uuid: str) -> list[str]:
    try:
        return sorted(os.listdir(f"{_BTRFS}/{uuid}/devices"))
    except FileNotFoundError:
        return []


def _twins(uuid: str) -> Iterator[str]:
    """The names of all block devices that hold a btrfs with this UUID."""
    for name in os.listdir("/sys/class/block"):
        if name.startswith(("sr", "fd", "ram")):
            continue
        if _uuid_of(name) == uuid:
            yield name


def _uuid_of(name: str) -> str:
    """The UUID of the btrfs on a block device; empty when there is none."""
    try:
        with open(f"/sys/class/block/{name}/size", encoding="ascii") as file:
            size = int(file.read()) * SECTOR
    except OSError:  # gone meanwhile
        return ""
    return find_content(f"/dev/{name}", 0, size, "btrfs").uuid if size else ""


def forget_btrfs(names: Iterable[str]) -> None:
    """Have the kernel know no longer what it found on devices, such as `sda2`, that are not mounted."""
    for name in names:
        # A device that the kernel does not know of is an error too.
        run("btrfs", ["device", "scan", "--forget", f"/dev/{name}"], accept=(0, 1))
