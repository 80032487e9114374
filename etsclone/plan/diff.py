"""What the differences of two inventories mean: for a rebuild, and for whoever has to read them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from etsclone.model.diff import Change, Comparison, Difference, Meaning, PackageChange
from etsclone.model.packages import Package
from etsclone.model.scope import Claim, Scope
from etsclone.model.tree import Entry, Kind, Tree, ancestors
from etsclone.plan.versions import package_changes

MANY = 10_000
"""How many lines of one meaning are told one by one; beyond, the deepest are told by the folder that holds them."""

_RECORD = re.compile(rb"/var/lib/dpkg/info/([A-Za-z0-9][A-Za-z0-9+.-]*)(?::[a-z0-9-]+)?\.[a-z0-9]+")
"""What dpkg keeps of one package."""

_RECORDS = (
    rb"/var/lib/dpkg/(?:info|(?:status|available|diversions)(?:-old)?|triggers/.*|lock.*)"
    rb"|/var/lib/apt/extended_states|/(?:var/lib|usr/lib/sysimage)/rpm/.*"
)
"""What a package manager writes whenever a package comes or goes. Not compiled before a package did."""


def compare(
    pairs: Iterable[tuple[Entry | None, Entry | None]],
    scopes: Sequence[Scope],
    before: Sequence[Package] = (),
    after: Sequence[Package] = (),
    held: tuple[Tree, Tree] = ({}, {}),
) -> Comparison:
    """Sort what differs by what it means.

    Args:
        pairs: what stands at a path on either side, in byte order of the paths, None for nothing; what is equal may
            be left out.
        scopes: those of the two sides; one when both have the same. What counts as kept is what all of them claim.
        before: the packages of the first side.
        after: those of the second; when one side's are not known, both must be empty.
        held: what the payloads of the two sides hold, for what no inventory tells; empty when the same or not known.
    """
    sorter = _Sorter(scopes, package_changes(before, after))
    words = unlisted(*held)
    for left, right in pairs:
        sorter.add(left, right, words.pop(left.path, ()) if left and right else ())
    for path, rest in words.items():  # of these, the inventories are the same
        sorter.add(held[0][path], held[1][path], rest)
    return sorter.comparison()


def meaning_of(path: bytes, scopes: Sequence[Scope]) -> Meaning:
    """What a difference at `path` means, unless it is one of time only."""
    claims = {scope.claim(path) for scope in scopes}
    if Claim.VOLATILE in claims:
        return Meaning.VOLATILE
    if Claim.DISK in claims:
        return Meaning.DISK
    return Meaning.SCOPE if claims == {Claim.ROLE} else Meaning.UNCLAIMED


def is_package_record(path: bytes) -> bool:
    """Whether a package manager writes this file whenever a package comes or goes."""
    return re.fullmatch(_RECORDS, path) is not None


def what_differs(before: Entry, after: Entry) -> tuple[str, ...]:
    """In which words two entries of one path differ, as far as an inventory tells: `unlisted` has the others."""
    if before.kind is not after.kind:
        return ("kind",)
    content = (
        before.sha256 != after.sha256
        if before.sha256 and after.sha256
        else before.size != after.size  # a file that changed while it was read has no digest
    )
    words = {
        "content": content,
        "target": before.target != after.target,
        "device": before.device != after.device,
        "mode": before.mode != after.mode,
        "flags": before.flags != after.flags,
        "owner": before.uid != after.uid,
        "group": before.gid != after.gid,
        "time": before.mtime_ns != after.mtime_ns,
    }
    return tuple(word for word, differs in words.items() if differs)


def unlisted(before: Tree, after: Tree) -> dict[bytes, tuple[str, ...]]:
    """In which words paths differ that are of one kind in both payloads, as far as no inventory tells.

    `attributes` are the extended ones, ACLs and capabilities among them; `links` says that a file has other names.
    """
    names = _linked_names(before), _linked_names(after)
    found: dict[bytes, tuple[str, ...]] = {}
    for path, left in before.items():
        right = after.get(path)
        if right is None or left.kind is not right.kind:
            continue
        words = {
            "attributes": left.xattrs != right.xattrs,
            "links": names[0].get(path) != names[1].get(path),
        }
        if any(words.values()):
            found[path] = tuple(word for word, differs in words.items() if differs)
    return found


def _linked_names(tree: Tree) -> Mapping[bytes, set[bytes]]:
    """All names of each file that has more than one, by each of them."""
    names: dict[bytes, set[bytes]] = {}
    for path, entry in tree.items():
        if entry.link_to:
            names[path] = names.setdefault(entry.link_to, {entry.link_to})
            names[path].add(path)
    return names


class _Sorter:
    """Takes differing paths one by one, and keeps few lines of them."""

    def __init__(self, scopes: Sequence[Scope], changes: Sequence[PackageChange]) -> None:
        self._scopes = scopes
        self._changes = changes
        self._changed = {change.name for change in changes}
        self._owned: Counter[str] = Counter()
        self._lines = {meaning: _Lines() for meaning in Meaning}

    def add(self, before: Entry | None, after: Entry | None, more: tuple[str, ...]) -> None:
        """Sort one path; `more` are words beyond those of `what_differs`."""
        entry = after or before
        if entry is None:
            return
        change = Change.ADDED if after else Change.REMOVED
        what: tuple[str, ...] = ()
        if before and after:
            change, what = Change.CHANGED, what_differs(before, after) + more
            if not what:
                return
        meaning = Meaning.TIME if what == ("time",) else self._meaning(before, after, entry.path)
        difference = Difference(entry.path, change, entry.kind, what)
        owner = None
        if meaning is Meaning.UNCLAIMED and self._changed:
            owner = self._owner(entry.path, [side.package for side in (before, after) if side])
        if owner is None:
            self._lines[meaning].add(difference, whole=meaning is Meaning.SCOPE)
        else:
            self._owned[owner] += 1
            self._lines[meaning].owned(difference)

    def _meaning(self, before: Entry | None, after: Entry | None, path: bytes) -> Meaning:
        meaning = meaning_of(path, self._scopes)
        kinds = {side.kind for side in (before, after) if side}
        # No overlay holds a socket: it means nothing without its process.
        return Meaning.VOLATILE if meaning is Meaning.SCOPE and kinds == {Kind.SOCKET} else meaning

    def comparison(self) -> Comparison:
        packages = tuple(
            replace(change, paths=self._owned[change.name]) for change in self._changes
        )
        found = {meaning: lines.found() for meaning, lines in self._lines.items()}
        counts = {meaning: sum(line.paths for line in lines) for meaning, lines in found.items()}
        return Comparison(packages, found, counts)

    def _owner(self, path: bytes, packages: Iterable[str]) -> str | None:
        """The changed package that accounts for a path; "" for changes of packages as such."""
        record = _RECORD.fullmatch(path)
        named = (*packages, record[1].decode()) if record else packages
        for name in named:
            if name in self._changed:
                return name
        return "" if is_package_record(path) else None


class _Lines:
    """The lines of one meaning. A folder that came or went stands for what came or went with it."""

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, Change], Difference] = {}
        self._owned_below: set[tuple[bytes, Change]] = set()
        self._depth: int | None = None

    def add(self, difference: Difference, *, whole: bool) -> None:
        """Count a difference; with `whole`, as a line of its own whatever stands above."""
        above = None if whole else self._above(difference)
        if above is not None:
            difference = self._found[above]
        elif self._depth is not None:
            difference = _shortened(difference, self._depth)
        key = (difference.path, difference.change)
        held = self._found.get(key)
        self._found[key] = replace(held, paths=held.paths + 1) if held else difference
        if len(self._found) > MANY and not whole:
            self._shorten()

    def owned(self, difference: Difference) -> None:
        """Note that a package accounts for a path: then it also does for the new folder that holds nothing else."""
        above = self._above(difference)
        if above is not None:
            self._owned_below.add(above)

    def found(self) -> tuple[Difference, ...]:
        lines = (
            line
            for key, line in self._found.items()
            if not (key in self._owned_below and line.paths == 1)
        )
        return tuple(sorted(lines, key=lambda line: line.path))

    def _above(self, difference: Difference) -> tuple[bytes, Change] | None:
        if difference.change not in (Change.ADDED, Change.REMOVED):
            return None
        keys = ((folder, difference.change) for folder in ancestors(difference.path))
        return next((key for key in keys if key in self._found), None)

    def _shorten(self) -> None:
        lines = list(self._found.values())
        depth = max(line.path.count(b"/") for line in lines)
        while len(self._found) > MANY // 2 and depth > 1:
            depth -= 1
            self._found = {}
            for line in lines:
                short = _shortened(line, depth)
                key = (short.path, short.change)
                held = self._found.get(key)
                paths = line.paths + (held.paths if held else 0)
                self._found[key] = replace(short, paths=paths)
        self._depth = depth


def _shortened(line: Difference, depth: int) -> Difference:
    """The same, told by the folder at `depth` components that holds it."""
    if line.path.count(b"/") <= depth:
        return line
    folder = b"/".join(line.path.split(b"/")[: depth + 1])
    return Difference(folder, Change.BENEATH, Kind.FOLDER)
