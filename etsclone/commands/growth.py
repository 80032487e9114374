"""`--grow`: looking at what growing needs to know of the source."""

from etsclone.disk import resize
from etsclone.errors import CommandFailed, GrowRefused
from etsclone.model.disk import Disk
from etsclone.model.extents import Extent
from etsclone.model.plan import Grow, Growth
from etsclone.plan import mbr
from etsclone.plan.grow import Ground, moving_swap, plan_growth
from etsclone.usedmap.region import DiskAccess
from etsclone.usedmap.swap import PAGE_SIZES, header_size


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
