"""Overlays and their headers, as data. The file format is `docs/brd-format.md`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from etsclone.model.scope import Scope

FORMAT_VERSION = 1
NAMESPACE = "brd@etsclone"
"""The SSHSIG namespace: a signature made for anything else never verifies as an overlay's."""

RECEIPT_NAMESPACE = "receipt@etsclone"
"""The SSHSIG namespace of receipts."""

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a pair, a role or a profile may be called: these names become file names."""

CONFIG = "brd.toml"
"""What the settings of a store are called in it."""

SIGNERS = "allowed_signers"
MAX_SIGNERS = 1024 * 1024
"""Bytes of a list of keys; each takes some 100."""

"""What the list of whom to trust is called in a store, which holds a copy of it."""

SEALED_SUFFIX = ".age"
"""What is added to the names of payload and inventory when they are sealed."""

MAX_RECIPIENTS = 32
"""More keys than anybody can keep safe, and few enough for the bounded header of an age file."""

_RECIPIENT = re.compile(
    # Printable, so that the line can be shown and kept in TOML; whether the key is one, the sealing knows.
    r"age1[02-9ac-hj-np-z]{58}|ssh-ed25519 [A-Za-z0-9+/]{68}(?: [^\x00-\x1f\x7f-\x9f]{1,200})?"
)
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_name(name: str) -> str:
    """Return `name` if it may name a pair, role or profile.

    Raises:
        ValueError: when it may not.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"not a name of lower-case letters, digits, '.', '_' and '-': {name!r}")
    return name


def check_recipient(line: str) -> str:
    """Return `line` if it has the form of a public key to seal to: an age X25519 one, or an ssh-ed25519 one.

    Raises:
        ValueError: when it does not.
    """
    if not _RECIPIENT.fullmatch(line) or not line.isprintable():
        raise ValueError(f"not the public key of a recipient: {line[:80]!r}")
    return line


def check_recipients(lines: Sequence[object]) -> tuple[str, ...]:
    """Return what a store seals to, if it is a list of different recipients.

    Raises:
        ValueError: when it is not.
    """
    recipients = tuple(check_recipient(str(line)) for line in lines)
    if len({recipient_key(line) for line in recipients}) != len(recipients):
        raise ValueError("a recipient is named twice")
    if len(recipients) > MAX_RECIPIENTS:
        raise ValueError(f"there are more than {MAX_RECIPIENTS} recipients")
    return recipients


def recipient_key(line: str) -> str:
    """A recipient without its comment."""
    return " ".join(line.split(" ")[:2])


def _check_digest(digest: str) -> None:
    if not _HEX_DIGEST.fullmatch(digest):
        raise ValueError(f"not a sha256 digest: {digest!r}")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the overlay file that the header vouches for: its name, size in bytes, and sha256 (hex)."""

    name: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"negative size of {self.name}")
        _check_digest(self.sha256)


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A filesystem by its type and UUID, as blkid names them."""

    type: str
    uuid: str


@dataclass(frozen=True, slots=True)
class CloneIdentity:
    """What every clone of a pair has in common: the partition table's id and the UUIDs of its filesystems.

    Both are empty when a mounted tree was captured whose disk is not known.
    """

    table_uuid: str = ""
    filesystems: tuple[Filesystem, ...] = ()

    @property
    def uuids(self) -> frozenset[str]:
        """All of them, in lower case."""
        found = (self.table_uuid, *(each.uuid for each in self.filesystems))
        return frozenset(uuid.lower() for uuid in found if uuid)

    def is_foreign_to(self, other: "CloneIdentity") -> bool:
        """Whether both are known and have no identifier in common: neither is a clone of the other then."""
        return bool(self.uuids and other.uuids) and self.uuids.isdisjoint(other.uuids)


@dataclass(frozen=True, slots=True)
class Header:
    """`header.json`: everything that a signature over an overlay vouches for.

    `created` is UTC with whole seconds; `previous` is the sha256 of the previous generation's header bytes, None for
    the first; `members` are the payload and the inventory, in the order of the file.

    Raises:
        ValueError: when a field does not have its form.
    """

    pair: str
    role: str
    host: str
    profile: str
    profile_sha256: str
    scope: Scope
    generation: int
    created: datetime
    previous: str | None
    clone: CloneIdentity
    members: tuple[Member, ...]

    @property
    def sealed(self) -> bool:
        """Whether payload and inventory are sealed, and open with an identity only."""
        return all(member.name.endswith(SEALED_SUFFIX) for member in self.members)

    def __post_init__(self) -> None:
        for name in (self.pair, self.role, self.profile):
            check_name(name)
        _check_digest(self.profile_sha256)
        if self.previous is not None:
            _check_digest(self.previous)
        if self.generation < 1 or (self.generation == 1) != (self.previous is None):
            raise ValueError(f"generation {self.generation} does not fit its predecessor")
        if self.created.utcoffset() != timedelta(0) or self.created.microsecond:
            raise ValueError("creation time is not in whole seconds of UTC")


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose key made a signature: the principal of allowed_signers, and the key's SHA256 fingerprint."""

    principal: str
    fingerprint: str
