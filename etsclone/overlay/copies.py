"""Copies of a system's own files, which take their places, so that what programs do to them can be undone.

A program may write into a file, or put another one in its place. So the file itself is moved aside, as all that a
rebuild replaces, and the program gets a copy with all its metadata.
"""

import glob
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from etsclone.model.scope import Scope
from etsclone.model.tree import Kind, name_of, parent_of
from etsclone.overlay.files import chunks, opened_file, opened_folder
from etsclone.overlay.scan import scan
from etsclone.overlay.staging import Content
from etsclone.plan.tree import Action, TreeChange

_WHY = "a copy, for an undo"


@dataclass(frozen=True, slots=True)
class Copies:
    """What is replaced by itself, and all content that a rebuild puts in place.

    Attributes:
        top: the root as a descriptor.
        changes: the replacements; a path where nothing is becomes an empty folder.
        others: what the rest of the rebuild puts in place.
    """

    top: int
    changes: tuple[TreeChange, ...]
    others: Content

    def pieces(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """See `Content`."""
        if not any(change.path == path for change in self.changes):
            yield from self.others.pieces(path)
            return
        with (
            opened_folder(self.top, parent_of(path)) as folder,
            opened_file(folder, name_of(path)) as file,
        ):
            offset = 0
            for piece in chunks(file):
                yield offset, bytes(piece)
                offset += len(piece)


def copies(
    root: str, top: int, paths: Collection[bytes], edited: Collection[bytes], others: Content
) -> Copies:
    """What it takes to replace files, and folders with all that they hold, by themselves.

    Args:
        root, top: the top of the tree, and the same as a descriptor.
        paths: of which none is beneath another.
        edited: files that get another content in the same rebuild: they are not copied.
        others: the content of all else.
    """
    if not paths:
        return Copies(top, (), others)
    patterns = sorted(glob.escape(os.fsdecode(path)) for path in paths)
    found = scan(root, Scope(tuple(patterns))).scope
    missing = (TreeChange(Action.PARENT, path, _WHY) for path in sorted({*paths} - found.keys()))
    there = (
        TreeChange(
            Action.REPLACE if entry.path in paths else Action.CREATE,
            entry.path,
            _WHY,
            # The first of a file's names may be one that is edited.
            replace(entry, link_to=None) if entry.link_to in edited else entry,
        )
        for entry in found.values()
        if entry.path not in edited and entry.kind is not Kind.SOCKET
    )
    return Copies(top, (*missing, *there), others)
