"""What an earlier clone onto the same target means for this one: to resume it, or to refresh it."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from etsclone.errors import EtscloneError, SourceRefused, TargetRefused
from etsclone.model.disk import Disk
from etsclone.model.mapfile import parse_mapfile
from etsclone.model.plan import ClonePlan, CopyMode
from etsclone.store.clones import CloneFacts, record_of


@dataclass(frozen=True, slots=True)
class EarlierClone:
    """How to build on an earlier clone; `facts` are what its record says, where there is one.

    `left` says that there is an interrupted one of these disks, which the user did not ask to go on with.
    """

    mode: CopyMode
    facts: CloneFacts | None = None
    digests_kept: bool = False
    left: bool = False


def mode_of(arguments: Namespace) -> CopyMode:
    """What the user asked for."""
    if arguments.resume:
        return CopyMode.RESUME
    return CopyMode.REFRESH if arguments.refresh else CopyMode.NEW


def earlier_clone(
    source: Disk, target: Disk, mode: CopyMode, map_path: Path | None
) -> EarlierClone:
    """Look up what is remembered of the target.

    Raises:
        SourceRefused, TargetRefused: when an interrupted clone cannot be resumed with these disks.
        UsageError: when there is no folder for the mapfile.
        FormatError: when the mapfile is none.
    """
    if mode is CopyMode.NEW:
        record_of(target.identity, map_path)  # no folder for a map is told before anything is made
        return EarlierClone(mode, left=_is_left(source, target, map_path))
    if not target.exists:
        raise TargetRefused(
            f"{target.path} does not exist: there is nothing to go on with", hint="clone without it"
        )
    record = record_of(target.identity, map_path)
    facts = record.load()
    if mode is CopyMode.REFRESH:
        return EarlierClone(mode, facts, digests_kept=_is_clone(facts, source, target))
    text = record.load_map()
    if text is None or (facts is not None and facts.finished):
        raise TargetRefused(
            f"no interrupted clone onto {target.path} is known here",
            hint="clone without --resume, or give the mapfile with --map",
        )
    if facts is not None:
        _check_disks(facts, source, target)
    if parse_mapfile(text).end > source.size:
        raise SourceRefused(
            f"{record.map_path} is about a larger disk than {source.path}",
            hint="give the mapfile of this clone with --map",
        )
    return EarlierClone(mode, facts)


def _is_left(source: Disk, target: Disk, map_path: Path | None) -> bool:
    try:
        return earlier_clone(source, target, CopyMode.RESUME, map_path).facts is not None
    except EtscloneError:  # also where a record is damaged: what begins anew needs none
        return False


def check_unchanged(earlier: EarlierClone, plan: ClonePlan) -> None:
    """Make sure that an interrupted clone is resumed from a source that nobody wrote to since.

    Raises:
        SourceRefused: when it was written to.
    """
    if earlier.mode is not CopyMode.RESUME or earlier.facts is None:
        return
    if earlier.facts.fingerprint != plan.fingerprint:
        raise SourceRefused(
            f"{plan.source.path} was written to since the clone was interrupted: old and new would be mixed",
            hint="clone again without --resume",
        )


def _is_clone(facts: CloneFacts | None, source: Disk, target: Disk) -> bool:
    return (
        facts is not None
        and facts.finished
        and facts.source.lasting == source.identity.lasting
        and facts.target.lasting == target.identity.lasting
    )


def _check_disks(facts: CloneFacts, source: Disk, target: Disk) -> None:
    if facts.source.lasting != source.identity.lasting:
        raise SourceRefused(
            f"{source.path} is not the disk that the interrupted clone was made from",
            hint=f"that was {facts.source.path}, {facts.source.serial or 'without a serial number'}",
        )
    if facts.target.lasting != target.identity.lasting:
        raise TargetRefused(
            f"{target.path} is not the disk that the interrupted clone was made onto",
            hint=f"that was {facts.target.path}, {facts.target.serial or 'without a serial number'}",
        )
