"""`etsclone brd trust`: list a public key for a role in the store's allowed_signers."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path

from etsclone.commands.output import add_json, print_json
from etsclone.commands.textfile import read_kept, read_named
from etsclone.commands.trust import (
    SITE_REVOKED,
    SITE_SIGNERS,
    add_revoked,
    load_revoked,
    naming,
)
from etsclone.errors import FormatError, KeyRefused
from etsclone.overlay.sshwire import fingerprint
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
    add_revoked(parser)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Add the key to the store's list, and tell when it is revoked all the same.

    Raises:
        StoreRefused: when there is no such store or role, or the store's list is no file that it may be.
        UsageError: when the public key cannot be read.
        KeyRefused: when it is none, or one that cannot sign.
        TrustRefused: when the store's list or that of revoked keys cannot be used, or the store's denies the role to
            the key, or its time for it is over.
    """
    store = open_store(arguments.store)
    store.check_role(arguments.role)
    text, key = _public_key(arguments.pubkey)
    revoked = key in load_revoked(arguments.revoked)
    with store.lock():
        listed = read_kept(store.signers_path, "the list of allowed signers")
        with naming(store.signers_path):
            changed = add_signer(listed, arguments.role, text, datetime.now(UTC))
        replace_text(store.signers_path, changed)
    if arguments.json:
        facts = {"role": arguments.role, "key": fingerprint(key), "list": str(store.signers_path)}
        print_json(facts | {"revoked": revoked})
    elif revoked:
        where = arguments.revoked or SITE_REVOKED
        print(
            f"{arguments.pubkey} is listed for {arguments.role} in {store.signers_path}, but revoked in {where}"
        )
        print(
            "nothing that it signs is believed where that counts: list another key, or take it out"
        )
    else:
        print(f"{arguments.pubkey} may sign for {arguments.role}: listed in {store.signers_path}")
        print(
            f"the store only keeps a copy: put it on both servers and the rescue system as {SITE_SIGNERS}"
        )


def _public_key(path: Path) -> tuple[str, bytes]:
    """The text of a public key's file, and the key in it (wire form), once it is known that it can sign."""
    text = read_named(path, "the public key", hint="it is the file that ends in .pub")
    if text.startswith("-----BEGIN"):
        raise KeyRefused(
            f"{path} is no public key, it looks like a private one",
            hint=f"name the file of the public key: {path}.pub",
        )
    try:
        key, _ = parse_public_key(text)
    except FormatError as error:
        raise KeyRefused(
            f"{path} holds no Ed25519 public key: {error.message}",
            hint="`etsclone brd keygen` or `ssh-keygen -t ed25519` makes one; other kinds cannot sign",
        ) from error
    return text, key
