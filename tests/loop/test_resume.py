"""Clones that are killed, and go on: verified in the end, never from the start, never with another disk."""

import random
import shutil
import signal
from pathlib import Path

import pytest

from etsclone.model.extents import Extents
from etsclone.model.mapfile import BlockStatus, Mapfile, parse_mapfile

from . import disks
from .conftest import Cli, Stop
from .disks import MIB, Sample, loop_device
from .lvm import linear, lvm

pytestmark = pytest.mark.loop

SMALL_STEPS = ("--block-size", "64K", "--workers", "2", "--rate-limit", "40M")
KILL = signal.SIGKILL.value


@pytest.fixture
def source(small_disk: Sample, tmp_path: Path) -> Path:
    """A disk that a test may write to."""
    return Path(shutil.copy(small_disk.image, tmp_path / "source.img"))


@pytest.fixture
def target(small_disk: Sample, tmp_path: Path) -> Path:
    """A disk that was in use."""
    path = disks.blank(tmp_path / "target.img", small_disk.size)
    disks.scrawl(path, 0, small_disk.size)
    return path


def map_in(folder: Path) -> Mapfile:
    """The only mapfile of this machine."""
    (path,) = (folder / "clones").glob("*/map")
    return parse_mapfile(path.read_text())


def done_of(found: Mapfile) -> Extents:
    return found.with_status(BlockStatus.FINISHED)


def random_moments(count: int) -> list[str]:
    """The n-th call of a function, `count` times, no two alike."""
    last = {"advance": 300, "write_block": 100, "save": 25, "write_bytes": 3}
    every = [f"{name}:{number}" for name, most in last.items() for number in range(1, most + 1)]
    return random.Random(count).sample(every, count)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "any_moment" in metafunc.fixturenames:
        count = 200 if metafunc.config.getoption("--full") else 8
        metafunc.parametrize("any_moment", random_moments(count))


def test_killed_at_a_random_moment_it_goes_on(
    any_moment: str, stopped: Stop, etsclone: Cli, source: Path, target: Path, state_folder: Path
) -> None:
    words = ("clone", source, target, "--yes", *SMALL_STEPS)
    result = stopped(any_moment, KILL, *words, saves=True)
    assert result.code in {-KILL, 0}  # there are not as many saves where the disk is fast
    if result.code == 0:
        assert etsclone("verify", source, target).code == 0
        return
    assert disks.looks_unfinished(target)
    done = done_of(map_in(state_folder))
    result = etsclone(*words, "--resume", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.facts["mode"] == "resume"
    assert result.facts["written"] == result.facts["bytes"] - done.size
    assert etsclone("verify", source, target).code == 0


def test_killed_again_and_again_it_still_goes_on(
    stopped: Stop, etsclone: Cli, source: Path, target: Path, state_folder: Path
) -> None:
    words = ("clone", source, target, "--yes", *SMALL_STEPS)
    assert stopped("save:3", KILL, *words, saves=True).code == -KILL
    before = done_of(map_in(state_folder))
    for _ in range(3):
        stopped("save:4", KILL, *words, "--resume", saves=True)
        assert disks.looks_unfinished(target)
        now = done_of(map_in(state_folder))
        assert before - now == Extents()
        before = now
    assert before.size > 0
    assert etsclone(*words, "--resume").code == 0
    assert etsclone("verify", source, target).code == 0


def test_a_block_device_goes_on_too(
    stopped: Stop, etsclone: Cli, source: Path, target: Path, small_disk: Sample, scratch: Path
) -> None:
    with loop_device(source, read_only=True) as first, loop_device(target) as second:
        words = ("clone", first, second, "--yes", *SMALL_STEPS)
        assert stopped("advance:120", KILL, *words, saves=True).code == -KILL
        assert etsclone(*words, "--resume").code == 0
        disks.check_clone(small_disk, second, scratch)
        assert etsclone("verify", first, second).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_what_was_done(
    number: signal.Signals,
    stopped: Stop,
    etsclone: Cli,
    source: Path,
    target: Path,
    state_folder: Path,
) -> None:
    words = ("clone", source, target, "--yes", *SMALL_STEPS)
    assert stopped("advance:50", number.value, *words).code == 130
    done = done_of(map_in(state_folder))
    assert done.size > 40 * 64 * 1024
    facts = etsclone(*words, "--resume", "--json").facts
    assert facts["written"] == facts["bytes"] - done.size


def test_who_begins_anew_is_told_of_what_is_there(
    stopped: Stop, etsclone: Cli, source: Path, target: Path, tmp_path: Path, state_folder: Path
) -> None:
    words = ("clone", source, target, "--yes", *SMALL_STEPS)
    assert stopped("advance:50", signal.SIGINT.value, *words).code == 130
    told = "note: this clone was interrupted before: --resume would go on with it\n"
    assert told in etsclone(*words, "--dry-run").out
    assert told not in etsclone(*words, "--dry-run", "--resume").out
    assert told not in etsclone(*words, "--dry-run", "--map", tmp_path / "map").out
    (record,) = (state_folder / "clones").glob("*/clone.json")
    kept = record.read_text()
    record.write_text("damaged")
    assert told not in etsclone(*words, "--dry-run").out
    record.write_text(kept)
    assert etsclone(*words).code == 0
    assert told not in etsclone(*words, "--dry-run").out


def test_what_the_target_lost_meanwhile_is_found(
    stopped: Stop, etsclone: Cli, source: Path, target: Path, state_folder: Path
) -> None:
    words = ("clone", source, target, "--yes", *SMALL_STEPS)
    assert stopped("advance:200", signal.SIGINT.value, *words).code == 130
    disks.flip(target, done_of(map_in(state_folder)).ranges[0].start + 77)
    result = etsclone(*words, "--resume")
    assert result.code == 4
    assert "differs from what was written to bytes" in result.err
    assert disks.looks_unfinished(target)


# --- what an older record says no longer holds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "moment", "how"),
    [
        ((), "flush:1", "--refresh"),
        ((), "copy_extents:1", "--resume"),
        (("--refresh",), "copy_extents:1", "--resume"),
        (("--refresh",), "advance:4", "--resume"),
        (("--refresh",), "advance:4", "--refresh"),
    ],
)
def test_an_older_clone_is_not_taken_for_this_one(
    moment: str,
    mode: tuple[str, ...],
    how: str,
    stopped: Stop,
    etsclone: Cli,
    source: Path,
    target: Path,
    scratch: Path,
) -> None:
    words = ("clone", source, target, "--yes")
    assert etsclone(*words).code == 0
    with loop_device(source) as device, disks.mounted(disks.node(device, 2), scratch):
        (scratch / "new").write_bytes(b"new" * MIB)
    assert stopped(moment, KILL, *words, *mode).code == -KILL
    assert disks.looks_unfinished(target)
    assert etsclone(*words, how, "--verify=none").code == 0
    assert etsclone("verify", source, target).code == 0


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(stopped: Stop, source: Path, target: Path) -> tuple[str | Path, ...]:
    """A clone that was killed in the middle: the words to repeat it with."""
    words = ("clone", source, target, "--yes")
    assert stopped("advance:8", KILL, *words, saves=True).code == -KILL
    return words


def refused(etsclone: Cli, *words: str | Path) -> str:
    result = etsclone(*words, "--resume")
    assert result.code == 3, result
    message, hint = result.err.splitlines()
    assert hint.startswith("hint: ")
    return message.removeprefix("etsclone: ")


def test_where_nothing_was_begun_nothing_goes_on(
    etsclone: Cli, source: Path, target: Path, tmp_path: Path
) -> None:
    message = refused(etsclone, "clone", source, target)
    assert message == f"no interrupted clone onto {target} is known here"
    message = refused(etsclone, "clone", source, tmp_path / "none.img")
    assert message == f"{tmp_path}/none.img does not exist: there is nothing to go on with"
    assert not (tmp_path / "none.img").exists()


def test_what_is_finished_does_not_go_on(etsclone: Cli, source: Path, target: Path) -> None:
    assert etsclone("clone", source, target, "--yes").code == 0
    message = refused(etsclone, "clone", source, target)
    assert message == f"no interrupted clone onto {target} is known here"


def test_another_source(
    etsclone: Cli, interrupted: tuple[str | Path, ...], source: Path, tmp_path: Path
) -> None:
    smaller = disks.blank(tmp_path / "smaller.img", 8 * MIB)
    disks.tool("mkfs.ext4", "-q", smaller)
    for other in (Path(shutil.copy(source, tmp_path / "other.img")), smaller):
        message = refused(etsclone, "clone", other, *interrupted[2:])
        assert message == f"{other} is not the disk that the interrupted clone was made from"
    assert etsclone(*interrupted, "--resume").code == 0


def test_another_target(
    etsclone: Cli, stopped: Stop, source: Path, target: Path, tmp_path: Path
) -> None:
    other, map_ = Path(shutil.copy(target, tmp_path / "other.img")), tmp_path / "map"
    words = ("clone", source, target, "--map", map_, "--yes")
    assert stopped("advance:8", KILL, *words).code == -KILL
    message = refused(etsclone, "clone", source, other, "--map", map_)
    assert message == f"{other} is not the disk that the interrupted clone was made onto"
    message = refused(etsclone, "clone", source, other)
    assert message == f"no interrupted clone onto {other} is known here"
    assert etsclone(*words, "--resume").code == 0


CHANGED = "was written to since the clone was interrupted: old and new would be mixed"


@pytest.mark.parametrize("number", [2, 4, 5], ids=["ext4", "btrfs", "xfs"])
def test_a_source_that_was_written_to(
    number: int, etsclone: Cli, stopped: Stop, gpt_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    source, target = tmp_path / "source.img", tmp_path / "target.img"
    disks.tool("cp", "--sparse=always", gpt_disk.image, source)
    words = ("clone", source, target, "--yes")
    assert stopped("advance:8", KILL, *words).code == -KILL
    with loop_device(source) as device, disks.mounted(disks.node(device, number), scratch):
        (scratch / "etc" / "hostname").touch()
    assert refused(etsclone, *words) == f"{source} {CHANGED}"


def test_a_bare_xfs_that_was_written_to(
    etsclone: Cli, stopped: Stop, tmp_path: Path, scratch: Path
) -> None:
    source = disks.blank(tmp_path / "source.img", 320 * MIB)
    with loop_device(source) as device:
        disks.tool(*disks.MAKE["xfs"], device)
        with disks.mounted(device, scratch):
            disks.fill(scratch)
    words = ("clone", source, tmp_path / "target.img", "--yes")
    assert stopped("advance:4", KILL, *words).code == -KILL
    with loop_device(source) as device, disks.mounted(device, scratch):
        (scratch / "etc" / "hostname").touch()
    assert refused(etsclone, *words) == f"{source} {CHANGED}"


def test_an_xfs_in_a_logical_volume_that_was_written_to(
    etsclone: Cli, stopped: Stop, tmp_path: Path, scratch: Path
) -> None:
    source = disks.blank(tmp_path / "source.img", 340 * MIB)
    with loop_device(source) as device:
        lvm("pvcreate", "--yes", device, devices=[device])
        lvm("vgcreate", "group", device, devices=[device])
        linear("data", "group", "--size", "320M", devices=[device])
    place = ["--offset", str(MIB), "--sizelimit", str(320 * MIB)]  # where its first extent is

    def write(make: bool) -> None:
        volume = Path(disks.tool("losetup", "--find", "--show", *place, source).strip())
        try:
            if make:
                disks.tool(*disks.MAKE["xfs"], volume)
            with disks.mounted(volume, scratch):
                (scratch / "file").touch()
        finally:
            disks.tool("losetup", "--detach", volume)

    write(make=True)
    words = ("clone", source, tmp_path / "target.img", "--yes")
    assert stopped("advance:4", KILL, *words).code == -KILL
    write(make=False)
    assert refused(etsclone, *words) == f"{source} {CHANGED}"


def test_an_image_on_a_disk_with_another_name_today(
    etsclone: Cli, stopped: Stop, source: Path, tmp_path: Path, scratch: Path
) -> None:
    # A stick with an image on it that was unplugged: the kernel gives a free number, and its name.
    stick = disks.blank(tmp_path / "stick", 100 * MIB)
    words = ("clone", source, scratch / "target.img", "--yes", *SMALL_STEPS)
    numbers = []
    with loop_device(stick) as device:
        disks.tool("mkfs.ext4", "-q", device)
        with disks.mounted(device, scratch):
            assert stopped("save:8", KILL, *words, saves=True).code == -KILL
            numbers.append(scratch.stat().st_dev)
    with loop_device(stick) as one, loop_device(stick) as two:
        device = two if one.stat().st_rdev == numbers[0] else one
        with disks.mounted(device, scratch):
            numbers.append(scratch.stat().st_dev)
            result = etsclone(*words, "--resume", "--json")
    assert numbers[0] != numbers[1]  # or nothing was shown
    assert (result.code, result.err) == (0, "")
    assert result.facts["written"] < result.facts["bytes"]


def test_a_source_that_was_only_looked_at(
    etsclone: Cli, interrupted: tuple[str | Path, ...], source: Path, scratch: Path
) -> None:
    with loop_device(source, read_only=True) as device:
        disks.sight(device, 2, "ext4", scratch)
    assert etsclone(*interrupted, "--resume").code == 0


@pytest.mark.parametrize("text", ["", "what is this\n", "0x0 ?\n0x0 0x10000000 ?\n"])
def test_a_map_that_cannot_be_ours(
    text: str, etsclone: Cli, source: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "map").write_text(text)
    before = target.read_bytes()
    result = etsclone("clone", source, target, "--map", tmp_path / "map", "--resume", "--yes")
    assert result.code in {1, 3}
    assert "Traceback" not in result.err
    assert target.read_bytes() == before


# --- together with GNU ddrescue -------------------------------------------------------------------------------------


def test_ddrescue_goes_on_with_our_map(
    etsclone: Cli, stopped: Stop, source: Path, target: Path, tmp_path: Path
) -> None:
    map_ = tmp_path / "map"
    words = ("clone", source, target, "--map", map_, "--yes", *SMALL_STEPS)
    assert stopped("save:8", KILL, *words, saves=True).code == -KILL
    done = done_of(parse_mapfile(map_.read_text()))
    assert done.size > 0
    marked = done.ranges[0].start + 1000
    disks.flip(target, marked)  # to see that it does not copy this again
    disks.tool("ddrescue", "--force", source, target, map_)
    assert done_of(parse_mapfile(map_.read_text())) == Extents.between(0, source.stat().st_size)
    assert etsclone("verify", source, target).code == 4
    disks.flip(target, marked)
    assert etsclone("verify", source, target).code == 0


@pytest.mark.parametrize("limits", [("--size=15Mi",), ("--input-position=9Mi",)])
def test_we_go_on_with_the_map_of_ddrescue(
    limits: tuple[str, ...], etsclone: Cli, source: Path, target: Path, tmp_path: Path
) -> None:
    map_ = tmp_path / "map"
    disks.tool("ddrescue", "--force", *limits, source, target, map_)
    done = done_of(parse_mapfile(map_.read_text()))
    result = etsclone("clone", source, target, "--map", map_, "--resume", "--yes", "--json")
    assert (result.code, result.err) == (0, "")
    assert 0 < result.facts["written"] < result.facts["bytes"]
    assert done - done_of(parse_mapfile(map_.read_text())) == Extents()
    assert etsclone("verify", source, target).code == 0
