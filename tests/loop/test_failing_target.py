"""Targets that fail, lose what they took, or are unplugged in the middle: exit 5, a truthful map, and it goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus, parse_mapfile

from . import disks
from .conftest import HOOKED, Cli
from .disks import MIB, Sample, loop_device
from .failing import SECTOR, bad_sectors, exported, lost_flush

pytestmark = pytest.mark.loop

SLOWLY = ("--workers", "2", "--block-size", "64K", "--rate-limit", "8M")


def run(*argv: object, saves: bool = True) -> "subprocess.CompletedProcess[str]":
    """A clone that saves its state as often as it can, to its end."""
    path = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    return subprocess.run(
        [sys.executable, HOOKED, "never:1", "wait", *map(str, argv)],
        env=os.environ | path | ({"SAVES": "often"} if saves else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=disks.SECONDS,
    )


def bytes_read(device: Path) -> int:
    """How many bytes were read from a block device since it exists."""
    # Documentation/block/stat.rst: the third number is sectors of 512 bytes that were read.
    return int(Path("/sys/block", device.name, "stat").read_text().split()[2]) * SECTOR


def done_of(map_: Path) -> Extents:
    return parse_mapfile(map_.read_text()).with_status(BlockStatus.FINISHED)


def check_truthful(map_: Path, source: Path, target: Path) -> Extents:
    """What a map says is done is on the target, byte for byte."""
    done = done_of(map_)
    for extent in done:
        place = (extent.start, extent.end)
        assert disks.part_of(target, *place) == disks.part_of(source, *place), place
    return done


def replugged(map_: Path) -> None:
    """A file of a server that was started again is another one: without what the record says, it is believed."""
    Path(f"{map_}.json").unlink()


def check_goes_on(etsclone: Cli, source: Path, disk: Path, map_: Path, done: Extents) -> None:
    """It goes on where it stopped: the source is read where that was not done, and not elsewhere."""
    replugged(map_)
    # Held open: the kernel forgets what it has of a disk when the last one closes it.
    with loop_device(source, read_only=True) as device, device.open("rb"):
        words = ("clone", device, disk, "--map", map_, "--resume", "--yes", "--json")
        seen = [bytes_read(device)]
        for more in (["--dry-run"], ["--dry-run"], []):
            result = etsclone(*words, *more)
            seen.append(bytes_read(device))
    # Before it copies it looks at the disk, of which the second time some is cached.
    looked, read = seen[2] - seen[1], seen[3] - seen[2]
    assert (result.code, result.err) == (0, "")
    rest = result.facts["bytes"] - done.size
    assert result.facts["written"] == rest
    assert done.size > 4 * MIB
    assert rest <= read <= rest + looked + MIB
    assert etsclone("verify", source, disk).code == 0


@pytest.fixture
def disk(small_disk: Sample, tmp_path: Path) -> Path:
    """A disk that was in use."""
    path = disks.blank(tmp_path / "disk", small_disk.size)
    disks.scrawl(path, 0, small_disk.size)
    return path


def data_blocks(image: Path) -> list[int]:
    """Where the blocks of a file of partition 2 lie."""
    with loop_device(image, read_only=True) as device:
        shown = disks.tool("debugfs", "-R", "blocks /data", disks.node(device, 2))
        listed = disks.tool("dumpe2fs", "-h", disks.node(device, 2))
    size = int(listed.split("Block size:")[1].split()[0])
    return [2 * MIB + int(word) * size for word in shown.split() if word.isdecimal()]


def test_a_sector_that_cannot_be_written(
    etsclone: Cli, small_disk: Sample, disk: Path, tmp_path: Path
) -> None:
    map_ = tmp_path / "map"
    places = data_blocks(small_disk.image)
    bad = places[len(places) // 2]
    rules = bad_sectors(Extents.between(bad, bad + SECTOR), "write")
    with exported(disk, rules, writable=True) as (place, _):
        words = ("clone", small_disk.image, place, "--map", map_, "--yes", "--block-size", "64K")
        result = run(*words)
    assert result.returncode == 5
    begin = bad - bad % (64 * 1024)
    assert result.stderr.splitlines()[0].endswith(
        f"the target cannot be written at byte {begin}: Input/output error"
    )
    assert "go on with --resume" in result.stderr
    assert disks.looks_unfinished(disk)
    done = check_truthful(map_, small_disk.image, disk)
    assert done.size > 0
    assert (done & Extents((Extent(bad, bad + SECTOR),))) == Extents()
    check_goes_on(etsclone, small_disk.image, disk, map_, done)


def wait_until(happened: Callable[[], bool]) -> None:
    patience = time.monotonic() + disks.SECONDS
    while not happened():
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_a_target_that_is_unplugged(
    etsclone: Cli, small_disk: Sample, disk: Path, tmp_path: Path
) -> None:
    map_ = tmp_path / "map"
    path = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each), "SAVES": "often"}
    with exported(disk, [], writable=True) as (place, server):
        words = ("clone", small_disk.image, place, "--map", map_, "--yes", *SLOWLY)
        with subprocess.Popen(
            [sys.executable, HOOKED, "never:1", "wait", *map(str, words)],
            env=os.environ | path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_until(lambda: map_.exists() and done_of(map_).size > 6 * MIB)
            server.send_signal(signal.SIGKILL)
            assert process.stderr is not None
            said = process.stderr.read()
    assert process.returncode == 5, said
    # Whichever comes first: a write, or the flush before the state is saved.
    assert (
        "the target cannot be written at byte" in said or "writes to the target were lost" in said
    )
    assert "Traceback" not in said
    assert disks.looks_unfinished(disk)
    done = check_truthful(map_, small_disk.image, disk)
    check_goes_on(etsclone, small_disk.image, disk, map_, done)


@pytest.mark.parametrize("saves", [True, False])
def test_a_target_that_lost_what_it_had_taken(
    saves: bool, small_disk: Sample, disk: Path, tmp_path: Path
) -> None:
    # Linux tells of a lost write once, and the next flush succeeds: the map must not be saved on its word.
    map_ = tmp_path / "map"
    with exported(disk, lost_flush(), writable=True) as (place, _):
        words = ("clone", small_disk.image, place, "--map", map_, "--yes")
        result = run(*words, saves=saves)
    assert result.returncode == 5
    assert "writes to the target were lost: Input/output error" in result.stderr
    assert "hint: look at its cable" in result.stderr
    assert disks.looks_unfinished(disk)
    assert not map_.exists() or done_of(map_) == Extents()


@pytest.mark.parametrize("how", ["full", "forbidden"])
def test_a_state_folder_that_fails_in_the_middle(
    how: str, etsclone: Cli, small_disk: Sample, disk: Path, scratch: Path
) -> None:
    disks.tool("mount", "-t", "tmpfs", "-o", "size=1m", "none", scratch)
    try:
        map_ = scratch / "map"
        path = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each), "SAVES": "often"}
        words = ("clone", small_disk.image, disk, "--map", map_, "--yes", *SLOWLY)
        with subprocess.Popen(
            [sys.executable, HOOKED, "never:1", "wait", *map(str, words)],
            env=os.environ | path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_until(lambda: map_.exists() and done_of(map_).size > MIB)
            if how == "full":
                fill_up(scratch / "filler")
            else:
                disks.tool("chattr", "+i", scratch)  # as long as files are open it stays writable
            assert process.stderr is not None
            said = process.stderr.read()
        disks.tool("chattr", "-i", scratch)
        (scratch / "filler").unlink(missing_ok=True)
        assert process.returncode == 1, said
        assert said.splitlines()[-1] == "hint: make room there, then go on with --resume"
        assert "Traceback" not in said
        assert disks.looks_unfinished(disk)
        done = check_truthful(map_, small_disk.image, disk)
        result = etsclone(*words, "--resume", "--json")
        assert (result.code, result.err) == (0, "")
        assert result.facts["written"] == result.facts["bytes"] - done.size
    finally:
        disks.tool("umount", scratch)


def fill_up(path: Path) -> None:
    """Take all the space that there is."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
