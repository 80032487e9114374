"""Disk image files: attached as loop devices for as long as they are needed, and always detached."""

import contextlib
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import replace

from etsclone.disk.probe import probe
from etsclone.errors import UsageError
from etsclone.model.disk import Disk, DiskIdentity, Use
from etsclone.model.extents import Extent
from etsclone.run import run, uninterrupted
from etsclone.units import KIB, SECTOR, align_down

_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO_SIZE = 232

_PATIENCE = 5.0
"""Seconds to wait for the kernel; somebody else may have opened the device for longer."""


@contextlib.contextmanager
def attached(path: str, *, writable: bool) -> Iterator[Disk]:
    """The disk that `path` names: a block device as it is, an image file by way of a loop device.

    The snapshot of an image carries the loop device's partition nodes, and the image file's own path and identity.

    Raises:
        UsageError: when `path` is neither.
    """
    if not is_image(path):
        yield probe(path)
        return
    uses = tuple(use for loop in loops_of(path) for use in probe(loop).uses)
    with _loop_device(path, writable=writable) as device:
        yield _image_disk(path, probe(device), uses)


def _image_disk(path: str, loop: Disk, uses: tuple[Use, ...]) -> Disk:
    return replace(
        loop,
        identity=image_identity(path),
        # Root may write to any file; who took the write permission away still meant it.
        read_only=not os.access(path, os.W_OK) or not os.stat(path).st_mode & _ANY_WRITE,
        transport="image file",
        uses=uses,
    )


def is_image(path: str) -> bool:
    """Whether `path` is a regular file rather than a block device.

    Raises:
        UsageError: when there is nothing, or neither of both.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="`etsclone disks` lists the disks"
        ) from error
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise UsageError(
            f"{path} is neither a disk nor an image file", hint="`etsclone disks` lists the disks"
        )
    return stat.S_ISREG(mode)


def image_identity(path: str) -> DiskIdentity:
    """What makes an image file that file. Its size is in whole sectors, as a loop device shows it."""
    status = os.stat(path)
    size = align_down(status.st_size, SECTOR)
    volume = os.statvfs(path).f_fsid
    return DiskIdentity(path=path, size=size, file=(status.st_dev, status.st_ino), volume=volume)


def loops_of(path: str) -> tuple[str, ...]:
    """The loop devices that an image file is attached to now."""
    status = os.stat(path)
    attached_ones = (name for name in os.listdir("/sys/block") if _is_attached(name))
    return tuple(
        f"/dev/{name}"
        for name in sorted(attached_ones, key=lambda name: int(name.removeprefix("loop")))
        if _file_behind(f"/dev/{name}") == (status.st_dev, status.st_ino)
    )


def _is_attached(name: str) -> bool:
    return name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop")


def _file_behind(loop: str) -> tuple[int, int] | None:
    """Device and inode of the file that a loop device shows; None when it shows none any more.

    Source: `struct loop_info64` in include/uapi/linux/loop.h; the kernel's encoding of device numbers (new_encode_dev).
    """
    info = bytearray(_LOOP_INFO_SIZE)
    try:
        with open(loop, "rb", buffering=0) as device:
            fcntl.ioctl(device, _LOOP_GET_STATUS64, info)
    except OSError:
        return None
    number, inode = struct.unpack_from("<QQ", info)
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    return os.makedev(major, minor), inode


def announce_partitions(device: str) -> None:
    """Tell the kernel what partitions a device has now: one without parsers for tables learns it only from us."""
    # --update would do neither without a table nor for logical partitions. Both fail where there is nothing to do.
    run("partx", ["--delete", device], accept=(0, 1))
    run("partx", ["--add", device], accept=(0, 1))


@contextlib.contextmanager
def window(path: str, extent: Extent, sector_size: int, *, writable: bool = False) -> Iterator[str]:
    """A block device that shows just `extent` (in bytes) of a disk or image until the context ends."""
    place = ["--offset", str(extent.start), "--sizelimit", str(extent.size)]
    sectors = ["--sector-size", str(sector_size)]
    access = [] if writable else ["--read-only"]
    with _loop([*place, *sectors, *access], path) as device:
        yield device


@contextlib.contextmanager
def _loop_device(path: str, *, writable: bool) -> Iterator[str]:
    access = [] if writable else ["--read-only"]
    sectors = ["--sector-size", str(_sector_size(path))]
    # --partscan: without it the partition nodes would outlive the device.
    with _loop(["--partscan", *sectors, *access], path) as device:
        announce_partitions(device)
        yield device


@contextlib.contextmanager
def _loop(options: list[str], path: str) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        with uninterrupted():
            shown = run("losetup", ["--find", "--show", *options, path])
            device = shown.stdout.strip()
            try:
                stack.callback(os.close, os.open(device, os.O_RDONLY | os.O_CLOEXEC))
            finally:
                # What is in use is detached when its last user closes it: now even SIGKILL leaves nothing behind.
                run("losetup", ["--detach", device])
        # The image need not be cached twice; where its filesystem or disk does not take direct access, it is.
        run("losetup", ["--direct-io=on", device], accept=(0, 1))
        yield device
    wait_until_gone(device, path)


def wait_until_gone(device: str, path: str) -> None:
    """The kernel lets go of a loop device a moment after its last user: the next to mount the image must not see it."""
    backing = f"/sys/block/{os.path.basename(device)}/loop/backing_file"
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        try:
            with open(backing, encoding="utf-8", errors="surrogateescape") as file:
                if file.read().rstrip("\n") != os.path.realpath(path):
                    return
        except OSError:
            return
        time.sleep(0.01)


def _sector_size(path: str) -> int:
    """The sectors of the disk that an image was made of: its GPT header, if it has one, stands in the second."""
    with open(path, "rb") as image:
        return next(
            (size for size in (SECTOR, 4 * KIB) if _begins_gpt(image.fileno(), size)), SECTOR
        )


def _begins_gpt(descriptor: int, position: int) -> bool:
    try:
        return os.pread(descriptor, 8, position) == b"EFI PART"
    except OSError:  # a bad sector; the image may still be copied
        return False
