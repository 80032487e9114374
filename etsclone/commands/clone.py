"""`etsclone clone`: one disk onto another. Plan, show, ask, execute, leave a receipt."""

import os
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from etsclone.chroot import require_root
from etsclone.commands.counts import count_from
from etsclone.commands.diskwords import disk_facts, disk_line
from etsclone.commands.earlier import EarlierClone, check_unchanged, earlier_clone, mode_of
from etsclone.commands.finished import check_finished
from etsclone.commands.grow import grow_facts, grow_lines, size_on_target
from etsclone.commands.ids import (
    followed_facts,
    followed_lines,
    ids_facts,
    ids_lines,
    ids_warnings,
)
from etsclone.commands.keyfile import add_unlock
from etsclone.commands.live import Stillness, held_still
from etsclone.commands.output import (
    add_events,
    confirm,
    print_json,
    print_table,
    report_for,
)
from etsclone.commands.quarantine import quarantine_lines, result_words
from etsclone.commands.receipt import add_key, option_facts, phase_facts, signer
from etsclone.commands.survey import lost_owners, make_plan, refuse, target_snapshot
from etsclone.commands.tuning import add_tuning, tuning_of
from etsclone.commands.unfinished import check_disk_finished, check_nothing_kept
from etsclone.commands.unlock import given_keys
from etsclone.disk.images import attached
from etsclone.disk.sharing import may_share
from etsclone.errors import BytesLost, UsageError
from etsclone.execute.clone import CloneOutcome, execute_clone
from etsclone.model.plan import ClonePlan, CloneWishes, CopyMode, Unused, VerifyMode
from etsclone.plan.guards import clone_refusals
from etsclone.progress import print_event
from etsclone.store.receipts import save_receipt
from etsclone.units import human


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument("source", metavar="SOURCE", help="disk or image file to copy")
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="disk or image file to overwrite; a new image file is created",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for the target's name")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--resume", action="store_true", help="go on with a clone that was interrupted"
    )
    how.add_argument(
        "--refresh", action="store_true", help="write only what changed since the last clone"
    )
    parser.add_argument(
        "--map",
        metavar="FILE",
        type=Path,
        help="GNU ddrescue mapfile of what is done (default: one for each target, in the state folder)",
    )
    parser.add_argument(
        "--verify",
        metavar="HOW",
        choices=[mode.value for mode in VerifyMode],
        default=VerifyMode.DIGESTS.value,
        help="digests (default): read the target and compare with what was read of the source; "
        "full: read the source again too; none",
    )
    parser.add_argument(
        "--retries",
        metavar="N",
        type=count_from(0),
        default=1,
        help="how often a bad sector is tried again",
    )
    unused = parser.add_mutually_exclusive_group()
    unused.add_argument(
        "--discard", action="store_true", help="tell the target which of its space is not used"
    )
    unused.add_argument(
        "--wipe", action="store_true", help="overwrite the target's unused space with zeros"
    )
    parser.add_argument(
        "--swap-header-only", action="store_true", help="of swap space copy only what makes it one"
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="copy a source that is in use: from snapshots of its LVM volumes; what else is mounted of it is frozen as"
        " long as the clone takes",
    )
    parser.add_argument(
        "--grow",
        action="store_true",
        help="let the last partition and its filesystem fill a larger target; swap space behind it moves",
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="onto a smaller target: make its filesystems anew, smaller, and copy the files",
    )
    parser.add_argument(
        "--new-ids",
        action="store_true",
        help="give the clone identifiers of its own, so that it can stay attached beside its source; the files of its"
        " system follow",
    )
    parser.add_argument(
        "--quarantine",
        action="store_true",
        help="withhold boot code and partition table: nothing boots or mounts the clone until `etsclone release`",
    )
    add_tuning(parser)
    add_key(parser)
    add_unlock(parser)
    add_events(parser)


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
    if arguments.fit:
        from etsclone.commands import fit  # noqa: PLC0415 - a fifth of the time to start

        fit.check_fit_options(arguments)
    require_root()
    sign, keys = signer(arguments.key), given_keys(arguments)
    with attached(arguments.source, writable=False) as source:
        target = target_snapshot(arguments.target, source)
        refuse(clone_refusals(source, target, fit=arguments.fit, live=arguments.live))
        check = check_nothing_kept if arguments.new_ids else check_finished
        unseen = check_disk_finished(source, check)
        if arguments.fit and target.size < source.size:
            fit.run_fit(arguments, source, target, sign, unseen)
            return
        tuning = tuning_of(arguments, source, target)
        earlier = earlier_clone(source, target, mode_of(arguments), arguments.map)
        report = report_for(arguments)
        with held_still(arguments, source, target, unseen) as still:
            plan = make_plan(
                source,
                target,
                _wishes(arguments, earlier, share=may_share(source, target) and not still.view),
                swap_header_only=arguments.swap_header_only or still.swap_in_use,
                frozen=still.devices,
                view=still.view,
            )
            check_unchanged(earlier, plan)
            _show(plan, still, earlier, arguments)
            if arguments.dry_run:
                return
            confirm(os.path.basename(target.path), yes=arguments.yes)
            outcome = execute_clone(
                plan,
                tuning=tuning,
                shown=report,
                map_path=arguments.map,
                keys=keys,
            )
        lost = lost_owners(source, outcome.lost)
    facts = _plan_facts(plan) | still.facts() | _outcome_facts(outcome) | {"lost_owners": lost}
    facts["phases"] = phase_facts(report)
    facts["options"] = option_facts(arguments) | asdict(tuning)
    receipt = save_receipt("clone", facts, outcome.started, sign=sign)
    if arguments.json:
        print_event("done", facts | {"receipt": str(receipt)})
    else:
        _print_outcome(outcome, plan, str(receipt))
        for line in lost:
            print(f"lost: {line}")
    if outcome.lost.ranges:
        raise BytesLost(
            f"{outcome.lost.size} bytes of {source.path} cannot be read; they are zeros on {target.path}",
            hint=f"first at byte {outcome.lost.ranges[0].start}; --resume --retries 5 tries them again",
        )


def _wishes(arguments: Namespace, earlier: EarlierClone, *, share: bool) -> CloneWishes:
    unused = (
        Unused.DISCARD if arguments.discard else Unused.WIPE if arguments.wipe else Unused.LEAVE
    )
    return CloneWishes(
        earlier.mode,
        VerifyMode(arguments.verify),
        unused,
        arguments.retries,
        earlier.digests_kept,
        arguments.grow,
        share,
        arguments.new_ids,
        arguments.quarantine,
    )


def _show(plan: ClonePlan, still: Stillness, earlier: EarlierClone, arguments: Namespace) -> None:
    if arguments.json and arguments.dry_run:
        print_json(_plan_facts(plan) | still.facts())
    elif arguments.json:
        print_event("plan", _plan_facts(plan) | still.facts())
    else:
        _show_people(plan, still, earlier)


def _show_people(plan: ClonePlan, still: Stillness, earlier: EarlierClone) -> None:
    print(f"source  {disk_line(plan.source)}")
    print(f"target  {disk_line(plan.target)}\n")
    rows = [
        (
            str(each.partition or "-"),
            each.content or "(unknown)",
            size_on_target(plan, each),
            human(each.extents.size),
            each.method,
        )
        for each in plan.maps
    ]
    print_table(("PARTITION", "CONTENT", "SIZE", "TO COPY", "FOUND BY"), rows)
    for each in plan.maps:
        if each.note:
            print(f"note: partition {each.partition}: {each.note}")
    for note in still.notes():
        print(f"note: {note}")
    if earlier.left:
        print("note: this clone was interrupted before: --resume would go on with it")
    print(
        f"\n{_intent(plan)}", *grow_lines(plan), *ids_lines(plan), *quarantine_lines(plan), sep="\n"
    )


def _intent(plan: ClonePlan) -> str:
    size, target = human(plan.copied.size), plan.target.path
    if plan.copy.share:
        return _shared_intent(plan)
    checked = "" if plan.copy.verify is VerifyMode.NONE else " and read back"
    if plan.copy.mode is CopyMode.REFRESH:
        how = "with kept digests" if plan.copy.digests_kept else f"with what {target} holds"
        return f"{size} are read and compared {how}; what differs is written to {target}{checked}"
    if plan.copy.mode is CopyMode.RESUME:
        return f"of {size}, what is not on {target} yet is copied{checked}"
    what = "OVERWRITTEN: all that it holds is lost" if plan.target.exists else "created"
    return f"{size} are copied{checked}; {target} is {what}"


def _shared_intent(plan: ClonePlan) -> str:
    size, target = human(plan.copied.size), plan.target.path
    new = plan.copy.mode is CopyMode.NEW
    what = "changed" if not new else "OVERWRITTEN" if plan.target.exists else "created"
    checked = {
        VerifyMode.DIGESTS: ", as the filesystem's own map of them must show",
        VerifyMode.FULL: ", and are read and compared",
        VerifyMode.NONE: "",
    }[plan.copy.verify]
    return (
        f"note: {target} shares its blocks with {plan.source.path}: it is no second copy on another medium\n"
        f"{size} are to be the very blocks of the source{checked}; what cannot be is copied; {target} is {what}"
    )


def _print_outcome(outcome: CloneOutcome, plan: ClonePlan, receipt: str) -> None:
    copying = max((outcome.copied_at - outcome.started).total_seconds(), 0.001)
    whole = (outcome.finished - outcome.started).total_seconds()
    rate = human(int(outcome.copied / copying))
    done = "cloned" if plan.copy.verify is VerifyMode.NONE else "cloned and verified"
    if outcome.shared:
        print(f"\n{done}: {human(outcome.copied)} in {whole:.1f} s")
        print(f"{human(outcome.shared)} share their blocks with {plan.source.path}")
    else:
        print(f"\n{done}: {human(outcome.copied)} in {whole:.1f} s, copied at {rate}/s")
    if plan.copy.mode is CopyMode.REFRESH and not outcome.shared:
        saved = human(outcome.copied - outcome.written)
        print(f"{human(outcome.copied)} were read, {human(outcome.written)} written, {saved} saved")
    for line in followed_lines(outcome.followed):
        print(line)
    print(f"{plan.target.path} is {result_words(plan)}; receipt: {receipt}")


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
        "grow": grow_facts(plan),
        "new_ids": ids_facts(plan),
        "new_ids_warnings": list(ids_warnings(plan)),
        "quarantine": plan.quarantined,
        "mode": plan.copy.mode.value,
        "verify": plan.copy.verify.value,
        "share": plan.copy.share,
        "steps": [type(step).__name__ for step in plan.steps],
        "bytes": plan.copied.size,
        "extents": len(plan.copied),
    }


def _outcome_facts(outcome: CloneOutcome) -> dict[str, object]:
    return {
        "started": outcome.started.isoformat(),
        "copied_at": outcome.copied_at.isoformat(),
        "finished": outcome.finished.isoformat(),
        "written": outcome.written,
        "shared": outcome.shared,
        "lost": [{"start": extent.start, "end": extent.end} for extent in outcome.lost],
        "digest": outcome.digest,
        "tree_hash": outcome.tree_hash,
        "map": {"path": str(outcome.map_path.absolute()), "sha256": outcome.map_sha256},
    } | followed_facts(outcome.followed)
