"""^C while a role changes: what is said of the disk is what it is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .small_system import etsclone
from .test_rebuild import Pair, made, ok, pair
from .test_undo import options, picture, system_of

__all__ = ["made", "pair"]  # fixtures

pytestmark = pytest.mark.loop

HOOK = """
import importlib, os, signal, sys, time
from etsclone.cli import main
main_process = os.getpid()
module, function, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
module = importlib.import_module(module)
real = getattr(module, function)
def hooked(*positional, **named):
    global moment
    moment -= 1
    if moment == 0:
        os.kill(main_process, signal.SIGINT)
        if os.getpid() != main_process:
            time.sleep(60)  # until the parent ends it
    return real(*positional, **named)
setattr(module, function, hooked)
main(sys.argv[4:])
"""


def stopped(
    module: str, function: str, moment: int, *words: str | Path
) -> "subprocess.CompletedProcess[str]":
    """Run a command that gets ^C before the `moment`-th call of a function, in whichever process that is."""
    argv = [sys.executable, "-c", HOOK, module, function, str(moment), *map(str, words)]
    path = os.pathsep.join(each for each in sys.path if each)
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    return done


@pytest.mark.parametrize(
    "function", ["verify_rebuild", "measured_again", "check_disk", "save_receipt"]
)
def test_after_the_change_the_disk_is_the_role(pair: Pair, function: str) -> None:
    disk = pair.disk("secondary")
    done = stopped("etsclone.commands.rebuild", function, 1, "rebuild", disk, *options(pair))
    assert f"{disk.name} is primary, generation 1 already" in done.stderr
    assert "checks, receipt" in done.stderr
    assert "--undo" in done.stderr
    assert "its scope equals the overlay already" in ok("rebuild", disk, *options(pair))


def test_before_the_change_nothing_was_changed(pair: Pair) -> None:
    disk = pair.disk("secondary")
    before = system_of(picture(disk))
    done = stopped("etsclone.overlay.apply", "new_round", 1, "rebuild", disk, *options(pair))
    assert f"etsclone: interrupted: nothing was changed on {disk.name}\n" in done.stderr
    assert system_of(picture(disk)) == before


def test_half_way_is_said_when_it_is(pair: Pair) -> None:
    disk = pair.disk("secondary")
    done = stopped("etsclone.overlay.swapping", "_take_over", 3, "rebuild", disk, *options(pair))
    assert f"interrupted: {disk.name} is half way to primary, generation 1\n" in done.stderr
    assert "was interrupted" in ok("rebuild", disk, "--undo", "--dry-run")


def test_a_disk_that_was_the_role_before_has_nothing_to_undo(pair: Pair) -> None:
    words = ("rebuild", pair.disk("primary"), *options(pair))
    done = stopped("etsclone.commands.rebuild", "check_disk", 1, *words)
    assert "is primary, generation 1 already" in done.stderr
    assert "--undo" not in done.stderr


@pytest.mark.parametrize(
    ("function", "number", "said"),
    [
        ("restored_by", 2, "nothing was changed on"),  # the first only sees that nothing changed
        ("backwards", 1, "is half way back from primary"),
    ],
)
def test_an_undo_says_how_far_it_came(pair: Pair, function: str, number: int, said: str) -> None:
    disk = pair.disk("secondary")
    ok("rebuild", disk, *options(pair))
    done = stopped("etsclone.overlay.kept", function, number, "rebuild", disk, "--undo", "--yes")
    assert said in done.stderr
    assert etsclone("rebuild", disk, "--undo", "--yes").returncode == 0
