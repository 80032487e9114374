"""The files of a clone as they will be once a rebuild is done: what the overlay holds, and around it what is there."""

from collections import defaultdict

from etsclone.model.edit import Edit, Folders
from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING, Entry, Kind, ancestors, join, name_of, parent_of
from etsclone.overlay.payload import Payload

_LIMIT = 16 << 20
"""As for files of the disk: what is larger is no configuration."""


class PlannedFiles:
    """`model.edit.Folders` of a system to be: the payload's within the scope, the disk's around it."""

    def __init__(self, disk: Folders, scope: Scope, payload: Payload) -> None:
        self._disk = disk
        self._scope = scope
        self._payload = payload
        self._edited: dict[bytes, bytes] = {}
        self._names: dict[bytes, set[bytes]] = defaultdict(set)
        for path, entry in payload.tree.items():
            if entry.kind is not Kind.SOCKET:
                for each in (path, *ancestors(path)[1:]):
                    self._names[parent_of(each)].add(name_of(each))

    @property
    def payload(self) -> Payload:
        """The payload with all edits of its files so far."""
        return self._payload

    def read(self, path: bytes) -> bytes | None:
        """The content that a file of at most 16 MiB will have, or None for all else."""
        if path not in self._scope:
            return self._edited[path] if path in self._edited else self._disk.read(path)
        entry = self._payload.tree.get(path)
        if entry is None or entry.kind is not Kind.FILE or entry.size > _LIMIT:
            return None
        return self._content(entry)

    def is_folder(self, path: bytes) -> bool:
        """Whether there will be a folder at this path, and no link to one."""
        if path not in self._scope:
            return path in self._names or self._disk.is_folder(path)
        entry = self._payload.tree.get(path)
        return entry is not None and entry.kind is Kind.FOLDER

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        """The names that a folder will hold, in byte order; nothing where there will be none."""
        if folder in self._scope:
            entry = self._payload.tree.get(folder)
            if entry is None or entry.kind is not Kind.FOLDER:
                return ()
        stays = (
            name
            for name in self._disk.names(folder)
            if name != STAGING and join(folder, name) not in self._scope
        )
        return tuple(sorted(self._names.get(folder, set()).union(stays)))

    def take(self, edit: Edit) -> None:
        """Let a file have the content that an edit gives it.

        Raises:
            ValueError: when it does not hold what the edit takes it to.
        """
        if self.read(edit.path) != edit.before:
            raise ValueError(f"an edit of what a file does not hold: {edit.path!r}")
        if edit.path in self._scope:
            self._payload = self._payload.edited(edit.path, edit.after)
        else:
            self._edited[edit.path] = edit.after

    def _content(self, entry: Entry) -> bytes:
        content = bytearray(entry.size)
        for offset, piece in self._payload.pieces(entry.link_to or entry.path):
            content[offset : offset + len(piece)] = piece
        return bytes(content)
