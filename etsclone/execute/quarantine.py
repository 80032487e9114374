"""Puts clones into quarantine, and releases them."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from etsclone.disk.device import check_identity, flush, opened, read_bytes
from etsclone.disk.images import announce_partitions
from etsclone.errors import QuarantineRefused
from etsclone.execute.clone import seal
from etsclone.model.disk import Disk
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import ClonePlan, Seal, Withhold
from etsclone.model.quarantine import Quarantine, Quarantined
from etsclone.plan.clone import HEAD_SIZE, head_writes
from etsclone.plan.quarantine import (
    WITHHELD,
    find_quarantine,
    marked,
    releasing,
    whole_head,
)


@dataclass(frozen=True, slots=True)
class Release:
    """What will be released: the disk, what it says of itself, and the writes that do it."""

    disk: Disk
    found: Quarantined
    seal: Seal


def withhold(step: Withhold, plan: ClonePlan, target: int) -> None:
    """Write a target's head (open for writing) as that of a clone in quarantine, and read it back.

    Raises:
        DeviceError: when it cannot be written.
        ComparisonFailed: when the target holds something else then.
    """
    flush(target)
    source = plan.source
    record = Quarantine(
        size=plan.target.size,
        sector_size=source.sector_size,
        label=source.table.label if source.table else "",
        head_size=len(step.head),
        head_sha256=hashlib.sha256(step.head).hexdigest(),
        withheld=step.head[: WITHHELD * source.sector_size],
        marks=step.marks,
        marks_sha256=_digest(target, step.marks),
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        source=" ".join(filter(None, (source.model, source.identity.serial)))[:80],
    )
    seal(Seal(head_writes(marked(step.head, record))), target)


def plan_release(disk: Disk) -> Release:
    """Read what a disk in quarantine says of itself, check that nobody wrote to it, and plan how it is released.

    Raises:
        QuarantineRefused: when it is not in quarantine, or was written to since.
        FormatError: when its record or its table is none.
        DeviceError: when it cannot be read.
    """
    with opened(disk.path, writable=False) as descriptor:
        return _plan(disk, descriptor)


def execute_release(release: Release) -> None:
    """Release a disk, if it is still as it was when that was planned.

    Killed at any moment, it is in quarantine, or released and whole; another run completes it.

    Raises:
        TargetChanged, TargetRefused, QuarantineRefused: before anything was written.
        DeviceError: when it cannot be written.
        ComparisonFailed: when it holds something else then.
    """
    disk = release.disk
    check_identity(disk.identity)
    with opened(disk.path, writable=True) as descriptor:
        check_identity(disk.identity)
        if _plan(disk, descriptor) != release:
            raise QuarantineRefused(
                f"{disk.path} was written to since the plan was shown", hint="start again"
            )
        seal(release.seal, descriptor)
    if disk.identity.device is not None:
        announce_partitions(disk.path)


def _plan(disk: Disk, descriptor: int) -> Release:
    head = read_bytes(descriptor, Extent(0, min(HEAD_SIZE, disk.size)))
    found = find_quarantine(head, disk.size)
    if found is None:
        raise QuarantineRefused(
            f"{disk.path} is not in quarantine", hint="`etsclone disks` shows what each disk holds"
        )
    whole = whole_head(head, found)
    writes = releasing(whole, found, disk.size)
    if _digest(descriptor, found.record.marks) != found.record.marks_sha256:
        raise QuarantineRefused(
            f"a filesystem on {disk.path} was written to since it was put into quarantine",
            hint="clone it again",
        )
    return Release(disk, found, Seal(writes))


def _digest(descriptor: int, extents: Extents) -> str:
    total = hashlib.sha256()
    for extent in extents:
        total.update(read_bytes(descriptor, extent))
    return total.hexdigest()
