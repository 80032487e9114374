"""What a clone tells while it runs: to programs, to whoever asks with SIGUSR1, and how quickly it ends on ^C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from . import disks
from .conftest import ETSCLONE, HOOKED, Cli
from .disks import MIB, Sample, loop_device

pytestmark = pytest.mark.loop

SLOW = ("--yes", "--rate-limit", "6M")
"""Two seconds for the small disk."""


@contextmanager
def running(
    *words: str | Path, path: str = "", hooked: bool = False
) -> Iterator["subprocess.Popen[str]"]:
    """A run of etsclone under way; `path` goes before $PATH. With `hooked` the state is saved all the time."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
        "PATH": f"{path}:{os.environ['PATH']}",
        "SAVES": "often",
    }
    begin = (sys.executable, HOOKED, "never:1", "0") if hooked else ETSCLONE
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*begin, *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What else it wrote, once it has ended."""
    return process.communicate(timeout=disks.SECONDS)


def stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe
    return pipe


def test_what_happens_is_told_as_it_happens(small_disk: Sample, tmp_path: Path) -> None:
    target = tmp_path / "clone.img"
    with running("clone", small_disk.image, target, *SLOW, "--json") as process:
        assert json.loads(stream(process.stdout).readline())["event"] == "plan"
        first = json.loads(stream(process.stdout).readline())
        assert disks.looks_unfinished(target)  # it is told before it is over
        out, err = end(process)
    assert (process.returncode, err) == (0, "")
    events = [first, *map(json.loads, out.splitlines())]
    assert [event["event"] for event in events] == ["progress"] * (len(events) - 1) + ["done"]
    copying = [event for event in events if event.get("phase") == "copying"]
    done = [event["done"] for event in copying]
    assert done == sorted(done)
    assert done[0] < done[-1] == copying[-1]["total"]
    assert {event["total"] for event in copying} == {events[-1]["bytes"]}
    seconds = events[-1]["phases"][0]["seconds"]
    assert 3 <= len(copying) <= seconds + 3
    assert copying[-1]["rate"] == pytest.approx((done[-1] - done[0]) / seconds, rel=0.1)
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_when_nobody_reads_its_events_it_clones_all_the_same(
    small_disk: Sample, etsclone: Cli, tmp_path: Path
) -> None:
    target = tmp_path / "clone.img"
    with running("clone", small_disk.image, target, *SLOW, "--json") as process:
        stream(process.stdout).readline()
        stream(process.stdout).close()
        assert stream(process.stderr).read() == ""
        assert process.wait(disks.SECONDS) == 0
    assert etsclone("verify", small_disk.image, target).code == 0


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_state_is_told_on_request_and_nothing_is_disturbed(
    form: tuple[str, ...], small_disk: Sample, etsclone: Cli, tmp_path: Path
) -> None:
    target, map_ = tmp_path / "clone.img", tmp_path / "map"
    with running("clone", small_disk.image, target, *SLOW, *form, "--map", map_) as process:
        lines: list[str] = []
        while not any("B/s, 0:00:0" in line for line in lines):
            # Also before it copies, and before it knows its speed; but not before Python has begun to heed signals.
            time.sleep(0.5)
            process.send_signal(signal.SIGUSR1)
            lines.append(stream(process.stderr).readline())
        process.send_signal(signal.SIGUSR1)
        lines.append(stream(process.stderr).readline())
        assert process.poll() is None  # at once, and not when it was done
        out, err = end(process)
    assert (process.returncode, err) == (0, "")
    for line in lines[-2:]:
        assert line.startswith("etsclone: copying 1/2: ")
        assert " MiB of " in line
        assert "B/s, 0:00:0" in line
        assert line.endswith(f" left; map: {map_}\n")
    assert "copying 1/2" not in out
    assert etsclone("verify", small_disk.image, target).code == 0


def test_a_request_at_the_prompt_is_answered_too(small_disk: Sample, tmp_path: Path) -> None:
    target = tmp_path / "clone.img"
    with running("clone", small_disk.image, target) as process:
        shown = ""
        while not shown.endswith(f"{target.name}: "):
            shown += stream(process.stdout).read(1)
        process.send_signal(signal.SIGUSR1)
        told = stream(process.stderr).readline()
        assert told == "etsclone: nothing is being copied at the moment\n"
        stream(process.stdin).write(f"{target.name}\n")
        assert "cloned and verified" in end(process)[0]
    assert process.returncode == 0


def test_an_interrupt_is_told_as_an_event(small_disk: Sample, tmp_path: Path) -> None:
    target = tmp_path / "clone.img"
    with running("clone", small_disk.image, target, *SLOW, "--json") as process:
        for _ in range(2):
            stream(process.stdout).readline()
        process.send_signal(signal.SIGTERM)
        out, err = end(process)
    assert process.returncode == 130
    last = json.loads(out.splitlines()[-1])
    assert (last["event"], last["exit_code"]) == ("error", 130)
    assert err == f"etsclone: {last['message']}\nhint: {last['hint']}\n"


def test_verify_tells_too(small_disk: Sample, etsclone: Cli, tmp_path: Path) -> None:
    target = tmp_path / "clone.img"
    assert etsclone("clone", small_disk.image, target, "--yes").code == 0
    events = etsclone("verify", small_disk.image, target, "--json").events
    told = [(event["event"], event.get("phase")) for event in events]
    assert told == [("progress", "comparing"), ("progress", "comparing"), ("done", None)]
    disks.flip(target, MIB + 5)
    events = etsclone("verify", small_disk.image, target, "--json").events
    assert [(event["event"], event.get("exit_code")) for event in events[-2:]] == [
        ("done", None),
        ("error", 4),
    ]


def test_two_clones_keep_their_maps_in_one_folder(
    small_disk: Sample, etsclone: Cli, tmp_path: Path
) -> None:
    names = ("a", "b")
    words = [
        ("clone", small_disk.image, tmp_path / name, *SLOW, "--map", tmp_path / f"{name}.map")
        for name in names
    ]
    with running(*words[0], hooked=True) as one, running(*words[1], hooked=True) as other:
        for process in (one, other):
            assert end(process)[1] == ""
            assert process.returncode == 0
    for name in names:
        assert etsclone("verify", small_disk.image, tmp_path / name).code == 0
        assert disks.tool("ddrescuelog", "--show-status", tmp_path / f"{name}.map")
    assert not list(tmp_path.glob(".*"))


PARTS = 6
"""More than are looked at at the same time."""


@pytest.fixture(scope="module")
def many_parts(workshop: Path) -> Path:
    """A disk with several filesystems that only partclone can tell about."""
    image = disks.blank(workshop / "parts.img", (PARTS + 1) * 8 * MIB)
    disks.tool("sfdisk", "--quiet", image, typed="label: gpt\n" + "size=8MiB\n" * PARTS)
    with loop_device(image) as device:
        for number in range(1, PARTS + 1):
            disks.tool(*disks.MAKE["ext4"], "-O", "bigalloc", disks.node(device, number))
    return image


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_does_not_wait_for_the_maps(
    number: signal.Signals, many_parts: Path, tmp_path: Path
) -> None:
    # A partclone that takes for ever; a line in a FIFO tells that it is at work, the FIFO's end that it is not.
    fifo, folder = tmp_path / "fifo", tmp_path / "bin"
    os.mkfifo(fifo)
    folder.mkdir()
    (folder / "partclone.ext4").write_text(
        f"#!/bin/sh\nexec >> '{fifo}'\necho at work\nexec sleep 600\n"
    )
    (folder / "partclone.ext4").chmod(0o755)
    before = set(Path("/tmp").glob("etsclone-*"))
    words = ("clone", many_parts, tmp_path / "clone.img", "--dry-run")
    with running(*words, path=str(folder)) as process, fifo.open() as tidings:
        for _ in range(4):
            assert tidings.readline() == "at work\n"
        process.send_signal(number)
        began = time.monotonic()
        err = end(process)[1]
        assert time.monotonic() - began < 1.5
        assert tidings.read() == ""
    assert (process.returncode, err) == (130, "etsclone: interrupted\n")
    assert disks.loops_of(many_parts.parent) == []
    assert set(Path("/tmp").glob("etsclone-*")) <= before
