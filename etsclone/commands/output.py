"""What commands print, and how they ask: text for people on stdout, or the same facts as JSON for programs."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from etsclone.errors import Interrupted, KeyRefused, NotConfirmed
from etsclone.progress import Report, Shown
from etsclone.streams import lost_output


def add_json(parser: ArgumentParser) -> None:
    """Give a command `--json`."""
    parser.add_argument("--json", action="store_true", help="print the facts as JSON, for programs")


def add_events(parser: ArgumentParser) -> None:
    """Give a command `--json`, as a stream of events: also what fails becomes one (`etsclone.cli`)."""
    parser.set_defaults(events=True)
    parser.add_argument(
        "--json", action="store_true", help="print what happens as JSON, an object a line"
    )


def report_for(arguments: Namespace) -> Report:
    """Whom the command line wants to be told how far things are."""
    return Report(Shown.EVENTS if arguments.json else Shown.TEXT)


def print_json(facts: object) -> None:
    """Print one JSON document. Bytes of names that are not UTF-8 stay as surrogate escapes."""
    print(json.dumps(facts, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns that are as wide as they need to be."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def confirm(name: str, *, yes: bool, whose: str = "target") -> None:
    """Have the person type the target's name, or another one's, unless `yes` was given on the command line.

    Raises:
        NotConfirmed: when something else, or nothing, is typed, or the plan could not be printed.
        Interrupted: by ^C.
    """
    if yes:
        return
    print(f"\nto go on, type the {whose}'s name, {name}: ", end="", flush=True)
    if lost_output():
        raise NotConfirmed(
            "nobody can read what is to be done, nothing was changed", hint="or give --yes"
        )
    try:
        answer = sys.stdin.readline().strip()
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing was changed") from None
    if answer != name:
        raise NotConfirmed(
            "not confirmed, nothing was changed", hint=f"type exactly {name}, or give --yes"
        )


def ask_passphrase(path: Path) -> bytes:
    """Have the person type the passphrase of a key file, unseen.

    Raises:
        KeyRefused: when nobody answers.
    """
    return ask_unseen(
        f"passphrase of {path}: ",
        unanswered=f"{path} has a passphrase, and nobody answers",
        hint="run this at a terminal; ssh-agent may hold a signing key: `ssh-add`",
    )


def ask_unseen(prompt: str, *, unanswered: str, hint: str) -> bytes:
    """Have the person type something that is not to be seen; without a terminal, a line of the input is the answer.

    Raises:
        KeyRefused: when the input ends first: `unanswered`, with `hint`.
    """
    import getpass  # noqa: PLC0415 - few commands ask

    try:
        if at_terminal():
            answer = getpass.getpass(prompt)
        else:  # getpass would warn that it cannot hide what is typed, in the words of Python
            print(prompt, file=sys.stderr, flush=True)
            answer = input()
    except EOFError as error:
        raise KeyRefused(unanswered, hint=hint) from error
    return answer.encode("utf-8", "surrogateescape")


def at_terminal() -> bool:
    """Whether there is a terminal to ask somebody on, also where the input is no terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin.isatty()
    return True
