"""What is mounted where on this machine, and mounting the filesystems of a clone."""

import contextlib
import fcntl
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from etsclone.errors import EtscloneError
from etsclone.run import run, uninterrupted

_FOLDERS = "/run/etsclone/folders"

_DATED = frozenset({"ext3", "ext4", "xfs"})
"""Types of filesystems that date each change of a folder, and keep both or neither when the power fails.

vfat, for one, has no times for its topmost folder, and other systems that write to it leave those of all folders as
they are. btrfs would do, but the device numbers that it tells of files are not those of its mounts.
"""


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo: device number, mount point, filesystem type, source."""

    device: int
    where: str
    type: str
    source: str
    writable: bool


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Read mountinfo (proc_pid_mountinfo(5)); spaces in names are written there as octal escapes."""
    mounts = []
    for line in text.splitlines():
        fields = line.split(" ")
        dash = fields.index("-", 6)
        major, minor = fields[2].split(":")
        mounts.append(
            Mount(
                os.makedev(int(major), int(minor)),
                _unescape(fields[4]),
                fields[dash + 1],
                _unescape(fields[dash + 2]),
                # Both the mount and the filesystem say rw or ro: it takes both to write.
                "rw" in fields[5].split(",") and "rw" in fields[dash + 3].split(","),
            )
        )
    return tuple(mounts)


def mounts_of_system() -> tuple[Mount, ...]:
    """All mounts that this process sees. btrfs reports a device number of its own: its source's number is used."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return tuple(_with_real_device(mount) for mount in parse_mountinfo(file.read()))


def swaps_of_system() -> frozenset[int]:
    """The device numbers of active swap devices."""
    with open("/proc/swaps", encoding="utf-8", errors="surrogateescape") as file:
        names = [_unescape(line.split()[0]) for line in file.read().splitlines()[1:]]
    numbers = set()
    for name in names:
        with contextlib.suppress(OSError):
            numbers.add(os.stat(name).st_rdev)
    return frozenset(numbers - {0})


def foreign_mounts(root: str) -> frozenset[bytes]:
    """Where, below `root`, something is mounted that is no part of the disk's system: /proc, tmpfs, network shares.

    Paths are absolute as seen from `root`.
    """
    top = os.path.realpath(root).rstrip("/")
    return frozenset(
        os.fsencode(mount.where[len(top) :])
        for mount in mounts_of_system()
        if mount.where.startswith(f"{top}/")
        and mount.where != "/"
        and not mount.source.startswith("/dev/")
    )


def second_mounts(root: str) -> frozenset[bytes]:
    """Where, below `root`, a filesystem is mounted that is mounted somewhere else, too, inside or outside of it.

    Such are bind mounts. Subvolumes of one btrfs cannot be told from them, and are none. Paths as `foreign_mounts`.
    """
    top = os.path.realpath(root).rstrip("/")
    mounts = [mount for mount in mounts_of_system() if mount.source.startswith("/dev/")]
    times = Counter(mount.device for mount in mounts)
    return frozenset(
        os.fsencode(mount.where[len(top) :])
        for mount in mounts
        if mount.where.startswith(f"{top}/")
        and mount.where != "/"
        and mount.type != "btrfs"
        and times[mount.device] > 1
    )


def system_mounts(root: str) -> tuple[str, ...]:
    """Where, below `root`, filesystems of the disk's system are mounted: all that `foreign_mounts` leaves, sorted."""
    top = os.path.realpath(root).rstrip("/")
    found = {
        mount.where
        for mount in mounts_of_system()
        if mount.where.startswith(f"{top}/") and mount.source.startswith("/dev/")
    }
    return tuple(sorted(found))


def dated_filesystems() -> frozenset[int]:
    """The device numbers of mounted filesystems on which a folder is known to hold the same names by its times."""
    return frozenset(mount.device for mount in mounts_of_system() if mount.type in _DATED)


@contextlib.contextmanager
def mount_folder() -> Iterator[str]:
    """A private empty folder to mount on, removed in the end; those that killed processes left are removed first.

    Whether one is in use its lock tells: the mounts of other processes cannot be seen, and would not keep it.

    Raises:
        EtscloneError: when none can be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = _new_folder(stack)
        except OSError as error:
            raise EtscloneError(
                f"no folder to mount at can be made in {_FOLDERS}: {error.strerror}",
                hint="see that /run can be written to and is not full",
            ) from error
        yield folder


def _new_folder(stack: contextlib.ExitStack) -> str:
    os.makedirs(_FOLDERS, mode=0o700, exist_ok=True)
    with _locked(_FOLDERS):
        _sweep()
        folder = tempfile.mkdtemp(dir=_FOLDERS)
        stack.enter_context(_locked(folder))
        stack.callback(os.rmdir, folder)
    return folder


def _sweep() -> None:
    for name in os.listdir(_FOLDERS):
        left = os.path.join(_FOLDERS, name)
        # In use, or with a mount that a killed process left for all to see.
        with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_NB):
            os.rmdir(left)


@contextlib.contextmanager
def _locked(folder: str, how: int = 0) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def mounted(
    device: str, where: str, *, writable: bool, options: tuple[str, ...] = ()
) -> Iterator[None]:
    """Mount a device of a clone at `where` for as long as the context lasts.

    Device nodes and setuid programs of the clone have no effect on this system (nodev, nosuid).

    Raises:
        CommandFailed: when it cannot be mounted.
    """
    words = ("rw" if writable else "ro", "nodev", "nosuid", *options)
    with contextlib.ExitStack() as stack:
        with uninterrupted():
            run("mount", ["--options", ",".join(words), "--source", device, "--target", where])
            stack.callback(run, "umount", ["--", where])
        yield


def _with_real_device(mount: Mount) -> Mount:
    if mount.type != "btrfs":
        return mount
    with contextlib.suppress(OSError):
        return Mount(
            os.stat(mount.source).st_rdev, mount.where, mount.type, mount.source, mount.writable
        )
    return mount


def _unescape(text: str) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    pieces = raw.split(b"\\")
    decoded = pieces[0] + b"".join(bytes([int(piece[:3], 8)]) + piece[3:] for piece in pieces[1:])
    return os.fsdecode(decoded)
