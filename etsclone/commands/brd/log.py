"""`etsclone brd log`: what changed in a role from generation to generation, newest first."""

import contextlib
from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.commands.brd.differences import comparison_facts, print_comparison
from etsclone.commands.brd.places import place_in
from etsclone.commands.brd.sides import (
    Keys,
    Side,
    add_keys,
    compared,
    given_keys,
    overlay_side,
    payloads_of,
)
from etsclone.commands.counts import count_from
from etsclone.commands.output import add_json, print_json
from etsclone.errors import StoreRefused
from etsclone.model.diff import Comparison
from etsclone.store.folder import Store, open_store


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument("--role", metavar="ROLE", required=True, help="the role to tell about")
    parser.add_argument(
        "--last", metavar="N", type=count_from(1), help="only the newest N generations"
    )
    add_keys(parser)
    parser.add_argument("--all", action="store_true", help="list every path of every meaning")
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Print a paragraph a generation.

    Raises:
        StoreRefused: when there is no such store or role, or nothing was captured.
        TrustRefused, VerificationFailed: when a generation does not verify, or is sealed and no identity opens it.
    """
    store = open_store(arguments.store)
    numbers = [item.number for item in store.generations(arguments.role)]
    if not numbers:
        raise StoreRefused(
            f"role {arguments.role} was never captured into {store.path}",
            hint="`etsclone brd capture` does it",
        )
    keys = given_keys(arguments)
    newest = numbers[::-1][: arguments.last]
    facts = []
    for number in newest:
        before = max((each for each in numbers if each < number), default=None)
        side, comparison = _step(store, arguments.role, number, before, keys)
        facts.append(
            {"generation": number, "since": before}
            | (comparison_facts(comparison) if comparison else {})
        )
        if not arguments.json:
            _print_step(side, before, comparison, everything=arguments.all)
    if arguments.json:
        print_json({"role": arguments.role, "generations": facts})


def _step(
    store: Store, role: str, number: int, before: int | None, keys: Keys
) -> tuple[Side, Comparison | None]:
    """A generation, and what changed since the one that is kept before it."""
    with contextlib.ExitStack() as stack:
        after = stack.enter_context(overlay_side(place_in(store, role, number), keys))
        if before is None:
            return after, None
        older = stack.enter_context(overlay_side(place_in(store, role, before), keys))
        payloads = stack.enter_context(payloads_of(older, after))
        return after, compared(older, after, payloads=payloads)


def _print_step(
    side: Side, before: int | None, comparison: Comparison | None, *, everything: bool
) -> None:
    print(side.name)
    if comparison is None:
        print("  the first that is kept")
    elif comparison.empty:
        print(f"  nothing changed since generation {before}")
    else:
        print(f"  since generation {before}")
        print_comparison(comparison, everything=everything, indent="  ")
    print()
