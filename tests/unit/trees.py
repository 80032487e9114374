"""The files of a system in memory, for planners that read them through `model.edit.Folders`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from etsclone.model.edit import Edit


@dataclass
class Tree:
    """Files by their absolute paths."""

    files: dict[bytes, bytes] = field(default_factory=dict)

    def read(self, path: bytes) -> bytes | None:
        return self.files.get(path)

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        start = folder.rstrip(b"/") + b"/"
        inside = {
            path[len(start) :].split(b"/")[0] for path in self.files if path.startswith(start)
        }
        return tuple(sorted(inside))

    def is_folder(self, path: bytes) -> bool:
        return path not in self.files and bool(self.names(path))

    def after(self, edits: Sequence[Edit]) -> "Tree":
        """The files once edits are executed."""
        for edit in edits:
            assert self.files[edit.path] == edit.before
        return Tree({**self.files, **{edit.path: edit.after for edit in edits}})
