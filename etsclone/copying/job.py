"""A whole copy: the passes, the rescue of what is hard to read, the verification, and the state kept on the way."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from etsclone.copying.access import small_blocks
from etsclone.copying.passes import CopyRun, copy_pass
from etsclone.copying.reflink import same_blocks, share
from etsclone.copying.refresh import check_samples, refresh
from etsclone.copying.rescue import blank, rescue
from etsclone.copying.sparse import common_holes, skip_holes
from etsclone.copying.verify import read_back
from etsclone.errors import ComparisonFailed, StateLost, WritesLost
from etsclone.model.extents import Extents
from etsclone.model.mapfile import BlockStatus, Mapfile
from etsclone.model.plan import PIECE, Copy, CopyMode, VerifyMode
from etsclone.progress import Report, progress

SECONDS_BETWEEN_SAVES = 15.0


@dataclass(slots=True)
class Saver:
    """Saves the state of a copy now and then, so that what was done survives the process and the machine.

    The order matters: the target's writes are durable before the digests that vouch for them, and both before the
    mapfile that says they are done.
    """

    run: CopyRun
    save_map: Callable[[Mapfile], None]
    _saved_at: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Save when it is time to."""
        if time.monotonic() - self._saved_at >= SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Save now.

        Raises:
            WritesLost: when what was written to the target turns out to be lost.
            StateLost: when the state cannot be kept.
        """
        # What is marked while the target is flushed is not covered by the flush: the state comes first.
        mapfile = self.run.state.mapfile()
        try:
            os.fsync(self.run.target)
        except OSError as error:
            raise WritesLost(
                f"writes to the target were lost: {error.strerror}", hint=WritesLost.HINT
            ) from error
        try:
            self.run.digests.sync()
        except OSError as error:
            raise StateLost(
                f"the digests cannot be kept: {error.strerror}",
                hint="look at the disk of the state folder, or give --map; then go on with --resume",
            ) from error
        self.save_map(mapfile)
        self._saved_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What was written, what shares the source's blocks instead, what could not be read (and is zeros on the target).

    `tree_hash` is over all digests; empty when blocks are shared, of which there are none.
    """

    written: int
    shared: int
    lost: Extents
    copied_at: datetime
    tree_hash: str


def copy_extents(
    run: CopyRun, step: Copy, *, sector_size: int, flush: Callable[[int], None], shown: Report
) -> CopyResult:
    """Copy (or go on with, or refresh) the extents of a step, and verify them as it says.

    Args:
        run: descriptors, digests and state; its `advance` is replaced for each phase.
        step: what to copy and how.
        sector_size: the source's, in bytes.
        flush: makes a descriptor's writes durable and drops what is cached of it.
        shown: who is told how far it is.

    Raises:
        ComparisonFailed: when the target does not hold what was written.
        DeviceError: when the target cannot be written, or a disk is gone.
    """
    given = _given(run, step, shown=shown)
    if step.mode is CopyMode.REFRESH:
        written, lost = _refresh(run, step, given, shown=shown), Extents()
        changed = written | given
    else:
        written, lost = _copy(run, step, sector_size=sector_size, shown=shown)
        changed = step.extents  # what an earlier run wrote was not verified yet
    flush(run.target)
    copied_at = datetime.now(UTC)
    if step.verify is not VerifyMode.NONE:
        full = step.verify is VerifyMode.FULL
        checked = (step.extents if full else changed) - lost
        proved = Extents() if full else _proved(run, checked, shared=step.share)
        with progress("verifying", checked.size, shown=shown, done=proved.size) as advance:
            checking = replace(run, advance=advance)
            torn = (checked - proved) & lost.aligned(PIECE, run.state.size)
            read_back(checking, checked - proved - torn, full=full)
            if torn.ranges:  # beside what is lost there are single sectors to look at
                with small_blocks(run.source, sector_size), small_blocks(run.target, sector_size):
                    read_back(checking, torn, full=full)
    shared = given.size if step.share else 0
    tree_hash = "" if shared else run.digests.tree_hash(step.extents)
    return CopyResult(written.size, shared, lost, copied_at, tree_hash)


def _given(run: CopyRun, step: Copy, *, shown: Report) -> Extents:
    """What the target holds without a copy: shared blocks, or holes of both files."""
    if run.viewed is not None:  # what a snapshot shows may not be where the file has a hole
        return Extents()
    if not step.share:
        return skip_holes(run, run.state.not_tried(step.extents))
    with progress("sharing", step.extents.size, shown=shown) as advance:
        return share(replace(run, advance=advance), step.extents)


def _proved(run: CopyRun, checked: Extents, *, shared: bool) -> Extents:
    """What need not be read to know that it is the same on both sides."""
    if run.viewed is not None:
        return Extents()
    proof = same_blocks if shared else common_holes
    # Of a piece that is proved in part, the rest has no digest of its own.
    return proof(run.source, run.target, checked).shrunk(PIECE)


def _copy(run: CopyRun, step: Copy, *, sector_size: int, shown: Report) -> tuple[Extents, Extents]:
    before = run.state.area(BlockStatus.FINISHED) & step.extents
    todo = run.state.not_tried(step.extents)
    with progress("copying", step.extents.size, shown=shown, done=before.size) as advance:
        advance(0, (step.extents - before - todo).size)
        copy_pass(replace(run, advance=advance), todo)
    rest = step.extents - run.state.area(BlockStatus.FINISHED)
    with progress("rescuing", rest.size, shown=shown) as advance:
        rescuing = replace(run, advance=advance)
        lost = rescue(rescuing, step.extents, sector_size=sector_size, retries=step.retries)
    blank(run, lost, sector_size=sector_size)
    return step.extents - before - lost, lost


def _refresh(run: CopyRun, step: Copy, given: Extents, *, shown: Report) -> Extents:
    believed, rest = step.digests_kept, step.extents - given
    if believed:
        try:
            check_samples(run, rest, step.marks)
        except ComparisonFailed:
            believed = False
    with progress("refreshing", step.extents.size, shown=shown, done=given.size) as advance:
        return refresh(replace(run, advance=advance), rest, believed=believed)
