"""Which paths belong to the role, which to the disk, and which to nobody.

A *pattern* is an absolute path. In a component, `*`, `?` and `[...]` match as in a shell and never cross a slash; a
component `**` stands for any number of components, none included. A pattern claims the path that it matches and
everything beneath it. Paths inside a system are bytes, since file names need not be text.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

_WILDCARD = re.compile(r"(\*|\?|\[!?\]?[^\]]*\])")


class Claim(Enum):
    """Who decides what a path holds."""

    ROLE = "role"
    """An overlay is authoritative: after a rebuild exactly what the overlay holds exists there."""
    DISK = "disk"
    """Bound to the disk (fstab, boot loader): each clone keeps its own."""
    VOLATILE = "volatile"
    """Logs, leases, caches: neither captured nor listed."""
    NOBODY = "nobody"
    """The common system: the same on every clone."""


class PatternError(ValueError):
    """A scope pattern that cannot be meant: relative, with `.` or `..` or empty components."""


def check_pattern(pattern: str) -> str:
    """Return `pattern` if it can be meant.

    Raises:
        PatternError: for a relative path, the root itself, or components that are empty, `.` or `..`.
    """
    if not pattern.startswith("/") or pattern == "/":
        raise PatternError(f"scope pattern is no absolute path below the root: {pattern!r}")
    if not {"", ".", ".."}.isdisjoint(pattern.split("/")[1:]):
        raise PatternError(f"scope pattern has an empty, '.' or '..' component: {pattern!r}")
    return pattern


def _is_plain(pattern: str) -> bool:
    """Whether it matches nothing but itself."""
    return set("*?[").isdisjoint(pattern)


def pattern_regex(pattern: str) -> bytes:
    """What a pattern claims as a regular expression (for `re.DOTALL`) over the whole bytes of an absolute path.

    Raises:
        PatternError: as `check_pattern`.
    """
    return _folder_regex(check_pattern(pattern).split("/")[1:]) + rb"(?:/.*)?"


def _folder_regex(components: list[str]) -> bytes:
    """Match what the components match, without what is beneath it. A slash or the end of the path must follow.

    Patterns may be an enemy's, so no expression may try all ways to share a path out among wildcards. What stands
    between two `**` is taken where it fits first: that leaves most to what follows, so no other place needs a try.
    """
    first, *others = _between(components, "**")
    regex = b"".join(map(_part_regex, first))
    for number, run in enumerate(others, 1):
        found = b"(?:/[^/]++)*?" + b"".join(map(_part_regex, run))
        # The last one is where the end is.
        regex += found if number == len(others) else b"(?>" + found + b"(?![^/]))"
    return regex


def _part_regex(component: str) -> bytes:
    return b"/" + _component_regex(component)


def _component_regex(component: str) -> bytes:
    """Match a component of a path; a slash or the end must follow.

    What stands between two `*` is treated as in `_folder_regex`.
    """
    first, *others = _between(_WILDCARD.split(component), "*")
    regex = "".join(map(_piece_regex, first))
    for number, run in enumerate(others, 1):
        found = "".join(map(_piece_regex, run))
        regex += f"[^/]*{found}" if number == len(others) else f"(?>[^/]*?{found})"
    return regex.encode("utf-8", "surrogateescape")


def _piece_regex(piece: str) -> str:
    if piece == "?":
        return "[^/]"
    if piece.startswith("[") and piece.endswith("]") and piece not in ("[]", "[!]"):
        return _set_regex(piece[1:-1])
    return re.escape(piece)


def _set_regex(text: str) -> str:
    """Match one byte of a set (`abc`, `a-c`, `!a`), never a slash; a range that ends before it begins has none.

    Not by `fnmatch`, which drops such a range first, and then takes the `!` that was behind it for one that negates.
    """
    data = text.encode("utf-8", "surrogateescape")
    items, named, at = data.removeprefix(b"!"), set[int](), 0
    while at < len(items):
        end = at + 2 if items[at + 1 : at + 2] == b"-" and at + 2 < len(items) else at
        named.update(range(items[at], items[end] + 1))
        at = end + 1
    taken = (set(range(256)) - named if data.startswith(b"!") else named) - {ord("/")}
    class_ = "".join(rf"\x{byte:02x}" for byte in sorted(taken))
    return f"[{class_}]" if taken else "(?!)"


def _between(parts: Iterable[str], mark: str) -> list[list[str]]:
    """The runs of parts before, between and behind the marks, empty ones too."""
    runs: list[list[str]] = [[]]
    for part in parts:
        if part == mark:
            runs.append([])
        else:
            runs[-1].append(part)
    return runs


def _way_regex(pattern: str) -> bytes:
    """Match every folder above what a pattern matches; the root is the empty string."""
    way = b""
    for component in pattern.split("/")[1:-1]:
        if component == "**":
            return way + b"(?:/.*)?"
        # Where the folder ends it ends for all that follows. Not nested: patterns may be deeper than the stack.
        way += b"(?:" + _part_regex(component) + rb"|\Z)"
    return way


@dataclass(frozen=True, slots=True)
class Hidden:
    """Which names of one folder are volatile: these, and those that match the expression, if there is one."""

    names: frozenset[bytes]
    regex: re.Pattern[bytes] | None

    def leave(self, names: list[bytes]) -> list[bytes]:
        """The names that are not volatile, in their order."""
        gone = self.names.intersection(names)
        if self.regex is None and not gone:
            return names
        matches = self.regex.fullmatch if self.regex else gone.__contains__
        return [name for name in names if name not in gone and not matches(name)]


class _Volatile:
    """The volatile patterns taken apart, to ask about all names of a folder at once instead of one path at a time."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._by_folder: dict[bytes, list[str]] = {}
        self._by_regex: list[tuple[re.Pattern[bytes], str]] = []
        self._made: dict[tuple[str, ...], Hidden] = {}
        for pattern in patterns:
            parts = pattern.split("/")[1:]
            while len(parts) > 1 and parts[-1] == "**":  # none included: the same as without
                del parts[-1]
            *above, last = parts
            if not all(map(_is_plain, above)):
                self._by_regex.append((re.compile(_folder_regex(above), re.DOTALL), last))
            else:
                folder = "/".join(["", *above])
                self._by_folder.setdefault(folder.encode("utf-8", "surrogateescape"), []).append(
                    last
                )

    def below(self, folder: bytes) -> Hidden:
        folder = folder.rstrip(b"/")
        found = [last for way, last in self._by_regex if way.fullmatch(folder)]
        parts = (*self._by_folder.get(folder, ()), *found)
        if parts not in self._made:
            self._made[parts] = self._hidden(parts)
        return self._made[parts]

    @staticmethod
    def _hidden(parts: tuple[str, ...]) -> Hidden:
        plain = set(filter(_is_plain, parts))
        others = [_component_regex(part) for part in parts if part not in plain]
        return Hidden(
            frozenset(part.encode("utf-8", "surrogateescape") for part in plain),
            re.compile(b"|".join(others), re.DOTALL) if others else None,
        )


class _List:
    """One list of patterns. Nearly all are plain, and quicker looked up, and made ready, than a regular expression."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        wild = [pattern_regex(pattern) for pattern in patterns if not _is_plain(pattern)]
        self._plain = {
            pattern.encode("utf-8", "surrogateescape") for pattern in filter(_is_plain, patterns)
        }
        self._wild = re.compile(b"|".join(wild), re.DOTALL) if wild else None

    def claims(self, path: bytes, above: list[bytes]) -> bool:
        """Whether it claims `path`; `above` is the path and the folders on the way to it."""
        if not self._plain.isdisjoint(above):
            return True
        return self._wild is not None and self._wild.fullmatch(path) is not None


class _Matchers:
    """The patterns, ready to be asked. That takes a while, so each kind is made when it is asked for."""

    def __init__(self, lists: Mapping[Claim, tuple[str, ...]]) -> None:
        self._lists = lists

    @cached_property
    def lists(self) -> dict[Claim, _List]:
        """What each list claims, the one that beats the others first."""
        return {claim: _List(patterns) for claim, patterns in self._lists.items()}

    @cached_property
    def ways(self) -> re.Pattern[bytes]:
        """Every folder above what the role may claim."""
        ways = b"|".join(_way_regex(pattern) for pattern in self._lists[Claim.ROLE])
        return re.compile(b"(?:" + ways + b")", re.DOTALL)

    @cached_property
    def volatile(self) -> _Volatile:
        """What is volatile, by folder."""
        return _Volatile(self._lists[Claim.VOLATILE])


@dataclass(frozen=True, slots=True)
class Scope:
    """The three lists of patterns of a profile; `disk` and `volatile` beat `role`.

    Raises:
        PatternError: when a pattern cannot be meant.
    """

    role: tuple[str, ...]
    disk: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    _matchers: _Matchers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lists = {Claim.VOLATILE: self.volatile, Claim.DISK: self.disk, Claim.ROLE: self.role}
        for pattern in (*self.role, *self.disk, *self.volatile):
            check_pattern(pattern)
        object.__setattr__(self, "_matchers", _Matchers(lists))

    def claim(self, path: bytes) -> Claim:
        """Who decides what `path` (absolute, as inside the system) holds. The root itself is nobody's."""
        if path == b"/":
            return Claim.NOBODY
        above, folder = [], path
        while folder:
            above.append(folder)
            folder = folder[: folder.rfind(b"/")]
        for claim, patterns in self._matchers.lists.items():
            if patterns.claims(path, above):
                return claim
        return Claim.NOBODY

    def __contains__(self, path: bytes) -> bool:
        return self.claim(path) is Claim.ROLE

    def may_hold(self, folder: bytes) -> bool:
        """Whether a path beneath `folder` could be the role's: where it cannot, nobody needs to look."""
        claim = self.claim(folder)
        if claim is Claim.NOBODY:
            return self._matchers.ways.fullmatch(b"" if folder == b"/" else folder) is not None
        return claim is Claim.ROLE

    def hidden_in(self, folder: bytes) -> Hidden:
        """Which names of a folder are volatile. The folder itself must not be: beneath such a one everything is."""
        return self._matchers.volatile.below(folder)
