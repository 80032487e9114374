"""The real command line, with something happening at one exact moment of a clone.

usage: hooked.py MOMENT WHAT [etsclone arguments...]

MOMENT is `FUNCTION:N`, before the Nth call of a function that `etsclone.execute` uses; `advance` is called for every
block that is copied or read back. WHAT is the number of a signal that the process sends itself, `wait` to wait for ^C,
`flip:PATH:POSITION` to change a bit of a file, or `cut:PATH:SIZE` to cut it off.
"""

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import etsclone.execute as execute
from etsclone.cli import main
from loop.disks import flip

FUNCTIONS = ("write_bytes", "flush", "copy", "read_back", "read_bytes")

moment, what, *words = sys.argv[1:]
calls: Counter[str] = Counter()


def called(function: str) -> None:
    calls[function] += 1
    if f"{function}:{calls[function]}" == moment:
        happen()


def happen() -> None:
    if what == "wait":
        sys.stderr.write("\nNOW\n")
        sys.stderr.flush()
        while signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # which the first ^C does
            time.sleep(0.01)
    elif what.startswith("flip:"):
        _, path, position = what.split(":")
        flip(path, int(position))
    elif what.startswith("cut:"):
        _, path, size = what.split(":")
        os.truncate(path, int(size))
    else:
        os.kill(os.getpid(), int(what))


def hooked(function: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*positional: object, **named: object) -> object:
        called(function)
        return work(*positional, **named)

    return wrapper


used_by_execute = vars(execute)
real_progress = used_by_execute["progress"]


@contextlib.contextmanager
def progress(*positional: Any, **named: Any) -> Iterator[Callable[[int], None]]:  # noqa: ANN401
    with real_progress(*positional, **named) as advance:
        yield hooked("advance", advance)


for name in FUNCTIONS:
    used_by_execute[name] = hooked(name, used_by_execute[name])
used_by_execute["progress"] = progress
main(words)
