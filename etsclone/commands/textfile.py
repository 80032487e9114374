"""Small text files that somebody named on the command line, or that a store keeps."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from etsclone.errors import UsageError, medium_error
from etsclone.model.brd import MAX_SIGNERS
from etsclone.regular import read_given


def read_named(path: Path, what: str, *, hint: str = "") -> str:
    """The text of a file that was named.

    Args:
        path: the file, or a pipe.
        what: what it should be, for the message.
        hint: what to name instead.

    Raises:
        UsageError: when it cannot be read, or is no text.
        DeviceError: when its medium fails.
    """
    with _named(path, what, hint):
        return read_given(path, MAX_SIGNERS).decode("utf-8")


def read_kept(path: Path, what: str) -> str:
    """The text of a store's brd.toml or allowed_signers; else as `read_named`.

    Raises:
        StoreRefused: when it is no regular file, or too large.
    """
    from etsclone.store.folder import read_settings  # noqa: PLC0415 - files that were named need no store

    with _named(path, what, ""):
        return read_settings(path).decode("utf-8")


@contextlib.contextmanager
def _named(path: Path, what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        failed = medium_error(error, path) if isinstance(error, OSError) else None
        raise failed or UsageError(
            f"cannot read {what} {path}: {unread(error)}", hint=hint
        ) from error


def unread(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read, in plain words."""
    match error:
        case FileNotFoundError():
            return "it does not exist"
        case IsADirectoryError():
            return "it is a folder"
        case UnicodeDecodeError():
            return "it is no text"
        case _:
            return error.strerror or str(error)
