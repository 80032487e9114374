"""`--grow` when something goes wrong in it, and when it is done again."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from . import disks
from .conftest import ETSCLONE, Cli, MadeWith, Result, Stop, make
from .disks import MIB, Sample, loop_device, node, tool
from .grown import MBR, check_grown

pytestmark = pytest.mark.loop

KILL = signal.SIGKILL.value


@pytest.fixture
def target(tmp_path: Path, ext4_disk: Sample) -> Path:
    """A larger disk that was in use."""
    path = disks.blank(tmp_path / "target.img", ext4_disk.size + 40 * MIB)
    disks.scrawl(path, 0, path.stat().st_size)
    return path


MOMENTS = {
    "as the record forgets": "window:1",
    "before the check that resizing needs": "run:2",  # the first one looked at the source
    "before the resizing": "run:3",
    "after the resizing": "check:1",
    "before the backup table": "write_bytes:1",
    "before the table": "write_bytes:3",
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("again", ["--grow", "--verify=full"])
def test_killed_at_any_moment_resuming_ends_right(
    moment: str,
    again: str,
    stopped: Stop,
    etsclone: Cli,
    ext4_disk: Sample,
    target: Path,
    scratch: Path,
) -> None:
    words = ("clone", ext4_disk.image, target, "--yes", "--grow")
    assert stopped(moment, KILL, *words).code == -KILL
    assert disks.looks_unfinished(target)
    facts = etsclone(*words[:4], "--json", "--resume", again).facts
    # The partition is copied again, and what nobody changed is not.
    assert 0 < facts["written"] < facts["bytes"]
    if again == "--grow":
        check_grown(ext4_disk, target, scratch)
    else:
        assert etsclone("verify", ext4_disk.image, target).code == 0


def test_killed_between_the_tables_of_logical_partitions(
    stopped: Stop, etsclone: Cli, tmp_path: Path
) -> None:
    script, kinds, _ = MBR["a logical"]
    sample = make(tmp_path, "mbr", 80 * MIB, f"label: dos\n{script}", kinds)
    target = disks.blank(tmp_path / "target.img", 128 * MIB)
    words = ("clone", sample.image, target, "--yes")
    assert stopped("write_bytes:3", KILL, *words, "--grow").code == -KILL
    assert disks.looks_unfinished(target)
    assert etsclone(*words, "--resume").code == 0
    assert etsclone("verify", sample.image, target).code == 0


@pytest.mark.parametrize("moment", ["run:3", "check:1"])
def test_an_interrupt_ends_in_order(
    moment: str, stopped: Stop, etsclone: Cli, ext4_disk: Sample, target: Path, scratch: Path
) -> None:
    words = ("clone", ext4_disk.image, target, "--yes", "--grow")
    result = stopped(moment, signal.SIGINT.value, *words)
    assert result.code == 130
    assert "--resume to go on" in result.err
    assert disks.looks_unfinished(target)
    assert etsclone(*words, "--resume").code == 0
    check_grown(ext4_disk, target, scratch)


def shadow(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str, script: str) -> Path:
    """Put a program of one's own before another one."""
    path = folder / "bin" / program
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}:/usr/sbin")
    return path


def kill_when(mark: Path, *words: str | Path) -> None:
    """Kill etsclone as soon as a file appears."""
    process = subprocess.Popen([*ETSCLONE, *map(str, words)], stdout=subprocess.DEVNULL)
    try:
        while not mark.exists():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("where", ["image", "device"])
def test_killed_while_a_filesystem_is_mounted(
    where: str,
    etsclone: Cli,
    disk_with: MadeWith,
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = disk_with("xfs")
    image = disks.blank(tmp_path / "target.img", sample.size + 60 * MIB)
    mark, go = tmp_path / "mark", tmp_path / "go"
    wait = f"for _ in $(seq 1200); do [ -e {go} ] && break; sleep 0.1; done"
    slow = f'touch {mark}\n{wait}\nexec /usr/sbin/xfs_growfs "$@"'
    shadow(tmp_path, monkeypatch, "xfs_growfs", slow)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(loop_device(image)) if where == "device" else image
        words = ("clone", sample.image, target, "--yes", "--grow")
        kill_when(mark, *words)
        # Nobody else sees the mount, and the target is not written to as long as it is there.
        window = tool("losetup", "--associated", target).split(":")[0]
        assert window
        assert window not in tool("findmnt", "--list", "--output", "SOURCE").split()
        result = etsclone(*words, "--resume")
        assert result.code == 3
        assert "is held by another device" in result.err
        assert f"{target} held by {window}" in result.err
        go.touch()
        until = time.monotonic() + 60
        while tool("losetup", "--associated", target) and time.monotonic() < until:
            time.sleep(0.05)
        assert disks.looks_unfinished(target)
        assert etsclone(*words, "--resume").code == 0
    check_grown(sample, image, scratch)


@pytest.mark.parametrize(
    ("program", "script"),
    [
        ("resize2fs", "echo no space for it >&2; exit 1"),
        (
            "e2fsck",
            'case "$*" in *-n*) echo still broken >&2; exit 4;; esac; exec /usr/sbin/e2fsck "$@"',
        ),
    ],
)
def test_a_filesystem_that_cannot_grow_makes_no_clone(
    program: str,
    script: str,
    etsclone: Cli,
    ext4_disk: Sample,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("clone", ext4_disk.image, target, "--yes")
    with monkeypatch.context() as patch:
        shadow(tmp_path, patch, program, script)
        result = etsclone(*words, "--grow")
    assert result.code == 4
    assert f"partition 2 of {target} could not be enlarged: {program} failed" in result.err
    assert disks.looks_unfinished(target)
    assert etsclone(*words, "--resume").code == 0
    assert etsclone("verify", ext4_disk.image, target).code == 0


def test_a_filesystem_that_somebody_else_took_makes_no_clone(
    etsclone: Cli,
    ext4_disk: Sample,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As udev may do with a volume group that it finds: something opens the window and keeps it open.
    keep = '(exec 9< "$device"; exec sleep 8 < /dev/null > /dev/null 2>&1) &'
    script = (
        f'for device; do :; done\ncase "$*" in *-n*) {keep} ;; esac\nexec /usr/sbin/e2fsck "$@"'
    )
    with monkeypatch.context() as patch:
        shadow(tmp_path, patch, "e2fsck", script)
        result = etsclone("clone", ext4_disk.image, target, "--yes", "--grow")
    assert result.code == 4
    assert f"a part of {target}, is in use by somebody else" in result.err
    assert disks.looks_unfinished(target)
    until = time.monotonic() + 20
    while disks.loops_of(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert etsclone("clone", ext4_disk.image, target, "--yes", "--resume").code == 0


def change(image: Path, scratch: Path) -> None:
    with loop_device(image) as device, disks.mounted(node(device, 2), scratch) as root:
        (root / "new").write_bytes(os.urandom(MIB))
        (root / "small7").unlink()


@pytest.mark.parametrize("sampled", [True, False])
def test_refreshed_again_and_again(
    sampled: bool,
    etsclone: Cli,
    stopped: Stop,
    ext4_disk: Sample,
    target: Path,
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Path(shutil.copy(ext4_disk.image, tmp_path / "source.img"))
    if not sampled:
        monkeypatch.setenv("BELIEVE", "yes")

    def sample() -> Sample:
        with loop_device(source, read_only=True) as device:
            trees = {2: disks.sight(device, 2, "ext4", scratch)}
        return Sample(source, ext4_disk.kinds, trees)

    def refresh(*words: str) -> Result:
        return stopped(
            "never:1", 0, "clone", source, target, "--yes", "--json", "--refresh", *words
        )

    assert etsclone("clone", source, target, "--yes").code == 0
    change(source, scratch)
    assert refresh("--grow").code == 0
    check_grown(sample(), target, scratch)
    again = refresh("--grow").facts
    # What grew is not the source's any more: all of it is written anew, and nothing else.
    assert 0 < again["written"] < again["bytes"]
    check_grown(sample(), target, scratch)
    assert refresh().code == 0
    assert etsclone("verify", source, target).code == 0
    assert refresh().facts["written"] == 0
