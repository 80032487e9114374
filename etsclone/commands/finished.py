"""The refusal of a system that is half way between two roles."""

import os

from etsclone.errors import RebuildUnfinished
from etsclone.model.tree import STAGING


def check_finished(folder: str, name: str) -> None:
    """Make sure that the system mounted at a folder is not half way from one role to another.

    Raises:
        RebuildUnfinished: when it is.
        FormatError, KeptExposed: when nobody can tell, since the journal of a rebuild is damaged, or anybody's.
    """
    if not _is_begun(folder):
        return
    # Most systems hold nothing of a rebuild, and are told so without what reads journals.
    from etsclone.overlay.rounds import unfinished_rebuild  # noqa: PLC0415

    where = unfinished_rebuild(folder)
    if where is not None:
        raise RebuildUnfinished(
            f"a rebuild of {name} was interrupted: it is {where}",
            hint="run the rebuild again, which finishes it, or undo it: etsclone rebuild DISK --undo",
        )


def _is_begun(folder: str) -> bool:
    """Whether a rebuild ever began in a system and left anything there, whole or not."""
    try:
        os.lstat(os.path.join(os.fsencode(folder), STAGING))
    except FileNotFoundError:
        return False
    return True
