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
from etsclone.store.files import aside_name, locked, typed_errors
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
    with contextlib.ExitStack() as cleanup:
        workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
        spools = [cleanup.enter_context(tempfile.TemporaryFile()) for _ in range(workers)]
        path = state_folder() / "listings" / f"{pair}-{role}"
        old, keep = None, None
        try:
            with typed_errors(path):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            cleanup.enter_context(locked(path.parent))
            old = None if full else _opened(path)
            with typed_errors(path):
                keep = open(path.with_name(aside_name(path.name)), "w+b", opener=_private)  # noqa: SIM115 - below
        except EtscloneError as error:
            logger.warning("what is listed is not remembered: %s", error.message)
        for file in (old, keep):
            if file:
                cleanup.enter_context(file)
        yield Aids(spools, old, keep)
        if keep:
            # Not synced: what a power cut leaves of it has a wrong digest, and is not believed.
            os.replace(path.with_name(aside_name(path.name)), path)


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except OSError:
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
