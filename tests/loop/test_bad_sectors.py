"""Sources with sectors that cannot be read: the map is exact, the rest is copied, what is lost is zeros and exit 5."""

import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus, parse_mapfile

from . import disks
from .conftest import ETSCLONE, Cli, Stop
from .disks import MIB, Sample, loop_device
from .failing import SECTOR, failing

pytestmark = pytest.mark.loop


def blocks_of(image: Path, name: str) -> list[int]:
    """Where the blocks of a file of partition 2 begin, in bytes of the disk."""
    with loop_device(image, read_only=True) as device:
        root = disks.node(device, 2)
        listed = disks.tool("dumpe2fs", "-h", root)
        (block,) = (
            int(line.split()[-1]) for line in listed.splitlines() if line.startswith("Block size:")
        )
        shown = disks.tool("debugfs", "-R", f"blocks {name}", root)
    numbers = [int(word) for word in shown.split() if word.isdecimal()]
    return [2 * MIB + number * block for number in numbers]


def run_of(start: int, sectors: int = 1) -> Extent:
    return Extent(start, start + sectors * SECTOR)


def some_bad(image: Path, seed: int) -> Extents:
    """Single sectors, a scratch over several, and neighbours with one good sector between them; all within a file."""
    chance = random.Random(seed)
    places = blocks_of(image, "/data")
    single = [run_of(chance.choice(places) + SECTOR * chance.randrange(2)) for _ in range(6)]
    middle = places[len(places) // 2]
    pair = [run_of(middle), run_of(middle + 2 * SECTOR)]
    # At the border of two pieces of 64 KiB, on either side of it.
    border = next(place for place in places[10:] if place % (64 * 1024) == 0)
    return Extents.of([*single, *pair, run_of(border - SECTOR, 2), run_of(places[-20], 12)])


def without(image: Path, bad: Extents, copy: Path) -> Path:
    """A copy of an image with zeros in some places."""
    shutil.copy(image, copy)
    with copy.open("r+b") as file:
        for extent in bad:
            file.seek(extent.start)
            file.write(bytes(extent.size))
    return copy


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        count = 20 if metafunc.config.getoption("--full") else 2
        metafunc.parametrize("seed", range(count))


def lost_of(facts: dict[str, list[dict[str, int]]]) -> Extents:
    return Extents.of(Extent(place["start"], place["end"]) for place in facts["lost"])


def test_exactly_the_bad_sectors_are_lost(
    seed: int,
    etsclone: Cli,
    small_disk: Sample,
    tmp_path: Path,
    state_folder: Path,
    scratch: Path,
) -> None:
    image, target = Path(shutil.copy(small_disk.image, tmp_path / "disk")), tmp_path / "target.img"
    bad = some_bad(image, seed)
    disks.scrawl(disks.blank(target, image.stat().st_size), 0, image.stat().st_size)
    with failing(image, bad) as source:
        result = etsclone("clone", source, target, "--yes", "--json")
    assert result.code == 5, result.err
    assert result.err.startswith(f"etsclone: {bad.size} bytes of {source}")
    assert lost_of(result.facts) == bad
    (path,) = (state_folder / "clones").glob("*/map")
    found = parse_mapfile(path.read_text())
    assert found.with_status(BlockStatus.BAD_SECTOR) == bad
    for status in (BlockStatus.NOT_TRIMMED, BlockStatus.NOT_SCRAPED):
        assert found.with_status(status) == Extents()
    expected = without(image, bad, tmp_path / "expected.img")
    assert etsclone("verify", expected, target).code == 0
    # What is left is a filesystem; only the file that owned the sectors has holes.
    with loop_device(target, read_only=True) as device:
        sight = disks.sight(device, 2, "ext4", scratch)
    differing = {path for path, seen in small_disk.trees[2].items() if sight.get(path) != seen}
    assert differing == {b"/data"}


def test_what_can_be_read_after_all_is_read_when_it_goes_on(
    etsclone: Cli, small_disk: Sample, tmp_path: Path
) -> None:
    image, target, map_ = (tmp_path / name for name in ("disk", "target.img", "map"))
    shutil.copy(small_disk.image, image)
    bad = some_bad(image, 7)
    with failing(image, bad) as source:
        result = etsclone("clone", source, target, "--map", map_, "--retries", "0", "--yes")
        assert result.code == 5
        # It is no other disk, and what was bad is still bad.
        result = etsclone("clone", source, target, "--map", map_, "--resume", "--yes", "--json")
        assert result.code == 5
        assert (lost_of(result.facts), result.facts["written"]) == (bad, 0)
    Path(f"{map_}.json").unlink()  # the disk was repaired: by its name it is another one
    result = etsclone("clone", image, target, "--map", map_, "--resume", "--yes", "--json")
    assert (result.code, result.err) == (0, "")
    assert (result.facts["lost"], result.facts["written"]) == ([], bad.size)
    assert etsclone("verify", image, target).code == 0


def test_bad_sectors_in_free_space_are_not_met(
    etsclone: Cli, small_disk: Sample, tmp_path: Path
) -> None:
    image, target = Path(shutil.copy(small_disk.image, tmp_path / "disk")), tmp_path / "target.img"
    with failing(image, Extents.between(40 * MIB, 40 * MIB + 64 * SECTOR)) as source:
        assert etsclone("clone", source, target, "--yes").code == 0
    assert etsclone("verify", image, target).code == 0


def test_a_refresh_from_a_dying_disk_ends_unfinished(
    etsclone: Cli, small_disk: Sample, tmp_path: Path
) -> None:
    image, target = Path(shutil.copy(small_disk.image, tmp_path / "disk")), tmp_path / "target.img"
    assert etsclone("clone", image, target, "--yes").code == 0
    with failing(image, some_bad(image, 3)) as source:
        result = etsclone("clone", source, target, "--refresh", "--yes")
    assert result.code == 5
    assert "the source cannot be read at byte" in result.err
    assert disks.looks_unfinished(target)


def test_a_source_that_vanishes_is_not_taken_for_a_bad_one(
    small_disk: Sample, tmp_path: Path
) -> None:
    image, kept = Path(shutil.copy(small_disk.image, tmp_path / "source.img")), tmp_path / "map"
    with failing(image, Extents((run_of(40 * MIB),))) as place:  # where nothing is
        words = ("clone", place, tmp_path / "clone.img", "--yes", "--map", kept, "--rate-limit=8M")
        argv = [*ETSCLONE, *map(str, words)]
        path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
        with subprocess.Popen(
            argv, env=os.environ | path, stderr=subprocess.PIPE, text=True
        ) as process:
            patience = time.monotonic() + disks.SECONDS
            while not kept.exists() and time.monotonic() < patience:
                time.sleep(0.02)
            time.sleep(0.5)
            (server,) = disks.tool("pgrep", "--full", f"mountpoint={place}").split()
            os.kill(int(server), signal.SIGKILL)
            assert process.stderr is not None
            said = process.stderr.read()
        disks.tool("umount", "--lazy", place)
    assert process.returncode == 5, said
    assert "etsclone: the source is gone, at byte" in said
    assert "hint: plug it in again and go on with --resume" in said
    found = parse_mapfile(kept.read_text())
    assert {status for _, status in found.blocks} == {BlockStatus.FINISHED, BlockStatus.NOT_TRIED}
    assert disks.looks_unfinished(tmp_path / "clone.img")


# --- disks and filesystems with sectors of 4096 bytes ---------------------------------------------------------------


@pytest.fixture
def large_sectors(tmp_path: Path, scratch: Path) -> Iterator[Path]:
    """A folder on a disk with sectors of 4096 bytes: direct access to its files takes nothing smaller."""
    with loop_device(disks.blank(tmp_path / "large", 160 * MIB), sector_size=4096) as device:
        disks.tool("mkfs.ext4", "-q", device)
        with disks.mounted(device, scratch):
            yield scratch


def test_small_bad_sectors_on_a_filesystem_with_large_ones(
    etsclone: Cli, small_disk: Sample, large_sectors: Path, tmp_path: Path, state_folder: Path
) -> None:
    image, target = Path(shutil.copy(small_disk.image, tmp_path / "disk")), large_sectors / "clone"
    probe = os.open(disks.blank(large_sectors / "probe", MIB), os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, SECTOR) as sector, pytest.raises(OSError, match="Invalid argument"):
        os.pwritev(probe, [sector], SECTOR)  # or this test would show nothing
    os.close(probe)
    disks.blank(target, image.stat().st_size)
    disks.scrawl(target, 0, image.stat().st_size)
    bad = some_bad(image, 5)
    with failing(image, bad) as source:
        result = etsclone("clone", source, target, "--yes", "--json")
    assert (result.code, result.err.splitlines()[0]) == (
        5,
        f"etsclone: {bad.size} bytes of {source} cannot be read; they are zeros on {target}",
    )
    assert lost_of(result.facts) == bad
    (path,) = (state_folder / "clones").glob("*/map")
    assert parse_mapfile(path.read_text()).with_status(BlockStatus.BAD_SECTOR) == bad
    expected = without(image, bad, tmp_path / "expected.img")
    assert etsclone("verify", expected, target).code == 0


def test_a_disk_with_large_sectors_loses_whole_ones(
    etsclone: Cli, four_k_disk: Sample, tmp_path: Path
) -> None:
    # What QEMU serves as a file has no sectors; the loop device over it has the disk's.
    image = Path(shutil.copy(four_k_disk.image, tmp_path / "disk"))
    place = image.read_bytes().find(b"primary\n")
    bad = Extents.between(place, place + 16 * SECTOR).aligned(SECTOR, image.stat().st_size)
    whole = bad.aligned(4096, image.stat().st_size)
    with (
        failing(image, bad) as source,
        loop_device(source, sector_size=4096, read_only=True) as device,
    ):
        result = etsclone("clone", device, tmp_path / "target.img", "--yes", "--json")
    assert result.code == 5, result.err
    lost = lost_of(result.facts)
    assert lost - whole == Extents()
    assert lost.aligned(4096, image.stat().st_size) == lost
    expected = without(image, lost, tmp_path / "expected.img")
    assert etsclone("verify", expected, tmp_path / "target.img").code == 0


# --- holes ----------------------------------------------------------------------------------------------------------


def test_an_image_that_goes_on_keeps_its_holes(
    stopped: Stop, etsclone: Cli, small_disk: Sample, tmp_path: Path
) -> None:
    whole, target = tmp_path / "whole.img", tmp_path / "target.img"
    assert etsclone("clone", small_disk.image, whole, "--yes").code == 0
    words = ("clone", small_disk.image, target, "--yes", "--block-size=64K")
    assert stopped("advance:20", signal.SIGINT.value, *words).code == 130
    assert etsclone(*words, "--resume").code == 0
    assert etsclone("verify", small_disk.image, target).code == 0
    used = target.stat().st_blocks * 512
    # The file `zeros` has 2 MiB of them.
    assert used <= whole.stat().st_blocks * 512 + MIB
