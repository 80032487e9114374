"""Commands that are killed while a disk's system is mounted: nothing is left, and the next run is not hindered."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loop.test_rebuild import Pair, loop_devices, made, ok, pair

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop


def start(*words: str | Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "etsclone", *map(str, words)]
    return subprocess.Popen(argv, stdin=-1, stdout=-3, stderr=-3)


def mounts(pid: int | str) -> set[str]:
    """Where systems of disks are mounted, as a process sees it."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return set()
    return {
        line.split()[4] for line in lines if line.split()[4].startswith("/run/etsclone/folders/")
    }


@pytest.mark.parametrize("command", ["capture", "rebuild"])
def test_a_killed_command_leaves_nothing_mounted(pair: Pair, command: str) -> None:
    disk, own = pair.disk("primary"), set[str]()
    capture = ("brd", "capture", pair.store, "--role", "primary", "--disk", disk)
    rebuild = ("rebuild", disk, "--store", pair.store, "--role", "secondary")
    words: dict[str, tuple[str | Path, ...]] = {
        "capture": (*capture, "--key", pair.folder / "primary.key", "--trust", pair.trust),
        "rebuild": (*rebuild, "--trust", pair.trust, "--yes"),
    }
    process = start(*words[command])
    try:
        end = time.monotonic() + 60
        while not own and process.poll() is None and time.monotonic() < end:
            own = mounts(process.pid) - mounts("self")
        assert own, "what it mounts is its own"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin
        process.stdin.close()
    end = time.monotonic() + 10
    while loop_devices(disk) and time.monotonic() < end:
        time.sleep(0.01)
    assert not loop_devices(disk)
    assert not own & mounts("self")
    left = {Path(each) for each in own if each.count("/") == 4}
    assert all(each.is_dir() for each in left)
    ok(*words[command])
    assert left
    assert not any(each.exists() for each in left)
