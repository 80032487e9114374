"""Bringing an old clone up to date: only the pieces that changed are written."""

import itertools
import random
import threading

from etsclone.copying.access import read_block, write_block
from etsclone.copying.blocks import Blocks
from etsclone.copying.passes import CopyRun, RateLimit
from etsclone.copying.pieces import digests_of
from etsclone.copying.verify import differing_pieces, has_unknown
from etsclone.copying.workers import for_each_block
from etsclone.errors import ComparisonFailed
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus

SAMPLES = 64
"""How many blocks of the target are looked at before its kept digests are believed."""


def check_samples(run: CopyRun, extents: Extents, marks: Extents) -> None:
    """Read some blocks of the target and compare them with the kept digests.

    They are taken at random, and all that `marks` touches: where a filesystem that was mounted shows it.

    Raises:
        ComparisonFailed: when the target is not as the last clone left it.
        DeviceError: when it cannot be read.
    """
    blocks = Blocks(extents, run.tuning.block_size)
    chosen = set(random.sample(range(len(blocks)), min(SAMPLES, len(blocks))))
    firsts = {extent.start for extent in extents.ranges[:SAMPLES]}

    def work(block: Extent, buffer: memoryview) -> None:
        known = run.digests.known(block)
        if has_unknown(known):
            return
        read_block(run.target, block, buffer, "target")
        if digests_of(block, buffer) != known:
            raise ComparisonFailed(
                f"the target is not as the last clone left it, at bytes {block.start} to {block.end}"
            )

    sampled = (
        block for number, block in enumerate(blocks) if number in chosen or block.start in firsts
    )
    marked = Blocks(extents & marks, run.tuning.block_size)
    for_each_block(itertools.chain(marked, sampled), work, run.tuning, tick=run.tick)


def refresh(run: CopyRun, extents: Extents, *, believed: bool) -> Extents:
    """Read `extents` of the source, write the pieces that differ, and return what was written.

    Args:
        run: the copy.
        extents: what matters of the source now.
        believed: compare with the kept digests; otherwise the target is read, and compared with.

    Raises:
        DeviceError: when the source cannot be read or the target not be read or written.
    """
    written: list[Extent] = []
    lock = threading.Lock()
    limit = RateLimit(run.tuning.rate_limit)

    def work(block: Extent, buffer: memoryview) -> None:
        limit.wait(block.size)
        if believed:
            known = run.digests.known(block)
        else:
            read_block(run.target, block, buffer, "target")
            known = digests_of(block, buffer)
        run.read_source(block, buffer)
        changed = differing_pieces(block, known, run.digests.take(block, buffer))
        for extent in Extents.of(changed):
            with buffer[extent.start - block.start : extent.end - block.start] as part:
                write_block(run.target, extent, part)
        with lock:
            written.extend(changed)
        run.state.mark(block, BlockStatus.FINISHED)
        run.advance(block.size)

    for_each_block(Blocks(extents, run.tuning.block_size), work, run.tuning, tick=run.tick)
    return Extents.of(written)
