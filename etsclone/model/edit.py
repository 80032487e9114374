"""Edits: files of a clone that get other content, since they name what is not of this machine or this disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from etsclone.model.tree import printable


@dataclass(frozen=True, slots=True)
class Edit:
    """One file with its content before and after; its owner, mode and attributes stay.

    `path` is absolute as seen inside the system. `reasons` say what is changed, for people, one a line.
    """

    path: bytes
    before: bytes
    after: bytes
    reasons: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.path.startswith(b"/") or b"\0" in self.path:
            raise ValueError(f"not an absolute path: {self.path!r}")
        if self.before == self.after:
            raise ValueError(f"an edit that changes nothing: {self.path!r}")

    def __str__(self) -> str:
        return f"{'edit':8}{printable(self.path)}  ({printable('; '.join(self.reasons))})"


def merged(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """One edit a path, in the order of the first ones; what one changed and another changed back is left out."""
    by_path: dict[bytes, tuple[bytes, bytes, tuple[str, ...]]] = {}
    for edit in edits:
        before, _, reasons = by_path.get(edit.path, (edit.before, b"", ()))
        by_path[edit.path] = before, edit.after, (*reasons, *edit.reasons)
    return tuple(
        Edit(path, before, after, reasons)
        for path, (before, after, reasons) in by_path.items()
        if before != after
    )


class Files(Protocol):
    """What the files of a system hold, or will hold once a plan is executed; paths are as those of `Edit`."""

    def read(self, path: bytes) -> bytes | None:
        """The content of a regular file; None when there is none at this path, or only a link."""

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        """The names in a folder, in byte order; nothing where there is no folder."""


class Folders(Files, Protocol):
    """Files in folders that can be looked through without following a link."""

    def is_folder(self, path: bytes) -> bool:
        """Whether there is a folder at this path, and no link to one."""
