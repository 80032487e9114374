"""`etsclone brd keygen`: make a signing key in OpenSSH's format."""

import socket
from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.commands.output import ask_unseen, at_terminal
from etsclone.errors import EtscloneError, UsageError
from etsclone.overlay.signing import generate_key

_HINT = "run this at a terminal, or give --no-passphrase for a key that needs none"


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument(
        "keyfile", metavar="KEYFILE", type=Path, help="the private key; the public one gets .pub"
    )
    parser.add_argument(
        "--no-passphrase",
        action="store_true",
        help="do not ask for a passphrase: captures can run alone",
    )


def run(arguments: Namespace) -> None:
    """Make the key pair; never overwrites.

    Raises:
        KeyRefused: when one of the files exists, or nobody answers.
        UsageError: when the two passphrases differ, or there is no terminal to ask for one on.
    """
    passphrase = b"" if arguments.no_passphrase else _new_passphrase()
    try:
        generate_key(
            arguments.keyfile, passphrase or None, comment=f"etsclone {socket.gethostname()}"
        )
    except OSError as error:
        raise EtscloneError(
            f"cannot write {error.filename or arguments.keyfile}: {error.strerror}"
        ) from error
    print(
        f"private key {arguments.keyfile}{'' if passphrase else ' (no passphrase)'}, public key {arguments.keyfile}.pub"
    )


def _new_passphrase() -> bytes:
    # A key that needs no passphrase is made on purpose only, never because nobody could be asked.
    if not at_terminal():
        raise UsageError("there is no terminal to ask for a passphrase on", hint=_HINT)
    passphrase = _ask("passphrase (empty for none): ")
    if passphrase != _ask("the same again: "):
        raise UsageError("the two passphrases differ", hint="run the command again")
    return passphrase


def _ask(prompt: str) -> bytes:
    return ask_unseen(
        prompt,
        unanswered="no passphrase was given: no key was made",
        hint=_HINT,
    )
