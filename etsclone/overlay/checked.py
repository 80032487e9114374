"""`ROLE.checked`: that a capture found nothing new, and when. Signed like an overlay; see `docs/brd-format.md`.

A tar of two members, the statement and its signature. It is signed in the namespace of overlays; its keys are no
header's, so neither can be taken for the other.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from etsclone.errors import OverlayMalformed, OverlayMismatch, SignatureInvalid
from etsclone.overlay import ustar
from etsclone.overlay.container import Envelope, read_signed, write_signed
from etsclone.overlay.signing import verify
from etsclone.overlay.trust import Trust

CHECK = "check.json"
FORMAT_VERSION = 1

_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_HINT = "no overlay is concerned: a capture that finds nothing new writes it anew, or remove it"


@dataclass(frozen=True, slots=True)
class Check:
    """At `checked` (UTC, whole seconds) the role was as its generation with this number and header digest says."""

    pair: str
    role: str
    generation: int
    digest: str
    checked: datetime


def write_check(out: BinaryIO, check: Check, sign: Callable[[bytes], bytes]) -> None:
    """Write a check record; `sign` makes the armored signature over the statement's bytes."""
    write_signed(out, CHECK, _encode(check), int(check.checked.timestamp()), sign)
    out.write(ustar.END)


def peek_check(source: Path) -> Check:
    """What a check record says, not verified: to show it.

    Raises:
        OverlayMalformed: when it is none.
        UsageError, DeviceError: when it cannot be read.
    """
    with _record(source):
        return _decode(read_signed(source, CHECK))


def open_check(source: Path, trust: Trust, *, pair: str, role: str) -> Check:
    """What a check record says, once it is proven that a key which is trusted for the role signed it.

    Raises:
        SignatureInvalid: when that does not hold.
        OverlayMismatch: when it is of another pair or role.
        OverlayMalformed: when it does not have its format.
        TrustRefused, UsageError, DeviceError: as `container.open_verified`.
    """
    with _record(source):
        envelope = read_signed(source, CHECK)
        verify(envelope.header, envelope.signature, trust)
        check = _decode(envelope)
        if (check.pair, check.role) != (pair, role):
            raise OverlayMismatch(
                f"{source} is of role {check.role} of pair {check.pair}",
                hint="it was moved: remove it",
            )
        verify(envelope.header, envelope.signature, trust, role, check.checked)
        return check


@contextlib.contextmanager
def _record(source: Path) -> Iterator[None]:
    """Have errors say that it is a record of a check, which is no overlay, and can be done without."""
    try:
        yield
    except OverlayMalformed as error:
        detail = error.message.removeprefix(f"{source}: ")
        raise OverlayMalformed(
            f"{source}: the record of the last check is damaged: {detail}", hint=_HINT
        ) from error
    except SignatureInvalid as error:
        raise SignatureInvalid(
            f"{source}: the record of the last check is not to be believed: {error.message}",
            hint=_HINT,
        ) from error


def _encode(check: Check) -> bytes:
    values = {
        "check": FORMAT_VERSION,
        "pair": check.pair,
        "role": check.role,
        "generation": check.generation,
        "digest": check.digest,
        "checked": f"{check.checked:{_TIME_FORMAT}}",
    }
    return json.dumps(values, indent=2).encode("ascii") + b"\n"


def _decode(envelope: Envelope) -> Check:
    """There is one way to write each check, so reading is: take its values, and compare all bytes."""
    try:
        values = json.loads(envelope.header)
        check = Check(
            str(values["pair"]),
            str(values["role"]),
            int(values["generation"]),
            str(values["digest"]),
            datetime.strptime(values["checked"], _TIME_FORMAT).replace(tzinfo=UTC),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OverlayMalformed("it does not have its format") from error
    if _encode(check) != envelope.header or envelope.mtime != int(check.checked.timestamp()):
        raise OverlayMalformed("it is not written as it must be")
    return check
