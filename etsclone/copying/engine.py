"""Copy blocks from one disk to another, read them back, compare two disks.

All functions take open file descriptors. They neither open, claim nor name disks: that is done once, by the executor.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from etsclone.copying.blocks import Blocks, Digests, digest
from etsclone.copying.workers import for_each_block
from etsclone.errors import ComparisonFailed, DeviceError
from etsclone.model.extents import Extent, Extents
from etsclone.units import MIB

Advance = Callable[[int], None]
"""Called with a number of bytes as they are done; must be safe to call from any thread."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a copy uses the machine: bytes in a block, and blocks under way at a time."""

    block_size: int = MIB
    workers: int = 4


def copy(
    source: int,
    target: int,
    extents: Extents,
    *,
    tuning: Tuning,
    target_is_zero: bool,
    advance: Advance,
) -> Digests:
    """Copy `extents` to the same places of the target, and return the digests of what was read.

    Args:
        source: descriptor to read from.
        target: descriptor to write to.
        extents: bytes of the disk, aligned to its sectors.
        tuning: block size and parallelism.
        target_is_zero: the target is known to read as zeros, so that blocks of zeros need not be written.
        advance: told of every block done.

    Raises:
        DeviceError: when a disk cannot be read or written, with the position.
    """
    digests = Digests(Blocks(extents, tuning.block_size))
    zeros = _Zeros(tuning.block_size)

    def work(number: int, block: Extent, buffer: memoryview) -> None:
        read_block(source, block, buffer, "source")
        digests[number] = found = digest(buffer)
        if not (target_is_zero and zeros.match(found, buffer)):
            write_block(target, block, buffer)
        advance(block.size)

    for_each_block(digests.blocks, work, workers=tuning.workers, buffer_size=tuning.block_size)
    return digests


def read_back(target: int, digests: Digests, *, tuning: Tuning, advance: Advance) -> None:
    """Read every block of the target and compare it with its digest.

    The descriptor must bypass the page cache, or what is compared is only memory.

    Raises:
        ComparisonFailed: naming the first bytes that differ.
        DeviceError: when the target cannot be read.
    """

    def work(number: int, block: Extent, buffer: memoryview) -> None:
        read_block(target, block, buffer, "target")
        if digest(buffer) != digests[number]:
            raise ComparisonFailed(
                f"the target differs from what was written to bytes {block.start} to {block.end}",
                hint="the disk, its cable or its adapter is faulty: clone to another disk",
            )
        advance(block.size)

    for_each_block(
        digests.blocks, work, workers=tuning.workers, buffer_size=digests.blocks.block_size
    )


def compare(
    source: int, target: int, extents: Extents, *, tuning: Tuning, advance: Advance
) -> Extents:
    """Read `extents` of both disks and return the blocks that differ.

    Raises:
        DeviceError: when a disk cannot be read.
    """
    different: list[Extent] = []
    lock = threading.Lock()

    def work(_number: int, block: Extent, buffer: memoryview) -> None:
        read_block(source, block, buffer, "source")
        expected = digest(buffer)
        read_block(target, block, buffer, "target")
        if digest(buffer) != expected:
            with lock:
                different.append(block)
        advance(block.size)

    for_each_block(
        Blocks(extents, tuning.block_size),
        work,
        workers=tuning.workers,
        buffer_size=tuning.block_size,
    )
    return Extents.of(different)


def read_block(descriptor: int, block: Extent, buffer: memoryview, which: str) -> None:
    """Fill `buffer` with a block's bytes; `which` names the disk in the error.

    Raises:
        DeviceError: when it cannot be read, or ends early.
    """
    done = 0
    while done < block.size:
        try:
            count = os.preadv(descriptor, [buffer[done:]], block.start + done)
        except OSError as error:
            raise DeviceError(
                f"the {which} cannot be read at byte {block.start + done}: {error.strerror}",
                hint="look at the kernel's messages (dmesg) and at the disk's health (smartctl -a)",
            ) from error
        if count == 0:
            raise DeviceError(
                f"the {which} ends early, at byte {block.start + done}", hint="was it unplugged?"
            )
        done += count


def write_block(descriptor: int, block: Extent, buffer: memoryview) -> None:
    """Write a block's bytes.

    Raises:
        DeviceError: when they cannot be written.
    """
    done = 0
    while done < block.size:
        try:
            done += os.pwritev(descriptor, [buffer[done:]], block.start + done)
        except OSError as error:
            raise DeviceError(
                f"the target cannot be written at byte {block.start + done}: {error.strerror}",
                hint="the target is unfinished and will not boot: look at the kernel's messages (dmesg)",
            ) from error


class _Zeros:
    """Recognises blocks of zeros by their digest, and then for certain by their bytes."""

    def __init__(self, block_size: int) -> None:
        self._zeros = bytes(block_size)
        self._digests: dict[int, bytes] = {}

    def match(self, found: bytes, buffer: memoryview) -> bool:
        size = len(buffer)
        known = self._digests.get(size)
        if known is None:
            known = self._digests[size] = digest(memoryview(self._zeros)[:size])
        # A digest that is not cryptographic can be forged; the bytes cannot.
        return found == known and bytes(buffer) == self._zeros[:size]
