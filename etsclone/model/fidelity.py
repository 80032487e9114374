"""How far a disk is from the system that was captured, outside the scope of the role, as data."""

from dataclasses import dataclass
from datetime import timedelta

from etsclone.model.diff import Difference, PackageChange

NOT_LISTED = ("extended attributes", "ACLs", "capabilities", "hard links")
"""What no inventory holds, so that nobody can tell whether it is as captured."""

NOT_READ = ("contents of files of the same size and time", "file flags")
"""What a quick look does not compare, either."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What a rebuild leaves as the clone has it although the captured system had it otherwise.

    Attributes:
        full: whether all contents were compared; else a file of the same size, time, mode and owner counts as the same.
        older: how much older than the captured one the clone is, judged by what differs (negative: newer); None where
            nothing tells.
        packages: those of which the clone has other versions; `before` are the captured ones, `after` the clone's.
            `paths` counts the paths that differ for this reason.
        configuration: unclaimed configuration files; ADDED are those that only the clone has.
        others: what else differs and belongs to none of these packages.
        touched: how many paths differ in their time of last change alone; they count as equal.
        before: whether it is from before the rebuild, since there was no room to compare again.
        edited: files that the rebuild edits; they count as they are without that, or as the same if that makes them so.
    """

    full: bool
    older: timedelta | None = None
    packages: tuple[PackageChange, ...] = ()
    configuration: tuple[Difference, ...] = ()
    others: tuple[Difference, ...] = ()
    touched: int = 0
    before: bool = False
    edited: tuple[bytes, ...] = ()

    @property
    def not_compared(self) -> tuple[str, ...]:
        """What of the paths is not compared, in words."""
        return NOT_LISTED if self.full else (*NOT_READ, *NOT_LISTED)

    @property
    def exact(self) -> bool:
        """Whether a rebuild gives the system that was captured, but for its edits and what is `not_compared`."""
        return not (self.packages or self.configuration or self.others)

    @property
    def files(self) -> int:
        """How many paths differ beside configuration files, with those of the packages."""
        return sum(each.paths for each in self.packages) + sum(each.paths for each in self.others)

    @property
    def configurations(self) -> int:
        """How many unclaimed configuration files there are."""
        return sum(each.paths for each in self.configuration)
