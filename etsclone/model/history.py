"""The history of a role in a store, as data: its generations, what is wrong with them, what this machine knows."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Flaw(Enum):
    """What can be wrong with a history. The values are what programs are told."""

    DAMAGED = "damaged"
    """An overlay or a header does not verify."""
    UNTRUSTED = "untrusted"
    """It does, but under a key that is revoked, unknown, or listed for other roles or times."""
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

    `generation` is the first one that it concerns; `path` is set when it is one file that is at fault. `hint` says how
    to mend it where the flaw alone does not tell.
    """

    flaw: Flaw
    role: str
    generation: int
    message: str
    path: str | None = None
    hint: str = ""

    @property
    def line(self) -> str:
        """A line for people, which names the path, or else the role, once."""
        if self.path and self.path in self.message:
            return self.message
        return f"{self.path or self.role}: {self.message}"


@dataclass(frozen=True, slots=True)
class Link:
    """One generation as it was found in a store.

    `number` is what its file name says, `size` the file's bytes, `header_size` those that stay when it is pruned.
    What follows is its header's word, and missing when there is a `problem`: `digest` and `previous` (sha256, hex),
    `created` (UTC). `claimed` is what the header says of the two digests where it is not believed. `contents` tells how
    far they were looked at: `sealed`, `not read`, `read`, or empty. Of one that is `vouched` for, the key is no longer
    trusted, but a later generation that verifies follows exactly this header.
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
    claimed: tuple[str, str | None] | None = None
    contents: str = ""
    vouched: bool = False

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
