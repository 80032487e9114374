"""`etsclone brd recipients`: to whose keys the overlays of a store are sealed from now on."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from etsclone.commands.output import add_json, print_json
from etsclone.commands.textfile import read_named
from etsclone.errors import KeyRefused, StoreRefused, UsageError
from etsclone.model.brd import recipient_key
from etsclone.overlay.sealing import parse_recipient, parse_recipients
from etsclone.store.folder import Store, open_store
from etsclone.units import counted

SITE_RECIPIENTS = Path("/etc/etsclone/recipients")
"""To whom this server seals at most. A store says to whom it wants to be sealed, and whoever can write to a store could
say so too; this file is out of their reach."""


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    add_recipients(parser, "--add", "to seal to from the next generation on")
    add_recipients(parser, "--remove", "to seal to no more")
    add_json(parser)


def add_recipients(parser: ArgumentParser, option: str, purpose: str) -> None:
    """Give a command an option for recipients; `purpose` ends its help."""
    parser.add_argument(
        option,
        metavar="KEY|FILE",
        action="append",
        default=[],
        help=f"public key, age1... or ssh-ed25519 ..., or a file of some, {purpose}; may be repeated",
    )


def run(arguments: Namespace) -> None:
    """Change the list if asked to, and print it.

    Raises:
        StoreRefused: when there is no such store, or nobody would be left who could open what is sealed.
        KeyRefused: when a key cannot be sealed to.
        UsageError: when a key is to be removed that is not listed.
    """
    store = open_store(arguments.store)
    added, removed = given_recipients(arguments.add), given_recipients(arguments.remove)
    if added or removed:
        with store.lock():
            before = open_store(arguments.store)
            store = _changed(before, added, removed)
    if arguments.json:
        print_json({"recipients": list(store.recipients)})
        return
    for line in store.recipients:
        print(line)
    if not store.recipients:
        print(
            "overlays are not sealed: whoever reads the store reads password hashes and host keys"
        )
    if added or removed:
        _warn(before, added, removed)


def given_recipients(values: Sequence[str]) -> tuple[str, ...]:
    """The recipients that an option names, each once, in its order: keys, or files that hold some.

    Raises:
        KeyRefused: when a key cannot be sealed to, or a file holds none.
        UsageError: when a file cannot be read.
    """
    lines = [line for value in values for line in _lines(value)]
    return tuple({recipient_key(line): line for line in lines}.values())


def site_checked(store: Store) -> tuple[str, ...]:
    """To whom this server seals what it captures into the store.

    Raises:
        StoreRefused: when the store asks for others than this server's own list allows, or for no sealing at all.
        KeyRefused, UsageError: when that list cannot be used.
    """
    if not SITE_RECIPIENTS.exists():
        return store.recipients
    allowed = {recipient_key(line) for line in _lines(str(SITE_RECIPIENTS))}
    strangers = {recipient_key(line) for line in store.recipients} - allowed
    if strangers or not store.recipients:
        raise StoreRefused(
            f"the store seals to {', '.join(sorted(strangers)) or 'nobody'}, which {SITE_RECIPIENTS} does not allow",
            hint="if you changed the recipients yourself, change that file too; else find out who changed the store",
        )
    return store.recipients


def _lines(value: str) -> tuple[str, ...]:
    if value.startswith(("age1", "AGE-", "ssh-", "ecdsa-", "sk-")):
        return (parse_recipient(value),)
    hint = "give a public key, age1... or ssh-ed25519 ..., or a file of some"
    text = read_named(Path(value), "recipients from", hint=hint)
    try:
        return parse_recipients(text)
    except KeyRefused as error:
        raise KeyRefused(f"{value}: {error.message}", hint=error.hint) from error


def _changed(store: Store, added: Sequence[str], removed: Sequence[str]) -> Store:
    listed = {recipient_key(line): line for line in store.recipients}
    for line in removed:
        if listed.pop(recipient_key(line), None) is None:
            raise UsageError(
                f"nothing is sealed to {recipient_key(line)}",
                hint=f"`etsclone brd recipients {store.path}` lists them",
            )
    listed |= {recipient_key(line): line for line in added}
    if not listed:
        raise StoreRefused(
            "the last recipient cannot be removed: overlays would no longer be sealed",
            hint="add another one in the same command, or make a new store",
        )
    try:
        return store.with_recipients(list(listed.values()))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _warn(before: Store, added: Sequence[str], removed: Sequence[str]) -> None:
    count = sum(len(before.generations(role)) for role in before.roles)
    if not count:
        return
    so_far = counted(count, "generation")
    if removed:
        print(f"note: the {so_far} so far can still be opened by whom you removed: what")
        print("      they hold (host keys, passwords) must be changed if those keys were stolen")
    if added and before.recipients:
        print(f"note: the {so_far} so far cannot be opened by whom you added")
    if added and not before.recipients:
        print(f"note: nothing is sealed of the {so_far} so far, and that stays so")
    if SITE_RECIPIENTS.exists():
        print(f"note: {SITE_RECIPIENTS} of each server must allow the same keys")
