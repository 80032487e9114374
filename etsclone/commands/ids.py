"""`--new-ids`: looking at whether identifiers can be changed, and telling which will be and what followed."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace

from etsclone.boot.loaders import read_boot_sector
from etsclone.commands.inside import look_inside
from etsclone.disk import identifiers
from etsclone.errors import CommandFailed, DeviceError, IdsRefused
from etsclone.model.boot import BootSector
from etsclone.model.disk import Disk
from etsclone.model.ids import Followed, Identify
from etsclone.model.plan import ClonePlan, Growth
from etsclone.plan.clone import content_partitions
from etsclone.plan.idnotes import container_notes, loader_notes
from etsclone.plan.ids import plan_ids
from etsclone.run import require_program
from etsclone.usedmap.region import DiskAccess

_NOTES = {
    "btrfs": "its new UUID needs Linux 5.0 or later",
    "crypto_LUKS": "what is inside keeps its identifiers; it is unlocked if the system's files are in it (--key-file)",
}


def ids_of(source: Disk, growth: Growth | None, disk: DiskAccess) -> Identify:
    """The identifiers that a clone gets.

    Args:
        source: the source's snapshot.
        growth: what lies elsewhere on the target, or is larger.
        disk: how to look at the source.

    Raises:
        IdsRefused: when something has an identifier that cannot be changed.
        MissingProgram: when what would do it is not installed.
    """
    inside = look_inside(source, disk)
    step = plan_ids(source, growth.step if growth else None, inside, os.urandom)
    parts = {part.number: part for part in content_partitions(source)}
    if step.groups:
        require_program("lvm")
    for content in step.contents:
        kind, part = content.id.what, parts[content.id.partition]
        identifiers.check_programs(kind)
        try:
            with disk.window(content.place if content.inner else part.extent) as device:
                problem = identifiers.obstacle(device, kind)
        except CommandFailed as error:
            problem = error.message
        if problem:
            raise IdsRefused(
                f"the identifier of partition {part.number} ({kind}) cannot be changed: {problem}",
                hint="clone without --new-ids",
            )
    return replace(step, notes=loader_notes(step, _boot_sector(source)))


def _boot_sector(source: Disk) -> BootSector:
    try:
        return read_boot_sector(source)
    except DeviceError:
        # What of it can be read is cloned all the same.
        return BootSector(code=True, grub=True)


def ids_lines(plan: ClonePlan) -> list[str]:
    """What gets another identifier, for people."""
    step = plan.identify
    if step is None:
        return []
    where = ("the disk", *(f"partition {number}" for number in range(1, 257)))
    return [
        "once it is copied and read back, the clone gets identifiers of its own, and its system's files name those:",
        *(f"  {where[each.partition]}: {each.what} {each.old} -> {each.new}" for each in step.ids),
        *(
            f"note: partition {each.id.partition}: {_NOTES[each.id.what]}"
            for each in step.contents
            if each.id.what in _NOTES
        ),
        "note: labels and names stay as they are; an entry for this disk in a UEFI firmware has to be made anew",
        *(f"warning: {each}" for each in ids_warnings(plan)),
    ]


def ids_warnings(plan: ClonePlan) -> tuple[str, ...]:
    """What keeps the clone from booting until it is done by hand, for both."""
    step = plan.identify
    return (*step.notes, *container_notes(step)) if step else ()


def ids_facts(plan: ClonePlan) -> list[dict[str, object]] | None:
    """What gets another identifier, for programs; None when nothing does."""
    return [asdict(each) for each in plan.identify.ids] if plan.identify else None


def followed_facts(followed: Followed | None) -> dict[str, object]:
    """What became of the files that name identifiers, for programs."""
    return {"followed": asdict(followed)} if followed else {}


def followed_lines(followed: Followed | None) -> Sequence[str]:
    """What became of the files that name identifiers, for people."""
    if followed is None:
        return ()
    files = ", ".join(followed.changed) or "no file"
    return (
        f"new identifiers are named by {files}",
        *(f"warning: {each}" for each in followed.notes),
    )
