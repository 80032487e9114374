"""The threads that take blocks from one queue."""

import signal
import threading

import pytest

from etsclone.copying.workers import Tuning, for_each_block
from etsclone.model.extents import Extent

BLOCKS = [Extent(number * 10, number * 10 + 5) for number in range(50)]


def test_every_block_is_done_once_with_a_buffer_of_its_size() -> None:
    done: list[Extent] = []

    def work(block: Extent, buffer: memoryview) -> None:
        assert len(buffer) == block.size
        done.append(block)

    for_each_block(BLOCKS, work, Tuning(8, 4))
    assert sorted(done) == BLOCKS


def test_blocks_are_taken_in_order() -> None:
    done: list[Extent] = []
    for_each_block(BLOCKS, lambda block, _: done.append(block), Tuning(8, 1))
    assert done == BLOCKS


def test_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(4)
    for_each_block(BLOCKS[:4], lambda *_: [together.wait(60)][:0].clear(), Tuning(8, 4))


def test_an_error_is_raised_and_stops_the_others() -> None:
    done: list[Extent] = []

    def work(block: Extent, _buffer: memoryview) -> None:
        if block == BLOCKS[3]:
            raise ValueError("block three")
        done.append(block)

    with pytest.raises(ValueError, match="block three"):
        for_each_block(BLOCKS, work, Tuning(8, 1))
    assert done == BLOCKS[:3]


def test_of_several_errors_one_is_raised() -> None:
    together = threading.Barrier(2)

    def work(_block: Extent, _buffer: memoryview) -> None:
        together.wait(60)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        for_each_block(BLOCKS[:2], work, Tuning(8, 2))


def test_no_worker_is_at_work_when_an_interrupt_comes_out() -> None:
    busy, at_work = threading.Event(), []

    def work(block: Extent, _buffer: memoryview) -> None:
        at_work.append(block)
        if block.start == 0:
            signal.raise_signal(signal.SIGINT)  # is handled in the thread that waits for us
            busy.wait(0.1)
        at_work.remove(block)

    with pytest.raises(KeyboardInterrupt):
        for_each_block((Extent(n, n + 1) for n in range(10**9)), work, Tuning(8, 2))
    assert at_work == []


def test_nothing_to_do_is_done() -> None:
    for_each_block([], lambda *_: None, Tuning(8, 4))
