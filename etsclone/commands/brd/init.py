"""`etsclone brd init`: make a store for a pair."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.commands.brd.recipients import add_recipients, given_recipients
from etsclone.errors import UsageError
from etsclone.profiles import load_profile
from etsclone.store.folder import create


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument(
        "store", metavar="STORE", type=Path, help="folder, usually on a removable medium"
    )
    parser.add_argument("--pair", metavar="NAME", required=True, help="name of the pair of servers")
    parser.add_argument(
        "--profile",
        metavar="PROFILE",
        required=True,
        help="the kind of server, such as ltsp-isc-dhcp",
    )
    add_recipients(parser, "--recipient", "to seal what is captured to")


def run(arguments: Namespace) -> None:
    """Make the store.

    Raises:
        UsageError: for a pair name that is none, or an unknown profile.
        KeyRefused: for a key that cannot be sealed to.
        StoreRefused: when the folder is not empty.
    """
    profile = load_profile(arguments.profile)
    recipients = given_recipients(arguments.recipient)
    try:
        store = create(arguments.store, arguments.pair, profile.name, profile.roles, recipients)
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(
        f"{store.path} keeps the BRD of pair {store.pair} ({profile.name}), roles {' and '.join(store.roles)}"
    )
    for line in store.recipients:
        print(f"what is captured is sealed to {line}")
    if not store.recipients:
        print(
            "what is captured is not sealed: --recipient, or `etsclone brd recipients --add`, seals it"
        )
    print(
        "next: `etsclone brd keygen` on each server, then `etsclone brd trust` for each public key"
    )
