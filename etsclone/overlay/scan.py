"""See what a tree holds in the scope, with all that an overlay keeps of it."""

import hashlib
import heapq
import os
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from etsclone.errors import UnsafePath
from etsclone.model.scope import Claim, Scope
from etsclone.model.tree import (
    STAGING,
    Entry,
    Kind,
    Tree,
    join,
    name_of,
    parent_of,
    printable,
    twins,
)
from etsclone.overlay.files import (
    Attributes,
    chunks,
    opened_file,
    opened_folder,
    opened_root,
    read_attributes,
    read_link,
    working_in,
)
from etsclone.overlay.flags import read_flags
from etsclone.overlay.status import ATTEMPTS, TICK_NS, device_of, kind_of, owner_names, settled
from etsclone.units import counted

_SPLIT = (Kind.SYMLINK, Kind.FIFO, Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)
"""What can have several names, and is kept once for each of them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What was seen.

    `scope` is all that the role claims, in byte order of the paths. `outside` is what stands around it and decides
    whether the scope can be changed: paths that do or could lead to a path of the scope, paths inside folders of the
    scope that the scope leaves out, and what an interrupted rebuild left. Its entries carry no content and no
    attributes. `warnings` are sentences for people about what is not captured, or not for certain.
    """

    scope: Tree
    outside: Tree
    warnings: tuple[str, ...]


def scan(root: str, scope: Scope, *, skip: Collection[bytes] = ()) -> Scan:
    """Walk the tree below `root` once, in byte order of the paths, and never through a symbolic link.

    Args:
        root: the top of the tree; `/` inside `chroot.in_chroot`.
        scope: what belongs to the role. Parts of the tree that cannot hold any of it are not visited.
        skip: paths where something else is mounted (/proc, /sys, ...): not entered and not part of the scope.

    Raises:
        OSError: when something cannot be read.
    """
    with opened_root(root) as top:
        walk = _Walk(top, scope, frozenset(skip))
        found = _Findings(scope)
        for sight in walk.sights():
            found.add(sight)
        linked = found.linked()
        # What is looked at again may be told again.
        warnings = dict.fromkeys((*walk.warnings, *found.warnings))
        return Scan(linked, found.outside, tuple(warnings))


@dataclass(frozen=True, slots=True)
class _Sight:
    """An entry as it was met; `claim` is NOBODY for what is skipped, `inode` is (device, inode number), and `names`
    is how many names it has anywhere.
    """

    entry: Entry
    claim: Claim
    inode: tuple[int, int]
    names: int


class _Findings:
    """Sorts what is met into the parts of a `Scan`."""

    def __init__(self, scope: Scope) -> None:
        self.outside: dict[bytes, Entry] = {}
        self.warnings: list[str] = []
        self._scope = scope
        self._inside: dict[bytes, _Sight] = {}
        self._patterns = [os.fsencode(pattern) for pattern in scope.role]

    def add(self, sight: _Sight) -> None:
        entry, scope = sight.entry, self._scope
        if sight.claim is Claim.ROLE:
            self._inside[entry.path] = sight
            if entry.kind is Kind.SOCKET:
                self._warn(entry, "is a socket: not captured")
        elif (
            scope.may_hold(entry.path)
            or parent_of(entry.path) in scope
            or name_of(entry.path) == STAGING
        ):
            self.outside[entry.path] = entry
            if entry.kind is Kind.SYMLINK and self._hides_scope(entry.path):
                self._warn(
                    entry, "is a symbolic link: what the scope names beneath it is not captured"
                )

    def linked(self) -> Tree:
        """The scope with the hard links among its files found."""
        first: dict[tuple[int, int], Entry] = {}
        tree: dict[bytes, Entry] = {}
        inside = Counter(sight.inode for sight in self._inside.values())
        for one, other in twins(self._inside):
            self._warn(
                self._inside[other].entry,
                f"differs from {printable(one)} only in case or in the form of its characters",
            )
        for path, sight in self._inside.items():
            tree[path] = entry = sight.entry
            leader = first.setdefault(sight.inode, entry)
            if leader is entry:
                self._warn_of_names(sight, inside[sight.inode])
            elif entry.kind is Kind.FILE:
                tree[path] = replace(leader, path=path, link_to=leader.path)
        return tree

    def _warn_of_names(self, sight: _Sight, inside: int) -> None:
        if sight.entry.kind is Kind.FILE and (others := sight.names - inside) > 0:
            self._warn(
                sight.entry,
                f"is a hard link: {counted(others, 'other name', 'is', 'are')} outside of the scope"
                " and will not be linked",
            )
        elif sight.entry.kind in _SPLIT and (others := sight.names - 1) > 0:
            self._warn(
                sight.entry,
                f"is a hard link, but no file: {counted(others, 'other name')} will not be linked",
            )

    def _hides_scope(self, path: bytes) -> bool:
        return any(pattern.startswith(path + b"/") for pattern in self._patterns)

    def _warn(self, entry: Entry, what: str) -> None:
        self.warnings.append(f"{printable(entry.path)} {what}")


class _Walk:
    """Meets every path of interest, in byte order, a folder before what it holds."""

    def __init__(self, top: int, scope: Scope, skip: frozenset[bytes]) -> None:
        self.warnings: list[str] = []
        self._top = top
        self._scope = scope
        self._skip = skip
        self._users = owner_names(top, b"passwd")
        self._groups = owner_names(top, b"group")

    def sights(self) -> Iterator[_Sight]:
        """Everything of interest. `/a.b` comes between `/a` and `/a/b`, so a heap holds what is met but not due."""
        with working_in(self._top):
            top = self._look(self._top, b".", b"/")
        due: list[tuple[bytes, _Sight]] = [(b"/", top)] if top else []
        while due:
            path, sight = heapq.heappop(due)
            yield sight
            if sight.entry.kind is Kind.FOLDER and self._enters(path):
                for below in self._inside(path):
                    heapq.heappush(due, (below.entry.path, below))

    def _enters(self, path: bytes) -> bool:
        skipped = path in self._skip or self._claim(path) is Claim.VOLATILE
        return not skipped and self._scope.may_hold(path)

    def _inside(self, path: bytes) -> list[_Sight]:
        try:
            with opened_folder(self._top, path) as folder, working_in(folder):
                names = map(os.fsencode, os.listdir(folder))
                sights = [self._look(folder, name, join(path, name)) for name in names]
        except (FileNotFoundError, UnsafePath):
            self.warnings.append(f"{printable(path)} changed while it was read")
            return []
        return [sight for sight in sights if sight]

    def _look(self, folder: int, name: bytes, path: bytes) -> _Sight | None:
        """See one path of the working folder as it is at one moment; None when it is gone."""
        claim, sight = self._claim(path), None
        for _ in range(ATTEMPTS):
            try:
                before, began_ns = os.lstat(name), time.time_ns()
            except FileNotFoundError:
                return None
            # What became something else meanwhile is looked at again.
            with suppress(FileNotFoundError, UnsafePath):
                entry = self._entry(folder, name, path, before, claim)
                sight = _Sight(entry, claim, (before.st_dev, before.st_ino), before.st_nlink)
                if settled(before, os.lstat(name), began_ns):
                    return sight
            time.sleep(TICK_NS / 10**9)
        self.warnings.append(f"{printable(path)} changed while it was read")
        return sight

    def _entry(
        self, folder: int, name: bytes, path: bytes, status: os.stat_result, claim: Claim
    ) -> Entry:
        kind = kind_of(status)
        entry = Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            uname=self._users.get(status.st_uid, ""),
            gname=self._groups.get(status.st_gid, ""),
            size=status.st_size if kind is Kind.FILE else 0,
            target=read_link(name) if kind is Kind.SYMLINK else None,
            device=device_of(status),
        )
        return self._kept(folder, name, entry) if claim is Claim.ROLE else entry

    def _kept(self, folder: int, name: bytes, entry: Entry) -> Entry:
        """The entry with what only an overlay needs.

        Raises:
            FileNotFoundError, UnsafePath: when it is of another kind by now, or gone.
        """
        entry = replace(entry, xattrs=self._attributes(name, entry.path))
        if entry.kind is Kind.FOLDER:
            with opened_folder(folder, name) as descriptor:
                return replace(entry, flags=read_flags(descriptor))
        if entry.kind is not Kind.FILE:
            return entry
        with opened_file(folder, name) as descriptor:
            digest, size = hashlib.sha256(), 0
            for piece in chunks(descriptor):
                digest.update(piece)
                size += len(piece)
            flags = read_flags(descriptor)
        return replace(entry, size=size, sha256=digest.hexdigest(), flags=flags)

    def _attributes(self, name: bytes, path: bytes) -> Attributes:
        return read_attributes(
            name,
            lambda attribute, why: self.warnings.append(
                f"{printable(path)} has an attribute that {why} and is not captured: {printable(attribute)}"
            ),
        )

    def _claim(self, path: bytes) -> Claim:
        if name_of(path) == STAGING:
            return Claim.VOLATILE
        return Claim.NOBODY if path in self._skip else self._scope.claim(path)
