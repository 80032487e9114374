"""Who may sign for which role: OpenSSH's allowed_signers file, read strictly.

Source: ssh-keygen(1), "ALLOWED SIGNERS", and ssh_config(5), "PATTERNS". Whatever is trusted here is trusted by
`ssh-keygen -Y verify` too. Of the odd spellings that ssh-keygen puts up with, quoted principals and backslashes inside
options are refused here: a file that says who is trusted should leave nothing to guess. Of keys that are not Ed25519
only the type is checked: none of them can sign an overlay.
"""

import base64
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import translate

from etsclone.errors import FormatError, KeyUntrusted, TrustRefused
from etsclone.model.brd import NAMESPACE, Signer, check_name
from etsclone.overlay.sshwire import (
    KEY_TYPE,
    KEY_TYPES,
    decode_base64,
    fingerprint,
    public_key,
    split_strings,
)

_OPTION = r'(?:cert-authority|(?:namespaces|valid-after|valid-before)="[^"\\]*")'
_ANY_TYPE = (
    r"ssh-ed25519|ssh-rsa|ssh-dss|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com"
)
_KEY = rf"(?P<type>{_ANY_TYPE})[ \t]+(?P<key>[A-Za-z0-9+/=]+)(?:[ \t]+(?P<comment>.*))?"
_LINE = re.compile(
    rf'(?P<principals>[^ \t"]+)[ \t]+(?:(?P<options>(?i:{_OPTION}(?:,{_OPTION})*))[ \t]+)?{_KEY}'
)
_PUBLIC_LINE = re.compile(_KEY)
_TIME = re.compile(r"([0-9]{8}(?:[0-9]{4}(?:[0-9]{2})?)?)(Z|UTC)?", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Listing:
    """One line of the file: a key in its wire form, and what it is trusted for.

    `principals` and `namespaces` are pattern lists (None: every namespace). The times are inclusive. `authority`
    marks a key that vouches for certificates, which no overlay is signed with.
    """

    line: int
    principals: str
    key: bytes
    namespaces: str | None = None
    valid_after: datetime | None = None
    valid_before: datetime | None = None
    authority: bool = False

    def __post_init__(self) -> None:
        if self.valid_after and self.valid_before and self.valid_before <= self.valid_after:
            raise ValueError("valid-before is not after valid-after")

    def for_namespace(self, namespace: str) -> bool:
        """Whether the key may sign for `namespace`."""
        return self.namespaces is None or matches(namespace, self.namespaces)

    def for_role(self, role: str | None) -> bool:
        """Whether the key may sign for `role` (None: for any)."""
        return role is None or matches(role, self.principals)

    def valid_at(self, at: datetime | None) -> bool:
        """Whether the listing holds at that time (None: at any)."""
        return at is None or (
            (self.valid_after is None or at >= self.valid_after)
            and (self.valid_before is None or at <= self.valid_before)
        )


@dataclass(frozen=True, slots=True)
class Trust:
    """Who is trusted for what; and the keys (wire form) that are not, whatever else is said of them."""

    listings: tuple[Listing, ...]
    revoked: frozenset[bytes] = frozenset()

    @classmethod
    def parse(cls, text: str, revoked: str = "") -> "Trust":
        """Read the text of an allowed_signers file, and that of a list of revoked keys.

        Raises:
            FormatError: for a line that is neither blank, nor a comment, nor wholly understood.
        """
        listings = tuple(_parse_line(number, line) for number, line in _lines(text))
        return cls(listings, frozenset(_parse_revoked(*line) for line in _lines(revoked)))

    def signer_for(
        self, key: bytes, role: str | None, namespace: str, at: datetime | None
    ) -> Signer:
        """Who stands behind `key` (wire form), if it is trusted to sign for all that is asked.

        Args:
            key: a public key in its wire form.
            role: the role that is signed for; None asks whether it may sign for any.
            namespace: the SSHSIG namespace.
            at: the time of the signature; None asks whether the key was or will ever be trusted.

        Raises:
            TrustRefused: when the file lists nobody.
            KeyUntrusted: when the key is revoked, unknown, or listed for other roles, namespaces or times.
        """
        if not self.listings:
            raise TrustRefused(
                "no key is trusted: the list of allowed signers is empty",
                hint="name a list with --trust, or list a key with `etsclone brd trust`",
            )
        name = fingerprint(key)
        if key in self.revoked:
            raise KeyUntrusted(
                f"signed by a revoked key: {name}",
                hint="whoever has that key could have made this: take a generation that another key signed, or"
                " capture anew; then `etsclone brd prune --drop-unverified` lets it go",
            )
        mine = [
            listing for listing in self.listings if listing.key == key and not listing.authority
        ]
        if not mine:
            raise _untrusted(f"the key {name} is not known")
        mine = [listing for listing in mine if listing.for_namespace(namespace)]
        if not mine:
            raise _untrusted(f"the key {name} is listed for other purposes than {namespace}")
        for_role = [listing for listing in mine if listing.for_role(role)]
        if not for_role:
            roles = " and ".join(sorted({listing.principals for listing in mine}))
            raise _untrusted(f"the key {name} may sign for {roles}, not for {role}")
        valid = [listing for listing in for_role if listing.valid_at(at)]
        if not valid:
            raise _untrusted(
                f"the key {name} is not trusted for signatures of {at:%Y-%m-%d %H:%M:%S} UTC"
            )
        return Signer(role or valid[0].principals, name)


def matches(value: str, patterns: str) -> bool:
    """Whether `value` matches a pattern list of ssh_config(5): commas, `*`, `?`, and `!` which beats all others."""
    found = False
    for pattern in patterns.split(","):
        if _pattern_regex(pattern.removeprefix("!")).fullmatch(value):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def public_key_line(key: bytes, comment: str = "") -> str:
    """The line of a `.pub` file for a key in its wire form, with its line end."""
    text = _printable(f"{_public_text(key)} {comment}".rstrip())
    return f"{text}\n"


def parse_public_key(text: str) -> tuple[bytes, str]:
    """The wire form and the comment of the one Ed25519 public key, of a file or a token, that a `.pub` file holds.

    Raises:
        FormatError: for anything else.
    """
    line = text.strip()
    match = _PUBLIC_LINE.fullmatch(line)
    if match is None or match["type"] not in KEY_TYPES:
        raise FormatError(
            "not the line of an Ed25519 public key",
            hint=f"it looks like: {KEY_TYPE} AAAA... comment",
        )
    try:
        return _decode_key(match["type"], match["key"]), _printable(match["comment"] or "")
    except ValueError as error:
        raise FormatError(f"not a public key: {error}", hint="copy the .pub file again") from error


def add_signer(text: str, role: str, public_key_text: str) -> str:
    """The text of an allowed_signers file in which the key may also sign for `role`. Pure; other lines stay as is.

    A key that is listed already gets the role on its own line, with that line's validity; a new one gets a new line.

    Args:
        text: the file as it is; may be empty.
        role: the role to trust the key for.
        public_key_text: the line of a `.pub` file.

    Raises:
        FormatError: when the file or the key does not have its format.
        TrustRefused: when a line of the file denies this role to the key.
        ValueError: when `role` is no name.
    """
    check_name(role)
    key, comment = parse_public_key(public_key_text)
    mine = [item for item in Trust.parse(text).listings if item.key == key and not item.authority]
    mine = [item for item in mine if item.for_namespace(NAMESPACE)]
    if any(item.for_role(role) for item in mine):
        return text
    if not mine:
        start = text if not text or text.endswith("\n") else f"{text}\n"
        return f'{start}{role} namespaces="{NAMESPACE}" {public_key_line(key, comment)}'
    return _with_role(text, mine[0], role)


def _with_role(text: str, listing: Listing, role: str) -> str:
    principals = f"{listing.principals},{role}"
    if not matches(role, principals):
        raise TrustRefused(
            f"line {listing.line} of the allowed signers denies {role} to this key",
            hint="edit that line by hand",
        )
    lines = text.split("\n")
    lines[listing.line - 1] = lines[listing.line - 1].replace(listing.principals, principals, 1)
    return "\n".join(lines)


def _untrusted(message: str) -> KeyUntrusted:
    return KeyUntrusted(
        f"not signed by a trusted key: {message}",
        hint="if you know this key, list it for the role with `etsclone brd trust`; else do not use this"
        " overlay: capture anew, then `etsclone brd prune --drop-unverified` lets it go",
    )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Those lines of a text that say something, with their numbers."""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip(" \t\r")
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _parse_revoked(number: int, line: str) -> bytes:
    """The key of a line of a revocation list; ssh-keygen takes lines of public keys, and so do we."""
    try:
        return _decode_line(line)
    except ValueError as error:
        raise FormatError(
            f"line {number} of the revoked keys cannot be used: {error}",
            hint="write the public keys one a line, as in their .pub files; binary KRLs are not read",
        ) from error


def _decode_line(line: str) -> bytes:
    match = _PUBLIC_LINE.fullmatch(line)
    if match is None:
        raise ValueError("it does not read: keytype key [comment]")
    return _decode_key(match["type"], match["key"])


def _parse_line(number: int, line: str) -> Listing:
    try:
        return _parse_listing(number, _printable(line))
    except ValueError as error:
        raise FormatError(
            f"line {number} of the allowed signers cannot be used: {error}",
            hint="see ssh-keygen(1), ALLOWED SIGNERS",
        ) from error


def _parse_listing(number: int, line: str) -> Listing:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("it does not read: principals [options] keytype key [comment]")
    options = _options(match["options"] or "")
    return Listing(
        number,
        match["principals"],
        _decode_key(match["type"], match["key"]),
        options.get("namespaces"),
        _parse_time(options.get("valid-after")),
        _parse_time(options.get("valid-before")),
        "cert-authority" in options,
    )


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for match in re.finditer(r'([a-z-]+)(?:="([^"]*)")?', text, re.IGNORECASE):
        name = match[1].lower()
        if name in options:
            raise ValueError(f"it says {name} twice")
        options[name] = match[2] or ""
    return options


def _pattern_regex(pattern: str) -> re.Pattern[str]:
    # What fnmatch makes of many stars does not try all ways to share the text out among them: lists in a store may be
    # an enemy's. Brackets mean nothing here.
    return re.compile(translate(pattern.replace("[", "[[]")))


def _parse_time(text: str | None) -> datetime | None:
    """A time as ssh-keygen reads it: YYYYMMDD[HHMM[SS]], in local time unless `Z` or `UTC` follows."""
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time of the form YYYYMMDD[HHMM[SS]][Z]")
    moment = datetime.strptime(match[1].ljust(14, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    if not match[2]:
        # ssh-keygen's struct tm says "no daylight saving time", in summer too; so must we.
        moment = datetime.fromtimestamp(time.mktime((*moment.timetuple()[:8], 0)), UTC)
    if moment.timestamp() <= 0:
        raise ValueError(f"{text!r} is before 1970")
    return moment


def _decode_key(key_type: str, text: str) -> bytes:
    blob = decode_base64(text.encode())
    if split_strings(blob)[:1] != [key_type.encode()]:
        raise ValueError(f"its key is not of the type {key_type}")
    if key_type in KEY_TYPES:
        public_key(blob)
    return blob


def _public_text(key: bytes) -> str:
    return f"{split_strings(key)[0].decode()} {base64.b64encode(key).decode()}"


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("it holds control characters")
    return text
