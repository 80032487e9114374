"""What is mounted where on this machine, and mounting the filesystems of a clone."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from etsclone.run import run, uninterrupted

_RUNTIME = "/run"


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


@contextlib.contextmanager
def mount_folder() -> Iterator[str]:
    """A private empty folder to mount on, removed in the end."""
    folder = tempfile.mkdtemp(prefix="etsclone-", dir=_RUNTIME)
    try:
        yield folder
    finally:
        os.rmdir(folder)


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


def remount_writable(where: str) -> None:
    """Let a mounted filesystem be written to."""
    run("mount", ["--options", "remount,rw", "--target", where])


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
