"""What makes the listing of a tree quick: worker processes, and on this machine what the last one saw."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from etsclone.errors import EtscloneError
from etsclone.overlay.listing import Aids
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
    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    path = state_folder() / "listings" / f"{pair}-{role}"
    with contextlib.ExitStack() as files:
        spools = [files.enter_context(tempfile.TemporaryFile()) for _ in range(workers)]
        old, keep = None, None
        try:
            keep = files.enter_context(_opened_aside(path, files))
            if path.exists() and not full:
                old = files.enter_context(path.open("rb"))
        except (EtscloneError, OSError) as error:
            logger.warning("what is listed is not remembered: %s", error)
        aside = path.with_name(aside_name(path.name))
        try:
            yield Aids(spools, old, keep)
            if keep:
                # Not synced: what a power cut leaves of it has a wrong digest, and is not believed.
                with contextlib.suppress(OSError):
                    os.replace(aside, path)
        finally:
            if keep:
                aside.unlink(missing_ok=True)


def _opened_aside(path: Path, files: contextlib.ExitStack) -> BinaryIO:
    """A new file beside that of `path`, whose folder is locked as long as `files` are open."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.enter_context(locked(path.parent))
    return open(path.with_name(aside_name(path.name)), "w+b", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
