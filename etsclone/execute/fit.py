"""Runs fit plans: a smaller target gets filesystems of its own, and the source's files."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from etsclone.copying.job import copy_extents
from etsclone.copying.passes import CopyRun
from etsclone.copying.pieces import opened_digests
from etsclone.copying.state import CopyState
from etsclone.copying.workers import Tuning
from etsclone.disk import makefs, trees
from etsclone.disk.device import check_identity, flush, opened
from etsclone.disk.images import announce_partitions, window
from etsclone.disk.system import mounted_alone
from etsclone.errors import ComparisonFailed, DeviceError, Interrupted
from etsclone.execute.clone import erase, seal
from etsclone.model.extents import Extent, Extents
from etsclone.model.fit import (
    CheckFilesystem,
    CopyBlocks,
    CopyFiles,
    FitPlan,
    FitStep,
    MakeFilesystem,
    Place,
)
from etsclone.model.plan import Copy, Erase, Seal
from etsclone.progress import Report
from etsclone.store.clones import CloneFacts, record_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitOutcome:
    """When a fit began and ended (UTC), and the bytes of the source that could not be read."""

    started: datetime
    finished: datetime
    lost: Extents


@dataclass(slots=True)
class _Fit:
    """The state of one fit while its steps run; `source` and `target` are open descriptors, the target's claimed."""

    plan: FitPlan
    tuning: Tuning
    shown: Report
    source: int
    target: int
    lost: list[Extent] = field(default_factory=list)


def execute_fit(plan: FitPlan, *, tuning: Tuning, shown: Report) -> FitOutcome:
    """Run the steps of a fit plan.

    Raises:
        TargetChanged, TargetRefused: before anything was written.
        DeviceError, CommandFailed, TargetFull, ComparisonFailed, Interrupted: the target has no partition table.
    """
    started = datetime.now(UTC)
    with contextlib.ExitStack() as stack:
        if plan.target.identity.device is not None:
            stack.callback(announce_partitions, plan.target.path)
        check_identity(plan.source.identity)
        check_identity(plan.target.identity)
        source = stack.enter_context(opened(plan.source.path, writable=False))
        target = stack.enter_context(opened(plan.target.path, writable=True))
        # Only now that the disk is claimed can its identity no longer change behind our back.
        check_identity(plan.target.identity)
        fit = _Fit(plan, tuning, shown, source, target)
        try:
            for step in plan.steps:
                logger.info("step: %s", type(step).__name__)
                _run(step, fit)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(
                f"interrupted: {plan.target.path} is unfinished and will not boot",
                hint="run the same command again: with --fit it begins anew",
            ) from interrupt
    return FitOutcome(started, datetime.now(UTC), Extents.of(fit.lost))


def _run(step: FitStep, fit: _Fit) -> None:
    match step:
        case Erase():
            _forget_earlier(fit.plan)
            erase(step, fit.target, fit.plan.target.size)
        case Copy():
            fit.lost += _copied(step, fit, fit.source, fit.target, fit.plan.source.size).ranges
        case CopyBlocks():
            _copy_blocks(step, fit)
        case MakeFilesystem():
            with _window(fit, step.place, writable=True) as device:
                makefs.make(device, step.recipe, step.place.extent.size)
        case CopyFiles():
            _copy_files(step, fit)
        case CheckFilesystem():
            _check(step, fit)
        case Seal():
            seal(step, fit.target)


def _forget_earlier(plan: FitPlan) -> None:
    """What the record of an earlier clone vouches for is no longer there."""
    record = record_of(plan.target.identity)
    record.make_folder()
    record.save_map(CopyState(plan.source.size).mapfile().text())
    target = plan.target.identity
    record.save(CloneFacts(plan.source.identity, target, plan.fingerprint, finished=False))


def _copy_blocks(step: CopyBlocks, fit: _Fit) -> None:
    part = step.place.partition
    whole = Extent(part.start, part.end)
    with (
        window(fit.plan.source.path, whole, fit.plan.source.sector_size) as old,
        _window(fit, step.place, writable=True) as new,
        opened(old, writable=False) as source,
        opened(new, writable=True) as target,
    ):
        copy = Copy(step.extents)
        lost = _copied(copy, fit, source, target, part.size)
    fit.lost += lost.shifted(part.start).ranges
    flush(fit.target)


def _copied(step: Copy, fit: _Fit, source: int, target: int, size: int) -> Extents:
    """Copy and read back; the bytes that could not be read are returned."""
    with opened_digests(None, step.extents, keep=False) as digests:
        run = CopyRun(source, target, digests, CopyState(size), fit.tuning, target_is_zero=False)
        sector = fit.plan.source.sector_size
        return copy_extents(run, step, sector_size=sector, flush=flush, shown=fit.shown).lost


def _copy_files(step: CopyFiles, fit: _Fit) -> None:
    with (
        _source_tree(fit, step.place) as source,
        _window(fit, step.place, writable=True) as device,
        mounted_alone(device, step.recipe.kind, writable=True) as target,
    ):
        trees.copy_tree(source, target, step.place.data, shown=fit.shown)
    flush(fit.target)


def _check(step: CheckFilesystem, fit: _Fit) -> None:
    # Flushed, and through another window: what is compared comes from the disk.
    flush(fit.target)
    with _window(fit, step.place, writable=False) as device:
        makefs.check(device, step.recipe, step.place.extent.size)
        if step.recipe.kind == "swap":
            return
        with (
            _source_tree(fit, step.place) as source,
            mounted_alone(device, step.recipe.kind, writable=False) as target,
        ):
            try:
                trees.compare_trees(source, target)
            except OSError as error:
                raise DeviceError(
                    f"partition {step.place.partition.number} cannot be compared: {error.strerror}",
                    hint="one of the disks cannot be read",
                ) from error
            except ComparisonFailed as error:
                raise ComparisonFailed(
                    f"partition {step.place.partition.number}: {error.message}", hint=error.hint
                ) from error


def _window(fit: _Fit, place: Place, *, writable: bool) -> contextlib.AbstractContextManager[str]:
    plan = fit.plan
    return window(plan.target.path, place.extent, plan.source.sector_size, writable=writable)


@contextlib.contextmanager
def _source_tree(fit: _Fit, place: Place) -> Iterator[str]:
    part, source = place.partition, fit.plan.source
    with (
        window(source.path, Extent(part.start, part.end), source.sector_size) as device,
        mounted_alone(device, part.content.type, writable=False) as folder,
    ):
        yield folder
