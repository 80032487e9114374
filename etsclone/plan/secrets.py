"""Which files hold what nobody but their owner should read, and what of a line should not be shown."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from etsclone.model.scope import pattern_regex
from etsclone.model.tree import Entry

KNOWN = (
    "/etc/**/*shadow*",
    "/etc/**/*.key",
    "/etc/**/*.keys",
    "/etc/**/*.p12",
    "/etc/**/*.pfx",
    "/etc/**/*secret*",
    "/etc/**/*passwd",
    "/etc/**/*password*",
    "/etc/**/*.keytab",
    "/etc/**/private",
    "/etc/**/privkey*.pem",
    "/etc/ssh/ssh_host_*_key",
    "/etc/letsencrypt/accounts",
    "/etc/wireguard",
    "/etc/NetworkManager/system-connections",
    "/etc/ppp/*-secrets",
    "/etc/iscsi",
    "/etc/keepalived",
    "/etc/wpa_supplicant",
    "/etc/**/*.netdev",
    "/etc/**/*.netdev.d",
    "/root/.ssh/id_*",
    "/home/*/.ssh/id_*",
    "/**/.netrc",
    "/**/.pgpass",
    "/**/.my.cnf",
    "/**/*.tdb",
    "/**/*.ldb",
    "/**/*.kdbx",
)
"""Where secrets usually are, whatever the mode of the file."""

_PUBLIC = ("/etc/passwd", "/etc/**/*.pub")
"""What is none although its name looks like it."""

_FOR_OTHERS = 0o004
_FOLDER_FOR_OTHERS = 0o005
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|AGE-SECRET-KEY-1", re.IGNORECASE
)
_WORDS = (
    r"(?:passw(?:or)?d|passphrase|secret|psk|private[ _-]?key|api[ _-]?key|token|community"
    r"|bindpw|rootpw|requirepass|masterauth|identified\s+by"
    r"|pre-?shared[ _-]?key|(?:wireless|wep)[_-]?key|auth_pass(?![a-z]))"
    r"(?![a-z0-9_-]{0,40}(?:file|path)\b)[a-z0-9_-]{0,80}[\"'\])]*"
)
"""What has a secret as its value; the name of a file that holds one is none."""

_VALUE = re.compile(
    rf"(?i)({_WORDS}(?>\s*[=:,>]\s*|\s+))"
    r"(?![\"']?(?:yes|no|true|false|on|off|none)[\"'\]);,]*\s*\Z)(\S.*)"
)
_ASSIGNED = re.compile(
    r"(?i)((?:(?<![a-z])pass|pwd|credentials?|[a-z]_key)[\"'\])]*\s*[=:,>]\s*)(\S.*)"
)
"""Words that also mean other things: only with a value assigned."""

_KEY = re.compile(r"(?i)^([-+ ]?\s*key\s*=\s*)(\S.*)")
"""As systemd has it; elsewhere in a line it may be the name of anything."""

_OPEN = re.compile(
    rf"(?i)(?:^|[\s;{{,<\"'])[a-z0-9_.-]{{0,40}}{_WORDS}\s*+[=:,>]?+\s*+[|>\\]?+-?+\s*+\Z"
)
"""The value is on the next line."""

_TAIL = 400
"""Characters at the end of a line that such a word is looked for in; it and all that may follow it has fewer."""

_COMMENTS = ("#", ";", "//")

_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s]+(?=@)")

_ARGUMENT = r"""(?:"(?:\\.|[^"\\])*+(?:"|\Z)|'[^']*+(?:'|\Z)|\S)+"""
_COMMANDS = tuple(
    (
        re.compile(rf"\b(?:{name})\b(?:(?!\s(?:\||\|\||&&?)\s|;\s).)*"),
        re.compile(rf"({option}){_ARGUMENT}"),
    )
    for name, option in (
        (r"(?:mysql|mariadb)[a-z_-]*", r"\s-p"),
        (
            "curl",
            r"\s(?:-[a-zA-Z]{0,20}[uU]\s*|--(?:proxy-)?user[\s=]\s*)(?=[^\s\"']*:|\"[^\"]*:|'[^']*:)",
        ),
        ("sshpass", r"^sshpass(?:\s+-[^p\s]\S*(?:\s+[^-\s]\S*)?)*?\s+-p\s*"),
        (
            "smb[a-z]+|rpcclient|net",
            r"\s(?:-U\s*|--user(?:name)?[\s=]\s*)(?=[^\s\"']*%|\"[^\"]*%|'[^']*%)",
        ),
        ("openssl", r"\s(?:-[kK]\s+|-pass(?:in|out)?\s+pass:)"),
        (r"ldap[a-z]+", r"\s-w\s*"),
        ("redis-cli", r"\s-a\s+"),
        ("ipmitool", r"\s-P\s*"),
    )
)
"""Programs, up to where the next command begins, and which of their options has a secret as its value."""

MASK = "********"

_HOLE = "\0"
"""Stands for a character that is not shown; no line that is shown has it."""

_HOLES = re.compile(f"{_HOLE}+")


def secret_paths(more: Iterable[str] = ()) -> re.Pattern[bytes]:
    """What matches the whole of each path that is a secret's: known ones and those of a profile's patterns.

    Raises:
        PatternError: when a pattern cannot be meant.
    """
    public, known = (_any_of(patterns) for patterns in (_PUBLIC, KNOWN))
    named = _any_of(more)
    parts = [b"(?!(?:" + public + rb")\Z)(?:" + known + b")", *([named] if named else [])]
    return re.compile(b"|".join(b"(?:" + part + b")" for part in parts), re.DOTALL)


def is_hidden(folders: Iterable[Entry]) -> bool:
    """Whether one of the folders on the way to a file keeps others out."""
    return any(folder.mode & _FOLDER_FOR_OTHERS != _FOLDER_FOR_OTHERS for folder in folders)


def is_secret(
    entries: Iterable[Entry], contents: Iterable[bytes], paths: re.Pattern[bytes]
) -> bool:
    """Whether a file is to be kept to oneself on any of the two sides: by its path, its mode or what it begins with."""
    return any(
        paths.fullmatch(entry.path) or not entry.mode & _FOR_OTHERS for entry in entries
    ) or any(_PRIVATE_KEY.search(content) for content in contents)


def masked(line: str) -> str:
    """A line of a file that is no secret as a whole, without the value of what looks like a password."""
    return _shown(_blanked(line))


def masked_from_above(*files: Sequence[str]) -> dict[str, str]:
    """As they may be shown, the lines of files that lines above may tell to be the value of what looks like a password.

    These are what stands below a word, or goes on after a backslash; without white space around them. A line that is a
    secret in one place is one everywhere.
    """
    blanked: dict[str, str] = {}
    for file in files:
        for line, blank in (*_below_words(file), *_continued(file)):
            before = blanked.get(line) or _blanked(line)
            blanked[line] = "".join(
                _HOLE if _HOLE in pair else pair[0] for pair in zip(before, blank, strict=True)
            )
    return {line: _shown(blank) for line, blank in blanked.items()}


def _below_words(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Lines below those that end with a word, stripped, and blanked."""
    is_open = False
    for line in filter(None, map(str.strip, lines)):
        if is_open:
            yield line, _HOLE * len(line)
        end = _OPEN.search(line, max(0, len(line) - _TAIL))
        is_open = end is not None and not line.startswith(_COMMENTS)


def _continued(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Lines that go on after a backslash, stripped, and blanked by what they are together."""
    parts: list[str] = []
    for line in map(str.rstrip, lines):
        parts.append(line)
        if not line.endswith("\\"):
            if len(parts) > 1:
                yield from _together(parts)
            parts = []
    yield from _together(parts)


def _together(parts: Iterable[str]) -> Iterator[tuple[str, str]]:
    bodies = [part.removesuffix("\\") for part in parts]
    blanked, at = _blanked("".join(bodies)), 0
    for part, body in zip(parts, bodies, strict=True):
        end = at + len(body)
        line = part.lstrip()
        yield line, (blanked[at:end] + part[len(body) :])[len(part) - len(line) :]
        at = end


def _blanked(line: str) -> str:
    """A line with holes in place of what is not shown, as long as it is."""
    for program, option in _COMMANDS:
        line = program.sub(partial(_without_value, option), line)
    for pattern in (_VALUE, _ASSIGNED, _KEY, _IN_URL):
        line = pattern.sub(_blank, line)
    return line


def _without_value(option: re.Pattern[str], command: re.Match[str]) -> str:
    return option.sub(_blank, command[0])


def _blank(match: re.Match[str]) -> str:
    return match[1] + _HOLE * (match.end() - match.end(1))


def _shown(blanked: str) -> str:
    return _HOLES.sub(MASK, blanked)


def _any_of(patterns: Iterable[str]) -> bytes:
    return b"|".join(b"(?:" + pattern_regex(pattern) + b")" for pattern in patterns)
