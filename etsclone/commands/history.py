"""The history of a role as a store holds it: read, verified, and held against what this machine has seen."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from etsclone.commands.trust import SITE_SIGNERS, add_revoked, load_trust
from etsclone.errors import (
    DeviceError,
    EtscloneError,
    OverlayMismatch,
    OverlaySealed,
    StoreRefused,
    StoreRolledBack,
    VerificationFailed,
)
from etsclone.model.brd import Header
from etsclone.model.history import Flaw, Known, Link, Problem
from etsclone.overlay import inventory
from etsclone.overlay.checked import open_check, peek_check
from etsclone.overlay.container import (
    Envelope,
    VerifiedOverlay,
    open_verified,
    read_envelope,
    verify_envelope,
)
from etsclone.overlay.header import decode, digest
from etsclone.overlay.payload import read_payload
from etsclone.overlay.sealing import Identities
from etsclone.overlay.trust import Trust
from etsclone.plan.history import not_newest
from etsclone.store.files import typed_errors
from etsclone.store.folder import Generation, Store
from etsclone.store.memory import recall

_FLAWS: tuple[tuple[type[EtscloneError], Flaw], ...] = (
    (OverlayMismatch, Flaw.FOREIGN),
    (VerificationFailed, Flaw.DAMAGED),
    (DeviceError, Flaw.UNREADABLE),
)


def add_trust(parser: ArgumentParser) -> None:
    """Give a command `--trust`, without which it also believes the store's own list, and `--revoked`."""
    parser.add_argument(
        "--trust",
        metavar="FILE",
        type=Path,
        help=f"allowed_signers file to trust (default: {SITE_SIGNERS}, then the store's own copy)",
    )
    add_revoked(parser)


def trust_or_copy(arguments: Namespace, store: Store) -> Trust:
    """Trust for work that uses nothing of what it verifies: if this system has no list, the store's own will do.

    That finds damage and mistakes. Against forgery it is the later `verify` or `rebuild` that guards.

    Raises:
        TrustRefused, FormatError: as `load_trust`.
    """
    named = arguments.trust
    if named is None and not SITE_SIGNERS.exists():
        named = store.signers_path
    return load_trust(named, revoked=arguments.revoked)


def read_history(
    store: Store, role: str, trust: Trust, identities: Identities | None = None
) -> Iterator[Link]:
    """Each generation of a role, oldest first, every byte of it verified; with `identities` its contents are read.

    Raises:
        StoreRefused: when the pair has no such role.
        TrustRefused: when nobody is trusted at all.
    """
    return (_link(store, item, trust, identities) for item in store.history(role))


def peek_history(store: Store, role: str) -> tuple[Link, ...]:
    """Each generation of a role, oldest first, as its header tells it: nothing is verified.

    Raises:
        StoreRefused: when the pair has no such role.
    """
    return tuple(_link(store, item, None) for item in store.history(role))


def read_generation(store: Store, link: Link, trust: Trust) -> Link:
    """A generation of which only the header was read, every byte of it verified.

    Raises:
        TrustRefused: when nobody is trusted at all.
    """
    return _link(store, Generation(link.role, link.number, Path(link.path), link.pruned), trust)


def read_newest(store: Store, role: str, trust: Trust) -> Link | None:
    """The newest generation of a role, every byte of it verified; None when it was never captured.

    Raises:
        StoreRefused, TrustRefused: as `read_history`.
    """
    found = store.generations(role)
    return _link(store, found[-1], trust) if found else None


def last_check(store: Store, newest: Link, trust: Trust) -> datetime | None:
    """When a capture last found that a role is still as its newest generation says; None when there is no word of it.

    Raises:
        VerificationFailed: when the store's word is not signed as it must be.
        DeviceError: when the medium fails.
    """
    path = store.checked_path(newest.role)
    # One that was left from before the newest generation says nothing, so nobody need be trusted for it any more.
    with typed_errors(path):
        there = path.exists()
    if not there or peek_check(path).digest != newest.digest:
        return None
    return open_check(path, trust, pair=store.pair, role=newest.role).checked


def check_problems(store: Store, links: Sequence[Link], trust: Trust) -> tuple[Problem, ...]:
    """What is wrong with the check record of a role whose history this is."""
    if not links:
        return ()
    newest = links[-1]
    try:
        last_check(store, newest, trust)
    except (VerificationFailed, DeviceError) as error:
        path = str(store.checked_path(newest.role))
        return (Problem(_flaw(error), newest.role, newest.number, error.message, path),)
    return ()


def seen(link: Link) -> Known | None:
    """The generation as this machine may remember it; None when it was not verified."""
    return Known(link.number, link.digest) if link.digest else None


def check_newest(store: Store, role: str, newest: Known) -> None:
    """Refuse the newest generation of a store when this machine has seen a newer one, or the store itself tells of one.

    Raises:
        StoreRolledBack: when it has, or has seen another one of this number.
    """
    last = store.history(role)[-1].number
    cut = f"of generation {last} only the header is here" if last > newest.generation else ""
    if wrong := cut or not_newest(newest, recall(store.pair, role).newest):
        raise StoreRolledBack(
            f"{store.path} is not up to date for role {role}: {wrong}",
            hint="find the store that has it; to take this one all the same, give --generation"
            f" {newest.generation}",
        )


def problem_facts(problem: Problem) -> dict[str, object]:
    """A problem as JSON facts."""
    return {
        "flaw": problem.flaw.value,
        "role": problem.role,
        "generation": problem.generation,
        "message": problem.message,
        "path": problem.path,
    }


def _link(
    store: Store, item: Generation, trust: Trust | None, identities: Identities | None = None
) -> Link:
    path = str(item.path)
    try:
        return _sound_link(store, item, trust, identities)
    except OverlaySealed as error:
        # All but its contents can still be looked at.
        link = _link(store, item, trust)
        problem = Problem(Flaw.SEALED, item.role, item.number, error.message, path)
        return replace(link, problem=link.problem or problem)
    except (VerificationFailed, DeviceError) as error:
        problem = Problem(_flaw(error), item.role, item.number, error.message, path)
        return Link(item.role, item.number, path, 0, item.pruned, problem=problem)


def _sound_link(
    store: Store, item: Generation, trust: Trust | None, identities: Identities | None
) -> Link:
    size = _size(item.path)
    envelope = read_envelope(item.path)
    header, name, contents = _verified(store, item, trust, identities, envelope)
    return Link(
        item.role,
        item.number,
        str(item.path),
        size,
        item.pruned,
        envelope.size,
        name,
        header.previous,
        header.created,
        contents=contents,
    )


def _flaw(error: EtscloneError) -> Flaw:
    return next(flaw for kind, flaw in _FLAWS if isinstance(error, kind))


def _size(path: Path) -> int:
    with typed_errors(path):
        try:
            return path.stat().st_size
        except FileNotFoundError as error:
            raise StoreRefused(
                f"{path} was pruned or removed meanwhile", hint="run the command again"
            ) from error


def _verified(
    store: Store,
    item: Generation,
    trust: Trust | None,
    identities: Identities | None,
    envelope: Envelope,
) -> tuple[Header, str, str]:
    """The header, its digest, and how far the contents were looked at; without `trust` as they are."""
    if trust is None:
        return decode(envelope.header), digest(envelope.header), ""
    role, pair, number = item.role, store.pair, item.number
    if item.pruned:
        header, _ = verify_envelope(envelope, trust, role=role, pair=pair, generation=number)
        return header, digest(envelope.header), ""
    with open_verified(
        item.path, trust, role=role, pair=pair, generation=number, identities=identities
    ) as overlay:
        return overlay.header, overlay.digest, read_contents(overlay, identities)


def read_contents(overlay: VerifiedOverlay, identities: Identities | None) -> str:
    """How far the contents were looked at: not at all when they are sealed, to their end when there is an identity.

    Raises:
        HostilePayload: when they are not what a capture writes.
    """
    if not overlay.opened:
        return "sealed"
    if identities is None:
        return "not read"
    with read_payload(overlay.payload(), overlay.header.scope):
        for _ in inventory.read(overlay.inventory()):
            pass
    return "read"
