"""Extents cut into blocks: what one worker reads and writes at once."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from etsclone.model.extents import Extent, Extents


@dataclass(frozen=True, slots=True)
class Blocks:
    """The bytes of `extents` as blocks in the order of the disk, cut at multiples of `block_size` to stay aligned.

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

    def __iter__(self) -> Iterator[Extent]:
        for extent in self.extents:
            position = extent.start
            while position < extent.end:
                end = min(extent.end, position - position % self.block_size + self.block_size)
                yield Extent(position, end)
                position = end

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
