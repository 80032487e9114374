"""`etsclone clone`: one disk onto another. Plan, show, ask, execute, leave a receipt."""

import os
from argparse import ArgumentParser, Namespace

from etsclone.chroot import require_root
from etsclone.commands.output import (
    add_json,
    confirm,
    disk_facts,
    disk_line,
    print_json,
    print_table,
)
from etsclone.commands.survey import make_plan, refuse, target_snapshot
from etsclone.copying.engine import Tuning
from etsclone.disk.images import attached
from etsclone.errors import UsageError
from etsclone.execute import CloneOutcome, execute_clone
from etsclone.model.disk import Disk
from etsclone.model.plan import ClonePlan
from etsclone.plan.guards import clone_refusals
from etsclone.store.receipts import save_receipt
from etsclone.units import human


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument("source", metavar="SOURCE", help="disk or image file to copy")
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="disk or image file to overwrite; a new image file is created",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for the target's name")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Clone a disk.

    Raises:
        Refused, UsageError: before anything was written.
        DeviceError, ComparisonFailed, Interrupted: the target is unfinished.
    """
    if arguments.json and not (arguments.yes or arguments.dry_run):
        raise UsageError(
            "--json shows no plan to confirm",
            hint="give --dry-run to see the plan, --yes to execute it",
        )
    require_root()
    with attached(arguments.source, writable=False) as source:
        target = target_snapshot(arguments.target, source)
        refuse(clone_refusals(source, target))
        plan = make_plan(source, target)
        if arguments.dry_run or not arguments.json:
            _show(plan, as_json=arguments.json)
        if arguments.dry_run:
            return
        confirm(os.path.basename(target.path), yes=arguments.yes)
        outcome = execute_clone(plan, tuning=Tuning(), shown=not arguments.json)
    facts = _plan_facts(plan) | _outcome_facts(outcome)
    receipt = save_receipt("clone", facts, outcome.started)
    if arguments.json:
        print_json(facts | {"receipt": str(receipt)})
    else:
        _print_outcome(outcome, target, str(receipt))


def _show(plan: ClonePlan, *, as_json: bool) -> None:
    if as_json:
        print_json(_plan_facts(plan))
        return
    print(f"source  {disk_line(plan.source)}")
    print(f"target  {disk_line(plan.target)}\n")
    rows = [
        (
            str(each.partition or "-"),
            each.content or "(unknown)",
            human(each.size),
            human(each.extents.size),
            each.method,
        )
        for each in plan.maps
    ]
    print_table(("PARTITION", "CONTENT", "SIZE", "TO COPY", "FOUND BY"), rows)
    for each in plan.maps:
        if each.note:
            print(f"note: partition {each.partition}: {each.note}")
    what = "created" if not plan.target.exists else "OVERWRITTEN: all that it holds is lost"
    print(f"\n{human(plan.copied.size)} are copied and read back; {plan.target.path} is {what}")


def _print_outcome(outcome: CloneOutcome, target: Disk, receipt: str) -> None:
    copying = max((outcome.copied_at - outcome.started).total_seconds(), 0.001)
    whole = (outcome.finished - outcome.started).total_seconds()
    rate = human(int(outcome.copied / copying))
    print(f"\ncloned and verified: {human(outcome.copied)} in {whole:.1f} s, copied at {rate}/s")
    print(f"{target.path} is a clone; receipt: {receipt}")


def _plan_facts(plan: ClonePlan) -> dict[str, object]:
    return {
        "source": disk_facts(plan.source),
        "target": disk_facts(plan.target) | {"exists": plan.target.exists},
        "partitions": [
            {
                "number": each.partition,
                "content": each.content,
                "size": each.size,
                "used": each.extents.size,
                "method": each.method,
                "note": each.note,
            }
            for each in plan.maps
        ],
        "steps": [type(step).__name__ for step in plan.steps],
        "bytes": plan.copied.size,
        "extents": len(plan.copied),
    }


def _outcome_facts(outcome: CloneOutcome) -> dict[str, object]:
    return {
        "started": outcome.started.isoformat(),
        "copied_at": outcome.copied_at.isoformat(),
        "finished": outcome.finished.isoformat(),
        "verified": True,
        "digest": outcome.digest,
        "tree_hash": outcome.tree_hash,
    }
