"""Several threads that take blocks from one queue. The system calls release the interpreter lock, so they overlap."""

import contextlib
import mmap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from etsclone.model.extents import Extent
from etsclone.run import uninterrupted
from etsclone.units import MIB

_SECONDS_BETWEEN_TICKS = 1.0

_HUGE = 2 * MIB
"""A huge page; so much more is mapped, since only kernels from 6.7 on let such memory begin with one."""

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
    with _buffers(tuning) as buffers:
        _serve_all(queue, work, buffers, tick)
    if queue.error is not None:
        raise queue.error


def _serve_all(
    queue: "_Queue", work: Work, buffers: Sequence[memoryview], tick: Callable[[], None] | None
) -> None:
    # Not by joining the threads: in Python 3.11 one whose join was interrupted counts as ended, at work or not.
    at_rest: list[threading.Event] = []
    try:
        with uninterrupted():
            for buffer in buffers:
                ended = threading.Event()
                threading.Thread(
                    target=_serve, args=(queue, work, buffer, ended), daemon=True
                ).start()
                at_rest.append(ended)
        for ended in at_rest:
            while not ended.wait(_SECONDS_BETWEEN_TICKS):
                if tick is not None:
                    tick()
    finally:
        # ^C lands in wait: the workers must be at rest before anybody closes their files.
        queue.stop()
        for ended in at_rest:
            ended.wait()


@contextlib.contextmanager
def _buffers(tuning: Tuning) -> Iterator[tuple[memoryview, ...]]:
    """A buffer for each worker, all of them in one piece of memory."""
    size = tuning.block_size
    with contextlib.ExitStack() as stack:
        memory = stack.enter_context(
            mmap.mmap(
                -1, tuning.workers * size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
        )
        # Direct access pins every page of a buffer: of huge ones there are few, which saves a quarter of a copy's time.
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = stack.enter_context(memoryview(memory))
        yield tuple(
            stack.enter_context(whole[start : start + size])
            for start in range(0, tuning.workers * size, size)
        )


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


def _serve(queue: _Queue, work: Work, buffer: memoryview, ended: threading.Event) -> None:
    try:
        while (block := queue.take()) is not None:
            with buffer[: block.size] as part:
                work(block, part)
    except BaseException as error:  # noqa: BLE001 - carried to the calling thread, which raises it
        queue.stop(error)
    finally:
        ended.set()
