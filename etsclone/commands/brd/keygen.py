"""`etsclone brd keygen`: make a signing key in OpenSSH's format."""

import getpass
import socket
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.errors import EtscloneError, UsageError
from etsclone.overlay.signing import generate_key


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
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
        KeyRefused: when one of the files exists.
        UsageError: when the two passphrases differ.
    """
    passphrase = b"" if arguments.no_passphrase or not sys.stdin.isatty() else _new_passphrase()
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
    passphrase = getpass.getpass("passphrase (empty for none): ")
    if passphrase != getpass.getpass("the same again: "):
        raise UsageError("the two passphrases differ", hint="run the command again")
    return passphrase.encode()
