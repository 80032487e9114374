"""The copy itself: one pass over blocks, in either direction, with several workers."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from etsclone.copying.access import read_block, write_block, zero_block
from etsclone.copying.blocks import Blocks
from etsclone.copying.pieces import DIGEST_SIZE, PieceDigests, digests_of
from etsclone.copying.state import CopyState
from etsclone.copying.viewed import Viewed
from etsclone.copying.workers import Tuning, for_each_block
from etsclone.errors import ReadFailed
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus
from etsclone.progress import Advance
from etsclone.units import GIB, MIB


def _nobody(*_: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class CopyRun:
    """All that the passes of one copy share: open descriptors, what is known so far, and whom to tell.

    `target_is_zero`: it reads as zeros where nothing was written; `target_zeroes`: it makes zeros when it is told to.
    `tick` is called about once a second, in the thread that started the copy. `viewed` is set where bytes of the source
    are to be read elsewhere.
    """

    source: int
    target: int
    digests: PieceDigests
    state: CopyState
    tuning: Tuning
    target_is_zero: bool
    advance: Advance = _nobody
    tick: Callable[[], None] = _nobody
    target_zeroes: bool = False
    viewed: Viewed | None = None

    def read_source(self, block: Extent, buffer: memoryview) -> None:
        """Fill `buffer` with a block's bytes.

        Raises:
            ReadFailed: when some of it cannot be read.
            DeviceError: when the source ends early, or it or a snapshot of it is gone.
        """
        if self.viewed is None:
            read_block(self.source, block, buffer, "source")
        else:
            self.viewed.read(self.source, block, buffer)


def copy_pass(run: CopyRun, extents: Extents, *, backward: bool = False) -> None:
    """Copy `extents` to the same places of the target, keep their digests, and mark what became of them.

    What cannot be read is marked and left. Forward, the pass also jumps ahead, further after each error, and leaves
    what it jumped over not tried; backward it tries everything.

    Raises:
        DeviceError: when the target cannot be written, or a disk is gone.
    """
    blocks = Blocks(extents, run.tuning.block_size)
    queue = _Backward(blocks) if backward else _Forward(blocks)
    zeros = Zeros(run.tuning.block_size)
    limit = RateLimit(run.tuning.rate_limit)

    def work(block: Extent, buffer: memoryview) -> None:
        limit.wait(block.size)
        try:
            run.read_source(block, buffer)
        except ReadFailed:
            run.state.mark(block, BlockStatus.NOT_TRIMMED)
            run.advance(0, block.size)
            queue.failed(block)
            return
        found = run.digests.take(block, buffer)
        if not zeros.match(found, buffer):
            write_block(run.target, block, buffer)
        elif not run.target_is_zero:
            zero_block(run.target, block, buffer, by_command=run.target_zeroes)
        run.state.mark(block, BlockStatus.FINISHED)
        run.advance(block.size)

    for_each_block(queue, work, run.tuning, tick=run.tick)


class _Forward:
    """Blocks in order, jumping ahead after each error: on a dying disk, what is easy to read comes first."""

    _FIRST_JUMP = MIB
    _LAST_JUMP = GIB

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = iter(blocks)
        self._resume_at = 0
        self._jump = self._FIRST_JUMP

    def __iter__(self) -> Iterator[Extent]:
        for block in self._blocks:
            if block.start >= self._resume_at:
                yield block

    def failed(self, block: Extent) -> None:
        self._resume_at = max(self._resume_at, block.end + self._jump)
        self._jump = min(2 * self._jump, self._LAST_JUMP)


class _Backward:
    """Blocks from the last to the first."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[Extent]:
        for number in range(len(self._blocks) - 1, -1, -1):
            yield self._blocks[number]

    def failed(self, _block: Extent) -> None:
        """Nothing is left out on the way back."""


class RateLimit:
    """Lets so many bytes a second pass, over all threads."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def wait(self, size: int) -> None:
        """Return when `size` more bytes are within the rate."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._rate
            pause = self._free_at - now
        time.sleep(pause)


class Zeros:
    """Recognises blocks of zeros by their digests, and then for certain by their bytes."""

    def __init__(self, block_size: int) -> None:
        self._zeros = bytes(block_size)
        self._piece = digests_of(Extent(0, block_size), memoryview(self._zeros))[:DIGEST_SIZE]

    def match(self, found: bytes, buffer: memoryview) -> bool:
        """Whether `buffer`, whose pieces have the digests `found`, holds zeros only."""
        # A digest that is not cryptographic can be forged; the bytes cannot.
        likely = found == self._piece * (len(found) // DIGEST_SIZE) or len(buffer) < len(
            self._zeros
        )
        return likely and bytes(buffer) == self._zeros[: len(buffer)]
