"""`etsclone brd trust`: list a public key for a role in the store's allowed_signers."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.commands.trust import SITE_SIGNERS
from etsclone.errors import UsageError
from etsclone.overlay.trust import add_signer
from etsclone.store.files import replace_text
from etsclone.store.folder import open_store


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument(
        "--role", metavar="ROLE", required=True, help="the role that the key may sign for"
    )
    parser.add_argument("pubkey", metavar="PUBKEY", type=Path, help="OpenSSH public key file")


def run(arguments: Namespace) -> None:
    """Add the key to the store's list.

    Raises:
        StoreRefused: when there is no such store or role.
        UsageError: when the public key cannot be read.
    """
    store = open_store(arguments.store)
    store.check_role(arguments.role)
    try:
        public_key = arguments.pubkey.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the public key {arguments.pubkey}: {error}") from error
    with store.lock():
        listed = store.signers_path.read_text(encoding="utf-8")
        replace_text(store.signers_path, add_signer(listed, arguments.role, public_key))
    print(f"{arguments.pubkey} may sign for {arguments.role}: listed in {store.signers_path}")
    print(
        f"the store only keeps a copy: put it on both servers and the rescue system as {SITE_SIGNERS}"
    )
