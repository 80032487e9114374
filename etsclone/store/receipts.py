"""Receipts of what was done on this machine: one JSON file each, never overwritten, readable by root alone."""

import json
import os
from datetime import datetime
from pathlib import Path

from etsclone.errors import EtscloneError


def state_folder() -> Path:
    """Where this machine keeps receipts: `$ETSCLONE_STATE`, else `/var/lib/etsclone`."""
    return Path(os.environ.get("ETSCLONE_STATE") or "/var/lib/etsclone")


def save_receipt(what: str, facts: dict[str, object], started: datetime) -> Path:
    """Keep `facts` of a finished operation and return the file's path.

    Raises:
        EtscloneError: when it cannot be written; the operation itself is done by then, and the message says so.
    """
    folder = state_folder() / "receipts"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{what}-{started:%Y%m%dT%H%M%S.%fZ}.json"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"receipt": what, "format": 1, **facts}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise EtscloneError(
            f"the {what} is done and verified, but its receipt cannot be kept in {folder}: {error.strerror}",
            hint="set ETSCLONE_STATE to a folder that can be written",
        ) from error
    return path
