"""What commands print, and how they ask: text for people on stdout, or the same facts as JSON for programs."""

import getpass
import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from etsclone.errors import NotConfirmed
from etsclone.model.disk import Disk
from etsclone.model.plan import Refusal
from etsclone.progress import Report, Shown
from etsclone.units import human


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


def confirm(name: str, *, yes: bool) -> None:
    """Have the person type the target's name, unless `yes` was given on the command line.

    Raises:
        NotConfirmed: when something else, or nothing, is typed.
    """
    if yes:
        return
    print(f"\nto go on, type the target's name, {name}: ", end="", flush=True)
    answer = sys.stdin.readline().strip()
    if answer != name:
        raise NotConfirmed(
            "not confirmed, nothing was changed", hint=f"type exactly {name}, or give --yes"
        )


def ask_passphrase(path: Path) -> bytes:
    """Have the person type the passphrase of a key file, unseen."""
    return getpass.getpass(f"passphrase of {path}: ").encode()


def disk_facts(disk: Disk) -> dict[str, object]:
    """A disk as JSON facts; sizes in bytes."""
    return {
        "path": os.path.abspath(disk.path),
        "stable_path": disk.stable_path,
        "model": disk.model,
        "serial": disk.identity.serial,
        "wwn": disk.identity.wwn,
        "size": disk.size,
        "sector_size": disk.sector_size,
        "transport": disk.transport,
        "rotational": disk.rotational,
        "read_only": disk.read_only,
        "contents": disk.summary,
        "table": {"label": disk.table.label, "uuid": disk.table.uuid} if disk.table else None,
        "partitions": [
            {
                "number": part.number,
                "device": part.device,
                "start": part.start,
                "size": part.size,
                "type": part.type,
                "uuid": part.uuid,
                "name": part.name,
                "content": part.content.type,
                "filesystem_uuid": part.content.uuid,
                "label": part.content.label,
            }
            for part in disk.partitions
        ],
        "uses": [{"device": use.device, "how": use.how, "where": use.where} for use in disk.uses],
    }


def refusal_facts(refusals: Sequence[Refusal]) -> list[Mapping[str, str]]:
    """Refusals as JSON facts."""
    return [
        {"guard": each.guard.value, "message": each.message, "hint": each.hint} for each in refusals
    ]


def disk_line(disk: Disk) -> str:
    """A disk in one line, so that a person recognises it: path, size, model, serial, contents."""
    words = [
        disk.path,
        human(disk.size),
        disk.transport,
        disk.model,
        disk.identity.serial and f"S/N {disk.identity.serial}",
    ]
    return f"{'  '.join(word for word in words if word)}  [{disk.summary}]"
