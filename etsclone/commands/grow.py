"""`--grow`: looking at what growing needs to know of the source, and telling what will grow."""

from collections.abc import Sequence
from dataclasses import replace

from etsclone.disk import resize
from etsclone.errors import CommandFailed, GrowRefused
from etsclone.model.disk import Disk
from etsclone.model.extents import Extent
from etsclone.model.plan import ClonePlan, Grow, Growth, UsedMap
from etsclone.plan import mbr
from etsclone.plan.clone import content_partitions
from etsclone.plan.grow import Ground, moving_swap, plan_growth
from etsclone.units import human
from etsclone.usedmap.region import DiskAccess
from etsclone.usedmap.swap import PAGE_SIZES, header_size

_NO_ROOM = "nothing grows: there is no room behind it on the target"
_NO_VOLUME = "no logical volume grows with it: lvextend --resizefs enlarges the one that you choose"


def growth_of(source: Disk, target: Disk, head: bytes, disk: DiskAccess) -> Growth | None:
    """What `--grow` means for these disks; None where there is no room.

    Args:
        source: the source's snapshot.
        target: the target's snapshot.
        head: the source's first MiB.
        disk: how to look at the source.

    Raises:
        GrowRefused: when the last partition cannot be enlarged.
        MissingProgram: when what would do it is not installed.
        FormatError: when the source's table, or the header of its swap space, is damaged.
        DeviceError: when the source cannot be read.
    """
    growth = plan_growth(source, target.size, _ground(source, head, disk))
    if growth is not None:
        _check_content(source, growth.step, disk)
    return growth


def noted(
    maps: Sequence[UsedMap], source: Disk, growth: Growth | None, *, wished: bool
) -> Sequence[UsedMap]:
    """The maps with what is to be said of the growing beside them."""
    if not wished:
        return maps
    if growth is None:
        return _with_note(maps, content_partitions(source)[-1].number, _NO_ROOM)
    if growth.step.content == "LVM2_member":
        return _with_note(maps, growth.step.partition, _NO_VOLUME)
    return maps


def grow_lines(plan: ClonePlan) -> list[str]:
    """What grows and moves, for people."""
    step = plan.grow
    if step is None:
        return []
    sizes = f"from {human(step.old_size)} to {human(step.place.size)}"
    lines = [f"partition {step.partition} ({step.content}) is enlarged {sizes} and then checked"]
    if step.moved:
        place = f"byte {step.moved.old.start} to byte {step.moved.new.start}"
        lines += [
            f"partition {step.moved.partition} (swap) moves from {place}, without what it holds"
        ]
    return lines


def size_on_target(plan: ClonePlan, used: UsedMap) -> str:
    """The size of a partition, for people: on the source, and on the target where it differs."""
    step = plan.grow
    if step is None or step.partition != used.partition:
        return human(used.size)
    return f"{human(used.size)} -> {human(step.place.size)}"


def grow_facts(plan: ClonePlan) -> dict[str, object] | None:
    """What grows and moves, for programs; None when nothing does."""
    step = plan.grow
    if step is None:
        return None
    moved = step.moved
    return {
        "partition": step.partition,
        "content": step.content,
        "start": step.place.start,
        "old_size": step.old_size,
        "new_size": step.place.size,
        "moved": {
            "partition": moved.partition,
            "old_start": moved.old.start,
            "new_start": moved.new.start,
            "size": moved.new.size,
        }
        if moved
        else None,
    }


def _ground(source: Disk, head: bytes, disk: DiskAccess) -> Ground:
    sector = source.sector_size
    dos = source.table is not None and source.table.label == "dos"
    chain = (
        mbr.read_chain(head, lambda lba: disk.read(Extent(lba * sector, (lba + 1) * sector)))
        if dos
        else ()
    )
    swap = moving_swap(source)
    header = b""
    if swap is not None:
        first = disk.read(Extent(swap.start, min(swap.start + PAGE_SIZES[-1], swap.end)))
        header = first[: header_size(first)]
    return Ground(head, chain, header)


def _check_content(source: Disk, step: Grow, disk: DiskAccess) -> None:
    resize.check_programs(step.content)
    (part,) = (each for each in source.partitions if each.number == step.partition)
    try:
        with disk.window(Extent(part.start, part.end)) as device:
            problem = resize.obstacle(device, step.content, part.content.uuid, step.place.size)
    except CommandFailed as error:
        problem = error.message
    if problem:
        raise GrowRefused(
            f"partition {part.number} ({step.content}) cannot be enlarged: {problem}",
            hint="clone without --grow",
        )


def _with_note(maps: Sequence[UsedMap], number: int, note: str) -> list[UsedMap]:
    return [
        replace(each, note="; ".join(filter(None, (each.note, note))))
        if each.partition == number
        else each
        for each in maps
    ]
