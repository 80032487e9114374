"""A digest for every 64 KiB of a disk, by position: what verification and refresh compare with.

The pieces are small so that a refresh writes little more than what changed, and lie at fixed positions so that the
digests of one clone serve the next, although other blocks are in use by then.
"""

import contextlib
import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import xxhash

from etsclone.errors import EtscloneError
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import PIECE
from etsclone.units import GIB, align_down, align_up

DIGEST_NAME = "xxh3_128"
"""Not keyed and not cryptographic: it guards against disks and cables, and costs a twentieth of the copy's time."""

DIGEST_SIZE = 16
UNKNOWN = bytes(DIGEST_SIZE)
"""Stands for: this piece was not read as a whole."""


class PieceDigests:
    """Digests of the pieces of `[low, high)`; a piece at either edge may be shorter.

    They live in a mapped file, sparse where nothing is used, so that the kernel and not this process decides what is
    kept in memory.
    """

    def __init__(self, memory: mmap.mmap, low: int, high: int) -> None:
        self._memory = memory
        self._low = low
        self._high = high

    def take(self, block: Extent, data: memoryview) -> bytes:
        """Compute, keep and return the digests of a block's pieces, one after the other."""
        found = digests_of(block, data)
        first, last = slots_of(block)
        self._memory[first:last] = found
        # Of a piece that the block covers only in part, the digest would be that of other bytes.
        if block.start % PIECE and block.start != self._low:
            self._memory[first : first + DIGEST_SIZE] = UNKNOWN
        if block.end % PIECE and block.end != self._high:
            self._memory[last - DIGEST_SIZE : last] = UNKNOWN
        return found

    def known(self, block: Extent) -> bytes:
        """The digests of a block's pieces as they were taken, `UNKNOWN` where they were not."""
        first, last = slots_of(block)
        return self._memory[first:last]

    def forget(self, block: Extent) -> None:
        """Make the digests of all pieces that a block touches unknown."""
        first, last = slots_of(block)
        self._memory[first:last] = bytes(last - first)

    def take_zeros(self, extent: Extent) -> None:
        """Keep the digests of zeros for some bytes, whole pieces, of which it is known without reading them."""
        zeros = xxhash.xxh3_128_digest(bytes(PIECE))
        for start in range(extent.start, extent.end, GIB):
            first, last = slots_of(Extent(start, min(start + GIB, extent.end)))
            self._memory[first:last] = zeros * ((last - first) // DIGEST_SIZE)

    def forget_all(self, extents: Extents) -> None:
        """Make the digests of all pieces that some bytes touch unknown; they may lie outside of what is copied."""
        for extent in extents & Extents.between(0, self._high):
            for start in range(extent.start, extent.end, GIB):
                part = Extent(start, min(start + GIB, extent.end))
                if self.known(part).strip(
                    b"\0"
                ):  # writing zeros over zeros would fill a sparse file
                    self.forget(part)

    def sync(self) -> None:
        """Make all that was taken durable."""
        self._memory.flush()

    def tree_hash(self, extents: Extents) -> str:
        """One sha256 (hex) over position, length (big-endian 64 bit) and piece digests of every range in order."""
        total = hashlib.sha256()
        for extent in extents:
            total.update(struct.pack(">QQ", extent.start, extent.size))
            first, last = slots_of(extent)
            # Of a disk without gaps this is a large part of the file: not to be copied into memory.
            with memoryview(self._memory) as memory, memory[first:last] as digests:
                total.update(digests)
        return total.hexdigest()


def slots_of(block: Extent) -> tuple[int, int]:
    """Where the digests of a block's pieces lie: `(start, end)` in bytes from the first piece's."""
    return block.start // PIECE * DIGEST_SIZE, align_up(block.end, PIECE) // PIECE * DIGEST_SIZE


def digests_of(block: Extent, data: memoryview) -> bytes:
    """The digests of a block's pieces, one after the other; `data` holds the block's bytes."""
    return b"".join(xxhash.xxh3_128_digest(data[start:end]) for start, end in pieces_of(block))


def pieces_of(block: Extent) -> Iterator[tuple[int, int]]:
    """The pieces of a block as offsets into its data: `(start, end)`."""
    position = block.start
    while position < block.end:
        end = min(block.end, align_down(position, PIECE) + PIECE)
        yield position - block.start, end - block.start
        position = end


@contextlib.contextmanager
def opened_digests(path: Path | None, extents: Extents, *, keep: bool) -> Iterator[PieceDigests]:
    """The digests of the pieces of `extents`.

    Args:
        path: the file that holds them; None for digests that end with the process.
        extents: what is copied: whole pieces, but for its first and last byte.
        keep: go on with what the file holds; otherwise all are unknown.

    Raises:
        EtscloneError: when the file cannot be made, or there is no space for it.
    """
    low, high = (extents.ranges[0].start, extents.ranges[-1].end) if extents.ranges else (0, PIECE)
    size = align_up(high, PIECE) // PIECE * DIGEST_SIZE
    with contextlib.ExitStack() as stack:
        if path is None:
            memory = stack.enter_context(mmap.mmap(-1, size))
        else:
            memory = stack.enter_context(_mapped(path, size, extents, keep=keep))
        yield PieceDigests(memory, low, high)


def _mapped(path: Path, size: int, extents: Extents, *, keep: bool) -> mmap.mmap:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if keep else os.O_TRUNC)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
            os.ftruncate(file.fileno(), size)
            # Where a mapped file finds no space when it is written to, the kernel kills the writer (SIGBUS).
            for extent in extents:
                first, last = slots_of(extent)
                os.posix_fallocate(file.fileno(), first, last - first)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise EtscloneError(
            f"digests cannot be kept in {path}: {error.strerror}",
            hint="set ETSCLONE_STATE to a folder with more space, or give --map",
        ) from error
