"""Programs of a clone that are run in the clone: what they can see and do there, and that nothing of them is left."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from etsclone.boot.confined import Ended, run_confined
from etsclone.errors import CommandFailed, EtscloneError

pytestmark = pytest.mark.loop

PROGRAMS = ("sh", "cat", "ls", "mknod", "mount", "sleep", "touch", "chroot", "dd", "env")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with a few of this machine's programs, and the libraries that they need."""
    top = tmp_path_factory.mktemp("root")
    for folder in ("dev", "proc", "sys", "run", "tmp", "usr/bin", "var/tmp"):
        (top / folder).mkdir(parents=True)
    for name in PROGRAMS:
        program = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
        assert program
        shutil.copy(program, top / "usr/bin" / name)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            target = top / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    return top


def run(
    root: Path,
    script: str,
    *,
    devices: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
    seconds: float = 60,
) -> Ended:
    argv = ("sh", "-c", script)
    return run_confined(str(root), argv, devices=devices or {}, links=links or {}, seconds=seconds)


def test_status_and_last_words_come_back(root: Path) -> None:
    assert run(root, "echo out; echo err >&2; exit 3") == Ended(3, "out\nerr\n")
    assert run_confined(str(root), ["nothing"], devices={}, links={}, seconds=60) == Ended(
        127, "nothing is not installed in the clone\n"
    )
    long = run(root, "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
    assert len(long.said) <= 65536
    assert long.said.endswith("line 19999\n")


def test_it_sees_the_clone_and_nothing_else(root: Path) -> None:
    assert run(root, "ls /").said.split() == sorted(each.name for each in root.iterdir())
    assert run(root, "ls -a ..").said == run(root, "ls -a /").said
    mounts = [line.split()[4] for line in run(root, "cat /proc/self/mountinfo").said.splitlines()]
    assert sorted(mounts) == ["/", "/dev", "/proc", "/run", "/sys", "/tmp"]
    # A chroot inside a chroot is the old way out.
    assert run(root, "chroot /tmp/../.. ls /").said == run(root, "ls /").said


def test_its_processes_are_all_there_are(root: Path) -> None:
    numbers = [name for name in run(root, "ls /proc").said.split() if name.isdecimal()]
    assert len(numbers) <= 3  # the first one, which keeps the others; the shell; what it runs


def test_it_has_the_devices_that_it_was_given(root: Path) -> None:
    plain = ["fd", "full", "null", "random", "stderr", "stdin", "stdout", "urandom", "zero"]
    assert run(root, "ls /dev").said.split() == plain
    given = "/dev/loop-control"
    script, links = (
        "ls /dev /dev/disk/by-uuid /dev/x; echo x > /dev/null",
        {"disk/by-uuid/a": "../../null"},
    )
    found = run(root, script, devices={given: given, "/dev/x/renamed": given}, links=links)
    assert found.status == 0
    assert {"loop-control", "renamed", "a"} <= set(found.said.split())
    assert not list((root / "dev").iterdir())


@pytest.mark.parametrize(
    "script",
    [
        "mknod /tmp/disk b 7 0",
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /sys",
        "mount -o remount,rw /proc",
        "[ -w /proc/sys/kernel/core_pattern ]",
        "[ -w /proc/sysrq-trigger ]",
        "[ -w /sys/power/state ]",
        "dd if=/dev/mem of=/dev/null count=1",
    ],
)
def test_what_would_reach_the_machine_fails(root: Path, script: str) -> None:
    assert run(root, script).status != 0


def test_files_are_written_with_the_clones_own_environment(root: Path) -> None:
    assert run(root, "touch /written; echo x > /tmp/gone").status == 0
    assert (root / "written").exists()
    (root / "written").unlink()
    assert not list((root / "tmp").iterdir())
    names = {line.split("=")[0] for line in run(root, "env").said.splitlines()}
    assert names <= {"PATH", "HOME", "LC_ALL", "DEBIAN_FRONTEND", "PWD", "SHLVL", "_"}


def test_there_is_room_for_an_initramfs(root: Path) -> None:
    large = "dd if=/dev/zero of=/var/tmp/large bs=1M count=100"
    assert run(root, large).status == 0
    assert (root / "var/tmp/large").stat().st_size == 100 << 20
    (root / "var/tmp/large").unlink()


def sleepers(seconds: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", str(seconds).encode()]:
            found.append(int(folder.name))
    return found


def test_what_it_leaves_in_the_background_ends_with_it(root: Path) -> None:
    started = time.monotonic()
    assert run(root, "sleep 5371 & echo started").said == "started\n"
    assert time.monotonic() - started < 60
    assert not sleepers(5371)


def test_what_does_not_end_is_ended(root: Path) -> None:
    with pytest.raises(CommandFailed, match="did not end in time"):
        run(root, "sleep 5372", seconds=1)
    assert not sleepers(5372)


def test_it_ends_with_the_one_who_started_it(root: Path) -> None:
    code = (
        "from etsclone.boot.confined import run_confined\n"
        f"run_confined({str(root)!r}, ['sleep', '5373'], devices={{}}, links={{}}, seconds=600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(600):
        if sleepers(5373):
            break
        time.sleep(0.05)
    assert sleepers(5373)
    child.send_signal(signal.SIGKILL)
    child.wait()
    for _ in range(200):
        if not sleepers(5373):
            break
        time.sleep(0.05)
    assert not sleepers(5373)


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in ("proc", "sys", "run", "tmp"):
        (root / folder).mkdir(parents=True)
    outside.mkdir()
    (root / "dev").symlink_to(outside)
    with pytest.raises(EtscloneError, match="/dev is no folder"):
        run(root, "true", devices={"/dev/null": "/dev/null"})
    assert not os.listdir(outside)
