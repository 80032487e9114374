"""Edits: files of a clone that get other content, since they name what is not of this machine or this disk."""

from dataclasses import dataclass


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
