"""Where a source is read that changes meanwhile: not on the disk itself, but where its bytes are as they were.

A view is part of a plan, so that it can be shown and tested. What it does not speak of is read on the disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from etsclone.model.extents import Extent, Extents


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a disk that a snapshot shows: `extent` of the disk begins at byte `offset` of `device`."""

    extent: Extent
    device: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes of a disk as they were before the clone itself had them changed; `offset` is in bytes of the disk."""

    offset: int
    data: bytes

    @property
    def extent(self) -> Extent:
        """Which bytes of the disk."""
        return Extent(self.offset, self.offset + len(self.data))


Place = Stretch | Kept | None
"""Where to read: None stands for the disk itself."""


@dataclass(frozen=True)
class View:
    """What of a source is read elsewhere.

    Raises:
        ValueError: when it names two places for the same bytes.
    """

    stretches: tuple[Stretch, ...] = ()
    kept: tuple[Kept, ...] = ()

    def __post_init__(self) -> None:
        extents = [each.extent for each in self._places]
        if Extents.of(extents).size != sum(extent.size for extent in extents):
            raise ValueError("two places for the same bytes")

    def __bool__(self) -> bool:
        return bool(self.stretches or self.kept)

    @property
    def devices(self) -> tuple[str, ...]:
        """The snapshots that it needs."""
        return tuple(dict.fromkeys(each.device for each in self.stretches))

    def shown_by(self, extent: Extent) -> str:
        """The device that shows exactly this extent, from its own beginning on; empty when there is none."""
        found = (
            each.device for each in self.stretches if (each.extent, each.offset) == (extent, 0)
        )
        return next(found, "")

    def parts(self, extent: Extent) -> Iterator[tuple[Extent, Place]]:
        """An extent of the disk in pieces, in order: which bytes of the disk, and where to read them."""
        position = extent.start
        for place in self._places:
            start, end = max(place.extent.start, position), min(place.extent.end, extent.end)
            if start >= end:
                continue
            if position < start:
                yield Extent(position, start), None
            yield Extent(start, end), place
            position = end
        if position < extent.end:
            yield Extent(position, extent.end), None

    @cached_property
    def _places(self) -> tuple[Stretch | Kept, ...]:
        return tuple(sorted((*self.stretches, *self.kept), key=lambda each: each.extent))


AS_IT_IS = View()
"""All is read on the disk itself."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of a mounted logical volume that is to be taken for a clone, and removed after it.

    `physical` are the devices that its group lies on; `device` is the volume's own and `folder` where it is mounted;
    `size` (bytes) is how much may change before the snapshot is lost; `stretches` tell where the volume lies on the
    disk.
    """

    group: str
    physical: tuple[str, ...]
    volume: str
    name: str
    device: str
    folder: str
    extents: int
    size: int
    stretches: tuple[Stretch, ...]
