"""Clones that are stopped at any moment: never taken for finished, nothing left behind, repeated with success."""

import os
import signal
import sys
from pathlib import Path

import pexpect
import pytest

from . import disks
from .conftest import HOOKED, Cli, Stop
from .disks import MIB, Sample, loop_device

pytestmark = pytest.mark.loop

MOMENTS = {
    "after the erasing": "copy_extents:1",
    "while copying": "advance:4",
    "before the rescue": "rescue:1",
    "before the reading back": "read_back:1",
    "while reading back": "advance:15",
    "before the backup table": "write_bytes:1",
    "before the boot loader": "write_bytes:2",
    "before the table": "write_bytes:3",
}


@pytest.fixture
def target(tmp_path: Path, small_disk: Sample) -> Path:
    """A disk that was in use, and larger."""
    path = disks.blank(tmp_path / "target.img", small_disk.size + 2 * MIB)
    disks.tool("sfdisk", "--quiet", path, typed="label: gpt\nsize=20MiB, name=old\n")
    disks.scrawl(path, 0, 440)
    disks.scrawl(path, MIB, 8 * MIB)
    return path


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_killed_at_any_moment_it_is_no_finished_clone_and_can_be_repeated(
    moment: str, stopped: Stop, etsclone: Cli, small_disk: Sample, target: Path, state_folder: Path
) -> None:
    words = ("clone", small_disk.image, target, "--yes")
    assert stopped(moment, str(signal.SIGKILL.value), *words).code == -signal.SIGKILL
    assert disks.looks_unfinished(target)
    assert not (state_folder / "receipts").exists()
    assert etsclone(*words).code == 0
    assert etsclone("verify", small_disk.image, target).code == 0


@pytest.mark.parametrize("function", ["write_bytes", "flush", "read_bytes", "advance"])
def test_killed_at_every_single_step(
    function: str, stopped: Stop, etsclone: Cli, small_disk: Sample, target: Path, full: bool
) -> None:
    if not full:
        pytest.skip("only with --full")
    words = ("clone", small_disk.image, target, "--yes")
    number = 1
    while stopped(f"{function}:{number}", str(signal.SIGKILL.value), *words).code != 0:
        if (function, number) != ("write_bytes", 1):  # before it, the target is what it was
            whole = etsclone("verify", small_disk.image, target).code == 0
            assert whole or disks.looks_unfinished(target)
        number += 1
    assert number > 3


@pytest.mark.parametrize("moment", ["advance:4", "write_bytes:3"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_in_order(
    number: signal.Signals,
    moment: str,
    stopped: Stop,
    etsclone: Cli,
    small_disk: Sample,
    target: Path,
) -> None:
    words = ("clone", small_disk.image, target, "--yes")
    result = stopped(moment, str(number.value), *words)
    assert result.code == 130
    assert result.err == (
        f"etsclone: interrupted: {target} is unfinished and will not boot\n"
        "hint: run the same command again with --resume to go on\n"
    )
    assert disks.looks_unfinished(target)
    assert etsclone(*words).code == 0


def test_an_interrupted_new_image_is_no_clone_and_can_be_repeated(
    stopped: Stop, etsclone: Cli, small_disk: Sample, tmp_path: Path
) -> None:
    words = ("clone", small_disk.image, tmp_path / "new.img", "--yes")
    assert stopped("advance:4", str(signal.SIGINT.value), *words).code == 130
    assert disks.looks_unfinished(tmp_path / "new.img")
    assert etsclone(*words).code == 0
    assert etsclone("verify", *words[1:3]).code == 0


def test_an_interrupted_block_device(
    stopped: Stop, etsclone: Cli, small_disk: Sample, target: Path
) -> None:
    with loop_device(target) as device:
        words = ("clone", small_disk.image, device, "--yes")
        assert stopped("advance:4", str(signal.SIGTERM.value), *words).code == 130
        assert disks.looks_unfinished(device)
        assert not disks.node(device, 1).exists()
        assert etsclone(*words).code == 0
        assert disks.is_sound_gpt(device)
        assert disks.node(device, 2).exists()


def spawn(*words: str | Path) -> "pexpect.spawn[str]":
    path = os.pathsep.join(each for each in sys.path if each)
    argv = [str(HOOKED), *map(str, words)]
    environment = os.environ | {"PYTHONPATH": path}
    return pexpect.spawn(
        sys.executable, argv, encoding="utf-8", timeout=disks.SECONDS, env=environment
    )  # type: ignore[arg-type, unused-ignore]


def test_control_c_at_a_terminal(small_disk: Sample, target: Path) -> None:
    terminal = spawn("advance:4", "wait", "clone", small_disk.image, target)
    terminal.expect_exact("to go on, type the target's name, target.img: ")
    terminal.sendline("target.img")
    terminal.expect_exact("NOW")
    terminal.expect_exact("copying 1/2: ")
    terminal.sendintr()
    terminal.expect_exact(f"etsclone: interrupted: {target} is unfinished and will not boot")
    terminal.expect(pexpect.EOF)
    assert "Traceback" not in (terminal.before or "")
    terminal.close()
    assert terminal.exitstatus == 130
    assert disks.looks_unfinished(target)


def test_control_c_at_the_prompt_changes_nothing(small_disk: Sample, target: Path) -> None:
    before = target.read_bytes()
    terminal = spawn("never:1", "wait", "clone", small_disk.image, target)
    terminal.expect_exact("to go on, type the target's name, target.img: ")
    terminal.sendintr()
    terminal.expect_exact("etsclone: interrupted: nothing was changed")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert target.read_bytes() == before
