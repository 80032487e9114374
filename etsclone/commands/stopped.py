"""What ^C leaves of a disk whose role changes: said as it is, not as it may be."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from etsclone.commands.system import System
from etsclone.errors import Interrupted
from etsclone.execute.rebuild import kept_rebuilds
from etsclone.model.journal import Progress, half_way
from etsclone.overlay.kept import Kept

Done = TypeVar("Done")

_AGAIN = "run the same command again"
_COUNTS = (Progress.BEGUN, Progress.APPLIED, Progress.UNDOING)


@dataclass(slots=True)
class Left:
    """What is to be said of ^C from now on; nothing but that, as long as nothing is left of the command."""

    said: Interrupted | None = None


@contextlib.contextmanager
def telling_what_is_left() -> Iterator[Left]:
    """Have ^C say what was set as `said` meanwhile.

    Raises:
        Interrupted: that.
    """
    left = Left()
    try:
        yield left
    except KeyboardInterrupt as interrupt:
        if left.said is None:
            raise
        raise left.said from interrupt


def change_told(system: System, work: Callable[[str], Done], left: Left, done: Interrupted) -> Done:
    """Change a mounted system, and keep account of what ^C leaves.

    Args:
        system: mounted for writing.
        work: changes what is mounted at a folder.
        left: where to keep it.
        done: to be said as soon as the work is done.
    """
    name = system.name
    untouched = Interrupted(f"interrupted: nothing was changed on {name}", hint=_AGAIN)
    left.said = untouched
    before = _state(kept_rebuilds(system.folder))
    try:
        result = work(system.folder)
    except KeyboardInterrupt:
        # Whoever worked in there is at rest, and a second ^C is not heard.
        kept = kept_rebuilds(system.folder)
        if kept and kept.unfinished:
            left.said = Interrupted(
                f"interrupted: {name} is {half_way(kept.label, kept.progress)}",
                hint=f"{_AGAIN}: it completes what is missing; --undo makes it what it was",
            )
        elif _state(kept) != before:
            left.said = done
        raise
    left.said = done
    return result


def is_role(name: str, role: str, *, undoable: bool) -> Interrupted:
    """What ^C leaves of a rebuild when the files are those of the role."""
    return Interrupted(
        f"interrupted: {name} is {role} already, but what follows was not finished: boot loader, checks, receipt",
        hint=f"{_AGAIN}: it does what is missing"
        + ("; --undo makes the disk what it was" if undoable else ""),
    )


def is_changed(name: str) -> Interrupted:
    """What ^C leaves of an undoing, a commit, or a rebuild that was finished."""
    return Interrupted(
        f"interrupted: {name} was changed, but not read again to verify it",
        hint="the same command with --dry-run tells what is left to do",
    )


def _state(kept: Kept | None) -> tuple[int, Progress, int] | None:
    """What is kept that counts: leftovers do not."""
    if kept is None or kept.progress not in _COUNTS:
        return None
    return kept.number, kept.progress, kept.count
