"""Receipts of what was done: one JSON file each, never overwritten, readable by root alone."""

import json
import logging
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from etsclone import __version__
from etsclone.errors import DeviceError, EtscloneError, ReceiptLost, StoreFull, StoreRefused
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

    Beside the facts it says whether it is `signed`.

    Args:
        what: the kind of operation, with which the file's name begins.
        facts: what was done, as JSON.
        started: when it began (UTC); the rest of the name.
        keep: keeps a file of that name in a store, and returns its path.
        sign: makes the content of a signature file, which is kept beside it with `.sig` added to its name.

    Returns:
        The receipt's path.

    Raises:
        ReceiptLost: when neither can be written, or it cannot be signed and is kept without; the operation itself is
            done by then, and the message says so.
    """
    name = f"{what}-{started:%Y%m%dT%H%M%S.%fZ}.json"
    about = {"receipt": what, "format": FORMAT_VERSION, "etsclone": __version__}

    def written(*, signed: bool) -> bytes:
        return json.dumps({**about, **facts, "signed": signed}, indent=2).encode() + b"\n"

    data = written(signed=sign is not None)
    unsigned = None
    try:
        # The signature comes first: no receipt that says that it is signed may stand without one.
        files = {f"{name}.sig": sign(data), name: data} if sign else {name: data}
    except EtscloneError as error:
        unsigned = error
        files = {name: written(signed=False)}
    path = _save(files, keep)
    if unsigned:
        raise ReceiptLost(
            f"all is done, but {path} could not be signed: {unsigned.message}",
            hint=unsigned.hint,
        ) from unsigned
    return path


def _save(files: dict[str, bytes], keep: Callable[[str, bytes], Path] | None) -> Path:
    """Keep files in their order; returns the path of the last one, the receipt."""
    if keep is not None:
        try:
            paths = [keep(*file) for file in files.items()]
            return paths[-1]
        except (StoreRefused, StoreFull, DeviceError) as error:
            logger.warning(
                "the receipt is kept on this machine, not in the store: %s", error.message
            )
    return _save_here(files)


def _save_here(files: dict[str, bytes]) -> Path:
    folder = state_folder() / "receipts"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data in files.items():
            with aside(folder / name) as new:
                new.file.write(data)
                new.commit()
    except (OSError, EtscloneError) as error:
        raise ReceiptLost(
            f"all is done, but the receipt cannot be kept in {folder}: {error}",
            hint="free some space there, or set ETSCLONE_STATE to a folder that can be written",
        ) from error
    return folder / next(reversed(files))
