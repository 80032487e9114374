"""What a capture says of differences that no list of the profile claims: a rebuild would miss them."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from etsclone.commands.brd.differences import summary
from etsclone.commands.brd.places import place_in
from etsclone.commands.brd.sides import Keys, OverlayPlace, Side, compared, overlay_side
from etsclone.errors import EtscloneError
from etsclone.model.profile import Profile
from etsclone.store.folder import Generation, Store


def unclaimed_notes(
    store: Store, new: Generation, profile: Profile, listing: BinaryIO, trust: Path | None
) -> tuple[str, ...]:
    """Sentences about what is unclaimed against the newest overlay of each other role, and the one before.

    Args:
        store: where the others are.
        new: what was just captured.
        profile: that of the capture.
        listing: its inventory, compressed and perhaps sealed.
        trust: the file given with `--trust`, if any.
    """
    if store.recipients:  # a server seals and cannot open
        return ("sealed: `etsclone brd diff --identity` tells what is unclaimed",)
    return tuple(
        note
        for place, since in _others(store, new)
        if (note := _note(place, since, _captured(new, profile, listing), trust))
    )


def _others(store: Store, new: Generation) -> Iterator[tuple[OverlayPlace, str]]:
    for role in store.roles:
        numbers = [each.number for each in store.generations(role)]
        if role != new.role and numbers:
            yield place_in(store, role, numbers[-1]), f"against generation {numbers[-1]} of {role}"
        elif role == new.role and new.number - 1 in numbers:
            before = new.number - 1
            yield place_in(store, role, before), f"since generation {before}"


def _captured(new: Generation, profile: Profile, listing: BinaryIO) -> Side:
    def inventory() -> BinaryIO:
        listing.seek(0)
        return listing

    return Side(str(new.path), new.role, profile.scope, profile.name, inventory, None)


def _note(place: OverlayPlace, since: str, right: Side, trust: Path | None) -> str:
    """What to say about one other overlay; nothing when all is claimed."""
    with contextlib.ExitStack() as stack:
        try:
            comparison = compared(stack.enter_context(overlay_side(place, Keys(trust))), right)
        except (
            EtscloneError
        ) as error:  # the overlay is stored already: nothing here is a reason to fail
            return f"unclaimed differences {since} were not looked for: {error.message}"
    if not comparison.unclaimed:
        return ""
    command = ["etsclone", "brd", "diff", place.path, right.name]
    command += ["--trust", trust] if trust else []
    return (
        f"unclaimed {since}, a rebuild would miss it: {summary(comparison)}"
        f" (all of it: `{shlex.join(map(str, command))}`)"
    )
