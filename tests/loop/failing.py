"""Failing disks: an image behind a FUSE file of QEMU's storage daemon, which fails as it is told to (blkdebug)."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etsclone.model.extents import Extents

from .disks import SECONDS, tool

SECTOR = 512
_EIO = 5

Rule = dict[str, object]


def bad_sectors(bad: Extents, how: str = "read") -> list[Rule]:
    """What makes every sector of `bad` fail: when it is read, or (`how` = write) when it is written."""
    return [
        {"event": "none", "iotype": how, "errno": _EIO, "sector": sector, "once": False}
        for extent in bad
        for sector in range(extent.start // SECTOR, -(-extent.end // SECTOR))
    ]


def lost_flush() -> list[Rule]:
    """What makes one flush fail, and only one: so does a disk that lost what was in its cache."""
    return [{"event": "none", "iotype": "flush", "errno": _EIO, "once": True}]


@contextmanager
def failing(image: Path, bad: Extents) -> Iterator[Path]:
    """A file that holds what `image` does, but cannot be read (EIO) in the sectors of `bad`."""
    _store(image, bad)
    with exported(image, bad_sectors(bad)) as (place, _):
        yield place


def _store(image: Path, places: Extents) -> None:
    """Have sectors where there may be a hole: nobody reads a hole."""
    with image.open("r+b") as file:
        for extent in places:
            data = os.pread(file.fileno(), extent.size, extent.start)
            os.pwrite(file.fileno(), data, extent.start)


@contextmanager
def exported(
    image: Path, rules: list[Rule], *, writable: bool = False
) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """A file that holds what `image` does and fails by some rules, and the process that serves it.

    Whoever kills the process has pulled out the plug.
    """
    place = image.with_suffix(".failing")
    place.touch()
    node = {
        "driver": "blkdebug",
        "node-name": "disk",
        "image": {"driver": "file", "filename": str(image), "locking": "off"},
        **({"inject-error": rules} if rules else {}),
    }
    access = "writable=on" if writable else "writable=off"
    export = f"type=fuse,id=export,node-name=disk,mountpoint={place},{access}"
    argv = ["qemu-storage-daemon", "--blockdev", json.dumps(node), "--export", export]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as daemon:
        try:
            _wait_for(daemon, place, image.stat().st_size)
            yield place, daemon
        finally:
            daemon.terminate()
            daemon.wait(SECONDS)
            if daemon.returncode == -signal.SIGKILL:
                tool("umount", "--lazy", place, accept=(0, 32))
            place.unlink()


def _wait_for(daemon: "subprocess.Popen[bytes]", place: Path, size: int) -> None:
    # Until it is served, the place is an empty file.
    for _ in range(SECONDS * 20):
        if os.stat(place).st_size == size:
            return
        assert daemon.poll() is None
        time.sleep(0.05)
    raise AssertionError("the storage daemon exports nothing")
