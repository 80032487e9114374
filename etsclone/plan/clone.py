"""From snapshots of two disks and maps of what is used to a clone plan. Pure: no disk is touched here."""

from collections.abc import Sequence
from dataclasses import replace

from etsclone.errors import QuarantineRefused
from etsclone.model.disk import Disk, Partition
from etsclone.model.extents import Extent, Extents
from etsclone.model.ids import Identify
from etsclone.model.plan import (
    PIECE,
    PLAIN,
    CheckSnapshots,
    Clear,
    ClonePlan,
    CloneStep,
    CloneWishes,
    Copy,
    CopyMode,
    CreateImage,
    Erase,
    Grow,
    Growth,
    Seal,
    Unused,
    UsedMap,
    Withhold,
)
from etsclone.model.view import AS_IT_IS, View
from etsclone.model.write import Write
from etsclone.plan.gpt import relocate
from etsclone.plan.quarantine import check_room
from etsclone.plan.tableids import identified_head
from etsclone.units import KIB, MIB, align_down, align_up

HEAD_SIZE = MIB
"""How much of a disk's beginning is written last: boot code, the partition table, the start of the boot loader."""

_TAIL_SIZE = 1 * MIB
"""How much of a target's end is erased first: an old backup table there could bring an old system back to life."""

_BLOCK = 4 * KIB

_SUPERBLOCKS = 128 * KIB
"""The first bytes of a filesystem, which hold its superblock (that of btrfs lies at 64 KiB)."""

_EXTENDED = frozenset({"5", "F", "85"})


def content_partitions(disk: Disk) -> tuple[Partition, ...]:
    """The partitions that hold content of their own; an extended one is only a frame whose inside counts as gap."""
    return tuple(
        part
        for part in disk.partitions
        if disk.table is None or not is_extended(disk.table.label, part)
    )


def place_on_target(part: Partition, grow: Grow | None) -> Extent:
    """Where a partition of the source is on the target, in bytes."""
    if grow and part.number == grow.partition:
        return grow.place
    if grow and grow.moved and part.number == grow.moved.partition:
        return grow.moved.new
    return part.extent


def is_extended(label: str, partition: Partition) -> bool:
    """Whether a partition is the frame of an MBR's logical partitions."""
    return label == "dos" and partition.type in _EXTENDED


def plan_clone(
    source: Disk,
    target: Disk,
    maps: Sequence[UsedMap],
    head: bytes,
    *,
    wishes: CloneWishes = PLAIN,
    fingerprint: str = "",
    growth: Growth | None = None,
    identify: Identify | None = None,
    view: View = AS_IT_IS,
) -> ClonePlan:
    """Decide what is copied and in which order.

    Args:
        source: the source's snapshot.
        target: the target's snapshot; at least as large.
        maps: what matters of each content partition, or of the whole disk when it has no table.
        head: the first `HEAD_SIZE` bytes of the source.
        wishes: what else the user asks for.
        fingerprint: of the source, for its record.
        growth: the larger layout that the target gets; None for the source's.
        identify: the identifiers that the target gets; None for the source's.
        view: which bytes of the source are read elsewhere.

    Returns:
        The plan. All bytes outside partitions are copied as they are. The head and the backup table come last.

    Raises:
        FormatError: when the source has a GPT that is not intact.
        QuarantineRefused: when it is to end in quarantine, and there is no room for that.
    """
    head = (growth.head if growth else head)[: _head_size(source)]
    head = identified_head(head, source, identify) if identify else head
    maps = _without_moved(maps, growth)
    label = source.table.label if source.table else ""
    tail: tuple[Write, ...] = ()
    if label == "gpt":
        head, backup = relocate(head, source.sector_size, target.size)
        tail = (backup,)
    partitions = content_partitions(source)
    inside = Extents.of(Extent(part.start, part.end) for part in partitions)
    # What lay behind the last partition would lie inside it.
    inside |= Extents((growth.step.place,)) if growth else Extents()
    outside = inside.complement(_end_of_data(source, tail)) if source.table else Extents()
    used = Extents.of(extent for used_map in maps for extent in used_map.extents)
    # Whole pieces: each has one digest, so that verification and refresh need not know where the used blocks in it lie.
    # The source's backup table must not come over with the piece that it lies in: tables are written last.
    end = align_up(_end_of_data(source, tail), _BLOCK)
    copied = (used | outside).aligned(PIECE, min(end, source.size)) - Extents.between(0, len(head))
    steps: tuple[CloneStep, ...] = (
        *(() if target.exists else (CreateImage(target.path, target.size),)),
        _erase(target, copied, wishes.mode),
        *_clearing(target, copied, wishes.unused),
        Copy(
            copied,
            wishes.mode,
            wishes.verify,
            wishes.retries,
            wishes.digests_kept,
            wishes.share,
            _beginnings(maps) & copied,
        ),
        *((CheckSnapshots(view.devices),) if view.devices else ()),
        *((growth.step,) if growth else ()),
        *((identify,) if identify else ()),
        *_ending(source, head, tail, copied, growth, wishes),
    )
    return ClonePlan(source, target, tuple(maps), steps, fingerprint, view=view)


def _ending(
    source: Disk,
    head: bytes,
    tail: tuple[Write, ...],
    copied: Extents,
    growth: Growth | None,
    wishes: CloneWishes,
) -> tuple[CloneStep, ...]:
    """What makes the target a disk, or puts it into quarantine."""
    logical = growth.seals if growth else ()
    if not wishes.quarantine:
        return (Seal((*tail, *logical, *head_writes(head))),)
    if source.table is None:
        raise QuarantineRefused(
            f"{source.path} has no partition table that could be withheld",
            hint="clone without --quarantine",
        )
    parts = content_partitions(source)
    check_room(head, source.sector_size, len(parts))
    places = (place_on_target(part, growth.step if growth else None) for part in parts)
    first = Extents.of(
        Extent(place.start, min(place.start + _SUPERBLOCKS, place.end)) for place in places
    )
    # Nothing is known of what was not copied: a disk may give back something else each time.
    return (*((Seal(logical),) if logical else ()), Withhold(head, first & copied))


def _beginnings(maps: Sequence[UsedMap]) -> Extents:
    """Where the superblocks are: the first bytes that are used of each partition and of each volume inside."""
    starts = [each.extents.ranges[0].start for each in maps if each.extents.ranges]
    starts += [volume.extent.start for each in maps for volume in each.volumes]
    first = (align_down(start, PIECE) for start in starts)
    return Extents.of(Extent(start, start + _SUPERBLOCKS) for start in first)


def _without_moved(maps: Sequence[UsedMap], growth: Growth | None) -> Sequence[UsedMap]:
    moved = growth.step.moved if growth else None
    return [
        replace(each, extents=Extents(), method="moved")
        if moved and each.partition == moved.partition
        else each
        for each in maps
    ]


def _erase(target: Disk, copied: Extents, mode: CopyMode) -> Erase:
    if mode is CopyMode.NEW:
        return Erase(edges(target), empty=target.identity.device is None)
    # What an earlier clone brought over stays: only what the seal writes anew goes.
    return Erase(edges(target) - copied)


def _clearing(target: Disk, copied: Extents, how: Unused) -> tuple[Clear, ...]:
    # Both ends were zeroed and stay so until the end: what a disk makes of discarded bytes is its own affair.
    unused = copied.complement(target.size) - edges(target)
    return () if how is Unused.LEAVE or not unused.ranges else (Clear(unused, how),)


def _head_size(source: Disk) -> int:
    first = min((part.start for part in source.partitions), default=source.size)
    # Rounded up: the entries of a GPT may reach to a first partition that begins between two blocks.
    return min(align_up(min(HEAD_SIZE, first), _BLOCK), source.size)


def _end_of_data(source: Disk, tail: tuple[Write, ...]) -> int:
    # The source's own backup table is not data: the target gets a fresh one at its own end.
    return source.size - sum(len(write.data) for write in tail)


def edges(target: Disk) -> Extents:
    """Both ends of a target, where boot code and tables lie: they are erased first."""
    head = Extents.between(0, min(HEAD_SIZE, target.size))
    return head | Extents.between(max(0, align_down(target.size - _TAIL_SIZE, _BLOCK)), target.size)


def head_writes(head: bytes) -> tuple[Write, ...]:
    """A disk's first bytes as the last two writes of a seal."""
    rest = Write(_BLOCK, head[_BLOCK:], "boot loader area")
    first = Write(0, head[:_BLOCK], "boot code and partition table")
    return (rest, first) if rest.data else (first,)
