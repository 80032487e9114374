"""A power cut during a rebuild: what the VM had not made durable is lost, and its disk is one role or the other yet.

Several disks are rebuilt in one VM; each rebuild stops at a moment of its own, and then QEMU is killed. Nothing is
written meanwhile but what a rebuild asks for: neither ext4 nor the kernel does so by the clock. One rebuild that does
not ask shows that.
"""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from loop.small_system import etsclone
from loop.test_rebuild import Pair, made
from loop.test_undo import options, picture

from .helper import Helper, helper
from .qemu import BOOT_TIMEOUT

__all__ = ["made"]  # a fixture

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

MOMENTS = {
    "staging": "staging _write_file 3",
    "begin": "rounds Round.begin 1",
    "swap": "swapping _take_over 3",
    "late": "swapping _take_over 6",
    "folders": "swapping _stand 2",
    "applied": "rounds Round.note 1",
}
UNSYNCED = "unsynced"
STOPPER = """
import functools, importlib, os, sys, time
from etsclone.cli import main

name, module, function, number, *words = sys.argv[1:]
if name == "unsynced":
    os.fsync = lambda descriptor: None
console = os.open("/dev/ttyS0", os.O_WRONLY)  # the process in the chroot could not open it
calls = []

def stopping(real, *positional, **named):
    calls.append(1)
    if len(calls) == int(number):
        os.write(console, f"\\r\\nSTOPPED {name}\\r\\n".encode())
        time.sleep(100_000)
    return real(*positional, **named)

*owner, last = function.split(".")
place = importlib.import_module(f"etsclone.overlay.{module}")
place = getattr(place, owner[0]) if owner else place
real = getattr(place, last)
setattr(place, last, lambda *positional, **named: stopping(real, *positional, **named))
main(words)
"""


@pytest.fixture(scope="module")
def cut(made: Pair, helper_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the disks as the power cut left them."""
    folder, more = tmp_path_factory.mktemp("cut"), tmp_path_factory.mktemp("more")
    shutil.copytree(made.store, more / "store")
    shutil.copy(made.trust, more / "trusted")
    (more / "stop.py").write_text(STOPPER)
    size = made.disk("secondary").stat().st_size
    moments = MOMENTS | {UNSYNCED: MOMENTS["applied"]}
    for name in moments:
        shutil.copy(made.disk("secondary"), folder / f"{name}.raw")
    left = tmp_path_factory.mktemp("left")
    with helper(helper_image, folder, dict.fromkeys(moments, size), more) as vm:
        vm.check("echo 0 > /proc/sys/vm/dirty_writeback_centisecs")
        words = "--store /mnt/more/store --role primary --trust /mnt/more/trusted --yes --no-checks"
        for name, moment in moments.items():
            vm.check(
                "export PYTHONPATH=/mnt/lib\n"
                f"mkdir /run/{name} && mount -o commit=3600 {vm.disk(name)}1 /run/{name}\n"
                f"setsid python3 /mnt/more/stop.py {name} {moment} rebuild --root /run/{name} {words}"
                f" > /run/{name}.log 2>&1 < /dev/null &\n"
            )
            _await(vm, f"STOPPED {name}", f"/run/{name}.log")
        _kill_machine(folder)
        for name in moments:
            shutil.copy(vm.file(name), left)
    return left


def _await(vm: Helper, words: str, log: str) -> None:
    until = time.monotonic() + BOOT_TIMEOUT
    while words not in vm.console.read_text(errors="replace"):
        assert time.monotonic() < until, vm.check(f"cat {log}")
        time.sleep(0.5)


def _kill_machine(folder: Path) -> None:
    """Kill QEMU, our own child that has this folder's disks, and wait until it writes no more."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, status = (entry / "cmdline").read_bytes(), (entry / "stat").read_text()
        except OSError:
            continue
        parent = int(status.rpartition(")")[2].split()[1])
        if parent == os.getpid() and os.fsencode(folder) in words:
            os.kill(int(entry.name), signal.SIGKILL)
            while (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
            return
    pytest.fail("there is no machine to be killed")


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_a_power_cut_leaves_is_one_role_or_the_other(
    cut: Path, made: Pair, tmp_path: Path, moment: str
) -> None:
    whole = Path(shutil.copy(made.disk("secondary"), tmp_path / "whole.raw"))
    old = picture(whole)
    for words in (("rebuild", whole, *options(made)), ("rebuild", whole, "--commit", "--yes")):
        assert etsclone(*words).returncode == 0
    new = picture(whole)
    back = Path(shutil.copy(cut / f"{moment}.raw", tmp_path / "back.raw"))
    forth = Path(shutil.copy(back, tmp_path / "forth.raw"))
    undone = etsclone("rebuild", back, "--undo", "--yes")
    assert undone.returncode == 0, undone.stderr
    assert picture(back) == old
    rebuilt = etsclone("rebuild", forth, *options(made))
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert ("half way" in rebuilt.stdout) == (moment not in ("staging", "begin"))
    assert etsclone("rebuild", forth, "--commit", "--yes").returncode == 0
    assert picture(forth) == new


def test_what_was_not_asked_for_was_lost(cut: Path, made: Pair, tmp_path: Path) -> None:
    """Otherwise the test above would say nothing."""
    disk = Path(shutil.copy(cut / f"{UNSYNCED}.raw", tmp_path / "unsynced.raw"))
    assert picture(disk) == picture(Path(shutil.copy(made.disk("secondary"), tmp_path)))
