"""`etsclone verify`: compares two disks over the blocks that the first one uses."""

from argparse import ArgumentParser, Namespace

from etsclone.chroot import require_root
from etsclone.commands.output import add_events, report_for
from etsclone.commands.survey import make_plan, refuse
from etsclone.copying.workers import Tuning
from etsclone.disk.images import attached
from etsclone.errors import ComparisonFailed, TargetRefused, UsageError
from etsclone.execute.clone import compare_clone
from etsclone.model.disk import Disk
from etsclone.plan.grow import enlarged_partition
from etsclone.plan.guards import damage_refusals, quarantine_refusals
from etsclone.plan.ids import have_own_ids
from etsclone.progress import print_event
from etsclone.units import counted, human


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument("source", metavar="SOURCE", help="disk or image file that was cloned")
    parser.add_argument("target", metavar="TARGET", help="its clone")
    add_events(parser)


def run(arguments: Namespace) -> None:
    """Compare two disks; nothing is written.

    Raises:
        SourceRefused: when the source is damaged, or one of both is in quarantine.
        TargetRefused: when the target is a clone whose last partition was enlarged, or one with its own identifiers.
        ComparisonFailed: when they differ, naming where.
    """
    require_root()
    with (
        attached(arguments.source, writable=False) as source,
        attached(arguments.target, writable=False) as target,
    ):
        if source.identity.same_disk(target.identity):
            raise UsageError("a disk was to be compared with itself", hint="name two disks")
        refuse(damage_refusals(source))
        refuse(quarantine_refusals(target))
        if target.size < source.size:
            raise ComparisonFailed(
                f"{target.path} is smaller than {source.path}: it is no clone of it"
            )
        _refuse_enlarged(source, target)
        _refuse_identified(source, target)
        plan = make_plan(source, target)
        different = compare_clone(plan, tuning=Tuning(), shown=report_for(arguments))
    if arguments.json:
        places = [{"start": extent.start, "end": extent.end} for extent in different]
        print_event(
            "done", {"equal": not places, "compared": plan.copied.size, "different": places}
        )
    if different.ranges:
        named = [source.where(extent.start, extent.end) for extent in different]
        more = f" and {counted(len(named) - 3, 'more place')}" if len(named) > 3 else ""
        raise ComparisonFailed(
            f"{target.path} differs from {source.path} in {'; '.join(named[:3])}{more}",
            hint=_how_to_go_on(source, target),
        )
    if not arguments.json:
        print(f"equal: {human(plan.copied.size)} of used blocks, and the partition table")


def _how_to_go_on(source: Disk, target: Disk) -> str:
    if source.table and not target.table:
        return "a clone that was interrupted has no partition table yet: `etsclone clone --resume` goes on with it"
    return "clone again; a clone that was mounted or booted since differs for good reasons"


def _refuse_enlarged(source: Disk, target: Disk) -> None:
    part = enlarged_partition(source, target)
    if part is not None:
        raise TargetRefused(
            f"partition {part.number} of {target.path} was enlarged: its blocks cannot be compared with those of"
            f" {source.path}",
            hint="mount both read-only and compare the files, with rsync --dry-run --checksum for one",
        )


def _refuse_identified(source: Disk, target: Disk) -> None:
    if have_own_ids(source, target):
        raise TargetRefused(
            f"{target.path} has the layout of {source.path}, but identifiers of its own: blocks cannot be compared",
            hint="mount both read-only and compare the files, with rsync --dry-run --checksum for one",
        )
