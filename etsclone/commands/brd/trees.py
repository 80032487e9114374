"""A system as one side of a comparison: taken now, as a capture takes it, and kept nowhere."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from etsclone.chroot import require_root
from etsclone.commands.brd.capture import capture_system
from etsclone.commands.brd.sides import Side, TreePlace
from etsclone.commands.system import system_at, system_on_disk
from etsclone.disk.luks import Keys
from etsclone.model.scope import Scope
from etsclone.overlay.temporary import room_needed


@contextlib.contextmanager
def tree_side(place: TreePlace, scope: Scope, profile: str, keys: Keys) -> Iterator[Side]:
    """Take a tree as a capture does, into files that nobody else sees; `keys` open its encrypted volumes.

    Raises:
        StoreFull: when $TMPDIR has no space for them.
    """
    require_root()
    source = (
        system_on_disk(place.path, writable=False, keys=keys)
        if place.disk
        else system_at(place.path)
    )
    with (
        room_needed(),
        tempfile.TemporaryFile() as payload,
        tempfile.TemporaryFile() as listing,
        source as system,
    ):
        capture_system(system, scope, payload, listing)

        def begun(file: BinaryIO) -> BinaryIO:
            file.seek(0)
            return file

        yield Side(
            place.path, place.path, scope, profile, lambda: begun(listing), lambda: begun(payload)
        )
