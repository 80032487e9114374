"""What opens the encrypted volumes of a disk (`--key-file`), or whom to ask."""

from argparse import Namespace
from pathlib import Path

from etsclone.commands.output import ask_unseen
from etsclone.disk.luks import Keys
from etsclone.errors import UsageError
from etsclone.regular import read_given
from etsclone.units import MIB

_MAX_KEY = 8 * MIB
"""Source: cryptsetup(8): it reads no more of a key file."""


def given_keys(arguments: Namespace) -> Keys:
    """What opens encrypted volumes; nothing is asked before one has to be opened.

    Raises:
        UsageError: when the file given cannot be read.
    """
    file: Path | None = arguments.key_file
    if file is None:
        return Keys(ask=_ask)
    try:
        return Keys((read_given(file, _MAX_KEY),))
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}", hint="name the key file of the volumes"
        ) from error


def _ask(volume: str) -> bytes:
    return ask_unseen(
        f"passphrase of the encrypted volume {volume}: ",
        unanswered=f"{volume} is encrypted, and nobody answers",
        hint="give --key-file FILE",
    )
