"""Several threads that take blocks from one queue. The system calls release the interpreter lock, so they overlap."""

import mmap
import threading
from collections.abc import Callable, Iterable

from etsclone.model.extents import Extent

_SECONDS_BETWEEN_TICKS = 1.0

Work = Callable[[int, Extent, memoryview], None]


def for_each_block(
    blocks: Iterable[tuple[int, Extent]],
    work: Work,
    *,
    workers: int,
    buffer_size: int,
    tick: Callable[[], None] | None = None,
) -> None:
    """Call `work(number, block, buffer)` for every block, with `workers` calls at a time.

    Each thread has one page-aligned buffer of `buffer_size` bytes, as O_DIRECT wants it. Blocks are taken in order.
    The first exception (also ^C in the calling thread) stops all workers after their current block and is raised.
    Meanwhile the calling thread calls `tick` about once a second.
    """
    queue = _Queue(blocks)
    threads = [
        threading.Thread(target=_serve, args=(queue, work, buffer_size), daemon=True)
        for _ in range(workers)
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

    def __init__(self, blocks: Iterable[tuple[int, Extent]]) -> None:
        self._blocks = iter(blocks)
        self._lock = threading.Lock()
        self._stopped = False
        self.error: BaseException | None = None

    def take(self) -> tuple[int, Extent] | None:
        with self._lock:
            return None if self._stopped else next(self._blocks, None)

    def stop(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._stopped = True
            self.error = self.error or error


def _serve(queue: _Queue, work: Work, buffer_size: int) -> None:
    with mmap.mmap(-1, buffer_size) as memory, memoryview(memory) as buffer:
        try:
            while (taken := queue.take()) is not None:
                number, block = taken
                with buffer[: block.size] as part:
                    work(number, block, part)
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which raises it
            queue.stop(error)
