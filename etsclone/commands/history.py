"""The history of a role as a store holds it: read, verified, and held against what this machine has seen."""

import contextlib
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from etsclone.commands.trust import SITE_SIGNERS, add_revoked, load_trust
from etsclone.errors import (
    ChainBroken,
    DeviceError,
    EtscloneError,
    HostilePayload,
    KeyUntrusted,
    OverlayMismatch,
    OverlaySealed,
    SignatureInvalid,
    StoreRefused,
    StoreRolledBack,
    UsageError,
    VerificationFailed,
)
from etsclone.model.brd import Header
from etsclone.model.history import Flaw, Known, Link, Problem
from etsclone.overlay import inventory
from etsclone.overlay.checked import open_check, peek_check
from etsclone.overlay.container import (
    Envelope,
    Opener,
    VerifiedOverlay,
    open_verified,
    read_envelope,
    verify_envelope,
)
from etsclone.overlay.header import decode, digest
from etsclone.overlay.payload import read_payload
from etsclone.overlay.trust import Trust
from etsclone.plan.history import not_newest, settled
from etsclone.store.files import typed_errors
from etsclone.store.folder import Generation, Store
from etsclone.store.memory import recall

_UNFOLLOWED = {
    Flaw.DAMAGED: "bring it back: remove it, then `etsclone brd copy` from another copy of the store; if there is none:"
    " remove it, capture again, then `etsclone brd verify --accept`",
    Flaw.FOREIGN: "it was put there by mistake or malice: remove it, and capture again",
    Flaw.UNTRUSTED: "if you know its key: list it with `etsclone brd trust`, or, if it may sign no more, among this"
    " system's revoked keys; else remove the file, and capture again",
}
"""What to do with a newest file that no new generation may follow."""

_FLAWS: tuple[tuple[type[EtscloneError], Flaw], ...] = (
    (OverlayMismatch, Flaw.FOREIGN),
    (KeyUntrusted, Flaw.UNTRUSTED),
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
        TrustRefused, DeviceError: as `load_trust`.
    """
    if arguments.trust is None and not SITE_SIGNERS.exists():
        return load_trust(store.signers_path, revoked=arguments.revoked, follow=False)
    return load_trust(arguments.trust, revoked=arguments.revoked)


def read_history(
    store: Store, role: str, trust: Trust, identities: Opener | None = None
) -> tuple[Link, ...]:
    """Each generation of a role, oldest first, every byte of it verified; with `identities` its contents are read.

    Raises:
        StoreRefused: when the pair has no such role.
        TrustRefused: when nobody is trusted at all.
    """
    links = (_link(store, item, trust, identities) for item in store.history(role))
    return settled(tuple(links))


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


def followed(store: Store, newest: Generation, trust: Trust) -> str:
    """The digest of the header that a new generation follows, once it is known to be the newest one of the role.

    Its content is of no interest to the chain, nor is whether its key may still sign: keys are changed and revoked. A
    key that was taken off the list is nobody's; then it counts that this machine has seen exactly this generation.

    Raises:
        ChainBroken: when the file is damaged, or of another role, pair or generation, or an unknown key signed it.
        TrustRefused: when nobody is trusted at all.
        DeviceError: when the medium fails.
    """
    link = _link(store, replace(newest, pruned=True), trust.of_all_times)
    if link.digest:
        return link.digest
    flaw = link.problem.flaw if link.problem else Flaw.DAMAGED
    message = link.problem.line if link.problem else link.path
    if flaw is Flaw.UNREADABLE:
        raise DeviceError(message, hint="check that the medium is still plugged in")
    if flaw is Flaw.UNTRUSTED and link.claimed:
        seen_here = recall(store.pair, newest.role).newest
        if seen_here == Known(newest.number, link.claimed[0]):
            return link.claimed[0]
    raise ChainBroken(
        f"no generation can follow the newest file: {message}", hint=_UNFOLLOWED[flaw]
    )


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
        return (_problem(error, newest.role, newest.number, path, error.hint),)
    return ()


def seen(link: Link) -> Known | None:
    """The generation as this machine may remember it; None when it was not verified."""
    return Known(link.number, link.digest) if link.digest else None


def check_newest(store: Store, role: str, newest: Known, arguments: Namespace) -> None:
    """Refuse the newest generation of a store when this machine has seen a newer one, or the store itself tells of one.

    Raises:
        StoreRolledBack: when it has, or has seen another one of this number.
    """
    last = store.history(role)[-1].number
    cut = f"of generation {last} only the header is here" if last > newest.generation else ""
    if wrong := cut or not_newest(newest, recall(store.pair, role).newest):
        found = "find the store that has it" if cut else where_it_is(store, arguments)
        raise StoreRolledBack(
            f"{store.path} is not up to date for role {role}: {wrong}",
            hint=f"{found}; to take this one all the same, give --generation {newest.generation}",
        )


def where_it_is(store: Store, arguments: Namespace) -> str:
    """What to do about a generation that this machine has seen and that a store lacks, as a hint."""
    return (
        "find the store that has it (if this one is behind it, `etsclone brd copy` brings it up to date); if that"
        f" one was given up: {verifying(store, arguments, '--accept')}"
    )


def verifying(store: Store, arguments: Namespace, *options: str) -> str:
    """The command that verifies a store by the lists that were named here, for a hint."""
    words = ["etsclone", "brd", "verify", str(store.path), *options]
    # A rebuild may have trusted the clone's own list, which `verify` does not see.
    trust = arguments.trust or (None if SITE_SIGNERS.exists() else "FILE")
    for option, path in (("--trust", trust), ("--revoked", arguments.revoked)):
        words += [option, str(path)] if path else []
    return f"`{shlex.join(words)}`"


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
    store: Store, item: Generation, trust: Trust | None, identities: Opener | None = None
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
        # A signature that does not hold is no matter of copies.
        hint = error.hint if isinstance(error, SignatureInvalid | HostilePayload) else ""
        problem = _problem(error, item.role, item.number, path, hint)
        # What a failing medium gave once already takes long, and may not be given again.
        peek = trust is not None and not isinstance(error, DeviceError)
        return _unsound_link(store, item, problem, peek=peek)


def _unsound_link(store: Store, item: Generation, problem: Problem, *, peek: bool) -> Link:
    """One that does not verify, with what can be seen of it nevertheless."""
    found = _link(store, item, None) if peek else None
    if found and found.digest:
        claimed = found.digest, found.previous
        return replace(
            found, digest=None, previous=None, created=None, claimed=claimed, problem=problem
        )
    size = 0
    with contextlib.suppress(OSError):
        size = item.path.stat().st_size
    return Link(item.role, item.number, str(item.path), size, item.pruned, problem=problem)


def _sound_link(
    store: Store, item: Generation, trust: Trust | None, identities: Opener | None
) -> Link:
    size = _size(item.path)
    with _unless_pruned(item.path):
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


@contextlib.contextmanager
def _unless_pruned(path: Path) -> Iterator[None]:
    """Whatever is wrong with what is read: if its name is gone by now, pruning has cut it off."""
    try:
        yield
    except (VerificationFailed, UsageError):
        _size(path)
        raise


def _problem(error: EtscloneError, role: str, number: int, path: str, hint: str) -> Problem:
    flaw = next(flaw for kind, flaw in _FLAWS if isinstance(error, kind))
    return Problem(flaw, role, number, error.message, path, hint)


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
    identities: Opener | None,
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


def read_contents(overlay: VerifiedOverlay, identities: Opener | None) -> str:
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
