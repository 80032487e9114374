"""Commands that are killed: before the Nth change that they make to files, or at any moment.

The command runs in a fork of this process, so that hundreds of them take seconds.
"""

import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from etsclone import cli
from etsclone.store.files import _TypedFile

CHANGES = ("mkdir", "unlink", "rename", "fsync", "ftruncate")
"""Functions of `os` that change what is on a medium, or make it durable; writing is another one."""


def run_killed(moment: int, *words: str | Path) -> int:
    """Run a command that kills itself before its `moment`-th change. Returns its exit code, or minus the signal."""

    def work() -> None:
        _kill_self_before(moment)
        _main(words)

    return _ended(_forked(work))


def run_killed_after(seconds: float, *words: str | Path) -> int:
    """Run a command and kill it after some time. Returns its exit code if it was done by then, or minus the signal."""
    child = _forked(lambda: _main(words))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # until it is waited for, it is there, done or not
    return _ended(child)


def run_timed(*words: str | Path) -> float:
    """Run a command to its end; returns the seconds that it took."""
    start = time.monotonic()
    assert _ended(_forked(lambda: _main(words))) == 0
    return time.monotonic() - start


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(99)
    return child


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _main(words: tuple[str | Path, ...]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    sys.stdout = sys.stderr = io.StringIO()
    try:
        cli.main([str(word) for word in words])
    except SystemExit as end:
        os._exit(int(end.code or 0))


def _kill_self_before(moment: int) -> None:
    me, left = os.getpid(), moment

    def hooked(work: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*positional: object, **named: object) -> object:
            nonlocal left
            if os.getpid() == me:  # not in the process inside the captured system
                left -= 1
                if left == 0:
                    os.kill(me, signal.SIGKILL)
            return work(*positional, **named)

        return wrapper

    for name in CHANGES:
        setattr(os, name, hooked(getattr(os, name)))
    _TypedFile.write = hooked(_TypedFile.write)  # type: ignore[method-assign, assignment]
