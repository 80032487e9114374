"""`--identity`: the private keys that open what was sealed."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.commands.output import ask_passphrase
from etsclone.overlay.container import Opener


def add_identity(parser: ArgumentParser, purpose: str) -> None:
    """Give a command `--identity`; `purpose` ends its help."""
    parser.add_argument(
        "--identity",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help=f"recovery key, of age or OpenSSH (ssh-ed25519), {purpose}",
    )


def given_identities(arguments: Namespace) -> Opener | None:
    """The private keys of the files given with `--identity`, None without any; asks for their passphrases.

    Raises:
        KeyRefused: when a file holds none, or the passphrase is wrong.
    """
    if not arguments.identity:
        return None
    from etsclone.overlay.sealing import Identities, load_identities  # noqa: PLC0415 - seldom given

    found = [
        load_identities(path, lambda path=path: ask_passphrase(path))  # type: ignore[misc]  # a default binds the path
        for path in arguments.identity
    ]
    return Identities(tuple(key for each in found for key in each.keys))
