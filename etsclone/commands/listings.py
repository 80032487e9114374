"""What makes the listing of a tree quick: worker processes, and on this machine what the last one saw."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from etsclone.disk.mounts import dated_filesystems
from etsclone.errors import EtscloneError
from etsclone.overlay.listing import Aids
from etsclone.overlay.temporary import room_needed
from etsclone.store.files import aside_name, locked
from etsclone.store.receipts import state_folder

logger = logging.getLogger(__name__)

_MOST_WORKERS = 4


@contextlib.contextmanager
def listing_aids(pair: str, role: str, *, full: bool) -> Iterator[Aids]:
    """Files for `list_tree`; when the context ends without an error, what it kept replaces what is remembered.

    That nothing can be remembered is no reason to fail: it is logged, and the next listing takes longer.

    Args:
        pair: of which pair the tree is.
        role: and of which role: each has a memory of its own.
        full: whether nothing is to be believed that is remembered.
    """
    path = state_folder() / "listings" / f"{pair}-{role}"
    with contextlib.ExitStack() as files:
        spools = files.enter_context(listing_spools())
        aids = Aids(spools)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.enter_context(locked(path.parent))
            listing = files.enter_context(_kept(path, full=full))
            # A colon is in no name of a role, so this is no other role's listing.
            brought = files.enter_context(_kept(path.with_name(f"{path.name}:packages"), full=full))
            aids = Aids(spools, *listing, *brought, dated=dated_filesystems())
        except (EtscloneError, OSError) as error:
            logger.warning("what is listed is not remembered: %s", error)
        yield aids


@contextlib.contextmanager
def _kept(path: Path, *, full: bool) -> Iterator[tuple[BinaryIO | None, BinaryIO]]:
    """What is kept in a file, and an empty one that replaces it in the end if anything was written to it."""
    aside = path.with_name(aside_name(path.name))
    with contextlib.ExitStack() as files:
        new = files.enter_context(open(aside, "w+b", opener=_private))
        files.callback(aside.unlink, missing_ok=True)
        old = files.enter_context(path.open("rb")) if path.exists() and not full else None
        yield old, new
        # Not synced: what a power cut leaves of it has a wrong digest, and is not believed.
        with contextlib.suppress(OSError):
            if os.fstat(new.fileno()).st_size:
                os.replace(aside, path)


@contextlib.contextmanager
def listing_spools() -> Iterator[list[BinaryIO]]:
    """An empty file for each process that should list a tree on this machine.

    Raises:
        StoreFull: when $TMPDIR has no space for what they list.
    """
    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    with room_needed(), contextlib.ExitStack() as files:
        yield [files.enter_context(tempfile.TemporaryFile()) for _ in range(workers)]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
