"""What rebuilds keep of a system before them: finish one that was interrupted, undo the last, or commit them all."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from etsclone.errors import NothingKept, TargetRefused
from etsclone.model.journal import Progress, Steps
from etsclone.model.keep import BootCode, WriteCode
from etsclone.overlay.files import opened_root
from etsclone.overlay.restored import Restored, restored_by
from etsclone.overlay.rounds import (
    Round,
    check_tops,
    drop_leftovers,
    has_leftovers,
    kept_size,
    newest,
    rounds,
    staging_in_use,
    undoable,
)
from etsclone.overlay.since import changed_since
from etsclone.overlay.swapping import backwards, forwards
from etsclone.plan.tree import Action, TreeChange, TreePlan

_NOTHING = TreePlan(())


@dataclass(frozen=True, slots=True)
class Kept:
    """What can be undone, or must be finished.

    `label` is what the last rebuild makes of the disk, `number` its round and `began` when (UTC, ISO 8601); `pair`
    is the pair that its overlay is of, empty when nothing tells. `progress` is None when there is not even a round,
    but other leftovers. `undo` is what undoing it changes: nothing when only leftovers of it are there. `finish` is
    what finishing it changes, in the direction that it has: nothing unless it was interrupted half way, and some
    may be done. `code` is boot code of the disk that undoing it writes, `lost` what it does not bring back, in
    words. `count` is how many rebuilds can be undone, one after the other, and `size` how many bytes the files have
    that all of them moved aside.
    """

    number: int
    label: str
    began: str
    progress: Progress | None
    undo: TreePlan
    finish: TreePlan
    count: int
    size: int = field(default=0, compare=False)
    code: tuple[BootCode, ...] = ()
    lost: tuple[str, ...] = ()
    pair: str = ""

    @property
    def unfinished(self) -> bool:
        """Whether the system is neither as it was nor as it is to be."""
        return self.progress in (Progress.BEGUN, Progress.UNDOING)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What undoing the last rebuild comes upon.

    `plan` is what it changes, with what was changed since the rebuild and is lost; `changed` is that alone, by path and
    in words. `damaged` tells, in words, what is kept and is not what it was; `unvouched` is of how many paths nothing
    tells what they were.
    """

    plan: TreePlan = _NOTHING
    changed: Mapping[bytes, str] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    unvouched: int = 0


def look_kept(root: str) -> Kept | None:
    """What is kept in a system; None when there is nothing, not even leftovers. Nothing is changed.

    Raises:
        FormatError, KeptExposed: when a journal is damaged, or not in a private folder.
    """
    with opened_root(root) as top:
        found = rounds(top)
        last = undoable(found)
        undone = last.journal.steps if last else Steps()
        undo = _undoing(undone)
        last = last or (found[-1] if found else None)
        if last is None:
            leftovers = Kept(0, "", "", None, _NOTHING, _NOTHING, 0)
            return leftovers if has_leftovers(top, found) else None
        journal = last.journal
        ways = {Progress.BEGUN: _finishing(journal.steps), Progress.UNDOING: undo}
        return Kept(
            number=last.number,
            label=journal.label,
            began=journal.began,
            progress=journal.progress,
            undo=undo,
            finish=ways.get(journal.progress, _NOTHING),
            count=sum(each.journal.progress is Progress.APPLIED for each in found),
            size=sum(map(kept_size, found)),
            code=undone.code,
            lost=undone.lost,
            pair=journal.pair,
        )


def look_undo(root: str) -> Prospect:
    """What undoing the last rebuild would come upon; nothing when there is nothing to undo. Nothing is changed.

    Raises:
        FormatError, KeptExposed: as `look_kept`.
        TargetChanged: when not all that the rebuild moved aside is there.
        UnsafePath: when a filesystem of the round is not mounted.
    """
    with opened_root(root) as top:
        last = undoable(rounds(top))
        if last is None:
            return Prospect()
        check_tops(last)
        restored = restored_by(last, as_kept=True)
        lost = changed_since(last)
        plan = _with_lost(_undoing(last.journal.steps), lost)
        return Prospect(plan, lost, restored.damaged, restored.unvouched)


def kept_folders(root: str) -> frozenset[bytes]:
    """The folders of a system that hold what is kept: no leftovers, and nobody else's matter."""
    with opened_root(root) as top:
        return staging_in_use(top)


def settle(root: str, write_code: WriteCode | None = None) -> Restored:
    """Finish what was interrupted, in the direction that it had; boot code that this brings back is given to a writer.

    Returns:
        What it brought back, if that was its direction.

    Raises:
        UnsafePath, TargetChanged, TargetFull, DeviceError: the system is under way still.
    """
    with opened_root(root) as top:
        last, restored = newest(rounds(top)), Restored()
        if last and last.journal.progress is Progress.BEGUN:
            forwards(last)
            last.note(Progress.APPLIED)
        elif last and last.journal.progress is Progress.UNDOING:
            # What is damaged is told by the caller: no other way leads on from here.
            restored = restored_by(last, as_kept=True)
            _undo(last, write_code)
        drop_leftovers(top)
        return restored


def undo(root: str, write_code: WriteCode | None = None, *, as_kept: bool = False) -> Restored:
    """Make of a system what it was before the last rebuild, whether that was finished or not.

    Boot code that this brings back is given to `write_code`; `as_kept`: also what is not what it was is brought back.

    Where an undo was interrupted, or a rebuild that had changed nothing yet, only what it left is removed.

    Returns:
        What it brought back, for `verify_restored`; empty where only leftovers were removed.

    Raises:
        NothingKept: when there is nothing to undo.
        TargetRefused: when boot code is to be brought back, and nobody writes it; nothing was changed.
        TargetChanged: when not all that the rebuild moved aside is there; nothing was changed.
        KeptDamaged: when it is not what it was; nothing was changed.
        UnsafePath, TargetChanged, TargetFull, DeviceError: the system may be under way; the same again goes on.
    """
    with opened_root(root) as top:
        last = undoable(rounds(top))
        restored = Restored()
        if last:
            check_tops(last)
            restored = restored_by(last, as_kept=as_kept)
            _undo(last, write_code)
        if not drop_leftovers(top) and not last:
            raise _nothing("undo")
        return restored


def commit(root: str, write_code: WriteCode | None = None) -> Restored:
    """Remove what rebuilds keep; what was interrupted is finished first. As `settle`, and raises NothingKept, too."""
    if look_kept(root) is None:
        raise _nothing("commit")
    restored = settle(root, write_code)
    with opened_root(root) as top:
        for each in rounds(top):
            check_tops(each)
            each.note(Progress.DROPPING).drop()
    return restored


def _undo(found: Round, write_code: WriteCode | None) -> None:
    code = found.journal.steps.code
    if code and write_code is None:
        raise TargetRefused(
            "boot code is to be brought back too, and on which disk is not known",
            hint="name the disk in place of --root",
        )
    if found.journal.progress is not Progress.UNDOING:
        found = found.note(Progress.UNDOING)
    backwards(found)
    if write_code:
        write_code(code)
    found.note(Progress.DROPPING).drop()


def _nothing(what: str) -> NothingKept:
    return NothingKept(
        f"there is nothing to {what}: no rebuild keeps anything on this disk",
        hint="a rebuild keeps what it replaces until it is undone or committed",
    )


def _undoing(steps: Steps) -> TreePlan:
    words = {
        (True, True): (Action.REPLACE, "as it was before"),
        (True, False): (Action.CREATE, "was removed"),
        (False, True): (Action.REMOVE, "was not there before"),
    }
    return _changes(steps, words, "as it was before")


def _with_lost(plan: TreePlan, lost: Mapping[bytes, str]) -> TreePlan:
    """Say of each change what is lost by it, and of what is lost within a folder, too."""
    planned = {change.path for change in plan.changes}
    told = [
        replace(change, reason=f"{change.reason}; {lost[change.path]}")
        if change.path in lost
        else change
        for change in plan.changes
    ]
    within = [path for path in lost if path not in planned]
    return TreePlan((*told, *(TreeChange(Action.REMOVE, path, lost[path]) for path in within)))


def _finishing(steps: Steps) -> TreePlan:
    words = {
        (True, True): (Action.REPLACE, "as the rebuild began to"),
        (True, False): (Action.REMOVE, "as the rebuild began to"),
        (False, True): (Action.CREATE, "as the rebuild began to"),
    }
    return _changes(steps, words, "as the rebuild began to")


def _changes(
    steps: Steps, words: Mapping[tuple[bool, bool], tuple[Action, str]], stays: str
) -> TreePlan:
    """The changes of steps in words, which are those of a swap by whether it has something old and new."""
    swaps = [
        TreeChange(action, swap.path, reason)
        for swap in steps.swaps
        for action, reason in [words[swap.old, swap.new]]
    ]
    changed = [stay.path for stay in steps.stays if stay.before != stay.after]
    return TreePlan((*swaps, *(TreeChange(Action.RETOUCH, path, stays) for path in changed)))
