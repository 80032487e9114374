"""Extents cut into blocks, and a digest for each block."""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import xxhash

from etsclone.model.extents import Extent, Extents

DIGEST_NAME = "xxh3_128"
"""Not keyed and not cryptographic: it guards against disks and cables, and costs a twentieth of the copy's time."""

DIGEST_SIZE = 16


def digest(data: memoryview) -> bytes:
    """The digest of a block, `DIGEST_SIZE` bytes."""
    return xxhash.xxh3_128_digest(data)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The bytes of `extents` as numbered blocks, cut at multiples of `block_size` bytes so that reads stay aligned.

    Only the extents are kept, so the memory does not grow with the disk but with its fragmentation.
    """

    extents: Extents
    block_size: int
    _first: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first, count = [], 0
        for extent in self.extents:
            first.append(count)
            count += self._count(extent)
        first.append(count)
        object.__setattr__(self, "_first", first)

    def __len__(self) -> int:
        return self._first[-1]

    def __iter__(self) -> Iterator[tuple[int, Extent]]:
        """All blocks with their numbers, in the order of the disk."""
        number = 0
        for extent in self.extents:
            position = extent.start
            while position < extent.end:
                end = min(extent.end, position - position % self.block_size + self.block_size)
                yield number, Extent(position, end)
                number, position = number + 1, end

    def __getitem__(self, number: int) -> Extent:
        if not 0 <= number < len(self):
            raise IndexError(number)
        which = bisect_right(self._first, number) - 1
        extent = self.extents.ranges[which]
        base = (
            extent.start
            - extent.start % self.block_size
            + (number - self._first[which]) * self.block_size
        )
        return Extent(max(extent.start, base), min(extent.end, base + self.block_size))

    def _count(self, extent: Extent) -> int:
        return (extent.end - 1) // self.block_size - extent.start // self.block_size + 1


@dataclass(frozen=True, slots=True)
class Digests:
    """One digest for each block, 16 bytes for every block of (usually) 1 MiB."""

    blocks: Blocks
    _table: bytearray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", bytearray(len(self.blocks) * DIGEST_SIZE))

    def __getitem__(self, number: int) -> bytes:
        return bytes(self._table[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE])

    def __setitem__(self, number: int, value: bytes) -> None:
        self._table[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE] = value

    def tree_hash(self) -> str:
        """One sha256 (hex) over position, length (big-endian 64 bit) and digest of every block in order."""
        total = hashlib.sha256()
        for number, block in self.blocks:
            total.update(struct.pack(">QQ", block.start, block.size) + self[number])
        return total.hexdigest()
