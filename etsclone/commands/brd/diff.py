"""`etsclone brd diff`: what two servers, or two states of one, differ in, and what a rebuild would miss of it."""

import contextlib
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from etsclone.commands.brd.differences import (
    comparison_facts,
    print_comparison,
    print_texts,
    text_facts,
)
from etsclone.commands.brd.sides import (
    OverlayPlace,
    Place,
    Side,
    add_keys,
    compared,
    find_place,
    given_keys,
    overlay_side,
    place_in,
)
from etsclone.commands.output import add_json, print_json
from etsclone.errors import UsageError
from etsclone.model.diff import Meaning, TextDiff
from etsclone.model.scope import Scope
from etsclone.profiles import load_profile
from etsclone.store.folder import CONFIG, open_store


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "what",
        metavar="SIDE",
        nargs="+",
        help="one store of a pair (its two roles, newest generations); or two of: overlay file, STORE:ROLE, "
        "STORE:ROLE:GENERATION, folder where a system is mounted, disk or image that carries one",
    )
    add_keys(parser)
    parser.add_argument(
        "--profile",
        metavar="PROFILE",
        help="sort by this profile's scope and not by those of the overlays; two folders or disks need one",
    )
    parser.add_argument(
        "--suggest",
        action="store_true",
        help="print the profile lines that would claim what is unclaimed, and nothing else",
    )
    parser.add_argument("--brief", action="store_true", help="do not show how contents differ")
    parser.add_argument("--all", action="store_true", help="list every path of every meaning")
    parser.add_argument(
        "--show-secrets",
        action="store_true",
        help="show the content of keys, password files and the like too",
    )
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Compare and print.

    Raises:
        UsageError: when the sides cannot be told apart or have no scope.
        TrustRefused, VerificationFailed: when an overlay does not verify.
    """
    places = _places(arguments.what)
    scope = load_profile(arguments.profile).scope if arguments.profile else None
    with _sides(places, scope, arguments) as (left, right):
        comparison = compared(left, right, (scope,) if scope else ())
        texts: list[TextDiff] = []
        if comparison.differences[Meaning.SCOPE] and not (arguments.brief or arguments.suggest):
            from etsclone.commands.brd.texts import texts_of  # noqa: PLC0415 - only where files differ

            texts = list(texts_of(comparison, left, right, show_secrets=arguments.show_secrets))
    if arguments.json:
        sides = {"before": left.name, "after": right.name}
        print_json(sides | comparison_facts(comparison) | {"texts": text_facts(texts)})
    elif arguments.suggest:
        from etsclone.plan.suggest import suggestion  # noqa: PLC0415 - seldom asked for

        print(suggestion(comparison.differences[Meaning.UNCLAIMED], comparison.packages), end="")
    else:
        print(f"- {left.name}\n+ {right.name}")
        print_comparison(comparison, everything=arguments.all)
        print_texts(texts)


def _places(words: list[str]) -> tuple[Place, Place]:
    if len(words) == 2:
        return find_place(words[0]), find_place(words[1])
    if len(words) != 1 or not os.path.exists(os.path.join(words[0], CONFIG)):
        raise UsageError("name a store, or two sides to compare", hint="`etsclone brd diff --help`")
    store = open_store(Path(words[0]))
    if len(store.roles) != 2:
        raise UsageError(
            f"pair {store.pair} has {len(store.roles)} roles",
            hint=f"name two of them: {words[0]}:{store.roles[0]} {words[0]}:{store.roles[1]}",
        )
    return place_in(store, store.roles[0]), place_in(store, store.roles[1])


@contextlib.contextmanager
def _sides(
    places: tuple[Place, Place], scope: Scope | None, arguments: Namespace
) -> Iterator[tuple[Side, Side]]:
    """Open overlays first: a tree is taken with the scope that it is compared by."""
    keys = given_keys(arguments)
    with contextlib.ExitStack() as stack:
        overlays = {
            place: stack.enter_context(overlay_side(place, keys))
            for place in places
            if isinstance(place, OverlayPlace)
        }
        known = next(iter(overlays.values()), None)
        sides = []
        for place in places:
            if isinstance(place, OverlayPlace):
                sides.append(overlays[place])
                continue
            by = scope or (known.scope if known else None)
            if by is None:
                raise UsageError(
                    "neither side has a scope", hint="give --profile with the kind of server"
                )
            from etsclone.commands.brd.trees import tree_side  # noqa: PLC0415 - overlays need no disks

            profile = arguments.profile or (known.profile if known else "")
            sides.append(stack.enter_context(tree_side(place, by, profile)))
        yield sides[0], sides[1]
