"""What an undo brings back: compared with the journal before it starts, looked for when the disk is mounted again."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from etsclone.errors import ComparisonFailed, KeptDamaged, TargetChanged, UnsafePath
from etsclone.model.journal import Progress, Seen, Standing, Swap
from etsclone.model.tree import join, name_of, parent_of, printable
from etsclone.overlay.files import opened_folder, opened_root
from etsclone.overlay.rounds import NEW, OLD, Round
from etsclone.overlay.seen import (
    Sight,
    keeps_metadata,
    name,
    sight,
    standing_of,
    unlike,
    unlike_standing,
    without_locks,
)
from etsclone.plan.steps import below

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Restored:
    """What stands where when a round is undone.

    Attributes:
        swaps: by the path of a swap all that it brings back; nothing where nothing was.
        stays: what folders are that stay: what they were before, but for what nobody meant to change.
        damaged: in words, what is brought back and is not what it was.
        unvouched: how many paths are brought back of which the journal does not tell what they were: the journals of
            older versions tell it of none.
    """

    swaps: Mapping[bytes, Sight] = field(default_factory=dict)
    stays: Mapping[bytes, Standing] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    unvouched: int = 0

    @property
    def vouched(self) -> bool:
        """Whether all that is brought back is what it was, as far as it is found on the disk again."""
        return not (self.damaged or self.unvouched)


def restored_by(found: Round, *, as_kept: bool = False) -> Restored:
    """What undoing a round brings back, and takes away.

    Args:
        found: the round.
        as_kept: bring back what is kept, also where it is not what it was.

    Raises:
        TargetChanged: when something that the rebuild moved aside is not there any more, and the undo has not begun.
        KeptDamaged: when it is there, and is not what it was.
    """
    undoing = found.journal.progress is Progress.UNDOING
    known = by_swap(found, found.journal.steps.was)
    swaps: dict[bytes, Sight] = {}
    damaged: list[str] = []
    lost, unvouched = [], 0
    for number, swap in enumerate(found.journal.steps.swaps):
        was = known[swap.path]
        kept, held = _before(found, swap, b"%06d" % number) if swap.old else (False, {})
        if swap.old and not held:
            lost.append(printable(swap.path))
        flaws = _flaws(was, held) if was and (kept or undoing) else []
        damaged += flaws
        unvouched += swap.old and not was
        swaps[swap.path] = was if was and undoing and not as_kept else _told(was, held)
    if lost and not undoing:
        raise TargetChanged(
            f"what the rebuild replaced or removed is not kept any more, and cannot be brought back: {_few(lost)}",
            hint="give up what is kept with --commit, or undo the rest by hand: docs/rebuild-journal.md",
        )
    if damaged and not (undoing or as_kept):
        raise damage(found.journal.progress, damaged)
    return Restored(swaps, _stays(found), tuple(damaged), unvouched)


def damage(progress: Progress | None, damaged: Sequence[str]) -> KeptDamaged:
    """The error that says that what is kept is not what it was."""
    way = (
        "finish the rebuild: run it again"
        if progress is Progress.BEGUN
        else "rebuild the former role from its overlay"
    )
    return KeptDamaged(
        f"what the rebuild replaced or removed is not what it was then: {_few(damaged)}",
        hint=f"nothing was changed; {way}; --undo --as-kept brings back what is kept, whatever it is",
    )


def verify_restored(root: str, wanted: Restored) -> None:
    """Look for what an undo brought back: content, owners, modes, times, attributes, flags; and for nothing more.

    Raises:
        ComparisonFailed: when something else is there; it names the first few paths.
    """
    with opened_root(root) as top:
        different = [*_other_swaps(top, wanted), *_other_stays(top, wanted)]
    if different:
        raise ComparisonFailed(
            f"the system is not what it was before: {_few(different)}",
            hint="see that nothing else writes to the disk",
        )


def by_swap(found: Round, seen: Iterable[Seen]) -> Mapping[bytes, Sight]:
    """What a journal tells that was seen, by the path of the swap that it is of."""
    paths = [swap.path for swap in found.journal.steps.swaps]
    known: dict[bytes, dict[bytes, Seen]] = {path: {} for path in paths}
    for each in seen:
        with suppress(KeyError):
            known[below(each.path, known)][each.path] = each
    return known


def is_one(found: Round, place: bytes, path: bytes) -> bool:
    """Whether two paths are of one file."""
    one, two = status_at(found.top, place), status_at(found.top, path)
    return one is not None and two is not None and os.path.samestat(one, two)


def _before(found: Round, swap: Swap, number: bytes) -> tuple[bool, Sight]:
    """What was moved aside, and whether it is; if it was not yet, or was given back already, what is at the path."""
    folder = found.folder(swap.top)
    place = join(join(folder, OLD), number)
    kept = sight(found.top, place, swap.path)
    if kept:
        return not is_one(found, place, swap.path), kept
    applied = found.journal.progress is Progress.APPLIED
    if not applied and (not swap.new or status_at(found.top, join(join(folder, NEW), number))):
        return False, sight(found.top, swap.path, swap.path)
    return False, {}


def _flaws(was: Sight, held: Sight) -> list[str]:
    """In words, how what is kept is not what it was; flags that forbid to move it may be missing meanwhile."""
    return _unlike(_free(was), _free(held))


def _told(was: Sight, held: Sight) -> Sight:
    """What is there, and where that is what it was, with the flags that it had."""
    return {
        path: was[path]
        if path in was and not unlike(without_locks(was[path]), without_locks(seen))
        else seen
        for path, seen in held.items()
    }


def _free(seen: Sight) -> Sight:
    return {path: without_locks(each) for path, each in seen.items()}


def _unlike(wanted: Sight, found: Sight) -> list[str]:
    missing = [
        f"{printable(path)}: {words}"
        for path, seen in wanted.items()
        if (words := unlike(seen, found.get(path)))
    ]
    added = (seen for path, seen in found.items() if path not in wanted)
    return missing + [f"{printable(seen.path)}: {name(seen)} in place of nothing" for seen in added]


def _other_swaps(top: int, wanted: Restored) -> Iterator[str]:
    for path, was in wanted.swaps.items():
        found = sight(top, path, path)
        # Where names are folded, a path of which nothing is left may lead to something of another name.
        if was or (found and is_listed(top, path)):
            # Only what is vouched for tells of flags that were taken off to move it, and come back.
            yield from _unlike(was, found) if wanted.vouched else _flaws(was, found)


def _other_stays(top: int, wanted: Restored) -> Iterator[str]:
    for path, standing in wanted.stays.items():
        found = _standing(top, path)
        words = unlike_standing(standing, found) if found else ["nothing in place of a folder"]
        if words:
            yield f"{printable(path)}: {', '.join(words)}"


def _stays(found: Round) -> dict[bytes, Standing]:
    """What of the folders that stay is to be looked for."""
    stays = {}
    for stay in found.journal.steps.stays:
        now = _standing(found.top, stay.path)
        if now:
            before = stay.before
            others = replace(now, mtime_ns=before.mtime_ns, flags=before.flags)
            stays[stay.path] = before if stay.is_changed else others
    return stays


def _standing(top: int, path: bytes) -> Standing | None:
    """What a folder is; None when there is none, or its filesystem makes that up."""
    with suppress(FileNotFoundError, UnsafePath), opened_folder(top, path) as folder:
        return standing_of(folder) if keeps_metadata(folder) else None
    return None


def status_at(top: int, path: bytes) -> os.stat_result | None:
    """What the system tells of a path; None when nothing is there."""
    with suppress(FileNotFoundError, UnsafePath), opened_folder(top, parent_of(path)) as folder:
        return os.lstat(name_of(path), dir_fd=folder)
    return None


def is_listed(top: int, path: bytes) -> bool:
    """Whether something has exactly this name."""
    with suppress(FileNotFoundError, UnsafePath), opened_folder(top, parent_of(path)) as folder:
        return name_of(path) in map(os.fsencode, os.listdir(folder))
    return False


def _few(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more
