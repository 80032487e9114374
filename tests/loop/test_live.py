"""Sources that are in use: what is mounted is held still while it is copied, and let go again whatever happens."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import disks, filesystems
from .conftest import ETSCLONE, Cli
from .disks import MIB, loop_device, tool
from .filesystems import KINDS

pytestmark = pytest.mark.loop

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878

WRITER = """
import os, sys
number = 0
while True:
    with open(f"{sys.argv[1]}/{number}", "wb") as file:
        file.write(b"%d " % number * 5000)
        file.flush()
        os.fsync(file.fileno())
    print(number, flush=True)
    number += 1
"""


@dataclass(frozen=True)
class InUse:
    """A disk whose only filesystem is mounted at `folder`."""

    device: Path
    folder: Path


@contextmanager
def in_use(name: str, tmp_path: Path) -> Iterator[InUse]:
    kind = KINDS[name]
    image = disks.blank(tmp_path / "source.img", kind.size + 2 * MIB)
    with loop_device(image) as device:
        tool("sfdisk", "--quiet", device, typed="label: gpt\n-\n")
        disks.know_partitions(device)
        tool(*kind.make, disks.node(device, 1))
        with filesystems.mounted(kind.mount, disks.node(device, 1), tmp_path) as folder:
            (folder / "old").write_bytes(os.urandom(MIB))
            yield InUse(device, folder)


def is_frozen(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    finally:
        os.close(descriptor)
    return False


def await_thaw(folder: Path) -> None:
    patience = time.monotonic() + disks.SECONDS
    while is_frozen(folder):
        assert time.monotonic() < patience
        time.sleep(0.05)


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_mounted_source_is_copied_as_it_was_at_one_moment(
    kind: str, etsclone: Cli, tmp_path: Path
) -> None:
    clone = tmp_path / "clone.img"
    with in_use(kind, tmp_path) as source:
        argv = [sys.executable, "-c", WRITER, str(source.folder)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            first = int(writer.stdout.readline())
            result = etsclone("clone", source.device, clone, "--live", "--yes", "--rate-limit=40M")
            assert (result.code, result.err) == (0, "")
            assert f"is mounted at {source.folder}: frozen from now" in result.out
            assert "everything is copied" not in result.out
            after = sum(1 for _ in zip(range(3), writer.stdout, strict=False))
            writer.terminate()
        assert (first, after) == (0, 3)  # it went on when the clone was done
        expected = (source.folder / "old").read_bytes()
    with loop_device(clone) as device:
        part = disks.node(device, 1)
        if kind == "xfs":  # which is frozen with a log to replay
            with filesystems.mounted(("mount",), part, tmp_path):
                pass
        tool(*KINDS[kind].check, part)
        with filesystems.mounted(KINDS[kind].look, part, tmp_path) as root:
            names = {path.name for path in root.iterdir()} - {"lost+found"}
            assert (root / "old").read_bytes() == expected
            numbers = sorted(int(name) for name in names - {"old"})
            # All that was written before the moment, nothing after it; the last file may have been under way.
            assert numbers == list(range(len(numbers)))
            for number in numbers[:-1]:
                assert (root / str(number)).read_bytes() == b"%d " % number * 5000


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGHUP, 130)]
)
def test_what_is_frozen_is_let_go_whatever_happens(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with in_use("ext4", tmp_path) as source:
        words = ("clone", source.device, tmp_path / "clone.img", "--live", "--yes", "--json")
        argv = [*ETSCLONE, *map(str, words), "--rate-limit=256K"]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(
            argv, env=os.environ | path, start_new_session=True, stdout=subprocess.PIPE
        ) as process:
            # Its plan says that it is frozen. To look before would freeze it, and be in the way.
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "plan"
            assert is_frozen(source.folder)
            time.sleep(0.5)
            # To the whole process group, as a terminal does it.
            os.killpg(process.pid, number)
        assert process.returncode == code
        await_thaw(source.folder)


def test_a_plan_is_made_in_a_moment(etsclone: Cli, tmp_path: Path) -> None:
    with in_use("ext4", tmp_path) as source:
        result = etsclone("clone", source.device, tmp_path / "clone.img", "--live", "--dry-run")
        assert (result.code, result.err) == (0, "")
        assert not is_frozen(source.folder)
        assert not (tmp_path / "clone.img").exists()


def test_without_live_it_is_refused(etsclone: Cli, tmp_path: Path) -> None:
    with in_use("ext4", tmp_path) as source:
        result = etsclone("clone", source.device, tmp_path / "clone.img", "--yes")
        assert result.code == 3
        assert "--live copies what is not the running system" in result.err


def test_nobody_thinks_about_a_plan_while_others_wait(etsclone: Cli, tmp_path: Path) -> None:
    with in_use("ext4", tmp_path) as source:
        result = etsclone("clone", source.device, tmp_path / "clone.img", "--live")
        assert result.code == 2
        assert "hint: look at the plan with --dry-run first, then give --yes" in result.err


@pytest.mark.parametrize("what", ["target", "state", "temporary"])
def test_what_the_clone_writes_to_is_not_frozen(
    what: str, etsclone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_use("ext4", tmp_path) as source:
        target = tmp_path / "clone.img"
        if what == "target":
            target = source.folder / "clone.img"
        elif what == "state":
            monkeypatch.setenv("ETSCLONE_STATE", str(source.folder / "state"))
        else:
            monkeypatch.setenv("TMPDIR", str(source.folder))
        result = etsclone("clone", source.device, target, "--live", "--yes")
        assert result.code == 3
        assert f"{source.folder} cannot be held still: the clone itself writes to" in result.err
        assert not target.exists()


def test_what_somebody_else_froze_stays_frozen(etsclone: Cli, tmp_path: Path) -> None:
    with in_use("ext4", tmp_path) as source:
        tool("fsfreeze", "--freeze", source.folder)
        try:
            result = etsclone("clone", source.device, tmp_path / "clone.img", "--live", "--yes")
            assert result.code == 3
            assert f"{source.folder} cannot be held still: somebody else froze it" in result.err
            assert is_frozen(source.folder)
        finally:
            tool("fsfreeze", "--unfreeze", source.folder)


def test_two_mounts_of_one_filesystem_are_one(etsclone: Cli, tmp_path: Path) -> None:
    with in_use("ext4", tmp_path) as source:
        other = tmp_path / "other"
        other.mkdir()
        tool("mount", "--bind", source.folder, other)
        try:
            result = etsclone("clone", source.device, tmp_path / "clone.img", "--live", "--yes")
            assert (result.code, result.err) == (0, "")
        finally:
            tool("umount", other)
