"""What was changed after a rebuild, and is lost when that is undone."""

from contextlib import suppress

from etsclone.errors import UnsafePath
from etsclone.model.journal import Progress
from etsclone.model.tree import join, parent_of
from etsclone.overlay.files import opened_folder
from etsclone.overlay.restored import by_swap, is_listed, status_at
from etsclone.overlay.rounds import NEW, OLD, Round
from etsclone.overlay.seen import Sight, keeps_metadata, sight, standing_of, unlike, without_times

CHANGED = "changed since the rebuild, is lost"
MADE = "made since the rebuild, is lost"
UNKNOWN = "changes since the rebuild, if any, are lost"


def changed_since(found: Round) -> dict[bytes, str]:
    """By path, in words, what somebody changed where a rebuild put something, or removed it.

    That only the time of a file is another is no loss. Of what is made in one folder, the folder alone is named.
    """
    put = by_swap(found, found.journal.steps.put)
    lost: dict[bytes, str] = {}
    for number, swap in enumerate(found.journal.steps.swaps):
        place = join(join(found.folder(swap.top), NEW if swap.new else OLD), b"%06d" % number)
        # What still waits to be put in place, or is taken away again, was not there to be changed.
        if (status_at(found.top, place) is not None) is swap.new:
            continue
        now = sight(found.top, swap.path, swap.path) if is_listed(found.top, swap.path) else {}
        if swap.new and not put[swap.path]:
            lost |= dict.fromkeys([swap.path] if now else [], UNKNOWN)
        else:
            lost |= _changed(put[swap.path], now)
    return lost | _changed_stays(found)


def _changed(put: Sight, now: Sight) -> dict[bytes, str]:
    lost = {}
    for path, seen in now.items():
        before = put.get(path)
        if before is None:
            if parent_of(path) not in now or parent_of(path) in put:
                lost[path] = MADE
        elif unlike(without_times(before), without_times(seen)):
            lost[path] = CHANGED
    return lost


def _changed_stays(found: Round) -> dict[bytes, str]:
    """Folders that an undo gives their former owners, modes and attributes."""
    lost = {}
    for stay in found.journal.steps.stays:
        if found.journal.progress is Progress.APPLIED and stay.is_changed:
            with (
                suppress(FileNotFoundError, UnsafePath),
                opened_folder(found.top, stay.path) as folder,
            ):
                if keeps_metadata(folder) and standing_of(folder).lasting != stay.after.lasting:
                    lost[stay.path] = CHANGED
    return lost
