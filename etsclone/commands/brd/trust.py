"""`etsclone brd trust`: list a public key for a role in the store's allowed_signers."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path

from etsclone.commands.textfile import read_kept, read_named
from etsclone.commands.trust import SITE_SIGNERS, naming
from etsclone.errors import FormatError, KeyRefused
from etsclone.overlay.trust import add_signer, parse_public_key
from etsclone.store.files import replace_text
from etsclone.store.folder import open_store


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument(
        "--role", metavar="ROLE", required=True, help="the role that the key may sign for"
    )
    parser.add_argument("pubkey", metavar="PUBKEY", type=Path, help="OpenSSH public key file")


def run(arguments: Namespace) -> None:
    """Add the key to the store's list.

    Raises:
        StoreRefused: when there is no such store or role, or the store's list is no file that it may be.
        UsageError: when the public key cannot be read.
        KeyRefused: when it is none, or one that cannot sign.
        TrustRefused: when the store's list cannot be used, or denies the role to the key, or its time for it is over.
    """
    store = open_store(arguments.store)
    store.check_role(arguments.role)
    public_key = _public_key(arguments.pubkey)
    with store.lock():
        listed = read_kept(store.signers_path, "the list of allowed signers")
        with naming(store.signers_path):
            changed = add_signer(listed, arguments.role, public_key, datetime.now(UTC))
        replace_text(store.signers_path, changed)
    print(f"{arguments.pubkey} may sign for {arguments.role}: listed in {store.signers_path}")
    print(
        f"the store only keeps a copy: put it on both servers and the rescue system as {SITE_SIGNERS}"
    )


def _public_key(path: Path) -> str:
    """The text of a public key's file, once it is known to hold one that can sign."""
    text = read_named(path, "the public key", hint="it is the file that ends in .pub")
    if text.startswith("-----BEGIN"):
        raise KeyRefused(
            f"{path} is no public key, it looks like a private one",
            hint=f"name the file of the public key: {path}.pub",
        )
    try:
        parse_public_key(text)
    except FormatError as error:
        raise KeyRefused(
            f"{path} holds no Ed25519 public key: {error.message}",
            hint="`etsclone brd keygen` or `ssh-keygen -t ed25519` makes one; other kinds cannot sign",
        ) from error
    return text
