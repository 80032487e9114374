"""Whether a capture found anything that is worth a new generation, and what is kept when it did not."""

import io
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from etsclone.commands.history import read_newest
from etsclone.commands.trust import load_trust
from etsclone.errors import EtscloneError
from etsclone.model.history import Known
from etsclone.overlay.checked import Check, write_check
from etsclone.plan.history import older
from etsclone.store.folder import NewOverlay, Store
from etsclone.store.memory import Captured, recall, remember_capture, remember_newest

logger = logging.getLogger(__name__)


def still_true(store: Store, new: NewOverlay, content: str, now: datetime) -> Check | None:
    """What can be said in place of a new generation: that the newest one is still true. None when it is not.

    It is when this machine captured it, of exactly this content, and it still verifies: a damaged one is no backup.

    Args:
        store: the store, locked.
        new: the generation that would be written.
        content: the digest of what was captured.
        now: when (UTC, whole seconds).
    """
    role = new.generation.role
    captured = _recalled(store, role, new)
    if new.previous is None or captured is None or captured.content != content:
        return None
    trust = load_trust(store.signers_path, follow=False)  # with what this system has revoked
    newest = read_newest(store, role, trust)
    if newest is None or newest.number != new.previous.number or newest.digest != captured.digest:
        return None
    return Check(store.pair, role, newest.number, captured.digest, now)


def keep_check(store: Store, check: Check, sign: Callable[[bytes], bytes]) -> Path:
    """Keep when the newest generation was found to be still true, signed, in the store, which is locked.

    Raises:
        StoreFull, StoreRefused, DeviceError: when that fails.
    """
    record = io.BytesIO()
    write_check(record, check, sign)
    store.write_check(check.role, record.getvalue())
    return store.checked_path(check.role)


def remember_generation(store: Store, new: NewOverlay, digest: str, content: str) -> None:
    """Remember what was captured, for the next capture, and as the newest that this machine has seen."""
    role = new.generation.role
    remember_newest(store.pair, role, Known(new.generation.number, digest))
    remember_capture(store.pair, role, Captured(digest, content))


def _recalled(store: Store, role: str, new: NewOverlay) -> Captured | None:
    """What was captured last. A store that is behind is told of, but a backup into it is better than none."""
    try:
        memory = recall(store.pair, role)
    except EtscloneError as error:
        logger.warning("%s", error.message)
        return None
    number = new.previous.number if new.previous else 0
    if memory.newest and number < memory.newest.generation:
        logger.warning(
            "%s is not up to date for role %s: %s; this capture makes a second history beside the other store's:"
            " capture into that one, or, if it was given up, `etsclone brd verify --accept` this one",
            store.path,
            role,
            older(memory.newest.generation, number),
        )
    return memory.captured
