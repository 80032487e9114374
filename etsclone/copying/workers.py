"""Several threads that take blocks from one queue. The system calls release the interpreter lock, so they overlap."""

import mmap
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from etsclone.model.extents import Extent
from etsclone.units import MIB

_SECONDS_BETWEEN_TICKS = 1.0

Work = Callable[[Extent, memoryview], None]


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a copy uses the machine.

    Bytes in a block, a multiple of `model.plan.PIECE`; blocks under way at a time; bytes a second, None for no limit.
    """

    block_size: int = MIB
    workers: int = 4
    rate_limit: int | None = None


def for_each_block(
    blocks: Iterable[Extent],
    work: Work,
    tuning: Tuning,
    *,
    tick: Callable[[], None] | None = None,
) -> None:
    """Call `work(block, buffer)` for every block, with `tuning.workers` calls at a time.

    Each thread has one page-aligned buffer of `tuning.block_size` bytes, as O_DIRECT wants it. Blocks are taken in
    order. The first exception (also ^C in the calling thread) stops all workers after their current block and is
    raised. Meanwhile the calling thread calls `tick` about once a second.
    """
    queue = _Queue(blocks)
    threads = [
        threading.Thread(target=_serve, args=(queue, work, tuning.block_size), daemon=True)
        for _ in range(tuning.workers)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_SECONDS_BETWEEN_TICKS)
                if tick is not None and thread.is_alive():
                    tick()
    finally:
        # ^C lands in join: the workers must be at rest before anybody closes their files.
        queue.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if queue.error is not None:
        raise queue.error


class _Queue:
    """Blocks handed out one at a time, until they or the patience end."""

    def __init__(self, blocks: Iterable[Extent]) -> None:
        self._blocks = iter(blocks)
        self._lock = threading.Lock()
        self._stopped = False
        self.error: BaseException | None = None

    def take(self) -> Extent | None:
        with self._lock:
            return None if self._stopped else next(self._blocks, None)

    def stop(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._stopped = True
            self.error = self.error or error


def _serve(queue: _Queue, work: Work, buffer_size: int) -> None:
    with mmap.mmap(-1, buffer_size) as memory, memoryview(memory) as buffer:
        try:
            while (block := queue.take()) is not None:
                with buffer[: block.size] as part:
                    work(block, part)
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which raises it
            queue.stop(error)
