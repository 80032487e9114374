"""Which paths belong to the role, which to the disk, and which to nobody.

A *pattern* is an absolute path. In a component, `*`, `?` and `[...]` match as in a shell and never cross a slash; a
component `**` stands for any number of components, none included. A pattern claims the path that it matches and
everything beneath it. Paths inside a system are bytes, since file names need not be text.
"""

import fnmatch
import re
from dataclasses import dataclass, field
from enum import Enum


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


def pattern_regex(pattern: str) -> re.Pattern[bytes]:
    """Compile a pattern to a regular expression over the whole bytes of an absolute path.

    Raises:
        PatternError: for a relative path, the root itself, or components that are empty, `.` or `..`.
    """
    components = pattern.split("/")[1:]
    if not pattern.startswith("/") or pattern == "/":
        raise PatternError(f"scope pattern is no absolute path below the root: {pattern!r}")
    if any(component in {"", ".", ".."} for component in components):
        raise PatternError(f"scope pattern has an empty, '.' or '..' component: {pattern!r}")
    parts = [
        b"(?:/[^/]+)*" if part == "**" else b"/" + _component_regex(part) for part in components
    ]
    return re.compile(b"".join(parts) + rb"(?:/.*)?", re.DOTALL)


def _component_regex(component: str) -> bytes:
    # fnmatch knows nothing of slashes: its "." must become "anything but a slash" in all that a wildcard yields.
    pieces = re.split(r"(\*|\?|\[!?\]?[^\]]*\])", component)
    translated = []
    for piece in pieces:
        if piece == "*":
            translated.append("[^/]*")
        elif piece == "?":
            translated.append("[^/]")
        elif piece.startswith("[") and piece.endswith("]"):
            # It comes as (?s:...)\Z; Python 3.14 spells the end \z.
            inner = fnmatch.translate(piece)[len("(?s:") : -len(r")\Z")]
            translated.append(f"(?!/){inner}")
        else:
            translated.append(re.escape(piece))
    return "".join(translated).encode("utf-8", "surrogateescape")


def _way_regex(pattern: str) -> bytes:
    """Match every folder above what a pattern matches; the root is the empty string."""
    way = b""
    for component in reversed(pattern.split("/")[1:-1]):
        way = (
            b"(?:/.*)?"
            if component == "**"
            else b"(?:/" + _component_regex(component) + way + b")?"
        )
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
            if any(re.search(r"[*?[]", part) for part in above):
                way = b"".join(
                    b"(?:/[^/]+)*" if part == "**" else b"/" + _component_regex(part)
                    for part in above
                )
                self._by_regex.append((re.compile(way, re.DOTALL), last))
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
        plain = {part for part in parts if not re.search(r"[*?[]", part)}
        others = [_component_regex(part) for part in parts if part not in plain]
        return Hidden(
            frozenset(part.encode("utf-8", "surrogateescape") for part in plain),
            re.compile(b"|".join(others), re.DOTALL) if others else None,
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """The three lists of patterns of a profile; `disk` and `volatile` beat `role`.

    Raises:
        PatternError: when a pattern cannot be meant.
    """

    role: tuple[str, ...]
    disk: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    _regexes: dict[Claim, re.Pattern[bytes]] = field(init=False, repr=False, compare=False)
    _ways: re.Pattern[bytes] = field(init=False, repr=False, compare=False)
    _hidden: _Volatile = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lists = {Claim.VOLATILE: self.volatile, Claim.DISK: self.disk, Claim.ROLE: self.role}
        joined = {
            claim: re.compile(
                b"|".join(b"(?:" + pattern_regex(pattern).pattern + b")" for pattern in patterns),
                re.DOTALL,
            )
            for claim, patterns in lists.items()
            if patterns
        }
        object.__setattr__(self, "_regexes", joined)
        ways = b"|".join(_way_regex(pattern) for pattern in self.role)
        object.__setattr__(self, "_ways", re.compile(b"(?:" + ways + b")", re.DOTALL))
        object.__setattr__(self, "_hidden", _Volatile(self.volatile))

    def claim(self, path: bytes) -> Claim:
        """Who decides what `path` (absolute, as inside the system) holds. The root itself is nobody's."""
        if path == b"/":
            return Claim.NOBODY
        for claim, regex in self._regexes.items():
            if regex.fullmatch(path):
                return claim
        return Claim.NOBODY

    def __contains__(self, path: bytes) -> bool:
        return self.claim(path) is Claim.ROLE

    def may_hold(self, folder: bytes) -> bool:
        """Whether a path beneath `folder` could be the role's: where it cannot, nobody needs to look."""
        claim = self.claim(folder)
        if claim is Claim.NOBODY:
            return self._ways.fullmatch(b"" if folder == b"/" else folder) is not None
        return claim is Claim.ROLE

    def hidden_in(self, folder: bytes) -> Hidden:
        """Which names of a folder are volatile. The folder itself must not be: beneath such a one everything is."""
        return self._hidden.below(folder)
