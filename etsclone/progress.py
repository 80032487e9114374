"""How far a long operation is: for people on stderr, for programs as events on stdout. The only importer of tqdm."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Protocol

from etsclone.units import human

_SECONDS_BEFORE_A_BAR = 0.3
"""What is over sooner needs no bar, and does not wait for tqdm to be imported."""

_SECONDS_BETWEEN_LINES = 60.0
_SECONDS_BETWEEN_EVENTS = 1.0


class Advance(Protocol):
    """To be called, from any thread, with the bytes that were just done.

    `unreadable` are bytes that could not be read just now; negative for those that could be read after all.
    """

    def __call__(self, done: int, unreadable: int = 0, /) -> None:
        """Count them."""


class Shown(Enum):
    """Whom to tell how far an operation is."""

    TEXT = "a bar at a terminal, else a line a minute, on stderr"
    EVENTS = "a JSON object a line, on stdout"
    NOTHING = "nobody"


@dataclass(slots=True)
class Phase:
    """One kind of work: how many bytes there are to do, were done before it began, and are done now."""

    name: str
    total: int
    before: int
    done: int
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def rate(self) -> int:
        """Bytes a second, over the whole phase."""
        return int((self.done - self.before) / max(self.seconds, 0.001))

    @property
    def seconds_left(self) -> int | None:
        """At that rate; None as long as nothing was done."""
        return (self.total - self.done) // self.rate if self.rate else None


@dataclass(slots=True)
class Report:
    """One long operation: whom to tell how far it is, and what is remembered of it.

    Args:
        shown: whom to tell.
        expected: names of the phases that are certain to come, in order.
        mapfile: where it is kept which bytes are done.
        unreadable: bytes that could not be read so far.
        phases: those that began, the last of them perhaps under way.
    """

    shown: Shown
    expected: tuple[str, ...] = ()
    mapfile: Path | None = None
    unreadable: int = 0
    phases: list[Phase] = field(default_factory=list)

    def facts(self) -> dict[str, object]:
        """The newest phase as JSON facts."""
        phase = self.phases[-1]
        return {
            "phase": phase.name,
            "done": phase.done,
            "total": phase.total,
            "rate": phase.rate,
            "seconds_left": phase.seconds_left,
            "unreadable": self.unreadable,
        }

    def line(self) -> str:
        """The newest phase in one line for people."""
        phase = self.phases[-1]
        left = phase.seconds_left
        words = [
            f"{human(phase.done)} of {human(phase.total)} ({phase.done * 100 // phase.total} %)",
            f"{human(phase.rate)}/s",
            "time left unknown" if left is None else f"{timedelta(seconds=left)} left",
            self.trouble(),
        ]
        return f"{self.title()}: {', '.join(word for word in words if word)}"

    def title(self) -> str:
        """The newest phase, and which of how many it is."""
        name = self.phases[-1].name
        if name not in self.expected:
            return name
        return f"{name} {self.expected.index(name) + 1}/{len(self.expected)}"

    def trouble(self) -> str:
        """What could not be read, in words; empty as long as all could be."""
        return f"{human(self.unreadable)} bad" if self.unreadable else ""


_under_way: Report | None = None
"""What the process is doing: a signal asks the process, whatever its parts know of each other."""


@contextlib.contextmanager
def progress(phase: str, total: int, *, shown: Report, done: int = 0) -> Iterator[Advance]:
    """Tell how far a phase is while the context lasts; of a phase with nothing to do, nothing is told.

    Args:
        phase: what is being done, in a word.
        total: how many bytes there are to do.
        shown: the operation that it is a phase of.
        done: how many of them were done before.

    Yields:
        The function to call as bytes are done.
    """
    global _under_way  # noqa: PLW0603 - see there
    now, lock = Phase(phase, total, done, done), threading.Lock()

    def advance(count: int, unreadable: int = 0, /) -> None:
        with lock:
            now.done += count
            shown.unreadable += unreadable

    if not total:
        yield advance
        return
    shown.phases.append(now)
    ended = threading.Event()
    # From a thread of its own: a disk that hangs is told of too, and no worker ever waits for a terminal or a pipe.
    teller = threading.Thread(target=_tell, args=(shown, now, ended), daemon=True)
    try:
        _under_way = shown
        teller.start()
        yield advance
    finally:
        _under_way = None
        now.ended = time.monotonic()
        ended.set()
        if teller.ident is not None:  # ^C may have come first
            teller.join()


def tell_state(*_: object) -> None:
    """Say in one line on stderr how far the process is; the handler of SIGUSR1."""
    text = _under_way.line() if _under_way else "nothing is being copied at the moment"
    if _under_way and _under_way.mapfile:
        text += f"; map: {_under_way.mapfile}"
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    # Not by way of sys.stderr: the signal may have come in the middle of a write to it.
    with contextlib.suppress(OSError):
        os.write(2, f"{clear}etsclone: {text}\n".encode("utf-8", "surrogateescape"))


def print_event(event: str, facts: Mapping[str, object]) -> None:
    """Print one JSON object on a line of its own: what happened, when, and the facts of it.

    When nobody reads any more, it is dropped (`etsclone.streams`): that is no reason to end a copy.
    """
    words = {"event": event, "time": datetime.now(UTC).isoformat(), **facts}
    print(json.dumps(words), flush=True)


def _tell(report: Report, phase: Phase, ended: threading.Event) -> None:
    if report.shown is Shown.EVENTS:
        _tell_programs(report, ended)
    elif report.shown is Shown.TEXT and sys.stderr.isatty():
        _draw_bar(report, phase, ended)
    elif report.shown is Shown.TEXT:
        while not ended.wait(_SECONDS_BETWEEN_LINES):
            print(f"etsclone: {report.line()}", file=sys.stderr, flush=True)


def _tell_programs(report: Report, ended: threading.Event) -> None:
    print_event("progress", report.facts())
    while not ended.wait(_SECONDS_BETWEEN_EVENTS):
        print_event("progress", report.facts())
    print_event("progress", report.facts())


def _draw_bar(report: Report, phase: Phase, ended: threading.Event) -> None:
    if ended.wait(_SECONDS_BEFORE_A_BAR):
        return
    from tqdm import tqdm  # noqa: PLC0415 - takes 50 ms, and only people at a terminal need it

    tqdm.monitor_interval = 0  # this thread does what its monitor would
    with tqdm(
        total=phase.total,
        initial=phase.before,
        desc=report.title(),
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        dynamic_ncols=True,
        mininterval=0,
        miniters=0,
    ) as bar:
        bar.start_t -= phase.seconds
        going = True
        while going:
            going = not ended.wait(0.2)
            bar.set_postfix_str(report.trouble(), refresh=False)
            bar.update(phase.done - bar.n)
