"""Disks with bad sectors: an image behind a FUSE file of QEMU's storage daemon, which fails as it is told to."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etsclone.model.extents import Extents

from .disks import SECONDS

SECTOR = 512
_EIO = 5


@contextmanager
def failing(image: Path, bad: Extents) -> Iterator[Path]:
    """A file that holds what `image` does, but cannot be read (EIO) in the sectors of `bad`."""
    place = image.with_suffix(".failing")
    place.touch()
    sectors = [
        sector
        for extent in bad
        for sector in range(extent.start // SECTOR, -(-extent.end // SECTOR))
    ]
    rules = [
        {"event": "none", "iotype": "read", "errno": _EIO, "sector": sector, "once": False}
        for sector in sectors
    ]
    node = {
        "driver": "blkdebug",
        "node-name": "disk",
        "image": {"driver": "file", "filename": str(image), "locking": "off"},
        "inject-error": rules,
    }
    export = f"type=fuse,id=export,node-name=disk,mountpoint={place},writable=off"
    argv = ["qemu-storage-daemon", "--blockdev", json.dumps(node), "--export", export]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as daemon:
        try:
            _wait_for(daemon, place, image.stat().st_size)
            yield place
        finally:
            daemon.terminate()
            daemon.wait(SECONDS)
            place.unlink()


def _wait_for(daemon: "subprocess.Popen[bytes]", place: Path, size: int) -> None:
    for _ in range(SECONDS * 20):
        if place.stat().st_size == size:
            return
        assert daemon.poll() is None
        time.sleep(0.05)
    raise AssertionError("the storage daemon exports nothing")
