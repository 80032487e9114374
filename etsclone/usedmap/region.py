"""What the readers of used maps see: a range of a disk, its bytes, its content, and a device that shows it.

The readers know no disks: a command lends them one through `DiskAccess`.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from etsclone.errors import FormatError
from etsclone.model.disk import Content
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import Volume
from etsclone.units import counted


class DiskAccess(Protocol):
    """What may be asked of the disk that is looked at. Extents are in bytes of the disk."""

    def read(self, extent: Extent) -> bytes:
        """The bytes of an extent; raises DeviceError when they cannot be read."""

    def content(self, extent: Extent) -> Content:
        """What blkid finds in an extent."""

    def frozen(self, extent: Extent) -> bool:
        """Whether the filesystem in an extent is mounted, and held still so that it can be copied."""

    def window(self, extent: Extent) -> AbstractContextManager[str]:
        """A block device that shows just this extent, read-only, until the context ends."""

    def unlocked(self, extent: Extent) -> "Unlocked | None":
        """What is encrypted in an extent, if it is unlocked."""


@dataclass(frozen=True, slots=True)
class Unlocked:
    """What is encrypted in a range of a disk: where its ciphertext begins, counted from the range's beginning, how many
    bytes it has, and how to look at it in the clear."""

    start: int
    size: int
    disk: DiskAccess


@dataclass(frozen=True, slots=True)
class Region:
    """A partition, or a volume inside one: `extent` is in bytes of the disk."""

    disk: DiskAccess
    extent: Extent

    @property
    def size(self) -> int:
        """In bytes."""
        return self.extent.size

    def read(self, start: int, size: int) -> bytes:
        """The bytes `[start, start + size)`, counted from the region's beginning.

        Raises:
            FormatError: when they do not all lie inside.
            DeviceError: when the disk cannot be read.
        """
        return self.disk.read(self._extent_of(start, size))

    def part(self, start: int, size: int) -> "Region":
        """A region inside this one.

        Raises:
            FormatError: when it does not lie inside, or is empty.
        """
        return Region(self.disk, self._extent_of(start, size))

    def _extent_of(self, start: int, size: int) -> Extent:
        if start < 0 or size <= 0 or start + size > self.size:
            raise FormatError(
                f"it names the bytes {start} to {start + size}, but has {counted(self.size, 'byte')}"
            )
        return Extent(start, start + size).shifted(self.extent.start)


@dataclass(frozen=True, slots=True)
class Finding:
    """Which bytes of a region matter, counted from its beginning; see `UsedMap` for the rest."""

    extents: Extents
    method: str
    note: str = ""
    volumes: tuple[Volume, ...] = ()


def everything(region: Region, why: str = "") -> Finding:
    """All bytes matter; `why` is empty where nothing finer was to be expected."""
    note = f"everything is copied: {why}" if why else ""
    return Finding(Extents.between(0, region.size), "every block", note)
