"""What two systems differ in, as data: paths and packages, and what each difference means for a rebuild."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from etsclone.model.tree import Kind


class Meaning(Enum):
    """What a difference means for a rebuild. The values are the words that people and programs read."""

    UNCLAIMED = "unclaimed"
    """No list of the profile claims the path: a rebuild would leave what the clone has."""
    SCOPE = "in scope"
    """The overlays hold it: a rebuild brings it."""
    DISK = "disk"
    """Bound to the disk: each clone keeps its own, as it should."""
    VOLATILE = "volatile"
    """At least one side does not list the path, because it changes by itself; or it is a socket in the scope."""
    TIME = "time only"
    """Nothing but the time of last change differs, wherever it is: services touch files that they do not change."""


class Change(Enum):
    """How the second side differs from the first."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    BENEATH = "beneath"
    """There were too many to be told one by one: paths beneath this folder differ."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that differs. `what` are words (`content`, `mode`, ...) for one that changed.

    `paths` counts what the line stands for: of a folder that only one side has, all beneath it of the same meaning.
    """

    path: bytes
    change: Change
    kind: Kind
    what: tuple[str, ...] = ()
    paths: int = 1


class Course(Enum):
    """What happened to a package between the first side and the second."""

    INSTALLED = "installed"
    REMOVED = "removed"
    UPGRADED = "upgraded"
    DOWNGRADED = "downgraded"


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package of which the two sides have different versions (more than one, for kernels of RPM systems).

    `paths` counts the differing paths that it accounts for; they are told by this alone.
    """

    name: str
    arch: str
    course: Course
    before: tuple[str, ...]
    after: tuple[str, ...]
    paths: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that differs, in byte order of the paths. `paths` counts the paths of each meaning, packages' ones apart."""

    packages: tuple[PackageChange, ...]
    differences: Mapping[Meaning, tuple[Difference, ...]]
    paths: Mapping[Meaning, int]

    @property
    def unclaimed(self) -> int:
        """How many things a rebuild would miss: packages, and paths that belong to none of them."""
        return len(self.packages) + self.paths[Meaning.UNCLAIMED]

    @property
    def empty(self) -> bool:
        """Whether nothing differs at all."""
        return not (self.packages or any(self.paths.values()))


class Shown(Enum):
    """How a content is shown. The values are the words that programs read."""

    TEXT = "text"
    BINARY = "binary"
    LARGE = "large"
    SECRET = "secret"  # noqa: S105 - a word, not one


@dataclass(frozen=True, slots=True)
class TextDiff:
    """What is shown of a file: for TEXT a unified diff, for BINARY and LARGE digests, for SECRET nothing."""

    path: bytes
    shown: Shown
    lines: tuple[str, ...] = ()
