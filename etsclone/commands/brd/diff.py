"""`etsclone brd diff`: what two servers, or two states of one, differ in, and what a rebuild would miss of it."""

import contextlib
import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from etsclone.chroot import require_root
from etsclone.commands.brd.capture import capture_system
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
    TreePlace,
    compared,
    find_place,
    overlay_side,
    place_in,
    secret_patterns,
)
from etsclone.commands.output import add_json, print_json
from etsclone.commands.system import system_at, system_on_disk
from etsclone.errors import UsageError
from etsclone.model.diff import Comparison, Meaning
from etsclone.model.scope import Scope
from etsclone.model.tree import Kind
from etsclone.overlay.payload import Payload, read_payload
from etsclone.plan import textdiff
from etsclone.plan.secrets import secret_paths
from etsclone.plan.suggest import suggestion
from etsclone.plan.textdiff import TextDiff, text_diff
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
    parser.add_argument("--trust", metavar="FILE", type=Path, help="allowed_signers file to trust")
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
        if not (arguments.brief or arguments.suggest):
            texts = list(_texts(comparison, left, right, show_secrets=arguments.show_secrets))
    if arguments.json:
        sides = {"before": left.name, "after": right.name}
        print_json(sides | comparison_facts(comparison) | {"texts": text_facts(texts)})
    elif arguments.suggest:
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
    with contextlib.ExitStack() as stack:
        overlays = {
            place: stack.enter_context(overlay_side(place, arguments.trust))
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
            profile = arguments.profile or (known.profile if known else "")
            sides.append(stack.enter_context(_tree_side(place, by, profile)))
        yield sides[0], sides[1]


@contextlib.contextmanager
def _tree_side(place: TreePlace, scope: Scope, profile: str) -> Iterator[Side]:
    """Take a tree as a capture does, into files that nobody else sees."""
    require_root()
    source = system_on_disk(place.path, writable=False) if place.disk else system_at(place.path)
    with (
        tempfile.TemporaryFile() as payload,
        tempfile.TemporaryFile() as listing,
        source as system,
    ):
        capture_system(system, scope, payload, listing)

        yield Side(place.path, place.path, scope, profile, lambda: listing, lambda: payload)


def _texts(
    comparison: Comparison, left: Side, right: Side, *, show_secrets: bool
) -> Iterator[TextDiff]:
    """How the contents of files in scope differ."""
    paths = [
        each.path
        for each in comparison.differences[Meaning.SCOPE]
        if each.kind is Kind.FILE and (not each.what or {"content", "kind"} & set(each.what))
    ]
    if not (paths and left.payload and right.payload):
        return
    secrets = None if show_secrets else secret_paths(secret_patterns(left.profile, right.profile))
    with (
        read_payload(left.payload(), left.scope) as before,
        read_payload(right.payload(), right.scope) as after,
    ):
        for path in paths:
            sides = _content(before, path), _content(after, path)
            if any(sides):
                yield text_diff(*sides, (left.label, right.label), secrets)


def _content(payload: Payload, path: bytes) -> textdiff.Side | None:
    """A file as the payload holds it; without its content when there is too much of it to be shown."""
    entry = payload.tree.get(path)
    if entry is None or entry.kind is not Kind.FILE:
        return None
    if entry.size > textdiff.MOST:
        return textdiff.Side(entry, b"")
    content = bytearray(entry.size)
    for offset, piece in payload.pieces(entry.link_to or path):
        content[offset : offset + len(piece)] = piece
    return textdiff.Side(entry, bytes(content))
