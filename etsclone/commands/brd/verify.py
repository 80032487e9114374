"""`etsclone brd verify`: every signature, digest and link of one overlay or of a whole store."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

from etsclone.commands.history import (
    check_problems,
    problem_facts,
    read_contents,
    read_history,
    seen,
)
from etsclone.commands.identity import add_identity, given_identities
from etsclone.commands.output import add_json, print_json
from etsclone.commands.trust import add_revoked, load_trust
from etsclone.errors import ChainBroken, DeviceError, OverlayMismatch, StoreRefused
from etsclone.model.brd import Header, Signer
from etsclone.model.history import Flaw, Link, Problem
from etsclone.overlay.container import Opener, open_verified, read_envelope, verify_envelope
from etsclone.overlay.trust import Trust
from etsclone.plan.history import problems
from etsclone.store.folder import Store, generation_named, open_store
from etsclone.store.memory import recall, remember_newest
from etsclone.units import counted

_HINTS = {
    Flaw.DAMAGED: "remove what is damaged: `etsclone brd copy` brings it back from another copy of the store; if there"
    " is none: `etsclone brd prune --drop-unverified`",
    Flaw.SEALED: "name another recovery key with --identity",
    Flaw.FOREIGN: "what is of another pair, role or generation was put there by mistake or malice: remove it",
    Flaw.GAP: "`etsclone brd copy` brings lost generations back from another copy of the store",
    Flaw.FORK: "two stores were captured into, each without the other: find the one that was not mixed with another",
    Flaw.ROLLBACK: "find the store that has the newer generations; if they are lost for good: --accept",
}
"""How to mend what is wrong with a history. A medium that fails ends the command in another way."""


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "what", metavar="OVERLAY|STORE", type=Path, help="an overlay file or a BRD store"
    )
    parser.add_argument("--trust", metavar="FILE", type=Path, help="allowed_signers file to trust")
    parser.add_argument(
        "--accept",
        action="store_true",
        help="remember the newest generations of a store that verifies, though newer ones were seen on this machine",
    )
    add_revoked(parser)
    add_identity(parser, "to open what is sealed, and to read all contents to their end")
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Verify and print what held.

    Raises:
        TrustRefused: when there is nothing to check signatures against.
        VerificationFailed: when anything does not hold.
        DeviceError: when the medium fails.
    """
    identities = given_identities(arguments)
    if arguments.what.is_dir():
        store = open_store(arguments.what)
        trust = load_trust(arguments.trust, revoked=arguments.revoked, copy=store.signers_path)
        _verify_store(store, trust, identities, arguments)
    else:
        copy = arguments.what.parent.parent / "allowed_signers"
        trust = load_trust(arguments.trust, revoked=arguments.revoked, copy=copy)
        _verify_one(arguments.what, trust, identities, as_json=arguments.json)


def _verify_one(path: Path, trust: Trust, identities: Opener | None, *, as_json: bool) -> None:
    try:
        header, signer, contents = _verified(path, trust, identities)
    except OverlayMismatch as error:
        raise OverlayMismatch(
            f"{path}: {error.message}",
            hint="its name says what it is not: it was moved or renamed, by mistake or malice",
        ) from error
    if as_json:
        print_json(
            {
                "verified": True,
                "role": header.role,
                "generation": header.generation,
                "signer": signer.fingerprint,
                "contents": contents,
            }
        )
    else:
        print(
            f"{path}: generation {header.generation} of {header.role} of pair {header.pair},"
            f" signed by {signer.fingerprint}, contents {contents}"
        )


def _verified(path: Path, trust: Trust, identities: Opener | None) -> tuple[Header, Signer, str]:
    """What a file is, who signed it, and how far its contents were looked at. A name as in a store must tell it too."""
    named = generation_named(path)
    role, number = (named.role, named.number) if named else (None, None)
    if named and named.pruned:
        header, signer = verify_envelope(read_envelope(path), trust, role=role, generation=number)
        return header, signer, "pruned"
    with open_verified(path, trust, role=role, generation=number, identities=identities) as overlay:
        return overlay.header, overlay.signer, read_contents(overlay, identities)


@dataclass(frozen=True, slots=True)
class _History:
    """What a store holds of a role, and what is wrong with it."""

    role: str
    links: tuple[Link, ...]
    problems: tuple[Problem, ...]


def _verify_store(
    store: Store, trust: Trust, identities: Opener | None, arguments: Namespace
) -> None:
    histories = [
        _history(store, role, trust, identities, accept=arguments.accept) for role in store.roles
    ]
    found = [problem for history in histories for problem in history.problems]
    links = [link for history in histories for link in history.links]
    if not links and not found:
        raise StoreRefused(
            f"{store.path} holds no overlay yet", hint="`etsclone brd capture` makes one"
        )
    if arguments.json:
        print_json(_facts(links, found))
    else:
        _show(store, links, found)
    for history in histories:
        _remember(store, history, accept=arguments.accept)
    _judge(store, found)


def _history(
    store: Store, role: str, trust: Trust, identities: Opener | None, *, accept: bool
) -> _History:
    links = read_history(store, role, trust, identities)
    seen = None if accept else recall(store.pair, role).newest
    return _History(
        role, links, (*problems(role, links, seen), *check_problems(store, links, trust))
    )


def _remember(store: Store, history: _History, *, accept: bool) -> None:
    newest = seen(history.links[-1]) if history.links and not history.problems else None
    if newest:
        remember_newest(store.pair, history.role, newest, again=accept)


def _judge(store: Store, found: list[Problem]) -> None:
    """Raise what the worst problem calls for."""
    if any(problem.flaw is Flaw.UNREADABLE for problem in found):
        raise DeviceError(
            f"the medium of {store.path} fails",
            hint="save what can be read with `etsclone brd copy`, and check that it is still plugged in",
        )
    if found:
        hints = dict.fromkeys(problem.hint or _HINTS[problem.flaw] for problem in found)
        raise ChainBroken(
            f"the history of pair {store.pair} does not verify", hint="; ".join(hints)
        )


def _facts(links: list[Link], found: list[Problem]) -> dict[str, object]:
    return {
        "verified": not found,
        "overlays": [
            {
                "path": link.path,
                "role": link.role,
                "generation": link.number,
                "pruned": link.pruned,
                "problem": link.problem.message if link.problem else "",
                "contents": link.contents,
            }
            for link in links
        ],
        "problems": [problem_facts(problem) for problem in found],
    }


def _show(store: Store, links: list[Link], found: list[Problem]) -> None:
    for link in links:
        if link.problem is None:
            word = "pruned, its header verifies" if link.pruned else "verified"
            if link.vouched:
                word = "pruned; its key is no longer trusted, but a later generation vouches for its header"
            rest = " (contents sealed)" if link.contents == "sealed" else ""
            rest += "; its content is still there: prune again" if link.unfinished else ""
            print(f"{link.path}: {word}{rest}")
    for problem in found:
        print(problem.line)
    if not found:
        if len(links) == 1:
            print(f"the only generation of pair {store.pair} verifies")
        else:
            print(f"all {counted(len(links), 'generation')} of pair {store.pair} verify")
