"""Which paths change hands in a rebuild: only the topmost, since a folder comes and goes with all that it holds."""

from collections.abc import Collection
from dataclasses import dataclass

from etsclone.model.tree import ancestors, parent_of
from etsclone.plan.tree import MADE, Action, TreePlan


@dataclass(frozen=True, slots=True)
class Handover:
    """A path whose thing is moved aside (`old`), and where a new one takes its place (`new`); at least one of them."""

    path: bytes
    old: bool
    new: bool


def handovers(plan: TreePlan, edited: Collection[bytes] = ()) -> tuple[Handover, ...]:
    """The topmost paths that change hands: first what only goes, each part in byte order.

    On a filesystem that folds names, `hosts` must be gone before `Hosts` can come.

    Args:
        plan: what of it is a folder that stays (retouched) does not change hands.
        edited: files that get another content on top of the plan.
    """
    removed = {change.path for change in plan.changes if change.action is Action.REMOVE}
    replaced = {change.path for change in plan.changes if change.action is Action.REPLACE}
    made = {change.path for change in plan.changes if change.action in MADE}
    old, new = removed.union(replaced, edited), made.union(edited)
    return tuple(
        Handover(path, path in old, path in new)
        for path in (*sorted(old - new), *sorted(new))
        if not (parent_of(path) in made or parent_of(path) in removed)
    )


def below(path: bytes, tops: Collection[bytes]) -> bytes:
    """The one of some topmost paths that is, or that leads to, `path`.

    Raises:
        KeyError: when none of them is.
    """
    for each in (path, *ancestors(path)):
        if each in tops:
            return each
    raise KeyError(path)
