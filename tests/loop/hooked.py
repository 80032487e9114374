"""The real command line, with something happening at one exact moment of a clone.

usage: hooked.py MOMENT WHAT [etsclone arguments...]

MOMENT is `FUNCTION:N`, before the Nth call of one of the `FUNCTIONS`; `advance` is called as a copy begins and then for
every block that is copied or read back, `write_block` before every write of the copy, `save` as the state is saved,
`clone_range` before
blocks are shared, `run` before every program that a growing filesystem, or one that is made anew, needs.
WHAT is the number of a signal that the process sends itself, `wait` to wait for ^C, `flip:PATH:POSITION` to change a
bit of a file, or `cut:PATH:SIZE` to cut it off.

With $SAVES the state is saved as often as there is time for it, and not only every few seconds. With $BELIEVE no sample
of the target is read before its digests are believed: of a disk as small as ours, the samples would be all of it.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from etsclone.cli import main
from etsclone.copying import job, passes, reflink, refresh, rescue, workers
from etsclone.disk import identifiers, makefs, resize, trees
from etsclone.execute import clone, fit, grow, ids
from loop.disks import flip

FUNCTIONS: dict[str, tuple[ModuleType, ...]] = {
    "write_bytes": (clone,),
    "read_bytes": (clone,),
    "flush": (clone, fit),
    "clear": (clone,),
    "copy_extents": (clone, fit),
    "copy_pass": (job,),
    "rescue": (job,),
    "refresh": (job,),
    "read_back": (job,),
    "write_block": (passes, rescue, refresh),
    "clone_range": (reflink,),
    "window": (grow, fit, ids),
    "run": (resize, makefs, trees),
    "change": (identifiers,),
    "in_chroot": (ids,),
    "apply_edits": (ids,),
    "enlarge": (resize,),
    "check": (resize, identifiers),
}

moment, what, *words = sys.argv[1:]
calls: Counter[str] = Counter()
lock = threading.Lock()


def called(function: str) -> None:
    with lock:
        calls[function] += 1
        now = f"{function}:{calls[function]}" == moment
    if now:
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


def hooked_progress(work: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def wrapper(*positional: object, **named: object) -> Iterator[Callable[[int], None]]:
        with work(*positional, **named) as advance:
            yield hooked("advance", advance)

    return wrapper


for name, modules in FUNCTIONS.items():
    for module in modules:
        vars(module)[name] = hooked(name, vars(module)[name])
for module in (clone, job):
    vars(module)["progress"] = hooked_progress(vars(module)["progress"])
job.Saver.save = hooked("save", job.Saver.save)  # type: ignore[method-assign]
if "SAVES" in os.environ:
    job.SECONDS_BETWEEN_SAVES = 0
    workers._SECONDS_BETWEEN_TICKS = 0.01
if "BELIEVE" in os.environ:
    vars(job)["check_samples"] = lambda *_: None
main(words)
