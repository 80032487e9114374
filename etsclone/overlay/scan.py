"""See what a tree holds: the scope with all that an overlay keeps, and on the same way the whole for the inventory."""

import hashlib
import heapq
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from etsclone.errors import UnsafePath
from etsclone.model.scope import Claim, Scope
from etsclone.model.tree import STAGING, Entry, Kind, Tree, join, name_of, parent_of, printable
from etsclone.overlay.files import (
    chunks,
    opened_file,
    opened_folder,
    opened_root,
    read_attributes,
    working_in,
)

ATTEMPTS = 3
"""How often a file that changes while it is read is read again."""

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.FOLDER,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFSOCK: Kind.SOCKET,
}

_DEVICES = (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)


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


def scan(
    root: str,
    scope: Scope,
    *,
    skip: Collection[bytes] = (),
    listed: Callable[[Entry], None] | None = None,
) -> Scan:
    """Walk the tree below `root` once, in byte order of the paths, and never through a symbolic link.

    Args:
        root: the top of the tree; `/` inside `chroot.in_chroot`.
        scope: what belongs to the role. Parts of the tree that cannot hold any of it are not visited.
        skip: paths where something else is mounted (/proc, /sys, ...): not entered and not part of the scope.
        listed: when given, the whole tree is visited, and this is called with everything that is not volatile. These
            entries have content digests; extended attributes are only read in the scope, and links are not yet found.

    Raises:
        OSError: when something cannot be read.
    """
    with opened_root(root) as top:
        walk = _Walk(top, scope, frozenset(skip), whole=listed is not None)
        found = _Findings(scope)
        for sight in walk.sights():
            if listed is not None and sight.claim is not Claim.VOLATILE:
                listed(sight.entry)
            found.add(sight)
        return Scan(found.linked(), found.outside, (*walk.warnings, *found.warnings))


@dataclass(frozen=True, slots=True)
class _Sight:
    """An entry as it was met; `claim` is NOBODY for what is skipped, `inode` is (device, inode number)."""

    entry: Entry
    claim: Claim
    inode: tuple[int, int]


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
        for path, sight in self._inside.items():
            tree[path] = entry = sight.entry
            leader = first.setdefault(sight.inode, entry) if entry.kind is Kind.FILE else entry
            if leader is not entry:
                tree[path] = replace(leader, path=path, link_to=leader.path)
        return tree

    def _hides_scope(self, path: bytes) -> bool:
        return any(pattern.startswith(path + b"/") for pattern in self._patterns)

    def _warn(self, entry: Entry, what: str) -> None:
        self.warnings.append(f"{printable(entry.path)} {what}")


class _Walk:
    """Meets every path of interest, in byte order, a folder before what it holds."""

    def __init__(self, top: int, scope: Scope, skip: frozenset[bytes], *, whole: bool) -> None:
        self.warnings: list[str] = []
        self._top = top
        self._scope = scope
        self._skip = skip
        self._whole = whole
        self._users = _names(top, b"passwd")
        self._groups = _names(top, b"group")

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
        claim = self._claim(path)
        if path in self._skip or claim is Claim.VOLATILE:
            return False
        return self._whole or self._scope.may_hold(path)

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
        claim = self._claim(path)
        try:
            for _ in range(ATTEMPTS):
                before = os.lstat(name)
                entry = self._entry(folder, name, path, before, claim)
                if _same(before, os.lstat(name)):
                    break
            else:
                self.warnings.append(f"{printable(path)} changed while it was read")
        except FileNotFoundError:
            return None
        return _Sight(entry, claim, (before.st_dev, before.st_ino))

    def _entry(
        self, folder: int, name: bytes, path: bytes, status: os.stat_result, claim: Claim
    ) -> Entry:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        wanted = claim is Claim.ROLE or (self._whole and claim is not Claim.VOLATILE)
        size, digest = status.st_size, None
        if kind is Kind.FILE and wanted:
            size, digest = _content(folder, name)
        return Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            uname=self._users.get(status.st_uid, ""),
            gname=self._groups.get(status.st_gid, ""),
            size=size if kind is Kind.FILE else 0,
            sha256=digest,
            target=os.readlink(name) if kind is Kind.SYMLINK else None,
            device=_device(status) if kind in _DEVICES else None,
            xattrs=read_attributes(name) if claim is Claim.ROLE else (),
        )

    def _claim(self, path: bytes) -> Claim:
        if name_of(path) == STAGING:
            return Claim.VOLATILE
        return Claim.NOBODY if path in self._skip else self._scope.claim(path)


def _content(folder: int, name: bytes) -> tuple[int, str | None]:
    """Size and sha256 of a file. None when it is none any more: the caller will see that it has changed."""
    digest, size = hashlib.sha256(), 0
    try:
        with opened_file(folder, name) as descriptor:
            for piece in chunks(descriptor):
                digest.update(piece)
                size += len(piece)
    except FileNotFoundError:
        return 0, None
    return size, digest.hexdigest()


def _device(status: os.stat_result) -> tuple[int, int]:
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether nothing happened between two looks. Access times do not count: the first may be our own."""

    def marks(status: os.stat_result) -> tuple[int, ...]:
        inode = (status.st_dev, status.st_ino, status.st_mode)
        return (*inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    return marks(before) == marks(after)


def _names(top: int, table: bytes) -> dict[int, str]:
    """Names by id from the tree's own /etc/passwd or /etc/group (passwd(5), group(5)); none when it has none."""
    try:
        with opened_folder(top, b"/etc") as etc, opened_file(etc, table) as descriptor:
            text = b"".join(bytes(piece) for piece in chunks(descriptor))
    except (OSError, UnsafePath):
        return {}
    names: dict[int, str] = {}
    for line in text.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit():
            names.setdefault(int(fields[2]), os.fsdecode(fields[0]))
    return names
