"""Plans: what will be done, as data. A plan is shown to a person and then executed exactly as it stands."""

from dataclasses import dataclass
from enum import Enum

from etsclone.model.disk import Disk
from etsclone.model.extents import Extents


class Guard(Enum):
    """The reasons for which a disk may not be written or read as asked."""

    RUNNING_SYSTEM = "holds the running system"
    MOUNTED = "mounted"
    HELD = "held"
    READ_ONLY = "read-only"
    SAME_DISK = "same disk"
    TOO_SMALL = "too small"
    SECTOR_SIZE = "sector size"
    SOURCE_MOUNTED = "source mounted for writing"
    SOURCE_EMPTY = "source has no content"
    SOURCE_CUT_OFF = "source is cut off"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A guard's answer: which guard, what is wrong, and how to mend it."""

    guard: Guard
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class UsedMap:
    """Which bytes of one partition (or of a disk without a table) matter.

    `extents` are in bytes of the disk. `method` names the program or reader that told; `note` says why everything is
    copied where a finer map was expected.
    """

    partition: int
    content: str
    start: int
    size: int
    extents: Extents
    method: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class CreateImage:
    """Create the target image file, empty (sparse), with `size` bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Erase:
    """Write zeros, so that what the target held before cannot be taken for a system."""

    extents: Extents


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy these bytes to the same place on the target, and read them back."""

    extents: Extents


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes to put at an offset of the target."""

    offset: int
    data: bytes
    what: str


@dataclass(frozen=True, slots=True)
class Seal:
    """Write boot code and partition tables, in this order, each flushed and read back before the next.

    The last write holds the first sector: until it is there, the target is no finished clone.
    """

    writes: tuple[Write, ...]


CloneStep = CreateImage | Erase | Copy | Seal


@dataclass(frozen=True, slots=True)
class ClonePlan:
    """How `source` becomes `target`. `maps` tell what is copied and why, `steps` what is done in which order."""

    source: Disk
    target: Disk
    maps: tuple[UsedMap, ...]
    steps: tuple[CloneStep, ...]

    @property
    def copied(self) -> Extents:
        """All bytes that are copied from the source by position."""
        return Extents.of(
            extent for step in self.steps if isinstance(step, Copy) for extent in step.extents
        )
