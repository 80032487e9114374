"""Receipts of what was done: one JSON file each, never overwritten, readable by root alone."""

import json
import logging
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from etsclone import __version__
from etsclone.errors import DeviceError, EtscloneError, StoreFull, StoreRefused
from etsclone.store.files import aside

FORMAT_VERSION = 1

logger = logging.getLogger(__name__)


def state_folder() -> Path:
    """Where this machine keeps receipts: `$ETSCLONE_STATE`, else `/var/lib/etsclone`."""
    return Path(os.environ.get("ETSCLONE_STATE") or "/var/lib/etsclone")


def save_receipt(
    what: str,
    facts: dict[str, object],
    started: datetime,
    *,
    keep: Callable[[str, bytes], Path] | None = None,
    sign: Callable[[bytes], bytes] | None = None,
) -> Path:
    """Keep the facts of a finished operation: in the store, or on this machine when there is none that can be written.

    Args:
        what: the kind of operation, with which the file's name begins.
        facts: what was done, as JSON.
        started: when it began (UTC); the rest of the name.
        keep: keeps a file of that name in a store, and returns its path.
        sign: makes the content of a signature file, which is kept beside it with `.sig` added to its name.

    Returns:
        The receipt's path.

    Raises:
        EtscloneError: when neither can be written; the operation itself is done by then, and the message says so.
    """
    name = f"{what}-{started:%Y%m%dT%H%M%S.%fZ}.json"
    about = {"receipt": what, "format": FORMAT_VERSION, "etsclone": __version__}
    data = json.dumps({**about, **facts}, indent=2).encode() + b"\n"
    files = {name: data} if sign is None else {name: data, f"{name}.sig": sign(data)}
    if keep is not None:
        try:
            paths = [keep(*file) for file in files.items()]
            return paths[0]
        except (StoreRefused, StoreFull, DeviceError) as error:
            logger.warning(
                "the receipt is kept on this machine, not in the store: %s", error.message
            )
    _save_here(files)
    return state_folder() / "receipts" / name


def _save_here(files: dict[str, bytes]) -> None:
    folder = state_folder() / "receipts"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data in files.items():
            with aside(folder / name) as new:
                new.file.write(data)
                new.commit()
    except (OSError, EtscloneError) as error:
        raise EtscloneError(
            f"all is done and verified, but the receipt cannot be kept in {folder}: {error}",
            hint="set ETSCLONE_STATE to a folder that can be written",
        ) from error
