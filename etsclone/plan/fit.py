"""The smallest layout that holds a source's data, and its place on a smaller target. Pure.

Every partition has a minimum. What the target has beyond the sum of them is shared out in proportion to what each
partition gives up, so one number between 0 (all at their minimum) and 1 (all as they were) makes a layout. A partition
that keeps its size is copied by blocks. Order, numbers and identities stay; none begins later than on the source.
"""

from collections.abc import Callable, Mapping, Sequence

from etsclone.errors import SourceRefused, TargetRefused
from etsclone.model.disk import Disk
from etsclone.model.extents import Extent, Extents
from etsclone.model.fit import (
    Candidate,
    CheckFilesystem,
    CopyBlocks,
    CopyFiles,
    FitPlan,
    FitStep,
    How,
    MakeFilesystem,
    Place,
)
from etsclone.model.plan import PIECE, Copy, Erase, Seal
from etsclone.model.write import Write
from etsclone.plan import gpt, mbr
from etsclone.plan.boot import moved_loader
from etsclone.plan.clone import HEAD_SIZE, edges, head_writes, is_extended
from etsclone.units import MIB, align_down, align_up, counted, human

SWAP = "swap"
SMALLEST_SWAP = 16 * MIB
"""What swap space may shrink to: it holds nothing that lasts."""

_SCALE = 1 << 30


def check_table(source: Disk, head: bytes) -> None:
    """Make sure that the source's partitions can be given other places at all.

    Raises:
        SourceRefused: when they cannot.
    """
    larger = "use a disk of at least the source's size"
    if source.table is None or not source.partitions:
        raise SourceRefused(
            f"{source.path} has no partitions that could be made smaller", hint=larger
        )
    label = source.table.label
    logical = [part for part in source.partitions if part.number >= mbr.FIRST_LOGICAL]
    if label == "dos" and (logical or any(is_extended(label, part) for part in source.partitions)):
        raise SourceRefused(
            f"{source.path} has logical partitions, which --fit does not move",
            hint=f"{larger}, or convert the source's table with `sgdisk --mbrtogpt` first",
        )
    if label == "gpt" and gpt.is_hybrid(head):
        raise SourceRefused(
            f"{source.path} has a hybrid table: an MBR lists partitions of its GPT too", hint=larger
        )


def shortfall(source: Disk, target: Disk, candidates: Sequence[Candidate], head: bytes) -> int:
    """How many bytes the target lacks for the smallest layout; 0 when it fits."""
    smallest = _layout(candidates, 0)[-1].end + _reserve(source, head)
    return max(0, smallest - target.size)


def plan_fit(
    source: Disk,
    target: Disk,
    candidates: Sequence[Candidate],
    used: Mapping[int, Extents],
    head: bytes,
    read: Callable[[int], bytes],
    *,
    fingerprint: str = "",
    retries: int = 1,
) -> FitPlan:
    """Lay the source's partitions out on a smaller target, and order the steps.

    Args:
        source: the source's snapshot.
        target: the target's snapshot.
        candidates: every partition of the source, by their place.
        used: by partition number, the bytes that matter, in bytes of the source.
        head: the source's first `HEAD_SIZE` bytes.
        read: gives 512 bytes of the source from a byte on.
        fingerprint: of the source, for the record.
        retries: how often a bad sector is tried again.

    Raises:
        SourceRefused: when the source's table is of a kind that is not moved.
        TargetRefused: when the smallest layout does not fit, naming the bytes that are missing.
        FormatError: when the source's table is damaged.
    """
    check_table(source, head)
    if missing := shortfall(source, target, candidates, head):
        raise TargetRefused(
            f"{target.path} is too small: it has {human(target.size)}, the smallest layout that holds the data of"
            f" {source.path} needs {human(target.size + missing)} ({counted(missing, 'byte', 'is', 'are')} missing)",
            hint=_how_to_save(candidates),
        )
    places = _places(source, target, candidates, head)
    first = source.partitions[0].start
    head, loader, notes = moved_loader(head[: min(HEAD_SIZE, first)], places, read)
    head, tail = _table(source, target, head, places)
    gap = Extents.between(len(head), first).aligned(PIECE, first) - Extents.between(0, len(head))
    steps: tuple[FitStep, ...] = (
        Erase(edges(target), empty=target.identity.device is None),
        *((Copy(gap, retries=retries),) if gap.ranges else ()),
        *(step for place in places for step in _steps(place, used)),
        Seal((*loader, *tail, *head_writes(head))),
    )
    return FitPlan(source, target, places, steps, fingerprint, notes)


def _steps(place: Place, used: Mapping[int, Extents]) -> tuple[FitStep, ...]:
    if place.recipe is None or place.how is How.BLOCKS:
        inside = used[place.partition.number].shifted(-place.partition.start)
        return (CopyBlocks(place, inside.aligned(PIECE, place.extent.size)),)
    make = MakeFilesystem(place, place.recipe)
    check = CheckFilesystem(place, place.recipe)
    return (
        (make, check) if place.how is How.EMPTY else (make, CopyFiles(place, place.recipe), check)
    )


def _places(
    source: Disk, target: Disk, candidates: Sequence[Candidate], head: bytes
) -> tuple[Place, ...]:
    end = align_down(target.size, source.sector_size) - _reserve(source, head)
    low, high = 0, _SCALE
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if _layout(candidates, middle)[-1].end <= end else (low, middle - 1)
        )
    extents = _layout(candidates, low)
    return tuple(_place(each, extent) for each, extent in zip(candidates, extents, strict=True))


def _place(candidate: Candidate, extent: Extent) -> Place:
    part, recipe = candidate.partition, candidate.recipe
    how = How.BLOCKS
    if recipe is not None and extent.size < part.size:
        how = How.EMPTY if recipe.kind == SWAP else How.FILES
    return Place(part, extent, how, recipe, candidate.data, candidate.note)


def _layout(candidates: Sequence[Candidate], share: int) -> tuple[Extent, ...]:
    """The places of all partitions when each has its minimum and `share` of `_SCALE` of what it would give up."""
    end = candidates[0].partition.start
    extents = []
    for each in candidates:
        part = each.partition
        # Never later than on the source: what was not aligned there need not be here.
        start = min(part.start, align_up(end, MIB))
        end = start + _size(each, share)
        extents.append(Extent(start, end))
    return tuple(extents)


def _size(candidate: Candidate, share: int) -> int:
    whole, least = candidate.partition.size, align_up(candidate.minimum, MIB)
    if candidate.recipe is None or least >= whole:
        return whole
    return whole if share == _SCALE else least + align_down((whole - least) * share // _SCALE, MIB)


def _reserve(source: Disk, head: bytes) -> int:
    """The bytes at a disk's end that no partition may have."""
    if source.table is None or source.table.label != "gpt":
        return 0
    anywhere = 2 * source.size
    return anywhere - gpt.usable_end(head, source.sector_size, anywhere)


def _table(
    source: Disk, target: Disk, head: bytes, places: Sequence[Place]
) -> tuple[bytes, tuple[Write, ...]]:
    extents = {place.partition.number: place.extent for place in places}
    if source.table is not None and source.table.label == "gpt":
        placed = gpt.placed(head, source.sector_size, extents)
        head, backup = gpt.relocate(placed, source.sector_size, target.size)
        return head, (backup,)
    return mbr.placed(head, source.sector_size, extents), ()


def _how_to_save(candidates: Sequence[Candidate]) -> str:
    kept = [each for each in candidates if each.recipe is None and each.note]
    reasons = [f"partition {each.partition.number} keeps its size: {each.note}" for each in kept]
    return "; ".join([*reasons, "use a larger disk, or remove data from the source"])
