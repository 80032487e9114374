"""The two sides of a comparison: overlays by file or by their place in a store, and trees that are taken now."""

import contextlib
import os
import re
import stat
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from etsclone.commands.identity import add_identity, given_identities
from etsclone.commands.trust import add_revoked, load_trust
from etsclone.errors import UsageError
from etsclone.model.brd import CONFIG, SIGNERS
from etsclone.model.diff import Comparison
from etsclone.model.scope import Scope
from etsclone.overlay.comparing import Listing, differing
from etsclone.overlay.container import HEADER, Opener, VerifiedOverlay, open_verified
from etsclone.plan.diff import compare

if TYPE_CHECKING:  # most comparisons are of equal payloads: none is read then
    from etsclone.overlay.payload import Payload

_IN_STORE = re.compile(r"(?P<store>.+?):(?P<role>[a-z0-9][a-z0-9._-]*)(?::(?P<number>[0-9]{1,6}))?")


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its names for people, the scope and profile that it was captured with, and what it holds.

    `inventory` and `payload` give a stream over compressed bytes, from its beginning; None where only the inventory is
    at hand. `digest` is the payload's sha256, to tell payloads apart without reading them; None where it is not known.
    """

    name: str
    label: str
    scope: Scope
    profile: str
    inventory: Callable[[], BinaryIO]
    payload: Callable[[], BinaryIO] | None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class OverlayPlace:
    """An overlay that somebody named. Its place in a store says of which pair, role and generation it must be."""

    path: Path
    signers: Path
    pair: str | None = None
    role: str | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class TreePlace:
    """A mounted tree, or a disk (or image) that carries a system."""

    path: str
    disk: bool


Place = OverlayPlace | TreePlace


@dataclass(frozen=True, slots=True)
class Keys:
    """Whom to believe (`--trust`, `--revoked`), and what opens sealed overlays (`--identity`)."""

    trust: Path | None = None
    revoked: Path | None = None
    identities: Opener | None = None


def add_keys(parser: ArgumentParser) -> None:
    """Give a command the options that `given_keys` reads."""
    parser.add_argument("--trust", metavar="FILE", type=Path, help="allowed_signers file to trust")
    add_revoked(parser)
    add_identity(parser, "to look into sealed overlays")


def given_keys(arguments: Namespace) -> Keys:
    """The keys that the command line names; asks for passphrases.

    Raises:
        KeyRefused: when a file holds no recovery key, or the passphrase is wrong.
    """
    return Keys(arguments.trust, arguments.revoked, given_identities(arguments))


def side_of(overlay: VerifiedOverlay) -> Side:
    """What a verified overlay brings to a comparison: the only way by which one gets at inventory and payload."""
    header = overlay.header
    name = f"generation {header.generation} of {header.role} ({header.host}, {header.created:%Y-%m-%d %H:%M})"
    label = f"{header.role}-{header.generation}"
    digest = header.members[0].sha256
    return Side(
        name, label, header.scope, header.profile, overlay.inventory, overlay.payload, digest
    )


@contextlib.contextmanager
def overlay_side(place: OverlayPlace, keys: Keys) -> Iterator[Side]:
    """Verify an overlay, every byte of it, and use it as a side.

    Raises:
        TrustRefused: when there is nothing to check its signature against.
        VerificationFailed: when anything of it does not hold.
    """
    with open_verified(
        place.path,
        load_trust(keys.trust, revoked=keys.revoked, copy=place.signers),
        pair=place.pair,
        role=place.role,
        generation=place.generation,
        identities=keys.identities,
    ) as overlay:
        yield side_of(overlay)


def is_store(path: str) -> bool:
    """Whether a folder is a store, as far as its names tell."""
    return os.path.exists(os.path.join(path, CONFIG))


def find_place(text: str) -> Place:
    """What a word of the command line names: a path to an overlay, tree, disk or image, or `STORE:ROLE[:NUMBER]`.

    Raises:
        UsageError: when it is nothing of that.
        StoreRefused: when the store has no such role or generation.
    """
    match = _IN_STORE.fullmatch(text)
    if match and not os.path.exists(text):
        from etsclone.commands.brd.places import place_of  # noqa: PLC0415 - files need no store

        number = match["number"]
        return place_of(match["store"], match["role"], int(number) if number else None)
    try:
        mode = os.stat(text).st_mode
    except OSError as error:
        raise UsageError(
            f"{text}: {error.strerror}",
            hint="name an overlay, STORE:ROLE, STORE:ROLE:NUMBER, a folder or a disk",
        ) from error
    if stat.S_ISDIR(mode):
        if is_store(text):
            raise UsageError(
                f"{text} is a store with more than one overlay in it",
                hint=f"name a role: {text}:primary",
            )
        return TreePlace(text, disk=False)
    if stat.S_ISREG(mode) and _is_overlay(text):
        path = Path(text)
        return OverlayPlace(path, path.absolute().parent.parent / SIGNERS)
    return TreePlace(text, disk=True)


@contextlib.contextmanager
def payloads_of(left: Side, right: Side) -> Iterator["tuple[Payload, Payload] | None"]:
    """The payloads of both sides; None when they are the same, or one is not at hand: then nothing is read.

    Raises:
        HostilePayload: when a payload is damaged.
        StoreFull: when $TMPDIR has no space for large ones.
    """
    same = left.digest is not None and left.digest == right.digest
    if same or not (left.payload and right.payload):
        yield None
        return
    from etsclone.overlay.payload import read_payload  # noqa: PLC0415
    from etsclone.overlay.temporary import room_needed  # noqa: PLC0415 - only where payloads differ

    with (
        room_needed(),
        read_payload(left.payload(), left.scope) as before,
        read_payload(right.payload(), right.scope) as after,
    ):
        yield before, after


def compared(
    left: Side,
    right: Side,
    scopes: tuple[Scope, ...] = (),
    payloads: "tuple[Payload, Payload] | None" = None,
) -> Comparison:
    """What the two sides differ in, from their inventories and, for what these do not tell, from `payloads_of` them.

    Args:
        left: the first side.
        right: the second.
        scopes: instead of their own.
        payloads: None to go by the inventories alone.

    Raises:
        HostilePayload: when an inventory is damaged.
    """
    before, after = Listing(left.inventory()), Listing(right.inventory())
    known = bool(before.packages and after.packages)
    return compare(
        differing(before, after),
        scopes or tuple({left.scope, right.scope}),
        before.packages if known else (),
        after.packages if known else (),
        (payloads[0].tree, payloads[1].tree) if payloads else ({}, {}),
    )


def _is_overlay(path: str) -> bool:
    if path.endswith(".brd"):
        return True
    with open(path, "rb") as file:
        return file.read(len(HEADER)) == HEADER.encode()
