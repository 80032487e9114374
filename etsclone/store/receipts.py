"""Receipts of what was done: one JSON file each, never overwritten, readable by root alone."""

import json
import logging
import os
from datetime import datetime
from pathlib import Path

from etsclone.errors import DeviceError, EtscloneError, StoreFull, StoreRefused
from etsclone.store.files import aside
from etsclone.store.folder import Store

FORMAT_VERSION = 1

logger = logging.getLogger(__name__)


def state_folder() -> Path:
    """Where this machine keeps receipts: `$ETSCLONE_STATE`, else `/var/lib/etsclone`."""
    return Path(os.environ.get("ETSCLONE_STATE") or "/var/lib/etsclone")


def save_receipt(
    what: str, facts: dict[str, object], started: datetime, *, store: Store | None = None
) -> Path:
    """Keep the facts of a finished operation: in the store, or on this machine when there is none that can be written.

    Raises:
        EtscloneError: when neither can be written; the operation itself is done by then, and the message says so.
    """
    name = f"{what}-{started:%Y%m%dT%H%M%S.%fZ}.json"
    data = (
        json.dumps({"receipt": what, "format": FORMAT_VERSION, **facts}, indent=2).encode() + b"\n"
    )
    if store is not None:
        try:
            return store.write_receipt(name, data)
        except (StoreRefused, StoreFull, DeviceError) as error:
            logger.warning(
                "the receipt is kept on this machine, not in the store: %s", error.message
            )
    return _save_here(name, data)


def _save_here(name: str, data: bytes) -> Path:
    folder = state_folder() / "receipts"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with aside(folder / name) as new:
            new.file.write(data)
            new.commit()
    except (OSError, EtscloneError) as error:
        raise EtscloneError(
            f"all is done and verified, but the receipt cannot be kept in {folder}: {error}",
            hint="set ETSCLONE_STATE to a folder that can be written",
        ) from error
    return folder / name
