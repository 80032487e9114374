"""The history of a role in a store, as data: its generations, what is wrong with them, what this machine knows."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Flaw(Enum):
    """What can be wrong with a history. The values are what programs are told."""

    DAMAGED = "damaged"
    """An overlay or a header does not verify."""
    UNREADABLE = "unreadable"
    """The medium does not give it back."""
    SEALED = "sealed"
    """None of the recovery keys that were given opens it; all else of it verifies."""
    FOREIGN = "foreign"
    """A genuine overlay of another role, pair or generation: replayed, moved or renamed."""
    GAP = "gap"
    """A generation is missing although a later one is there, and it was not pruned."""
    FORK = "fork"
    """Two histories were mixed: a generation follows another one than the one here, or a number stands for two."""
    ROLLBACK = "rollback"
    """The newest generation that this machine has seen is not in the store."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A flaw, where in the history of a role it is, and a sentence about it.

    `generation` is the first one that it concerns; `path` is set when it is one file that is at fault.
    """

    flaw: Flaw
    role: str
    generation: int
    message: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """One generation as it was found in a store.

    `number` is what its file name says, `size` the file's bytes, `header_size` those that stay when it is pruned.
    What follows is its header's word, and missing when there is a `problem`: `digest` and `previous` (sha256, hex),
    `created` (UTC). `contents` tells how far they were looked at: `sealed`, `not read`, `read`, or empty.
    """

    role: str
    number: int
    path: str
    size: int
    pruned: bool = False
    header_size: int = 0
    digest: str | None = None
    previous: str | None = None
    created: datetime | None = None
    problem: Problem | None = None
    contents: str = ""

    @property
    def unfinished(self) -> bool:
        """Whether its pruning was interrupted: it has the name of a pruned one, but its content is still there."""
        return self.pruned and self.problem is None and self.size > self.header_size


@dataclass(frozen=True, slots=True)
class Known:
    """A generation that was seen: its number and its header's digest (sha256, hex)."""

    generation: int
    digest: str

    def __post_init__(self) -> None:
        if type(self.generation) is not int or self.generation < 1:
            raise ValueError(f"no generation: {self.generation}")
