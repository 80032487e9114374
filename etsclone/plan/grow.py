"""What `--grow` makes of a larger target: the last partition, and a swap space behind it, get new places. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from etsclone.errors import GrowRefused
from etsclone.model.disk import Disk, Partition
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import Grow, Growth, Moved
from etsclone.model.write import Write
from etsclone.plan import gpt, mbr
from etsclone.plan.clone import content_partitions, is_extended
from etsclone.units import KIB, MIB, align_down

GROWABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "LVM2_member")
"""The contents that can be enlarged, as blkid calls them."""

_SWAP = "swap"
_KINDS = "ext2, ext3, ext4, xfs, btrfs and LVM can be enlarged, also when swap space is behind them"
_WITHOUT = "clone without --grow"


@dataclass(frozen=True, slots=True)
class Ground:
    """What growing must know of the source's bytes: the first MiB, the chain of logical partitions, the header of
    the last partition's swap space (empty where there is none)."""

    head: bytes
    chain: tuple[mbr.Link, ...] = ()
    swap_header: bytes = b""


def moving_swap(source: Disk) -> Partition | None:
    """The swap space that would have to move: the last partition, if it is one."""
    parts = content_partitions(source)
    return parts[-1] if parts and parts[-1].content.type == _SWAP else None


def plan_growth(source: Disk, target_size: int, ground: Ground) -> Growth | None:
    """Lay out the source's partitions on a target of `target_size` bytes so that no space is left behind the last.

    Returns:
        The growth; None where there is no room for any.

    Raises:
        GrowRefused: when the last partition cannot be enlarged at all.
        FormatError: when the source's table is damaged.
    """
    swap = moving_swap(source)
    grown = _grown(source, swap)
    end = _usable_end(source, target_size, ground)
    frame = _Frame()
    moved = None
    if swap is not None:
        moved = _moved(swap, end, ground.swap_header)
        if moved.new.start <= moved.old.start:
            return None
        frame = _frame_that_moves(source, ground, moved)
        limits = [moved.new.start, *(each.start for each in frame.places.values())]
        end = align_down(min(limits), MIB)
    if end <= grown.end:
        return None
    if _is_logical(source, grown.number):
        frame = _frame_that_grows(source, ground, grown, end)
    _check_nothing_behind(source, grown, swap, frozenset(frame.places))
    place = Extent(grown.start, end)
    places = {**frame.places, grown.number: place}
    if moved:
        places[moved.partition] = moved.new
    spoiled = Extents.between(grown.start, target_size) | Extents.of(
        Extent(write.offset, write.offset + len(write.data)) for write in frame.writes
    )
    step = Grow(grown.number, grown.content.type, place, grown.size, spoiled, moved)
    return Growth(step, _head(source, ground, places), frame.writes)


def enlarged_partition(source: Disk, clone: Disk) -> Partition | None:
    """The partition of a clone that is larger than the source's, although the disks have the same table otherwise."""
    if source.table is None or clone.table is None or source.table.uuid != clone.table.uuid:
        return None
    before = {part.number: part for part in content_partitions(source)}
    return next(
        (
            part
            for part in content_partitions(clone)
            if part.number in before
            and part.start == before[part.number].start
            and part.size > before[part.number].size
        ),
        None,
    )


def _grown(source: Disk, swap: Partition | None) -> Partition:
    if source.table is None:
        raise GrowRefused(
            f"{source.path} has no partition table, so no partition can be enlarged",
            hint=f"{_WITHOUT}, and enlarge its filesystem afterwards",
        )
    parts = [part for part in content_partitions(source) if part is not swap]
    if not parts:
        raise GrowRefused(f"{source.path} has no partition to enlarge", hint=_WITHOUT)
    grown = parts[-1]
    if grown.content.type not in GROWABLE:
        behind = f", before the swap space {swap.number}," if swap else ", the last,"
        content = grown.content.type or "something unknown"
        raise GrowRefused(
            f"partition {grown.number}{behind} holds {content}, which cannot be enlarged",
            hint=f"{_KINDS}; {_WITHOUT}",
        )
    if grown.start < MIB and grown.start % (4 * KIB):
        raise GrowRefused(
            f"partition {grown.number} begins beside the boot loader, in the middle of a block",
            hint=_WITHOUT,
        )
    return grown


def _usable_end(source: Disk, target_size: int, ground: Ground) -> int:
    if _label(source) == "gpt":
        if gpt.is_hybrid(ground.head):
            raise GrowRefused(
                f"{source.path} has a hybrid table: an MBR lists partitions of its GPT too",
                hint=_WITHOUT,
            )
        return align_down(gpt.usable_end(ground.head, source.sector_size, target_size), MIB)
    return align_down(min(target_size, mbr.MAX_SECTORS * source.sector_size), MIB)


def _head(source: Disk, ground: Ground, places: Mapping[int, Extent]) -> bytes:
    place = gpt.placed if _label(source) == "gpt" else mbr.placed
    return place(ground.head, source.sector_size, places)


def _moved(swap: Partition, end: int, header: bytes) -> Moved:
    start = max(align_down(end - swap.size, MIB), 0)
    place = Extent(start, start + swap.size)
    return Moved(swap.number, Extent(swap.start, swap.end), place, header)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What becomes of the frame of logical partitions: its new place by its number, and the tables in it."""

    places: Mapping[int, Extent] = field(default_factory=dict)
    writes: tuple[Write, ...] = ()


def _frame_that_moves(source: Disk, ground: Ground, moved: Moved) -> _Frame:
    """The frame around a swap space that moves."""
    if not _is_logical(source, moved.partition):
        return _Frame()
    if [link.partition[0] * source.sector_size for link in ground.chain] != [moved.old.start]:
        raise GrowRefused(
            f"the swap space {moved.partition} is one of several logical partitions, which are not moved",
            hint=_WITHOUT,
        )
    old, distance = _frame(source), moved.new.start - moved.old.start
    place = Extent(old.start + distance, moved.new.end)
    return _Frame({old.number: place}, mbr.shifted(ground.chain, source.sector_size, distance))


def _frame_that_grows(source: Disk, ground: Ground, grown: Partition, end: int) -> _Frame:
    """The frame around a logical partition that ends at `end` from now on."""
    if [link.partition[0] * source.sector_size for link in ground.chain[-1:]] != [grown.start]:
        raise GrowRefused(
            f"partition {grown.number} is not the last one in the chain of logical partitions",
            hint=f"{_WITHOUT}, or sort the partitions of the source with sfdisk --reorder first",
        )
    old = _frame(source)
    writes = mbr.enlarged(ground.chain, source.sector_size, end)
    return _Frame({old.number: Extent(old.start, end)}, writes)


def _frame(source: Disk) -> Partition:
    # Only asked for where there are logical partitions.
    return next(part for part in source.partitions if is_extended(_label(source), part))


def _is_logical(source: Disk, number: int) -> bool:
    return _label(source) == "dos" and number >= mbr.FIRST_LOGICAL


def _label(source: Disk) -> str:
    return source.table.label if source.table else ""


def _check_nothing_behind(
    source: Disk, grown: Partition, swap: Partition | None, placed: frozenset[int]
) -> None:
    for part in source.partitions:
        if part not in {grown, swap} and part.number not in placed and part.end > grown.end:
            raise GrowRefused(
                f"partition {part.number} reaches behind partition {grown.number}, which therefore cannot be enlarged",
                hint=_WITHOUT,
            )
