"""Plans: what will be done, as data. A plan is shown to a person and then executed exactly as it stands."""

from dataclasses import dataclass, field
from enum import Enum

from etsclone.model.disk import Disk
from etsclone.model.extents import Extent, Extents
from etsclone.model.ids import Identify
from etsclone.model.view import AS_IT_IS, View
from etsclone.model.write import Write
from etsclone.units import KIB

PIECE = 64 * KIB
"""The unit, in bytes and at multiples of itself, in which disks are copied, compared and refreshed. Small, so that a
refresh writes little more than what changed; the digests of 1 TiB take 256 MiB."""


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
    SOURCE_DAMAGED = "source damaged"
    QUARANTINE = "in quarantine"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A guard's answer: which guard, what is wrong, and how to mend it."""

    guard: Guard
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume that lies in one piece: where (in bytes of the disk), and what blkid calls its content."""

    extent: Extent
    content: str


@dataclass(frozen=True, slots=True)
class UsedMap:
    """Which bytes of one partition (or of a disk without a table) matter.

    `extents` are in bytes of the disk. `method` names the program or reader that told; `note` says why everything is
    copied where a finer map was expected. `volumes` are those inside the partition that were looked into.
    """

    partition: int
    content: str
    start: int
    size: int
    extents: Extents
    method: str
    note: str = ""
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateImage:
    """Create the target image file, empty (sparse), with `size` bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Erase:
    """Write zeros, so that what the target held before cannot be taken for a system.

    With `empty` the target is an image file that gives up all that it holds, and reads as zeros from then on.
    """

    extents: Extents
    empty: bool = False


class Unused(Enum):
    """What happens to the bytes of the target that hold nothing of the clone."""

    LEAVE = "leave"
    DISCARD = "discard"
    WIPE = "wipe"


@dataclass(frozen=True, slots=True)
class Clear:
    """Discard or wipe what the clone does not use."""

    extents: Extents
    how: Unused


class CopyMode(Enum):
    """Whether a target is written for the first time."""

    NEW = "new"
    RESUME = "resume"
    """Go on where an interrupted clone stopped."""
    REFRESH = "refresh"
    """Write only what differs from an earlier clone."""


class VerifyMode(Enum):
    """What a clone is compared with before it is called one."""

    DIGESTS = "digests"
    """The target is read and compared with what was read of the source."""
    FULL = "full"
    """Source and target are read again."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy these bytes to the same place on the target, and verify them there.

    `retries` is how often a bad sector is tried again; `digests_kept` says that the digests of an earlier clone are
    there for a refresh to compare with. With `share` the target's file has the blocks of the source's, and only what
    the filesystem does not share is copied. `marks` are the beginnings of all filesystems: there it
    shows that one was written to.
    """

    extents: Extents
    mode: CopyMode = CopyMode.NEW
    verify: VerifyMode = VerifyMode.DIGESTS
    retries: int = 1
    digests_kept: bool = False
    share: bool = False
    marks: Extents = field(default_factory=Extents)


@dataclass(frozen=True, slots=True)
class CloneWishes:
    """What a user asks of a clone beside its disks, and what helps it.

    `digests_kept`: those of an earlier clone can be believed; `grow`: the last partition is to fill a larger target;
    `share`: both are files of one filesystem with reflinks; `new_ids`: the clone gets identifiers of its own;
    `quarantine`: it ends in quarantine.
    """

    mode: CopyMode = CopyMode.NEW
    verify: VerifyMode = VerifyMode.DIGESTS
    unused: Unused = Unused.LEAVE
    retries: int = 1
    digests_kept: bool = False
    grow: bool = False
    share: bool = False
    new_ids: bool = False
    quarantine: bool = False


PLAIN = CloneWishes()
"""Nothing but a clone."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A swap space that goes to another place of the target: its partition's number, its places, its header."""

    partition: int
    old: Extent
    new: Extent
    header: bytes


@dataclass(frozen=True, slots=True)
class Grow:
    """Let the filesystem of a partition fill a larger place on the target, and check it there.

    `place` is in bytes of the target, `old_size` the partition's size on the source. `moved` made room for it.
    `spoiled` are all bytes of the target that no longer equal the source's when growing begins: they must not be
    trusted by a clone that goes on after an interrupt, or by a refresh.
    """

    partition: int
    content: str
    place: Extent
    old_size: int
    spoiled: Extents
    moved: Moved | None = None


@dataclass(frozen=True, slots=True)
class Seal:
    """Write boot code and partition tables, in this order, each flushed and read back before the next.

    The last write holds the first sector: until it is there, the target is no finished clone.
    """

    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Withhold:
    """Put a target into quarantine, in place of sealing it: its first sectors are kept in a record.

    `head` are its first bytes as they are to be once it is released. `marks` are the bytes that show, by then, whether
    anything was written to.
    """

    head: bytes
    marks: Extents


@dataclass(frozen=True, slots=True)
class Growth:
    """A larger layout of the target: the step that fills it, the source's head with that layout's table, and what else
    the seal writes."""

    step: Grow
    head: bytes
    seals: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckSnapshots:
    """Make sure that these snapshots lasted until here: what they showed is not to be believed otherwise."""

    devices: tuple[str, ...]


CloneStep = CreateImage | Erase | Clear | Copy | CheckSnapshots | Grow | Identify | Seal | Withhold


@dataclass(frozen=True, slots=True)
class ClonePlan:
    """How `source` becomes `target`. `maps` tell what is copied and why, `steps` what is done in which order.

    `fingerprint` tells whether the source is still as it was when the plan was made; `unreadable` is what could not be
    read even then, of the bytes that the plan itself carries; `view` tells which bytes of the source are read
    elsewhere.
    """

    source: Disk
    target: Disk
    maps: tuple[UsedMap, ...]
    steps: tuple[CloneStep, ...]
    fingerprint: str = ""
    unreadable: Extents = field(default_factory=Extents)
    view: View = AS_IT_IS

    @property
    def copy(self) -> Copy:
        """The step that copies."""
        return next(step for step in self.steps if isinstance(step, Copy))

    @property
    def grow(self) -> Grow | None:
        """The step that enlarges the last partition, if there is one."""
        return next((step for step in self.steps if isinstance(step, Grow)), None)

    @property
    def identify(self) -> Identify | None:
        """The step that gives identifiers of its own, if there is one."""
        return next((step for step in self.steps if isinstance(step, Identify)), None)

    @property
    def quarantined(self) -> bool:
        """Whether the target ends in quarantine."""
        return any(isinstance(step, Withhold) for step in self.steps)

    @property
    def copied(self) -> Extents:
        """All bytes that are copied from the source by position."""
        return self.copy.extents
