"""Fitting a disk onto a smaller one, as data: the layout, how each partition gets there, and the steps in order."""

from dataclasses import dataclass
from enum import Enum

from etsclone.model.disk import Disk, Partition
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import Copy, Erase, Seal


class How(Enum):
    """How a partition comes to the target."""

    BLOCKS = "by blocks"
    FILES = "file by file"
    EMPTY = "made anew, empty"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a filesystem is made with, as its own tools tell it: `settings` are names and values in their words.

    `kind` is blkid's type; `size` is that of the partition it was read from, in bytes.
    """

    kind: str
    uuid: str
    label: str
    size: int
    settings: tuple[tuple[str, str], ...]

    def __getitem__(self, name: str) -> str:
        """The value of a setting; empty where the tools did not name it."""
        return dict(self.settings).get(name, "")

    def number(self, name: str) -> int:
        """A setting that is a number; 0 where the tools did not name it."""
        return int(self[name] or 0)


@dataclass(frozen=True, slots=True)
class TreeSize:
    """What a tree of files takes: bytes of blocks (each inode once), and inodes."""

    data: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A partition of the source, and the least it needs.

    Without a recipe that is its own size: it is copied by blocks. `data` are the bytes of its files; `note` says why
    there is no recipe, or what becomes of it.
    """

    partition: Partition
    minimum: int
    recipe: Recipe | None = None
    data: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a partition of the source lies on the target, in bytes, and how it comes there."""

    partition: Partition
    extent: Extent
    how: How
    recipe: Recipe | None = None
    data: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class CopyBlocks:
    """Copy a partition's blocks, and read them back. `extents` count from the partition's beginning."""

    place: Place
    extents: Extents


@dataclass(frozen=True, slots=True)
class MakeFilesystem:
    """Make a filesystem, or swap space, with the source's UUID, label and features."""

    place: Place
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class CopyFiles:
    """Copy all files with every kind of metadata."""

    place: Place
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class CheckFilesystem:
    """Check what was made with its own tools, and compare every file with the source's."""

    place: Place
    recipe: Recipe


FitStep = Erase | Copy | CopyBlocks | MakeFilesystem | CopyFiles | CheckFilesystem | Seal


@dataclass(frozen=True, slots=True)
class FitPlan:
    """How `source` comes onto the smaller `target`. `notes` are what a person should know of the boot loader."""

    source: Disk
    target: Disk
    places: tuple[Place, ...]
    steps: tuple[FitStep, ...]
    fingerprint: str
    notes: tuple[str, ...]
