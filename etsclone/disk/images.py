"""Disk image files: attached as loop devices for as long as they are needed, and always detached."""

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import replace

from etsclone.disk.probe import probe
from etsclone.errors import CommandFailed, DeviceError, UsageError
from etsclone.model.disk import Disk, DiskIdentity
from etsclone.run import run

logger = logging.getLogger(__name__)


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
    with _loop_device(path, writable=writable) as device:
        yield image_disk(path, probe(device))


def image_disk(path: str, loop: Disk) -> Disk:
    """The snapshot of an image file, made from that of the loop device that it is attached to."""
    return replace(
        loop, identity=image_identity(path), read_only=not os.access(path, os.W_OK), transport="image file", uses=()
    )


def is_image(path: str) -> bool:
    """Whether `path` is a regular file rather than a block device.

    Raises:
        UsageError: when there is nothing, or neither of both.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="`etsclone disks` lists the disks") from error
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise UsageError(f"{path} is neither a disk nor an image file", hint="`etsclone disks` lists the disks")
    return stat.S_ISREG(mode)


def image_identity(path: str) -> DiskIdentity:
    """What makes an image file that file."""
    status = os.stat(path)
    return DiskIdentity(path=path, size=status.st_size, file=(status.st_dev, status.st_ino))


def loops_of(path: str) -> tuple[str, ...]:
    """The loop devices that an image file is attached to now."""
    listed = run("losetup", ["--list", "--noheadings", "--output", "NAME", "--associated", path])
    return tuple(listed.stdout.split())


@contextlib.contextmanager
def _loop_device(path: str, *, writable: bool) -> Iterator[str]:
    # --partscan: without it the partition nodes would outlive the device. --direct-io: the image is not cached twice.
    access = [] if writable else ["--read-only"]
    shown = run("losetup", ["--find", "--show", "--partscan", "--direct-io=on", *access, path])
    device = shown.stdout.strip()
    try:
        # A kernel without parsers for partition tables makes no nodes by itself. A blank image has no table.
        run("partx", ["--update", device], accept=(0, 1))
        yield device
    finally:
        _detach(device)


def _detach(device: str) -> None:
    try:
        run("losetup", ["--detach", device])
    except CommandFailed as error:
        raise DeviceError(f"cannot detach {device}", hint=f"losetup --detach {device}") from error
