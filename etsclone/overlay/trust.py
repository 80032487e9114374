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
from dataclasses import dataclass, replace
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

    @property
    def of_all_times(self) -> "Trust":
        """The same, with all who were ever trusted: also keys whose time is over, and those that were revoked."""
        mine = (replace(item, valid_after=None, valid_before=None) for item in self.listings)
        revoked = (Listing(0, "*", key) for key in sorted(self.revoked))
        return Trust((*mine, *revoked))

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
        self._check_any()
        if key in self.revoked:
            raise KeyUntrusted(
                f"signed by a revoked key: {fingerprint(key)}",
                hint="whoever has that key could have made this: take a generation that another key signed, or"
                " capture anew; then `etsclone brd prune --drop-unverified` lets it go",
            )
        try:
            listing = self._listing(key, role, namespace, at)
        except LookupError as error:
            raise KeyUntrusted(
                f"not signed by a trusted key: {error.args[0]}",
                hint="if you know this key, list it for the role with `etsclone brd trust`; else do not use this"
                " overlay: capture anew, then `etsclone brd prune --drop-unverified` lets it go",
            ) from error
        return Signer(role or listing.principals, fingerprint(key))

    def signer_now(self, key: bytes, role: str, now: datetime) -> Signer:
        """Who stands behind `key` (wire form), if what is signed with it now for `role` will be believed.

        Raises:
            TrustRefused: when the key is revoked, unknown, or listed for other roles, namespaces or times.
        """
        self._check_any()
        if key in self.revoked:
            raise TrustRefused(
                f"the key {fingerprint(key)} is revoked",
                hint="sign with another key: `etsclone brd keygen` makes one, `etsclone brd trust` lists it",
            )
        try:
            self._listing(key, role, NAMESPACE, now)
        except LookupError as error:
            raise TrustRefused(
                f"nothing that is signed with this key would be believed: {error.args[0]}",
                hint=f"sign with the key of {role}; or let this one sign for it: `etsclone brd trust`",
            ) from error
        return Signer(role, fingerprint(key))

    def _check_any(self) -> None:
        if not self.listings:
            raise TrustRefused(
                "no key is trusted: the list of allowed signers is empty",
                hint="name a list with --trust, or list a key with `etsclone brd trust`",
            )

    def _listing(
        self, key: bytes, role: str | None, namespace: str, at: datetime | None
    ) -> Listing:
        """The line by which the key may sign for all that is asked; LookupError says why there is none."""
        name = fingerprint(key)
        mine = [item for item in self.listings if item.key == key and not item.authority]
        if not mine:
            raise LookupError(f"the key {name} is not known")
        mine = [item for item in mine if item.for_namespace(namespace)]
        if not mine:
            raise LookupError(f"the key {name} is listed for other purposes than {namespace}")
        for_role = [item for item in mine if item.for_role(role)]
        if not for_role:
            roles = " and ".join(sorted({item.principals for item in mine}))
            raise LookupError(f"the key {name} may sign for {roles}, not for {role}")
        valid = [item for item in for_role if item.valid_at(at)]
        if not valid:
            raise LookupError(
                f"the key {name} is not trusted for signatures of {at:%Y-%m-%d %H:%M:%S} UTC"
            )
        return valid[0]


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


def add_signer(text: str, role: str, public_key_text: str, at: datetime | None = None) -> str:
    """The text of an allowed_signers file in which the key may also sign for `role`. Pure; other lines stay as is.

    A key that is listed already gets the role on its own line, with that line's validity; a new one gets a new line.

    Args:
        text: the file as it is; may be empty.
        role: the role to trust the key for.
        public_key_text: the line of a `.pub` file.
        at: when the key is to sign; None: whenever.

    Raises:
        FormatError: when the file or the key does not have its format.
        TrustRefused: when a line of the file denies this role to the key, or all of its lines are of other times.
        ValueError: when `role` is no name.
    """
    check_name(role)
    key, comment = parse_public_key(public_key_text)
    mine = [item for item in Trust.parse(text).listings if item.key == key and not item.authority]
    mine = [item for item in mine if item.for_namespace(NAMESPACE)]
    valid = [item for item in mine if item.valid_at(at)]
    if any(item.for_role(role) for item in valid):
        return text
    if mine and not valid:
        raise _not_now(mine[-1])
    if not mine:
        start = text if not text or text.endswith("\n") else f"{text}\n"
        return f'{start}{role} namespaces="{NAMESPACE}" {public_key_line(key, comment)}'
    return _with_role(text, valid[0], role)


def _not_now(listing: Listing) -> TrustRefused:
    times = (("from", listing.valid_after), ("until", listing.valid_before))
    limits = " ".join(f"{word} {time:%Y-%m-%d %H:%M:%S} UTC" for word, time in times if time)
    return TrustRefused(
        f"line {listing.line} of the allowed signers trusts this key only {limits}",
        hint="to list it anew, change valid-after and valid-before in that line by hand; a key that another one took"
        " the place of stays retired: list the new one",
    )


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
