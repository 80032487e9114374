"""Temporary files: what is said when there is no space for them, or no folder."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from etsclone.errors import StoreFull

_HINT = "free some space, or set TMPDIR to a folder with more"


@contextlib.contextmanager
def room_needed(what: str = "temporary files", folder: Path | None = None) -> Iterator[None]:
    """Around the work with temporary files: `what` they are, and the `folder` they are in, if not the system's.

    Raises:
        StoreFull: when there is no space (or quota) for them, and nobody closer has said what is full.
    """
    try:
        yield
    except OSError as error:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        if not (is_full or isinstance(error, FileNotFoundError)):
            raise
        # Asked only now: what is small stays in memory, and needs no folder.
        import tempfile  # noqa: PLC0415 - takes a while, and is seldom needed

        try:
            place = folder or tempfile.gettempdir()
        except FileNotFoundError as none:  # it tries to write to each that comes into question
            raise StoreFull("no folder for temporary files can be written to", hint=_HINT) from none
        if not is_full:
            raise
        raise StoreFull(f"no space left in {place} for {what}", hint=_HINT) from error
