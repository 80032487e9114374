"""Disks that fail, lie, fill up, or become other disks while a person reads the plan."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import disks
from .conftest import ETSCLONE, Cli, Result, Stop
from .disks import MIB, Sample, loop_device

pytestmark = pytest.mark.loop


@pytest.fixture(params=["tmpfs", "ext4"])
def full_volume(request: pytest.FixtureRequest, tmp_path: Path, scratch: Path) -> Iterator[Path]:
    """A mounted filesystem that has room for a sparse image, but not for its content."""
    if request.param == "tmpfs":
        disks.tool("mount", "-t", "tmpfs", "-o", "size=6m", "none", scratch)
        try:
            yield scratch
        finally:
            disks.tool("umount", scratch)
    else:
        with loop_device(disks.blank(tmp_path / "volume", 8 * MIB)) as device:
            disks.tool("mkfs.ext4", "-q", "-m", "0", device)
            with disks.mounted(device, scratch):
                yield scratch


@pytest.mark.parametrize("exists", [False, True])
def test_no_space_left_for_an_image(
    exists: bool, etsclone: Cli, small_disk: Sample, full_volume: Path, state_folder: Path
) -> None:
    target = full_volume / "clone.img"
    if exists:
        disks.blank(target, small_disk.size)
    result = etsclone("clone", small_disk.image, target, "--yes")
    assert result.code == 5
    assert "No space left on device" in result.err
    assert disks.looks_unfinished(target)
    assert not (state_folder / "receipts").exists()


def test_a_target_that_fails_in_the_middle(
    etsclone: Cli, small_disk: Sample, full_volume: Path
) -> None:
    # The file behind the device runs out of space: to whoever writes to the device, it is broken.
    with loop_device(disks.blank(full_volume / "disk", small_disk.size)) as device:
        result = etsclone("clone", small_disk.image, device, "--yes")
        assert result.code == 5
        assert result.err.startswith("etsclone: the ")
        assert "Traceback" not in result.err
        assert disks.looks_unfinished(device)


def test_a_source_that_fails_in_the_middle(
    stopped: Stop, small_disk: Sample, tmp_path: Path
) -> None:
    image, target = Path(shutil.copy(small_disk.image, tmp_path)), tmp_path / "clone.img"
    with loop_device(image, read_only=True) as device:
        what = f"cut:{image}:{6 * MIB}"
        result = stopped("copy_extents:1", what, "clone", device, target, "--yes", "--json")
    assert result.code == 5
    assert f"they are zeros on {target}" in result.err
    lost = result.facts["lost"]
    assert lost
    assert all(place["start"] >= 6 * MIB for place in lost)
    backup_table = (
        small_disk.size - 33 * 512
    )  # it is made anew, also where the source cannot be read
    for place in lost:
        found = disks.part_of(target, place["start"], min(place["end"], backup_table))
        assert found.strip(b"\0") == b""


@pytest.mark.parametrize("position", [2 * MIB + 1030, 2 * MIB + 4100])
def test_a_disk_that_lies_is_found_out(
    position: int, stopped: Stop, small_disk: Sample, tmp_path: Path, state_folder: Path
) -> None:
    target = tmp_path / "clone.img"
    what = f"flip:{target}:{position}"
    result = stopped("read_back:1", what, "clone", small_disk.image, target, "--yes")
    assert result.code == 4
    begin = position - position % (64 * 1024)
    assert result.err.startswith(
        f"etsclone: {target} differs from what was written to bytes {begin} to {begin + 64 * 1024} (partition 2)"
    )
    assert "hint: the disk, its cable or its adapter is faulty" in result.err
    assert disks.looks_unfinished(target)
    assert not (state_folder / "receipts").exists()


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_table_that_was_not_written_well_is_found_out(
    write: int, stopped: Stop, small_disk: Sample, tmp_path: Path
) -> None:
    target = tmp_path / "clone.img"
    position = (small_disk.size - 600, 5000, 600)[write - 1]
    words = ("clone", small_disk.image, target, "--yes")
    result = stopped(f"read_bytes:{write}", f"flip:{target}:{position}", *words)
    assert result.code == 4
    assert "of the target differs from what was written" in result.err


@contextmanager
def asked(source: Path, target: Path) -> Iterator[Callable[[], Result]]:
    """A clone that waits at its prompt; call what is yielded to type the name, and get how it ended."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*ETSCLONE, "clone", source, target],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout
        shown = ""
        while not shown.endswith(f"{target.name}: "):
            letter = process.stdout.read(1)
            assert letter, shown
            shown += letter

        def confirm() -> Result:
            out, err = process.communicate(f"{target.name}\n", timeout=disks.SECONDS)
            return Result(process.returncode, shown + out, err)

        try:
            yield confirm
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


CHANGED = "is not the disk that the plan was made for"


@pytest.fixture
def target(tmp_path: Path, small_disk: Sample) -> Path:
    return Path(shutil.copy(small_disk.image, tmp_path / "target.img"))


@pytest.fixture
def other(tmp_path: Path, small_disk: Sample) -> Path:
    path = disks.blank(tmp_path / "other.img", small_disk.size)
    disks.scrawl(path, 0, 8 * MIB)
    return path


def test_another_target_image_under_the_same_name(
    small_disk: Sample, target: Path, other: Path
) -> None:
    before = other.read_bytes()
    with asked(small_disk.image, target) as confirm:
        os.replace(other, target)
        result = confirm()
    assert (result.code, result.err.splitlines()[0]) == (3, f"etsclone: {target} {CHANGED}")
    assert target.read_bytes() == before


def test_a_target_that_is_gone(small_disk: Sample, target: Path) -> None:
    with asked(small_disk.image, target) as confirm:
        target.unlink()
        result = confirm()
    assert result.code == 3
    assert f"etsclone: {target} is gone" in result.err
    assert not target.exists()


def test_a_new_image_that_somebody_else_made(
    small_disk: Sample, other: Path, tmp_path: Path
) -> None:
    before, new = other.read_bytes(), tmp_path / "new.img"
    with asked(small_disk.image, new) as confirm:
        other.rename(new)
        result = confirm()
    assert (result.code, result.err.splitlines()[0]) == (
        3,
        f"etsclone: {new} appeared since the plan was made",
    )
    assert new.read_bytes() == before


def attach(image: Path, device: Path) -> None:
    """Put an image behind a device that was just given up; what runs beside may have it for a moment."""
    deadline = time.monotonic() + disks.SECONDS
    while said := disks.tool("losetup", device, image, accept=(0, 1)):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


def test_another_disk_behind_the_same_device(small_disk: Sample, target: Path, other: Path) -> None:
    before = other.read_bytes()
    with loop_device(target) as device, asked(small_disk.image, device) as confirm:
        disks.tool("losetup", "--detach", device)
        attach(other, device)
        result = confirm()
    assert (result.code, result.err.splitlines()[0]) == (3, f"etsclone: {device} {CHANGED}")
    assert other.read_bytes() == before


def test_a_target_that_was_mounted_meanwhile(
    small_disk: Sample, target: Path, scratch: Path
) -> None:
    with loop_device(target) as device, asked(small_disk.image, device) as confirm:
        with disks.mounted(disks.node(device, 2), scratch):
            result = confirm()
            assert (scratch / "etc" / "hostname").read_text() == "primary\n"
        assert (result.code, result.err.splitlines()[0]) == (3, f"etsclone: {device} is busy")


def test_another_source_under_the_same_name(
    small_disk: Sample, target: Path, other: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copy(small_disk.image, tmp_path / "source.img"))
    before = target.read_bytes()
    with asked(source, target) as confirm:
        os.replace(other, source)
        result = confirm()
    assert (result.code, result.err.splitlines()[0]) == (3, f"etsclone: {source} {CHANGED}")
    assert target.read_bytes() == before
