"""Which files hold what nobody but their owner should read, and what of a line should not be shown."""

import re
from collections.abc import Iterable
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
    r"[a-z0-9_.-]{0,40}(?:passw(?:or)?d|passphrase|secret|psk|private[ _-]?key|api[ _-]?key|token|community"
    r"|bindpw|rootpw|requirepass|masterauth|identified\s+by"
    r"|pre-?shared[ _-]?key|(?:wireless|wep)[_-]?key|auth_pass(?![a-z]))"
    r"(?![a-z0-9_-]{0,40}(?:file|path)\b)[a-z0-9_-]{0,80}[\"'\])]*"
)
"""What has a secret as its value; the name of a file that holds one is none."""

_VALUE = re.compile(
    rf"(?i)\b({_WORDS}(?>\s*[=:,>]\s*|\s+))"
    r"(?![\"']?(?:yes|no|true|false|on|off|none)[\"'\]);,]*\s*\Z)(\S.*)"
)
_ASSIGNED = re.compile(
    r"(?i)\b([a-z0-9_.-]{0,40}(?:(?<![a-z])pass|pwd|credentials?|[a-z]_key)[\"'\])]*\s*[=:,>]\s*)(\S.*)"
)
"""Words that also mean other things: only with a value assigned."""

_KEY = re.compile(r"(?i)^([-+ ]?\s*key\s*=\s*)(\S.*)")
"""As systemd has it; elsewhere in a line it may be the name of anything."""

_OPEN = re.compile(rf"(?i)(?:^|[\s;{{,<\"']){_WORDS}\s*[=:,>]?\s*[|>\\]?-?\s*\Z")
"""The value is on the next line."""

_COMMENTS = ("#", ";", "//")

_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s]+@")

_ARGUMENT = r"""(?:"(?:\\.|[^"\\]){0,200}"|'[^']{0,200}'|\S)+"""
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
    for program, option in _COMMANDS:
        line = program.sub(partial(_without_value, option), line)
    for pattern in (_VALUE, _ASSIGNED, _KEY):
        line = pattern.sub(rf"\1{MASK}", line)
    return _IN_URL.sub(rf"\1{MASK}@", line)


def values_below(lines: Iterable[str]) -> frozenset[str]:
    """The lines of a file, stripped, that only the line above tells to be the value of what looks like a password."""
    found, is_open = set(), False
    for line in map(str.strip, lines):
        if not line:
            continue
        if is_open:
            found.add(line)
        is_open = not line.startswith(_COMMENTS) and _OPEN.search(line) is not None
    return frozenset(found)


def _without_value(option: re.Pattern[str], command: re.Match[str]) -> str:
    return option.sub(rf"\1{MASK}", command[0])


def _any_of(patterns: Iterable[str]) -> bytes:
    return b"|".join(b"(?:" + pattern_regex(pattern) + b")" for pattern in patterns)
