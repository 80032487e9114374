"""Runs clone plans, step by step, and remembers how far they are."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from etsclone.copying.job import CopyResult, Saver, copy_extents
from etsclone.copying.passes import CopyRun
from etsclone.copying.pieces import DIGEST_NAME, opened_digests
from etsclone.copying.state import CopyState
from etsclone.copying.verify import compare
from etsclone.copying.viewed import Viewed
from etsclone.copying.workers import Tuning
from etsclone.disk.device import (
    can_zero,
    check_identity,
    clear,
    flush,
    opened,
    read_bytes,
    write_bytes,
)
from etsclone.disk.images import announce_partitions, image_identity, is_image
from etsclone.disk.luks import Keys
from etsclone.disk.snapshots import check_snapshots
from etsclone.errors import (
    ComparisonFailed,
    DeviceError,
    EtscloneError,
    Interrupted,
    ReadBackDiffers,
    StateLost,
    TargetRefused,
    WritesLost,
)
from etsclone.model.extents import Extent, Extents
from etsclone.model.ids import Followed, Identify
from etsclone.model.mapfile import Mapfile, parse_mapfile
from etsclone.model.plan import (
    CheckSnapshots,
    Clear,
    ClonePlan,
    CloneStep,
    Copy,
    CopyMode,
    CreateImage,
    Erase,
    Grow,
    Seal,
    Unused,
    VerifyMode,
    Withhold,
)
from etsclone.model.view import View
from etsclone.model.write import Write
from etsclone.progress import Report, progress
from etsclone.store.clones import CloneFacts, CloneRecord, record_of
from etsclone.units import MIB

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CloneOutcome:
    """What a clone did.

    Times (UTC), bytes that were looked at, written, shared and lost, the hash over all digests, the mapfile with
    its sha256 (hex), and what became of the files that name identifiers, where those were changed.
    """

    started: datetime
    copied_at: datetime
    finished: datetime
    copied: int
    written: int
    shared: int
    lost: Extents
    digest: str
    tree_hash: str
    map_path: Path
    map_sha256: str
    followed: Followed | None = None


@dataclass(slots=True)
class _Clone:
    """The state of one clone while its steps run. The target is claimed when the first step needs it."""

    plan: ClonePlan
    tuning: Tuning
    shown: Report
    map_path: Path | None
    stack: contextlib.ExitStack
    source: int
    viewed: Viewed | None = None
    keys: Keys | None = None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    reads_zero: bool = False
    result: CopyResult | None = None
    followed: Followed | None = None
    _target: int | None = None
    _record: CloneRecord | None = None

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

    @property
    def record(self) -> CloneRecord:
        if self._record is None:
            path = self.plan.target.path
            identity = image_identity(path) if is_image(path) else self.plan.target.identity
            self._record = record_of(identity, self.map_path)
            self._record.make_folder()
            self.shown.mapfile = self._record.map_path
        return self._record

    @property
    def lost(self) -> Extents:
        """What is zeros on the target because the source could not be read."""
        return self.plan.unreadable | (self.result.lost if self.result else Extents())

    def begin(self) -> None:
        """Say in the record that the target is unfinished, and that nothing is done unless its copy goes on.

        An older record must not outlive the first write: what it vouches for is no longer there.
        """
        if self.plan.copy.mode is not CopyMode.RESUME:
            self.save_map(CopyState(self.plan.source.size).mapfile())
        self.remember(finished=False)

    def remember(self, *, finished: bool) -> None:
        """Say in the record which disks these are, and whether they are equal."""
        path = self.plan.target.path
        target = image_identity(path) if is_image(path) else self.plan.target.identity
        facts = CloneFacts(self.plan.source.identity, target, self.plan.fingerprint, finished)
        record = self.record
        with _kept("what is known of the clone", "make room there, then run it with --refresh"):
            record.save(facts)

    def save_map(self, mapfile: Mapfile) -> None:
        """Keep how far the copy is.

        Raises:
            StateLost: when it cannot be kept.
        """
        record = self.record  # that there can be one is found out before the first write
        with _kept("how far the clone is", "make room there, then go on with --resume"):
            record.save_map(mapfile.text())


@contextlib.contextmanager
def _kept(what: str, hint: str) -> Iterator[None]:
    # The target was written to: what its own errors would say, such as that nothing was changed, is not true here.
    try:
        yield
    except EtscloneError as error:
        raise StateLost(f"{what} cannot be kept: {error.message}", hint=hint) from error


def execute_clone(
    plan: ClonePlan,
    *,
    tuning: Tuning,
    shown: Report,
    map_path: Path | None = None,
    keys: Keys | None = None,
) -> CloneOutcome:
    """Run the steps of a clone plan.

    Args:
        plan: the plan, as it was shown.
        tuning: how the engine uses the machine.
        shown: who is told how far it is.
        map_path: where the mapfile goes; None for this machine's own record of the target.
        keys: what opens encrypted volumes in which files are to be changed.

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
        viewed = stack.enter_context(_opened_view(plan.view)) if plan.view else None
        clone = _Clone(plan, tuning, shown, map_path, stack, source, viewed, keys)
        shown.expected = _phases(plan)
        try:
            for step in plan.steps:
                _run(step, clone)
            clone.remember(finished=not clone.lost.ranges)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(
                f"interrupted: {plan.target.path} is unfinished and will not boot",
                hint="run the same command again with --resume to go on",
            ) from interrupt
    return _outcome(clone)


@contextlib.contextmanager
def _opened_view(view: View) -> Iterator[Viewed]:
    with contextlib.ExitStack() as stack:
        snapshots = {
            device: stack.enter_context(opened(device, writable=False)) for device in view.devices
        }
        yield Viewed(view, snapshots, lambda: check_snapshots(view.devices))


def compare_clone(plan: ClonePlan, *, tuning: Tuning, shown: Report) -> Extents:
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


def _outcome(clone: _Clone) -> CloneOutcome:
    finished, result = datetime.now(UTC), clone.result
    return CloneOutcome(
        started=clone.started,
        copied_at=result.copied_at if result else finished,
        finished=finished,
        copied=clone.plan.copied.size,
        written=result.written if result else 0,
        shared=result.shared if result else 0,
        lost=clone.lost,
        digest=DIGEST_NAME,
        tree_hash=result.tree_hash if result else "",
        map_path=clone.record.map_path,
        map_sha256=hashlib.sha256((clone.record.load_map() or "").encode()).hexdigest(),
        followed=clone.followed,
    )


def _phases(plan: ClonePlan) -> tuple[str, ...]:
    """The phases that are certain to come: bad sectors may add one."""
    cleared = any(isinstance(step, Clear) for step in plan.steps)
    copied = "refreshing" if plan.copy.mode is CopyMode.REFRESH else "copying"
    if plan.copy.share:  # what little cannot be shared is copied in no time
        return (*["clearing"] * cleared, "sharing")
    verified = plan.copy.verify is not VerifyMode.NONE
    return (*["clearing"] * cleared, copied, *["verifying"] * verified)


def _run(step: CloneStep, clone: _Clone) -> None:
    logger.info("step: %s", type(step).__name__)
    match step:
        case CreateImage():
            _create_image(step)
            clone.reads_zero = True
        case Erase():
            _erase(step, clone)
        case Clear():
            _clear(step, clone)
        case Copy():
            with _told_where(clone.plan):
                _copy(step, clone)
        case CheckSnapshots():
            check_snapshots(step.devices)
        case Grow():
            _grow(step, clone)
        case Identify():
            _identify(step, clone)
        case Seal():
            seal(step, clone.target)
        case Withhold():
            _withhold(step, clone)


@contextlib.contextmanager
def _told_where(plan: ClonePlan) -> Iterator[None]:
    try:
        yield
    except ReadBackDiffers as error:
        place = plan.source.where(error.start, error.end)
        raise ComparisonFailed(
            f"{plan.target.path} differs from what was written to {place}", hint=error.hint
        ) from error


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
    target = clone.target
    clone.begin()
    erase(step, target, clone.plan.target.size)
    clone.reads_zero = clone.reads_zero or step.empty


def erase(step: Erase, target: int, size: int) -> None:
    """Zero what a step says of a target (open for writing) of `size` bytes, for good.

    Raises:
        DeviceError: when it cannot be written.
    """
    if step.empty:
        os.ftruncate(target, 0)
        os.ftruncate(target, size)
    else:
        for extent in step.extents:
            for start in range(extent.start, extent.end, MIB):
                write_bytes(target, start, bytes(min(MIB, extent.end - start)))
    # What follows may take hours: from the first moment on the old table must be gone for good.
    flush(target)


def _clear(step: Clear, clone: _Clone) -> None:
    with progress("clearing", step.extents.size, shown=clone.shown) as advance:
        for extent in step.extents:
            clear(clone.target, clone.plan.target.path, extent, keep_space=step.how is Unused.WIPE)
            advance(extent.size)


def _copy(step: Copy, clone: _Clone) -> None:
    plan, record = clone.plan, clone.record
    earlier = record.load_map() if step.mode is CopyMode.RESUME else None
    keep = step.mode is not CopyMode.NEW
    with opened_digests(record.digests_path, step.extents, keep=keep) as digests:
        for other in plan.steps:
            # What an earlier clone brought there is gone, although the source may hold it again one day.
            if isinstance(other, Erase | Clear):
                digests.forget_all(other.extents)
        state = CopyState(plan.source.size, parse_mapfile(earlier) if earlier else None)
        run = CopyRun(
            clone.source,
            clone.target,
            digests,
            state,
            clone.tuning,
            clone.reads_zero,
            target_zeroes=can_zero(clone.target),
        )
        saver = Saver(run, clone.save_map)
        try:
            clone.result = copy_extents(
                replace(run, tick=saver.tick, viewed=clone.viewed),
                step,
                sector_size=plan.source.sector_size,
                flush=flush,
                shown=clone.shown,
            )
        except WritesLost:
            # It is told once: the next flush succeeds, and would make the map vouch for what is not there.
            raise
        except BaseException:
            # A target that is gone cannot vouch for its last writes: then the state saved before stands.
            with contextlib.suppress(OSError, EtscloneError):
                saver.save()
            raise
        saver.save()


def _grow(step: Grow, clone: _Clone) -> None:
    from etsclone.execute.grow import forget, grow  # noqa: PLC0415 - only `--grow` pays for it

    forget(clone.plan, step.spoiled, clone.record)
    grow(step, clone.plan, clone.target)


def _identify(step: Identify, clone: _Clone) -> None:
    from etsclone.execute.grow import forget  # noqa: PLC0415 - only `--new-ids` pays for it
    from etsclone.execute.ids import identify  # noqa: PLC0415

    forget(clone.plan, step.spoiled, clone.record)
    clone.followed = identify(step, clone.plan, clone.target, clone.keys)


def _withhold(step: Withhold, clone: _Clone) -> None:
    from etsclone.execute.quarantine import withhold  # noqa: PLC0415 - only `--quarantine` pays

    withhold(step, clone.plan, clone.target)


def seal(step: Seal, target: int) -> None:
    """Write what a step says to a target (open for writing), and read it back.

    Raises:
        DeviceError: when it cannot be written.
        ComparisonFailed: when the target holds something else then.
    """
    for write in step.writes:
        write_bytes(target, write.offset, write.data)
        flush(target)
        if read_bytes(target, _extent(write)) != write.data:
            raise ComparisonFailed(
                f"the {write.what} of the target differs from what was written",
                hint="use another disk",
            )


def _extent(write: Write) -> Extent:
    return Extent(write.offset, write.offset + len(write.data))
