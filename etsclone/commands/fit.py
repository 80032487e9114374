"""`etsclone clone --fit`: a target that is smaller than the source. Look, plan, show, ask, execute, leave a receipt."""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace

from etsclone.commands.diskwords import disk_facts, disk_line
from etsclone.commands.output import (
    confirm,
    print_json,
    print_table,
    report_for,
)
from etsclone.commands.receipt import option_facts, phase_facts
from etsclone.commands.survey import SourceAccess, used_maps
from etsclone.commands.tuning import tuning_of
from etsclone.disk import ext, makefs, trees, xfs
from etsclone.disk.device import opened, read_bytes
from etsclone.disk.fingerprint import fingerprint
from etsclone.disk.system import mounted_alone
from etsclone.errors import BytesLost, CommandFailed, FormatError, UsageError
from etsclone.execute.fit import FitOutcome, execute_fit
from etsclone.model.disk import Disk, Partition
from etsclone.model.extents import Extent
from etsclone.model.fit import Candidate, FitPlan, How
from etsclone.plan.clone import HEAD_SIZE
from etsclone.plan.fit import SMALLEST_SWAP, SWAP, check_table, plan_fit
from etsclone.progress import print_event
from etsclone.run import require_program
from etsclone.store.receipts import save_receipt
from etsclone.units import SECTOR, human
from etsclone.usedmap.region import Region
from etsclone.usedmap.swap import header_size
from etsclone.usedmap.unsettled import check_settled

_NOT_TOGETHER = (
    "resume",
    "refresh",
    "grow",
    "discard",
    "wipe",
    "map",
    "swap_header_only",
    "live",
    "new_ids",
)
_REASONS = {
    "resume": "a fit that was interrupted begins anew: run it without --resume",
    "refresh": "positions differ from the source's: fit again without --refresh",
    "grow": "the target is either smaller or larger",
    "new_ids": "fit it first, then clone the smaller disk with --new-ids",
}
_PROGRAMS = {
    "ext": ("dumpe2fs", "mke2fs", "tune2fs", "debugfs", "e2fsck", "cp"),
    "xfs": ("xfs_info", "mkfs.xfs", "xfs_repair", "cp"),
    "swap": ("mkswap",),
}
_PAGE = 4096


def check_fit_options(arguments: Namespace) -> None:
    """Make sure that `--fit` stands with no option that means nothing beside it.

    Raises:
        UsageError: otherwise.
    """
    for name in _NOT_TOGETHER:
        if getattr(arguments, name, None):
            option = f"--{name.replace('_', '-')}"
            hint = _REASONS.get(name, f"leave {option} out")
            raise UsageError(f"--fit and {option} do not go together", hint=hint)
    if arguments.verify == "none":
        raise UsageError("--fit always compares what it copied", hint="leave --verify out")


def run_fit(
    arguments: Namespace,
    source: Disk,
    target: Disk,
    sign: Callable[[bytes], bytes] | None,
    notes: tuple[str, ...],
) -> None:
    """Clone `source` onto the smaller `target`; `sign` makes the signature of the receipt, `notes` are the plan's too.

    Raises:
        SourceRefused, TargetRefused, MissingProgram, NotConfirmed: before anything was written.
        DeviceError, CommandFailed, TargetFull, ComparisonFailed, Interrupted: the target is unfinished.
    """
    tuning = tuning_of(arguments, source, target)
    plan = _make_plan(source, target, arguments.retries)
    plan = replace(plan, notes=(*plan.notes, *notes))
    _show(plan, arguments)
    if arguments.dry_run:
        return
    confirm(os.path.basename(target.path), yes=arguments.yes)
    report = report_for(arguments)
    outcome = execute_fit(plan, tuning=tuning, shown=report)
    facts = _plan_facts(plan) | _outcome_facts(outcome)
    facts["phases"] = phase_facts(report)
    facts["options"] = option_facts(arguments) | asdict(tuning)
    receipt = save_receipt("clone", facts, outcome.started, sign=sign)
    if arguments.json:
        print_event("done", facts | {"receipt": str(receipt)})
    else:
        seconds = (outcome.finished - outcome.started).total_seconds()
        print(f"\nfitted and verified in {seconds:.1f} s")
        print(f"{target.path} is a clone with a smaller layout; receipt: {receipt}")
    if outcome.lost.ranges:
        raise BytesLost(
            f"{outcome.lost.size} bytes of {source.path} cannot be read; they are zeros on {target.path}",
            hint=f"first at byte {outcome.lost.ranges[0].start} of the source",
        )


def _make_plan(source: Disk, target: Disk, retries: int) -> FitPlan:
    with opened(source.path, writable=False) as descriptor:
        head = read_bytes(descriptor, Extent(0, min(HEAD_SIZE, source.size)))
        check_table(source, head)
        maps = used_maps(source)
        access = SourceAccess(source, descriptor)
        candidates = [_candidate(part, access) for part in source.partitions]
        return plan_fit(
            source,
            target,
            candidates,
            {each.partition: each.extents for each in maps},
            head,
            lambda position: read_bytes(descriptor, Extent(position, position + SECTOR)),
            fingerprint=fingerprint(access.read, source, maps),
            retries=retries,
        )


def _candidate(part: Partition, access: SourceAccess) -> Candidate:
    kind = part.content.type
    family = "ext" if kind in ext.KINDS else kind
    if family not in _PROGRAMS:
        note = f"{kind} is copied by blocks" if kind else ""
        return Candidate(part, part.size, note=note)
    for program in _PROGRAMS[family]:
        require_program(program)
    region = Region(access, Extent(part.start, part.end))
    try:
        return _swap(part, region) if kind == SWAP else _filesystem(part, region)
    except (FormatError, CommandFailed) as error:
        return Candidate(part, part.size, note=error.message)


def _swap(part: Partition, region: Region) -> Candidate:
    if header_size(region.read(0, min(16 * _PAGE, region.size))) != _PAGE or not part.content.uuid:
        raise FormatError("its pages are those of another kind of machine")
    recipe = makefs.read_recipe(part.device, part.content, part.size)
    note = "swap space is made anew when it shrinks: a hibernated system in it is lost"
    return Candidate(part, min(part.size, SMALLEST_SWAP), recipe, note=note)


def _filesystem(part: Partition, region: Region) -> Candidate:
    kind = part.content.type
    with region.disk.window(region.extent) as device:
        check_settled(kind, region, device)
        recipe = makefs.read_recipe(device, part.content, part.size)
        with mounted_alone(device, kind, writable=False) as folder:
            tree = trees.size_of(folder)
    least = (ext if kind in ext.KINDS else xfs).minimum(recipe, tree)
    code = kind in ext.KINDS and any(region.read(0, SECTOR))
    note = "it has boot code of its own, which is not copied: install it again" if code else ""
    return Candidate(part, least, recipe, tree.data, note)


def _show(plan: FitPlan, arguments: Namespace) -> None:
    if arguments.json and arguments.dry_run:
        print_json(_plan_facts(plan))
    elif arguments.json:
        print_event("plan", _plan_facts(plan))
    else:
        _show_people(plan)


def _show_people(plan: FitPlan) -> None:
    print(f"source  {disk_line(plan.source)}")
    print(f"target  {disk_line(plan.target)}\n")
    rows = [
        (
            str(place.partition.number),
            place.partition.content.type or "(unknown)",
            human(place.partition.size),
            human(place.extent.size),
            place.how.value,
        )
        for place in plan.places
    ]
    print_table(("PARTITION", "CONTENT", "SIZE", "NEW SIZE", "COPIED"), rows)
    for place in plan.places:
        if place.note and place.how is not How.BLOCKS:
            print(f"note: partition {place.partition.number}: {place.note}")
    for note in plan.notes:
        print(f"note: {note}")
    print(
        f"\nfilesystems that shrink are made anew with the same UUID, label and features, and their files copied and"
        f" compared; {plan.target.path} is OVERWRITTEN: all that it holds is lost"
    )


def _plan_facts(plan: FitPlan) -> dict[str, object]:
    return {
        "source": disk_facts(plan.source),
        "target": disk_facts(plan.target) | {"exists": plan.target.exists},
        "partitions": [
            {
                "number": place.partition.number,
                "content": place.partition.content.type,
                "old_start": place.partition.start,
                "old_size": place.partition.size,
                "start": place.extent.start,
                "size": place.extent.size,
                "how": place.how.value,
                "note": place.note,
            }
            for place in plan.places
        ],
        "mode": "fit",
        "notes": list(plan.notes),
        "steps": [type(step).__name__ for step in plan.steps],
    }


def _outcome_facts(outcome: FitOutcome) -> dict[str, object]:
    return {
        "started": outcome.started.isoformat(),
        "finished": outcome.finished.isoformat(),
        "lost": [{"start": extent.start, "end": extent.end} for extent in outcome.lost],
    }
