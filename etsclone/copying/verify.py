"""Reading back what was written, and comparing two disks."""

import threading
from collections.abc import Callable

from etsclone.copying.access import read_block
from etsclone.copying.blocks import Blocks
from etsclone.copying.passes import CopyRun
from etsclone.copying.pieces import DIGEST_SIZE, UNKNOWN, digests_of, pieces_of
from etsclone.copying.workers import Tuning, for_each_block
from etsclone.errors import ReadBackDiffers
from etsclone.model.extents import Extent, Extents


def read_back(run: CopyRun, extents: Extents, *, full: bool = False) -> None:
    """Read `extents` of the target and compare them with the digests that were taken while they were copied.

    Where a digest is unknown, because the block was read in parts or by another program, the source is read again;
    with `full` everywhere. The descriptors must bypass the page cache, or what is compared is only memory.

    Raises:
        ReadBackDiffers: naming the first bytes that differ.
        DeviceError: when a disk cannot be read.
    """

    def work(block: Extent, buffer: memoryview) -> None:
        expected = b"" if full else run.digests.known(block)
        if full or has_unknown(expected):
            run.read_source(block, buffer)
            expected = run.digests.take(block, buffer)
        read_block(run.target, block, buffer, "target")
        found = digests_of(block, buffer)
        if found != expected:
            place = first_difference(block, expected, found)
            raise ReadBackDiffers(
                f"the target differs from what was written to bytes {place.start} to {place.end}",
                hint="the disk, its cable or its adapter is faulty: clone to another disk",
                start=place.start,
                end=place.end,
            )
        run.advance(block.size)

    for_each_block(Blocks(extents, run.tuning.block_size), work, run.tuning, tick=run.tick)


def compare(
    source: int, target: int, extents: Extents, *, tuning: Tuning, advance: Callable[[int], None]
) -> Extents:
    """Read `extents` of both disks and return the pieces that differ.

    Raises:
        DeviceError: when a disk cannot be read.
    """
    different: list[Extent] = []
    lock = threading.Lock()

    def work(block: Extent, buffer: memoryview) -> None:
        read_block(source, block, buffer, "source")
        expected = digests_of(block, buffer)
        read_block(target, block, buffer, "target")
        found = digests_of(block, buffer)
        with lock:
            different.extend(differing_pieces(block, expected, found))
        advance(block.size)

    for_each_block(Blocks(extents, tuning.block_size), work, tuning)
    return Extents.of(different)


def has_unknown(digests: bytes) -> bool:
    """Whether one of the digests is unknown."""
    return any(
        digests[at : at + DIGEST_SIZE] == UNKNOWN for at in range(0, len(digests), DIGEST_SIZE)
    )


def differing_pieces(block: Extent, expected: bytes, found: bytes) -> list[Extent]:
    """The pieces of a block whose digests differ, as bytes of the disk."""
    if expected == found:
        return []
    return [
        Extent(block.start + start, block.start + end)
        for number, (start, end) in enumerate(pieces_of(block))
        if expected[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE]
        != found[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE]
    ]


def first_difference(block: Extent, expected: bytes, found: bytes) -> Extent:
    """The first piece of a block whose digests differ."""
    return differing_pieces(block, expected, found)[0]
