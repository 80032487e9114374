"""What must happen to a tree so that its scope becomes what an overlay holds. Trees in, a plan or a refusal out."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum

from etsclone.errors import ScopeConflict, UnsafePath
from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING, Entry, Kind, Tree, ancestors, name_of, printable


class Action(Enum):
    """What happens to a path. The values are the words that people read."""

    CLEAR = "clear"
    """A staging folder that an interrupted rebuild left is removed."""
    REMOVE = "remove"
    """A path of the scope that the overlay does not hold, or holds as another kind of thing, is removed."""
    PARENT = "parent"
    """A missing folder outside of the scope is made, with mode 0755 and root as its owner."""
    CREATE = "create"
    """What is not there is made."""
    REPLACE = "replace"
    """A new file (or link, device, ...) is renamed over the old one; the old inode is never written to, since it may
    have names outside of the scope."""
    RETOUCH = "retouch"
    """A folder keeps what it holds and gets other metadata."""


MADE = (Action.PARENT, Action.CREATE, Action.REPLACE)
"""The actions after which something new stands at a path."""


@dataclass(frozen=True, slots=True)
class TreeChange:
    """One change, with its reason for people. `entry` is what will stand there; None: nothing, or a plain folder."""

    action: Action
    path: bytes
    reason: str
    entry: Entry | None = None

    def __str__(self) -> str:
        return f"{self.action.value:8}{printable(self.path)}  ({self.reason})"


@dataclass(frozen=True, slots=True)
class TreePlan:
    """All changes, in the order of their execution; empty when the scope is already as it should be."""

    changes: tuple[TreeChange, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes))


def plan_tree(
    current: Tree,
    wanted: Tree,
    scope: Scope,
    outside: Tree,
    kept: Collection[bytes] = (),
) -> TreePlan:
    """Plan how the scope of a disk becomes exactly what an overlay holds.

    Args:
        current: the scope as it is on the disk (`Scan.scope`).
        wanted: the overlay's tree; sockets in it are ignored. Its folders in the scope are in it.
        scope: of the signed header; the one that `current` was scanned with.
        outside: what stands around the scope on the disk (`Scan.outside`).
        kept: staging folders that hold what earlier rebuilds keep, and that stay.

    Raises:
        ScopeConflict: when a folder must go that holds something outside of the scope.
        UnsafePath: when the way to a path leads through what is no folder.
    """
    planner = _Planner(current, _without_sockets(wanted), scope, outside)
    return TreePlan(
        (*planner.clears(kept), *planner.removals(), *planner.creations(), *planner.retouches())
    )


def differences(current: Tree, wanted: Tree) -> list[str]:
    """How the scope on a disk differs from an overlay, in byte order of the paths; empty when it does not."""
    wanted = _without_sockets(wanted)
    paths = sorted(current.keys() | wanted.keys())
    reasons = ((path, _difference(current.get(path), wanted.get(path))) for path in paths)
    return [f"{printable(path)}: {reason}" for path, reason in reasons if reason]


def _without_sockets(tree: Tree) -> Tree:
    return {path: entry for path, entry in tree.items() if entry.kind is not Kind.SOCKET}


class _Planner:
    """The rules, one method a phase of the plan."""

    def __init__(self, current: Tree, wanted: Tree, scope: Scope, outside: Tree) -> None:
        self._current = current
        self._wanted = wanted
        self._scope = scope
        self._outside = outside
        # By folder, something that it holds at any depth and that the scope leaves out.
        self._held = {
            folder: path
            for path in sorted(outside, reverse=True)
            if name_of(path) != STAGING
            for folder in ancestors(path)
        }
        self._renewed = {
            _inode(entry) for path, entry in wanted.items() if _difference(current.get(path), entry)
        }

    def clears(self, kept: Collection[bytes]) -> Iterator[TreeChange]:
        """What an interrupted rebuild left."""
        for path in sorted(self._outside):
            if name_of(path) == STAGING and path not in kept:
                yield TreeChange(Action.CLEAR, path, "left by an interrupted rebuild")

    def removals(self) -> Iterator[TreeChange]:
        """In reverse byte order: what a folder holds goes before the folder."""
        for path in sorted(self._current, reverse=True):
            old, new = self._current[path], self._wanted.get(path)
            if new and _is_folder(old) == _is_folder(new):
                continue
            if _is_folder(old):
                self._check_holds_nothing_else(path)
            reason = f"{old.kind.value} becomes {new.kind.value}" if new else "not in the overlay"
            yield TreeChange(Action.REMOVE, path, reason)

    def creations(self) -> Iterator[TreeChange]:
        """In byte order: a folder before what it will hold, and the first name of a hard link before the others."""
        made: set[bytes] = set()
        for path in sorted(self._wanted):
            for parent in self._missing_parents(path):
                if parent not in made:
                    made.add(parent)
                    yield TreeChange(Action.PARENT, parent, "missing folder outside of the scope")
            change = self._creation(path)
            if change:
                yield change

    def retouches(self) -> Iterator[TreeChange]:
        """Folders that only differ in metadata, the deepest first."""
        for path in sorted(self._wanted, reverse=True):
            old, new = self._current.get(path), self._wanted[path]
            reason = _difference(old, new)
            if old and reason and _is_folder(old) and _is_folder(new):
                yield TreeChange(Action.RETOUCH, path, reason, new)

    def _creation(self, path: bytes) -> TreeChange | None:
        old, new = self._current.get(path), self._wanted[path]
        if path in self._outside:
            raise ScopeConflict(
                f"another filesystem is mounted at {printable(path)}", hint="unmount it"
            )
        if old is None or _is_folder(old) != _is_folder(new):
            return TreeChange(Action.CREATE, path, _difference(old, new), new)
        if _is_folder(new) or _inode(new) not in self._renewed:
            return None
        reason = _difference(old, new) or "another name of a file that is replaced"
        return TreeChange(Action.REPLACE, path, reason, new)

    def _missing_parents(self, path: bytes) -> Iterator[bytes]:
        for ancestor in ancestors(path)[1:]:
            if ancestor in self._scope:
                return  # the overlay holds it, and all below it
            found = self._outside.get(ancestor)
            if found is None:
                yield ancestor
            elif not _is_folder(found):
                raise UnsafePath(
                    f"the way to {printable(path)} leads through {printable(ancestor)}, "
                    f"which is no folder but a {found.kind.value}",
                    hint="make it a folder again, or change the profile",
                )

    def _check_holds_nothing_else(self, folder: bytes) -> None:
        if path := self._held.get(folder):
            raise ScopeConflict(
                f"the overlay does without the folder {printable(folder)}, "
                f"but it holds {printable(path)}, which is outside of the scope",
                hint="move that path away, or change the profile",
            )


def _is_folder(entry: Entry) -> bool:
    return entry.kind is Kind.FOLDER


def _inode(entry: Entry) -> bytes:
    """What stands for a file with all its names: they are only ever replaced together."""
    return entry.link_to or entry.path


def _difference(current: Entry | None, wanted: Entry | None) -> str:
    """What tells two entries of one path apart, for people; empty when they are equal."""
    if current is None or wanted is None:
        return "missing" if current is None else "not in the overlay"
    if current.state == wanted.state:
        return ""
    if current.kind is not wanted.kind:
        return f"{current.kind.value} becomes {wanted.kind.value}"
    return ", ".join(_aspects(current, wanted))


def _aspects(current: Entry, wanted: Entry) -> Iterator[str]:
    if (current.size, current.sha256) != (wanted.size, wanted.sha256):
        yield "content"
    if current.target != wanted.target:
        yield "target"
    if current.device != wanted.device:
        yield "device"
    if current.link_to != wanted.link_to:
        yield "hard link"
    if current.mode != wanted.mode:
        yield f"mode {current.mode:04o} to {wanted.mode:04o}"
    if (current.uid, current.gid) != (wanted.uid, wanted.gid):
        yield f"owner {current.uid}:{current.gid} to {wanted.uid}:{wanted.gid}"
    if current.xattrs != wanted.xattrs:
        yield "attributes"
    if current.flags != wanted.flags:
        yield f"flags {','.join(current.flags) or 'none'} to {','.join(wanted.flags) or 'none'}"
    if current.mtime_ns != wanted.mtime_ns:
        yield "time"
