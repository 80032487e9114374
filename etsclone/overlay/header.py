"""`header.json`: what the signature over an overlay vouches for, between bytes and `Header`.

The bytes that were signed are the bytes that are kept: nothing is ever encoded again to be compared. The format is
specified in `docs/brd-format.md`.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from etsclone.errors import OverlayMalformed
from etsclone.model.brd import (
    FORMAT_VERSION,
    SEALED_SUFFIX,
    CloneIdentity,
    Filesystem,
    Header,
    Member,
)
from etsclone.model.scope import Scope

MAX_HEADER = 64 * 1024
"""Bytes: all that is ever read of an overlay before its signature holds."""

PAYLOAD = "payload.tar.zst"
INVENTORY = "inventory.mtree.zst"
MEMBERS = (PAYLOAD, INVENTORY)
SEALED_MEMBERS = (PAYLOAD + SEALED_SUFFIX, INVENTORY + SEALED_SUFFIX)

MAX_MEMBER = 8**11 - 1
"""Bytes: the largest size that the eleven octal digits of a ustar header hold."""

MAX_GENERATION = 999_999
"""File names count generations with six digits."""

_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_MAX_TIME = 8**11 - 1
_KEYS = (
    "format",
    "pair",
    "role",
    "host",
    "profile",
    "profile_sha256",
    "scope",
    "generation",
    "created",
    "previous",
    "clone",
    "members",
)


def digest(header_bytes: bytes) -> str:
    """The sha256 (hex) by which the next generation names this one."""
    return hashlib.sha256(header_bytes).hexdigest()


def encode(header: Header) -> bytes:
    """The bytes of `header.json`: indented JSON in UTF-8 that ends with a line end.

    Raises:
        OverlayMalformed: when `decode` would not take them: more than `MAX_HEADER` bytes, or characters or members
            that no header may have.
    """
    values = {
        "format": FORMAT_VERSION,
        "pair": header.pair,
        "role": header.role,
        "host": header.host,
        "profile": header.profile,
        "profile_sha256": header.profile_sha256,
        "scope": {
            "role": header.scope.role,
            "disk": header.scope.disk,
            "volatile": header.scope.volatile,
        },
        "generation": header.generation,
        "created": header.created.strftime(_TIME_FORMAT),
        "previous": header.previous,
        "clone": {
            "table_uuid": header.clone.table_uuid,
            "filesystems": [
                {"type": found.type, "uuid": found.uuid} for found in header.clone.filesystems
            ],
        },
        "members": [
            {"name": member.name, "size": member.size, "sha256": member.sha256}
            for member in header.members
        ],
    }
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    data = text.encode("utf-8", "surrogatepass")
    if decode(data) != header:
        raise OverlayMalformed("a header would not be read back as it is written")
    return data


def decode(data: bytes) -> Header:
    """Read `header.json` strictly: exactly the known keys, each with exactly its type, no key twice.

    Raises:
        OverlayMalformed: for everything else, larger than `MAX_HEADER`, or of a newer format.
    """
    if len(data) > MAX_HEADER:
        raise OverlayMalformed(
            f"the header has {len(data)} bytes, more than {MAX_HEADER}",
            hint="shorten the scope lists of the profile",
        )
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
        _check_format(value)
        return _header(_Object.of(value, "the header", _KEYS))
    except (ValueError, RecursionError, re.error) as error:
        raise OverlayMalformed(
            f"the header does not have its format: {error}",
            hint="this is no overlay, or it was made by another program",
        ) from error


class _WrongTypeError(ValueError):
    """A JSON value of another type than its place asks for."""


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object with exactly the expected keys; `where` names it in messages."""

    where: str
    values: dict[str, object]

    @classmethod
    def of(cls, value: object, where: str, keys: tuple[str, ...]) -> "_Object":
        if not isinstance(value, dict):
            raise _WrongTypeError(f"{where} is no object")
        for key in keys:
            if key not in value:
                raise ValueError(f"{where} lacks {key!r}")
        for key in value:
            if key not in keys:
                raise ValueError(f"{where} has an unknown key {key!a}")
        return cls(where, value)

    def text(self, key: str) -> str:
        return _text(self.values[key], f"{key!r} of {self.where}")

    def number(self, key: str, limit: int) -> int:
        value = self.values[key]
        # Not isinstance: true and false are ints in Python.
        if type(value) is not int or not 0 <= value <= limit:
            raise ValueError(f"{key!r} of {self.where} is no whole number from 0 to {limit}")
        return value

    def items(self, key: str) -> list[object]:
        value = self.values[key]
        if not isinstance(value, list):
            raise _WrongTypeError(f"{key!r} of {self.where} is no list")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(_text(item, f"an item of {key!r} of {self.where}") for item in self.items(key))


def _header(top: _Object) -> Header:
    return Header(
        pair=top.text("pair"),
        role=top.text("role"),
        host=top.text("host"),
        profile=top.text("profile"),
        profile_sha256=top.text("profile_sha256"),
        scope=_scope(top.values["scope"]),
        generation=top.number("generation", MAX_GENERATION),
        created=_time(top.text("created")),
        previous=None if top.values["previous"] is None else top.text("previous"),
        clone=_clone(top.values["clone"]),
        members=_members(top.items("members")),
    )


def _scope(value: object) -> Scope:
    lists = _Object.of(value, "the scope", ("role", "disk", "volatile"))
    return Scope(lists.texts("role"), lists.texts("disk"), lists.texts("volatile"))


def _clone(value: object) -> CloneIdentity:
    clone = _Object.of(value, "the clone", ("table_uuid", "filesystems"))
    found = (
        _Object.of(item, "a filesystem", ("type", "uuid")) for item in clone.items("filesystems")
    )
    filesystems = tuple(Filesystem(item.text("type"), item.text("uuid")) for item in found)
    return CloneIdentity(clone.text("table_uuid"), filesystems)


def _members(items: list[object]) -> tuple[Member, ...]:
    objects = [_Object.of(item, "a member", ("name", "size", "sha256")) for item in items]
    members = tuple(
        Member(item.text("name"), item.number("size", MAX_MEMBER), item.text("sha256"))
        for item in objects
    )
    if tuple(member.name for member in members) not in (MEMBERS, SEALED_MEMBERS):
        raise ValueError(
            f"its members are not exactly {' and '.join(MEMBERS)}, both sealed or none"
        )
    return members


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)  # strptime would load modules that nothing else needs
    # ISO 8601 has more forms than this one; and the time must fit into the tar headers too.
    if moment.strftime(_TIME_FORMAT) != text or not 0 <= moment.timestamp() <= _MAX_TIME:
        raise ValueError(f"{text!r} is no time of the form 2026-11-22T03:04:05Z")
    return moment


def _text(value: object, what: str) -> str:
    # These strings are shown to people: what cannot be printed has no business in them.
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{what} is no printable text")
    return value


def _check_format(value: object) -> None:
    version = value.get("format") if isinstance(value, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError("it does not tell its version")
    if version != FORMAT_VERSION:
        raise OverlayMalformed(
            f"the overlay has format {version}, this etsclone reads format {FORMAT_VERSION}: "
            "it was made by a newer etsclone",
            hint="use the newest etsclone",
        )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
