"""Commands that are killed: before the Nth change that they make to files, or at any moment.

The command runs in a fork of this process, so that hundreds of them take seconds.
"""

import contextlib
import io
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import killed

from etsclone import cli
from etsclone.execute import rebuild as rebuilding
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


def run_killed_inside(module: ModuleType, function: str, moment: int, *words: str | Path) -> int:
    """Kill a command with all its processes before the `moment`-th call of a module's function, in whichever it is."""

    def work() -> None:
        real, left = getattr(module, function), moment

        def hooked(*positional: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                os.killpg(0, signal.SIGKILL)
            return real(*positional, **named)

        setattr(module, function, hooked)
        _main(words)

    return _group_ended(_forked_group(work))


def run_changed(
    module: ModuleType, function: str, instead: Callable[..., object], *words: str | Path
) -> int:
    """Run a command with another function in the place of a module's. Returns its exit code."""

    def work() -> None:
        setattr(module, function, instead)
        _main(words)

    return _ended(_forked(work))


def run_all_killed_before(moment: int, *words: str | Path) -> int:
    """Kill a rebuild with all its processes before the `moment`-th change that it makes to the system."""
    return _run_counted(moment, words)[0]


def changes_of(*words: str | Path) -> int:
    """Let a rebuild go to its end; how many changes it makes to the system."""
    code, changes = _run_counted(0, words)
    assert code == 0
    return changes


def _run_counted(moment: int, words: tuple[str | Path, ...]) -> tuple[int, int]:
    # The process that works inside of the system is forked, and shares it.
    with mmap.mmap(-1, mmap.PAGESIZE) as count:
        return _group_ended(_forked_group(lambda: _count(count, moment, words))), _number(count)


def _count(count: mmap.mmap, moment: int, words: tuple[str | Path, ...]) -> None:
    def hooked(real: Callable[..., object], *, always: bool) -> Callable[..., object]:
        def wrapper(*positional: object, **named: object) -> object:
            if always or int(str(positional[1])) & os.O_CREAT:
                count[:8] = (_number(count) + 1).to_bytes(8, "little")
                if _number(count) == moment:
                    os.killpg(0, signal.SIGKILL)
            return real(*positional, **named)

        return wrapper

    function = "apply_plan"
    real_apply = getattr(rebuilding, function)

    def apply(*positional: object, **named: object) -> object:
        for name in killed.CHANGES:
            setattr(os, name, hooked(getattr(os, name), always=name != "open"))
        return real_apply(*positional, **named)

    setattr(rebuilding, function, apply)
    _main(words)


def _number(count: mmap.mmap) -> int:
    return int.from_bytes(count[:8], "little")


def _forked_group(work: Callable[[], None]) -> int:
    def in_group() -> None:
        os.setpgid(0, 0)
        work()

    child = _forked(in_group)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    return child


def _group_ended(child: int) -> int:
    code = _ended(child)
    for _ in range(200):  # those below it are not ours to wait for
        try:
            os.killpg(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    return code


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
