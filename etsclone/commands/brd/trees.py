"""A system as one side of a comparison: taken now, as a capture takes it, and kept nowhere."""

import contextlib
import tempfile
from collections.abc import Iterator

from etsclone.chroot import require_root
from etsclone.commands.brd.capture import capture_system
from etsclone.commands.brd.sides import Side, TreePlace
from etsclone.commands.system import system_at, system_on_disk
from etsclone.model.scope import Scope


@contextlib.contextmanager
def tree_side(place: TreePlace, scope: Scope, profile: str) -> Iterator[Side]:
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
