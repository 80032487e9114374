"""`etsclone brd diff`: what two servers, or two states of one, differ in, and what a rebuild would miss of it."""

import contextlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

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
    is_store,
    overlay_side,
    payloads_of,
)
from etsclone.commands.keyfile import add_unlock
from etsclone.commands.output import add_json, print_json
from etsclone.errors import UsageError
from etsclone.model.diff import Meaning, TextDiff
from etsclone.model.scope import Scope


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
    add_unlock(parser)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Compare and print.

    Raises:
        UsageError: when the sides cannot be told apart or have no scope.
        TrustRefused, VerificationFailed: when an overlay does not verify.
    """
    places = _places(arguments.what)
    scope = _scope(arguments.profile) if arguments.profile else None
    with (
        _sides(places, scope, arguments) as (left, right),
        payloads_of(left, right) as payloads,
    ):
        comparison = compared(left, right, (scope,) if scope else (), payloads)
        texts: list[TextDiff] = []
        shown = comparison.differences[Meaning.SCOPE]
        if payloads and shown and not (arguments.brief or arguments.suggest):
            from etsclone.commands.brd.texts import texts_of  # noqa: PLC0415 - only where files differ

            secrets = arguments.show_secrets
            texts = list(texts_of(comparison, (left, right), payloads, show_secrets=secrets))
    if arguments.json:
        sides = {"before": left.name, "after": right.name}
        print_json(sides | comparison_facts(comparison) | {"texts": text_facts(texts)})
    elif arguments.suggest:
        from etsclone.plan.suggest import suggestion  # noqa: PLC0415 - seldom asked for

        print(suggestion(comparison.differences[Meaning.UNCLAIMED], comparison.packages), end="")
    else:
        print(f"- {left.name}\n+ {right.name}")
        if comparison.empty:
            print("nothing differs")
        print_comparison(comparison, everything=arguments.all)
        print_texts(texts)


def _scope(profile: str) -> Scope:
    from etsclone.profiles import load_profile  # noqa: PLC0415 - overlays bring their scope

    return load_profile(profile).scope


def _places(words: list[str]) -> tuple[Place, Place]:
    if len(words) == 2:
        return find_place(words[0]), find_place(words[1])
    if len(words) != 1 or not is_store(words[0]):
        raise UsageError("name a store, or two sides to compare", hint="`etsclone brd diff --help`")
    from etsclone.commands.brd.places import both_roles  # noqa: PLC0415 - files need no store

    return both_roles(words[0])


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
            from etsclone.commands.unlock import given_keys as opening_keys  # noqa: PLC0415

            profile = arguments.profile or (known.profile if known else "")
            opening = opening_keys(arguments)
            sides.append(stack.enter_context(tree_side(place, by, profile, opening)))
        yield sides[0], sides[1]
