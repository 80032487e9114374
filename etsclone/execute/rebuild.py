"""Runs rebuild plans, in a process inside the clone."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from etsclone.boot.files import SystemFiles
from etsclone.chroot import in_chroot
from etsclone.errors import ComparisonFailed, TargetChanged
from etsclone.model.edit import Edit, Files, Folders, merged
from etsclone.model.keep import NOTHING, Keep, WriteCode
from etsclone.model.scope import Scope
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.edits import verify_edits
from etsclone.overlay.foreseen import foresee_names
from etsclone.overlay.kept import (
    Kept,
    Prospect,
    commit,
    kept_folders,
    look_kept,
    look_undo,
    settle,
    undo,
)
from etsclone.overlay.payload import Payload
from etsclone.overlay.planned import PlannedFiles
from etsclone.overlay.restored import Restored, verify_restored
from etsclone.overlay.scan import scan
from etsclone.plan.tree import TreePlan, plan_tree

Done = TypeVar("Done")
Editor = Callable[[Files], tuple[Edit, ...]]
"""A pure planner: from the files of the system as it will be, what of them has to be other yet."""


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What changes in the tree of a clone, and where the content comes from.

    `payload` is the overlay's with those `edits` that are of the scope; `tree` holds them too. The other edits come on
    top: they are of files outside of the scope.
    """

    tree: TreePlan
    edits: tuple[Edit, ...]
    scope: Scope
    payload: Payload
    seen: str
    """The digest of the scope as it was when this was planned."""
    untried: tuple[bytes, ...] = ()
    """Folders of which only the rebuild can tell whether their filesystem gives all that comes a name of its own."""
    keep: Keep = NOTHING
    """What is kept beside that, since the clone's programs change it afterwards."""

    def __bool__(self) -> bool:
        """Whether anything changes, or will."""
        return self.steps or bool(self.keep)

    @property
    def steps(self) -> bool:
        """Whether anything changes by this plan itself."""
        return bool(self.tree.changes or self.outer_edits)

    @property
    def due_edits(self) -> tuple[Edit, ...]:
        """The edits without those that the disk has already."""
        changed = {change.path for change in self.tree.changes}
        return tuple(
            edit for edit in self.edits if edit.path in changed or edit.path not in self.scope
        )

    @property
    def outer_edits(self) -> tuple[Edit, ...]:
        """The edits of files outside of the scope."""
        return tuple(edit for edit in self.edits if edit.path not in self.scope)


def plan_rebuild(
    root: str,
    scope: Scope,
    payload: Payload,
    skip: frozenset[bytes],
    editors: Sequence[Editor] = (),
) -> RebuildPlan:
    """Scan the system mounted at `root` from inside, and plan how its scope becomes the payload's.

    Args:
        editors: asked in their order, inside the clone, what else has to change; each sees what those before it did.

    Raises:
        ScopeConflict, UnsafePath: when that cannot be done within the scope.
    """

    def work() -> tuple[list[Edit], TreePlan, str, tuple[bytes, ...]]:
        files = PlannedFiles(SystemFiles(), scope, payload)
        edits: list[Edit] = []
        for editor in editors:
            for edit in editor(files):
                files.take(edit)
                edits.append(edit)
        tree, seen = _tree_plan(scope, files.payload, skip)
        return edits, tree, seen, foresee_names("/", tree)

    edits, tree, seen, untried = in_chroot(root, work)
    for edit in edits:
        if edit.path in scope:
            payload = payload.edited(edit.path, edit.after)
    return RebuildPlan(tree, merged(edits), scope, payload, seen, untried)


def files_after(plan: RebuildPlan) -> Folders:
    """The files of a system as a plan will leave them; to be asked inside it."""
    files = PlannedFiles(SystemFiles(), plan.scope, plan.payload)
    for edit in plan.outer_edits:
        files.take(edit)
    return files


def execute_rebuild(
    root: str,
    plan: RebuildPlan,
    skip: frozenset[bytes],
    *,
    label: str = "",
    began: str = "",
    pair: str = "",
) -> None:
    """Execute a plan in the system mounted at `root`, from inside, if it still fits what is there.

    Args:
        label: what the system becomes, for people who find it half way.
        began: when, in UTC (ISO 8601).
        pair: the pair that the overlay is of.

    Raises:
        TargetChanged: when the scope is not as it was when the plan was made; nothing was written.
        TargetFull, UnsafePath, DeviceError: the system may be half way; `finish_rebuild` completes it.
    """

    def work() -> None:
        if _tree_plan(plan.scope, plan.payload, skip) != (plan.tree, plan.seen):
            raise TargetChanged(
                "the clone changed since the plan was shown", hint="run the same command again"
            )
        apply_plan(
            "/",
            plan.tree,
            plan.payload,
            plan.outer_edits,
            keep=plan.keep,
            label=label,
            began=began,
            pair=pair,
        )

    in_chroot(root, work)


def verify_rebuild(root: str, plan: RebuildPlan, skip: frozenset[bytes]) -> None:
    """Read the scope of the system mounted at `root` from inside, and the edited files around it.

    Raises:
        ComparisonFailed: when it is not exactly what the payload holds, or a file is not as it was edited.
    """

    def work() -> None:
        verify_scope("/", plan.payload.tree, plan.scope, skip=skip)
        verify_edits("/", plan.outer_edits)

    in_chroot(root, work)


# --- what earlier rebuilds keep -------------------------------------------------------------------------------------


def kept_rebuilds(root: str) -> Kept | None:
    """What can be undone in the system mounted at `root`, or must be finished; None when there is nothing.

    Raises:
        FormatError: when its journal is damaged.
    """
    return in_chroot(root, lambda: look_kept("/"))


def undo_prospect(root: str) -> Prospect:
    """What undoing the last rebuild of the system mounted at `root` comes upon. Raises as `look_undo`."""
    return in_chroot(root, lambda: look_undo("/"))


def finish_rebuild(root: str, shown: Kept, write_code: WriteCode | None = None) -> Restored:
    """Finish the rebuild, or its undoing, that was interrupted and `shown`. Returns and raises as `undo_rebuild`."""
    return in_chroot(root, partial(_if_kept, shown, partial(settle, write_code=write_code)))


def undo_rebuild(
    root: str,
    shown: Kept,
    write_code: WriteCode | None = None,
    *,
    prospect: Prospect,
    as_kept: bool = False,
) -> Restored:
    """Make of the system mounted at `root` what it was before the last rebuild; returns what `verify_undone` looks for.

    Args:
        shown: what was shown of it, as `kept_rebuilds` told.
        write_code: writes boot code that is kept to the system's disk.
        prospect: what was shown of it, as `undo_prospect` told.
        as_kept: bring back what is kept also where it is not what it was.

    Raises:
        NothingKept: when there is nothing to undo.
        TargetRefused: when boot code is kept, and nobody writes it; nothing was changed.
        TargetChanged: when it is not what was shown, or not all is there; nothing was changed.
        KeptDamaged: when it is not what it was; nothing was changed.
        TargetChanged, TargetFull, UnsafePath, DeviceError: it may be half way; the same again goes on.
    """

    def work(top: str) -> Restored:
        if look_undo(top) != prospect:
            raise _not_shown()
        return undo(top, write_code, as_kept=as_kept)

    return in_chroot(root, partial(_if_kept, shown, work))


def verify_undone(root: str, restored: Restored) -> None:
    """See that what was there before a rebuild is there again in the system mounted at `root`.

    Raises:
        ComparisonFailed: when it is not.
    """
    in_chroot(root, lambda: verify_restored("/", restored))


def commit_rebuilds(root: str, shown: Kept, write_code: WriteCode | None = None) -> Restored:
    """Remove all that rebuilds keep of the system before them. Returns and raises as `finish_rebuild`."""
    return in_chroot(root, partial(_if_kept, shown, partial(commit, write_code=write_code)))


def verify_committed(root: str) -> None:
    """See that nothing is kept any more.

    Raises:
        ComparisonFailed: when something is.
    """
    if kept_rebuilds(root) is not None:
        raise ComparisonFailed("something of what the disk was before a rebuild is still kept")


def _if_kept(shown: Kept, work: Callable[[str], Done]) -> Done:
    """Do something with what rebuilds keep of the system that this process is in, if it is what was shown."""
    if look_kept("/") != shown:
        raise _not_shown()
    return work("/")


def _not_shown() -> TargetChanged:
    return TargetChanged(
        "what rebuilds keep on this disk is not what was shown",
        hint="run the same command again",
    )


def _tree_plan(scope: Scope, payload: Payload, skip: frozenset[bytes]) -> tuple[TreePlan, str]:
    """What changes in the scope, and a digest of what it is now."""
    found = scan("/", scope, skip=skip)
    plan = plan_tree(found.scope, payload.tree, scope, found.outside, kept_folders("/"))
    return plan, hashlib.sha256(repr(found.scope).encode()).hexdigest()
