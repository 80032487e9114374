"""`etsclone disks`: every disk, and whether it may be a target."""

from argparse import ArgumentParser, Namespace

from etsclone.chroot import require_root
from etsclone.commands.diskwords import disk_facts, refusal_facts
from etsclone.commands.output import add_json, print_json, print_table
from etsclone.disk.probe import list_disks
from etsclone.model.disk import Disk
from etsclone.plan.guards import target_refusals
from etsclone.units import human


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Print one line a disk, or JSON."""
    require_root()
    disks = list_disks()
    if arguments.json:
        print_json([disk_facts(disk) | _target_facts(disk) for disk in disks])
        return
    header = ("PATH", "SIZE", "TRANSPORT", "MODEL", "SERIAL", "CONTENTS", "IN USE", "TARGET")
    print_table(header, [_row(disk) for disk in disks])
    for disk in disks:
        if disk.stable_path:
            print(f"{disk.path} is {disk.stable_path}")


def _target_facts(disk: Disk) -> dict[str, object]:
    refusals = target_refusals(disk)
    return {"may_be_target": not refusals, "refusals": refusal_facts(refusals)}


def _row(disk: Disk) -> tuple[str, ...]:
    refusals = target_refusals(disk)
    return (
        disk.path,
        human(disk.size),
        disk.transport,
        disk.model,
        disk.identity.serial,
        disk.summary,
        ", ".join(use.where or use.how for use in disk.uses) or "-",
        "no: " + ", ".join(refusal.guard.value for refusal in refusals) if refusals else "yes",
    )
