"""Byte ranges of a disk.

Ranges are half-open, `[start, end)`, in bytes. A list of them is kept sorted, without overlaps and without touching
neighbours, so that equal sets of bytes are equal values.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from etsclone.units import align_down, align_up


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """The bytes `[start, end)`; never empty.

    Raises:
        ValueError: unless 0 <= start < end.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"not a range of bytes: [{self.start}, {self.end})")

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.start

    def shifted(self, distance: int) -> "Extent":
        """The same bytes seen from an origin that lies `distance` bytes earlier."""
        return Extent(self.start + distance, self.end + distance)


@dataclass(frozen=True, slots=True)
class Extents:
    """A set of bytes as sorted ranges that neither overlap nor touch. Build with `Extents.of`.

    Raises:
        ValueError: when the ranges are not in that normal form.
    """

    ranges: tuple[Extent, ...] = ()

    def __post_init__(self) -> None:
        if any(left.end >= right.start for left, right in pairwise(self.ranges)):
            raise ValueError("ranges overlap, touch or are out of order")

    @classmethod
    def of(cls, ranges: Iterable[Extent]) -> "Extents":
        """The union of `ranges`, which may come in any order and overlap."""
        merged: list[Extent] = []
        for extent in sorted(ranges):
            if merged and extent.start <= merged[-1].end:
                merged[-1] = Extent(merged[-1].start, max(merged[-1].end, extent.end))
            else:
                merged.append(extent)
        return cls(tuple(merged))

    @classmethod
    def between(cls, start: int, end: int) -> "Extents":
        """All bytes of `[start, end)`; none when that is empty."""
        return cls((Extent(start, end),)) if start < end else cls()

    def __iter__(self) -> Iterator[Extent]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)

    def __or__(self, other: "Extents") -> "Extents":
        return Extents.of((*self.ranges, *other.ranges))

    def __and__(self, other: "Extents") -> "Extents":
        common: list[Extent] = []
        mine, theirs = 0, 0
        while mine < len(self.ranges) and theirs < len(other.ranges):
            left, right = self.ranges[mine], other.ranges[theirs]
            start, end = max(left.start, right.start), min(left.end, right.end)
            if start < end:
                common.append(Extent(start, end))
            if left.end <= right.end:
                mine += 1
            else:
                theirs += 1
        return Extents(tuple(common))

    def __sub__(self, other: "Extents") -> "Extents":
        if not self.ranges:
            return self
        return self & other.complement(self.ranges[-1].end)

    @property
    def size(self) -> int:
        """How many bytes in all."""
        return sum(extent.size for extent in self.ranges)

    def complement(self, end: int) -> "Extents":
        """The bytes of `[0, end)` that are not in this set."""
        gaps: list[Extent] = []
        position = 0
        for extent in self.ranges:
            if extent.start >= end:
                break
            if position < extent.start:
                gaps.append(Extent(position, extent.start))
            position = extent.end
        if position < end:
            gaps.append(Extent(position, end))
        return Extents(tuple(gaps))

    def shifted(self, distance: int) -> "Extents":
        """The same set seen from an origin that lies `distance` bytes earlier."""
        return Extents(tuple(extent.shifted(distance) for extent in self.ranges))

    def shrunk(self, step: int) -> "Extents":
        """The largest set of whole `step`-sized blocks that this one covers."""
        ends = ((align_up(each.start, step), align_down(each.end, step)) for each in self.ranges)
        return Extents(tuple(Extent(start, end) for start, end in ends if start < end))

    def aligned(self, step: int, end: int) -> "Extents":
        """The smallest set of whole `step`-sized blocks that covers this one, cut at `end`."""
        return Extents.of(
            Extent(align_down(extent.start, step), min(align_up(extent.end, step), end))
            for extent in self.ranges
        )
