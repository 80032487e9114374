"""Runs rebuild plans, in a process inside the clone."""

from dataclasses import dataclass

from etsclone.chroot import in_chroot
from etsclone.errors import TargetChanged
from etsclone.model.scope import Scope
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.payload import Payload
from etsclone.overlay.scan import scan
from etsclone.plan.tree import TreePlan, plan_tree


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What changes in the tree of a clone, and where the content comes from."""

    tree: TreePlan
    scope: Scope
    payload: Payload


def plan_rebuild(root: str, scope: Scope, payload: Payload, skip: frozenset[bytes]) -> RebuildPlan:
    """Scan the system mounted at `root` from inside, and plan how its scope becomes the payload's.

    Raises:
        ScopeConflict, UnsafePath: when that cannot be done within the scope.
    """
    return RebuildPlan(in_chroot(root, lambda: _tree_plan(scope, payload, skip)), scope, payload)


def execute_rebuild(root: str, plan: RebuildPlan, skip: frozenset[bytes]) -> None:
    """Execute a plan in the system mounted at `root`, from inside, if it still fits what is there.

    Raises:
        TargetChanged: when the scope is not as it was when the plan was made; nothing was written.
        TargetFull, UnsafePath, DeviceError: the scope may be half way; planning and executing again completes it.
    """

    def work() -> None:
        if _tree_plan(plan.scope, plan.payload, skip) != plan.tree:
            raise TargetChanged(
                "the clone changed since the plan was shown", hint="run the same command again"
            )
        apply_plan("/", plan.tree, plan.payload)

    in_chroot(root, work)


def verify_rebuild(root: str, plan: RebuildPlan, skip: frozenset[bytes]) -> None:
    """Read the scope of the system mounted at `root` from inside.

    Raises:
        ComparisonFailed: when it is not exactly what the payload holds.
    """
    in_chroot(root, lambda: verify_scope("/", plan.payload.tree, plan.scope, skip=skip))


def _tree_plan(scope: Scope, payload: Payload, skip: frozenset[bytes]) -> TreePlan:
    seen = scan("/", scope, skip=skip)
    return plan_tree(seen.scope, payload.tree, scope, seen.outside)
