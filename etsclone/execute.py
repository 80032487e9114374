"""Runs plans: the only interpreter of plan steps. Each step is one short function that calls the worker for it."""

import contextlib
import logging
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime

from etsclone.chroot import in_chroot
from etsclone.copying.blocks import DIGEST_NAME
from etsclone.copying.engine import Tuning, compare, copy, read_back
from etsclone.disk.device import check_identity, flush, opened, read_bytes, write_bytes
from etsclone.disk.images import announce_partitions
from etsclone.errors import ComparisonFailed, DeviceError, Interrupted, TargetChanged, TargetRefused
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import ClonePlan, CloneStep, Copy, CreateImage, Erase, Seal, Write
from etsclone.model.scope import Scope
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.payload import Payload
from etsclone.overlay.scan import scan
from etsclone.plan.tree import TreePlan, plan_tree
from etsclone.progress import progress
from etsclone.units import MIB

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CloneOutcome:
    """What a finished clone did: times (UTC), bytes copied and read back, and the hash over all their digests."""

    started: datetime
    copied_at: datetime
    finished: datetime
    copied: int
    digest: str
    tree_hash: str


@dataclass(slots=True)
class _Clone:
    """The state of one clone while its steps run. The target is claimed when the first step needs it."""

    plan: ClonePlan
    tuning: Tuning
    shown: bool
    stack: contextlib.ExitStack
    source: int
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    copied_at: datetime | None = None
    tree_hash: str = ""
    _target: int | None = None

    @property
    def target(self) -> int:
        if self._target is None:
            target = self.plan.target
            if target.exists:
                check_identity(target.identity)
            self._target = self.stack.enter_context(opened(target.path, writable=True))
            if target.exists:
                # Only now that the disk is claimed can its identity no longer change behind our back.
                check_identity(target.identity)
        return self._target


def execute_clone(plan: ClonePlan, *, tuning: Tuning, shown: bool) -> CloneOutcome:
    """Run the steps of a clone plan.

    Args:
        plan: the plan, as it was shown.
        tuning: how the engine uses the machine.
        shown: whether progress goes to stderr.

    Raises:
        TargetChanged, TargetRefused: before anything was written.
        DeviceError, ComparisonFailed, Interrupted: the target is unfinished: it has no partition table.
    """
    with contextlib.ExitStack() as stack:
        if plan.target.identity.device is not None:
            # Also when it ends early: no node of an old partition may outlive the old table.
            stack.callback(announce_partitions, plan.target.path)
        check_identity(plan.source.identity)
        source = stack.enter_context(opened(plan.source.path, writable=False))
        clone = _Clone(plan, tuning, shown, stack, source)
        try:
            for step in plan.steps:
                _clone_step(step, clone)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(
                f"interrupted: {plan.target.path} is unfinished and will not boot",
                hint="run the same command again",
            ) from interrupt
    finished = datetime.now(UTC)
    return CloneOutcome(
        clone.started,
        clone.copied_at or finished,
        finished,
        plan.copied.size,
        DIGEST_NAME,
        clone.tree_hash,
    )


def compare_clone(plan: ClonePlan, *, tuning: Tuning, shown: bool) -> Extents:
    """Compare source and target over all that the plan would write, and return the bytes that differ.

    Raises:
        DeviceError: when a disk cannot be read.
    """
    with (
        opened(plan.source.path, writable=False) as source,
        opened(plan.target.path, writable=False) as target,
        progress("comparing", plan.copied.size, shown=shown) as advance,
    ):
        different = compare(source, target, plan.copied, tuning=tuning, advance=advance)
        seals = [write for step in plan.steps if isinstance(step, Seal) for write in step.writes]
        unsealed = [
            _extent(write) for write in seals if read_bytes(target, _extent(write)) != write.data
        ]
        return different | Extents.of(unsealed)


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


def _clone_step(step: CloneStep, clone: _Clone) -> None:
    logger.info("step: %s", type(step).__name__)
    match step:
        case CreateImage():
            _create_image(step)
        case Erase():
            _erase(step, clone)
        case Copy():
            _copy(step, clone)
        case Seal():
            _seal(step, clone)


def _create_image(step: CreateImage) -> None:
    try:
        descriptor = os.open(step.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise TargetRefused(
            f"{step.path} appeared since the plan was made", hint="start again"
        ) from error
    except OSError as error:
        raise DeviceError(f"{step.path} cannot be created: {error.strerror}") from error
    try:
        os.truncate(descriptor, step.size)
    except OSError as error:
        os.unlink(step.path)
        raise DeviceError(
            f"{step.path} cannot be given {step.size} bytes: {error.strerror}",
            hint="does its filesystem take files of that size?",
        ) from error
    finally:
        os.close(descriptor)


def _erase(step: Erase, clone: _Clone) -> None:
    for extent in step.extents:
        for start in range(extent.start, extent.end, MIB):
            write_bytes(clone.target, start, bytes(min(MIB, extent.end - start)))
    # What follows may take hours: from the first moment on the old table must be gone for good.
    flush(clone.target)


def _copy(step: Copy, clone: _Clone) -> None:
    size, tuning = step.extents.size, clone.tuning
    with progress("copying", size, shown=clone.shown) as advance:
        digests = copy(
            clone.source,
            clone.target,
            step.extents,
            tuning=tuning,
            target_is_zero=not clone.plan.target.exists,
            advance=advance,
        )
    flush(clone.target)
    clone.copied_at = datetime.now(UTC)
    with progress("verifying", size, shown=clone.shown) as advance:
        read_back(clone.target, digests, tuning=tuning, advance=advance)
    clone.tree_hash = digests.tree_hash()


def _seal(step: Seal, clone: _Clone) -> None:
    for write in step.writes:
        write_bytes(clone.target, write.offset, write.data)
        flush(clone.target)
        if read_bytes(clone.target, _extent(write)) != write.data:
            raise ComparisonFailed(
                f"the {write.what} of the target differs from what was written",
                hint="use another disk",
            )


def _extent(write: Write) -> Extent:
    return Extent(write.offset, write.offset + len(write.data))
