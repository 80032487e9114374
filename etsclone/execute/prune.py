"""Runs prune plans: cuts generations down to their headers."""

from collections.abc import Sequence
from pathlib import Path

from etsclone.errors import EtscloneError, TargetChanged
from etsclone.model.history import Link
from etsclone.overlay.container import Envelope, read_envelope
from etsclone.overlay.header import digest
from etsclone.plan.prune import PrunePlan
from etsclone.store.folder import Generation, Store


def execute_prune(store: Store, plans: Sequence[PrunePlan]) -> None:
    """Prune what the plans say, oldest first, if the store is still as it was when they were made.

    Raises:
        TargetChanged: when a generation that is to stay, or to go, is another one now; nothing was pruned.
        StoreRefused, DeviceError: each generation is whole or pruned; planning and executing again completes it.
    """
    with store.lock():
        for plan in plans:
            for kept in plan.kept:
                _check(kept.link)
            for link in plan.going:
                _check(link)
        for plan in plans:
            for link in plan.going:
                item = Generation(link.role, link.number, Path(link.path), link.pruned)
                store.prune(item, _check(link).size)


def _check(link: Link) -> Envelope:
    try:
        envelope = read_envelope(Path(link.path))
    except EtscloneError as error:
        raise _changed(link) from error
    # Of one that is dropped, what the later one vouches for.
    if digest(envelope.header) != (link.claimed[0] if link.claimed else link.digest):
        raise _changed(link)
    return envelope


def _changed(link: Link) -> TargetChanged:
    return TargetChanged(
        f"{link.path} changed since the plan was shown", hint="run the same command again"
    )
