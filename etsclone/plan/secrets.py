"""Which files hold what nobody but their owner should read, and what of a line should not be shown."""

import re
from collections.abc import Iterable

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
_VALUE = re.compile(
    r"(?i)\b([a-z0-9_.-]{0,40}"
    r"(?:passw(?:or)?d|passphrase|secret|psk|private[ _-]?key|api[ _-]?key|token|community"
    r"|bindpw|rootpw|requirepass|masterauth|identified\s+by)"
    r"[a-z0-9_-]*[\"'\])]*\s*(?:[=:,>]|\s)\s*)(\S.*)"
)
_ASSIGNED = re.compile(
    r"(?i)\b([a-z0-9_.-]{0,40}(?:(?<![a-z])pass|pwd|credentials?|[a-z]_key)[\"'\])]*\s*[=:,>]\s*)(\S.*)"
)
"""Words that also mean other things: only with a value assigned."""

_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")

MASK = "********"


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
    for pattern in (_VALUE, _ASSIGNED):
        line = pattern.sub(rf"\1{MASK}", line)
    return _IN_URL.sub(rf"\1{MASK}@", line)


def _any_of(patterns: Iterable[str]) -> bytes:
    return b"|".join(b"(?:" + pattern_regex(pattern) + b")" for pattern in patterns)
