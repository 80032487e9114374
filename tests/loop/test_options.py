"""What a user can ask of a clone beside its disks."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from . import disks
from .conftest import ETSCLONE, Cli, Stop
from .disks import MIB, Sample, loop_device

pytestmark = pytest.mark.loop

FREE = 40 * MIB
"""Where the small disk holds nothing."""


@pytest.fixture
def target(small_disk: Sample, tmp_path: Path) -> Path:
    """A disk that was in use everywhere."""
    path = disks.blank(tmp_path / "target.img", small_disk.size + 5 * MIB)
    disks.scrawl(path, 0, small_disk.size + 5 * MIB)
    return path


@pytest.mark.parametrize("how", ["digests", "full", "none"])
def test_how_it_is_verified(how: str, small_disk: Sample, etsclone: Cli, target: Path) -> None:
    result = etsclone("clone", small_disk.image, target, "--yes", f"--verify={how}")
    assert (result.code, result.err) == (0, "")
    assert ("cloned and verified" in result.out) is (how != "none")
    assert ("and read back" in result.out) is (how != "none")
    assert etsclone("verify", small_disk.image, target).code == 0


@pytest.mark.parametrize(("how", "code"), [("digests", 0), ("full", 4)])
def test_only_full_verification_reads_the_source_again(
    how: str, code: int, small_disk: Sample, stopped: Stop, target: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copy(small_disk.image, tmp_path / "source.img"))
    words = ("clone", source, target, "--yes", f"--verify={how}")
    assert stopped("read_back:1", f"flip:{source}:{2 * MIB + 1030}", *words).code == code


def test_without_verification_nothing_is_read_back(
    small_disk: Sample, stopped: Stop, target: Path
) -> None:
    words = ("clone", small_disk.image, target, "--yes", "--verify=none")
    assert stopped("read_back:1", "9", *words).code == 0


@pytest.mark.parametrize("option", ["--discard", "--wipe"])
@pytest.mark.parametrize("kind", ["device", "image"])
def test_unused_space_is_cleared(
    option: str, kind: str, small_disk: Sample, etsclone: Cli, target: Path, scratch: Path
) -> None:
    assert disks.part_of(target, FREE, FREE + MIB) != bytes(MIB)
    if kind == "image":
        assert etsclone("clone", small_disk.image, target, option, "--yes").code == 0
    else:
        with loop_device(target) as device:
            assert etsclone("clone", small_disk.image, device, option, "--yes").code == 0
    for start in (FREE, small_disk.size + MIB):
        assert disks.part_of(target, start, start + MIB) == bytes(MIB)
    if option == "--discard":
        assert target.stat().st_blocks * 512 < small_disk.size // 2
    disks.check_clone(small_disk, target, scratch)
    assert etsclone("verify", small_disk.image, target).code == 0
    assert disks.is_sound_gpt(target)


def test_otherwise_unused_space_of_a_device_is_left(
    small_disk: Sample, etsclone: Cli, target: Path
) -> None:
    before = disks.part_of(target, FREE, FREE + MIB)
    with loop_device(target) as device:
        assert etsclone("clone", small_disk.image, device, "--yes").code == 0
    assert disks.part_of(target, FREE, FREE + MIB) == before


def test_idle_is_true_of_every_thread(small_disk: Sample, tmp_path: Path) -> None:
    # To Linux, each thread has an I/O class of its own.
    words = ("clone", small_disk.image, tmp_path / "new.img", "--yes", "--idle", "--rate-limit=1M")
    argv = [*ETSCLONE, *map(str, words), "--workers=3"]
    with subprocess.Popen(
        argv, env=os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))}
    ) as process:
        tasks = Path(f"/proc/{process.pid}/task")
        patience = time.monotonic() + disks.SECONDS
        while len(list(tasks.iterdir())) < 1 + 3 and time.monotonic() < patience:
            time.sleep(0.02)
        threads = [task.name for task in tasks.iterdir()]
        classes = {disks.tool("ionice", "-p", thread).strip() for thread in threads}
        process.send_signal(signal.SIGINT)
    assert (len(threads) >= 1 + 3, classes, process.returncode) == (True, {"idle"}, 130)


@pytest.mark.parametrize(
    "options",
    [
        ("--workers", "1"),
        ("--workers", "7", "--block-size", "64K"),
        ("--workers", "2", "--block-size", "128M"),
        ("--rate-limit", "200M", "--block-size", "192KiB"),
        ("--idle",),
    ],
)
def test_how_the_machine_is_used_makes_no_difference(
    options: tuple[str, ...], small_disk: Sample, etsclone: Cli, target: Path
) -> None:
    assert etsclone("clone", small_disk.image, target, *options, "--yes").code == 0
    assert etsclone("verify", small_disk.image, target).code == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--workers", "0"),
        ("--workers", "-1"),
        ("--workers", "many"),
        ("--workers", "257"),
        ("--block-size", "0"),
        ("--block-size", "4K"),
        ("--block-size", "100000"),
        ("--block-size", "128M"),  # times the workers that fit the disks
        ("--block-size", "1M", "--workers", "300"),
        ("--block-size", "512M", "--workers", "1"),
        ("--rate-limit", "0"),
        ("--rate-limit", "fast"),
        ("--retries", "-1"),
        ("--verify", "maybe"),
        ("--discard", "--wipe"),
        ("--resume", "--refresh"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    options: tuple[str, ...], small_disk: Sample, etsclone: Cli, target: Path
) -> None:
    before = target.read_bytes()
    result = etsclone("clone", small_disk.image, target, *options, "--yes")
    assert result.code == 2, result
    assert "Traceback" not in result.err
    assert target.read_bytes() == before


def test_a_map_in_no_folder(small_disk: Sample, etsclone: Cli, tmp_path: Path) -> None:
    target = tmp_path / "new.img"
    for how in ("--yes", "--dry-run"):
        result = etsclone("clone", small_disk.image, target, "--map", "/nonexistent/map", how)
        assert result.code == 2
        assert "etsclone: cannot make /nonexistent/map: its folder does not exist\n" in result.err
        assert not target.exists()


def test_no_space_left_for_digests(
    small_disk: Sample,
    etsclone: Cli,
    target: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Three pages: for a map and what disks these are, but not for the digests.
    disks.tool("mount", "-t", "tmpfs", "-o", "size=12k", "none", scratch)
    monkeypatch.setenv("ETSCLONE_STATE", str(scratch))
    try:
        result = etsclone("clone", small_disk.image, target, "--yes")
    finally:
        disks.tool("umount", scratch)
    assert result.code == 1, result
    assert "No space left on device" in result.err or "no space left" in result.err
    assert disks.looks_unfinished(target)


MEASURE = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def memory_of(*words: str | Path) -> int:
    """The most memory that a run of etsclone (or a program that it calls) had, in bytes."""
    # By way of a small process: a child is also charged with what its parent had when it was forked.
    path = os.pathsep.join(path for path in sys.path if path)
    argv = (sys.executable, "-c", MEASURE, *ETSCLONE, *words)
    return int(disks.tool("env", f"PYTHONPATH={path}", *argv))


def test_memory_is_bounded(small_disk: Sample, target: Path) -> None:
    words = ("clone", small_disk.image, target, "--yes", "--json")
    assert memory_of(*words) < 150 * MIB
    assert memory_of(*words, "--workers=4", "--block-size=64M") < 400 * MIB


def test_memory_does_not_grow_with_the_disk(etsclone: Cli, tmp_path: Path, full: bool) -> None:
    size = 500 * 1024 * MIB if full else 20 * 1024 * MIB
    source, target = disks.blank(tmp_path / "large.img", size), tmp_path / "clone.img"
    disks.tool(*disks.MAKE["ext4"], "-E", "lazy_itable_init=1", source)
    assert memory_of("clone", source, target, "--yes", "--json") < 150 * MIB
    assert etsclone("verify", source, target).code == 0
