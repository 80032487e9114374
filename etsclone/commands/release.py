"""`etsclone release`: a clone that was made with `--quarantine` becomes a disk like others."""

import os
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime

from etsclone.chroot import require_root
from etsclone.commands.diskwords import disk_facts, disk_line
from etsclone.commands.output import add_events, confirm, print_json
from etsclone.commands.receipt import add_key, option_facts, signer
from etsclone.commands.survey import existing_disk, refuse
from etsclone.commands.twins import twin_warnings
from etsclone.errors import UsageError
from etsclone.execute.quarantine import Release, execute_release, plan_release
from etsclone.plan.guards import target_refusals
from etsclone.progress import print_event
from etsclone.store.receipts import save_receipt


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument("target", metavar="DISK", help="disk or image file in quarantine")
    parser.add_argument("--yes", action="store_true", help="do not ask for the disk's name")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    add_key(parser)
    add_events(parser)


def run(arguments: Namespace) -> None:
    """Check a disk in quarantine and release it.

    Raises:
        Refused, UsageError: before anything was written.
        DeviceError, ComparisonFailed: it is in quarantine still, or another run completes what is left to do.
    """
    if arguments.json and not (arguments.yes or arguments.dry_run):
        raise UsageError(
            "--json shows no plan to confirm",
            hint="give --dry-run to see the plan, --yes to execute it",
        )
    require_root()
    sign = signer(arguments.key)
    disk = existing_disk(arguments.target)
    refuse(target_refusals(disk))
    release = plan_release(disk)
    twins = twin_warnings(disk, release.found.record)
    _show(release, twins, arguments)
    if arguments.dry_run:
        return
    confirm(os.path.basename(disk.path), yes=arguments.yes)
    started = datetime.now(UTC)
    execute_release(release)
    facts = _facts(release, twins) | {
        "started": started.isoformat(),
        "finished": datetime.now(UTC).isoformat(),
        "options": option_facts(arguments),
    }
    receipt = save_receipt("release", facts, started, sign=sign)
    if arguments.json:
        print_event("done", facts | {"receipt": str(receipt)})
    else:
        print(f"{disk.path} is a clone; receipt: {receipt}")


def _show(release: Release, twins: tuple[str, ...], arguments: Namespace) -> None:
    if arguments.json and arguments.dry_run:
        print_json(_facts(release, twins))
    elif arguments.json:
        print_event("plan", _facts(release, twins))
    else:
        record = release.found.record
        print(disk_line(release.disk))
        print(f"in quarantine since {record.created}; cloned from {record.source or 'an image'}")
        print("nothing was written to it since; its boot code and partition table are written now")
        for line in twins:
            print(f"warning: {line}")


def _facts(release: Release, twins: tuple[str, ...]) -> dict[str, object]:
    record = release.found.record
    return {
        "target": disk_facts(release.disk),
        "quarantined": record.created,
        "source": record.source,
        "head_sha256": record.head_sha256,
        "marks_sha256": record.marks_sha256,
        "twins": list(twins),
    }
