"""What a source that is in use needs so that it can be copied all the same. Pure."""

from collections.abc import Collection, Iterator

from etsclone.model.disk import Disk, Use
from etsclone.model.plan import Guard, Refusal

_OTHERWISE = "start a rescue system, or unmount it"


def to_freeze(source: Disk) -> dict[str, str]:
    """The devices of the source with filesystems that must be held still, and a folder where each is mounted.

    A filesystem may be mounted at several places, for some of them read-only: one place is enough to hold all.
    """
    writable = (use for use in source.uses if use.how == "mounted" and use.writable)
    return {use.device: use.where for use in writable}


def live_refusals(source: Disk, needed: Collection[str]) -> tuple[Refusal, ...]:
    """Why `source` may not be copied while it is in use; empty when it may.

    Args:
        source: the source's snapshot.
        needed: mount points of the filesystems that a clone itself must be able to write to.
    """
    return tuple(_refusals(source, needed))


def _refusals(source: Disk, needed: Collection[str]) -> Iterator[Refusal]:
    for device, folder in to_freeze(source).items():
        places = [use.where for use in source.uses if use.device == device]
        if "/" in places:
            yield Refusal(
                Guard.SOURCE_MOUNTED,
                f"{device} holds the root of the running system, which cannot be held still",
                _OTHERWISE,
            )
        elif wanted := sorted(set(places) & set(needed)):
            yield Refusal(
                Guard.SOURCE_MOUNTED,
                f"{folder} cannot be held still: the clone itself writes to {wanted[0]}",
                "put the target, $ETSCLONE_STATE, $TMPDIR and the output elsewhere, or unmount it",
            )


def active_swap(source: Disk) -> tuple[Use, ...]:
    """The swap space of the source that is in use: nothing can hold it still, and nobody needs what it holds."""
    return tuple(use for use in source.uses if use.how == "swap")
