"""Enlarges the last partition's filesystem on a target that has no partition table yet."""

from etsclone.copying.pieces import opened_digests
from etsclone.disk import resize
from etsclone.disk.device import flush, read_bytes, write_bytes
from etsclone.disk.images import loops_of, window
from etsclone.errors import CommandFailed, ComparisonFailed, GrowFailed
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import parse_mapfile
from etsclone.model.plan import PIECE, ClonePlan, Grow, Moved
from etsclone.store.clones import CloneRecord


def forget(plan: ClonePlan, spoiled: Extents, record: CloneRecord) -> None:
    """Take from a record that it knows what the target holds there, before anything there is changed.

    A clone that goes on after an interrupt copies those bytes again, and a refresh compares them with nothing.

    Raises:
        EtscloneError: when the record cannot be written.
    """
    size = plan.source.size
    touched = (spoiled & Extents.between(0, size)).aligned(PIECE, size)
    with opened_digests(record.digests_path, plan.copied, keep=True) as digests:
        digests.forget_all(touched)
        digests.sync()
    if text := record.load_map():
        record.save_map(parse_mapfile(text).without(touched).text())


def grow(step: Grow, plan: ClonePlan, target: int) -> None:
    """Write the header of a swap space that moves, let the last filesystem fill its new place, and check it there.

    Args:
        step: what grows.
        plan: whose disks these are.
        target: descriptor of the target.

    Raises:
        GrowFailed: when its tools cannot enlarge it, do not find it sound, or something else took hold of it.
        ComparisonFailed: when the target does not hold what was written.
        DeviceError: when the target cannot be written.
    """
    path, sector_size = plan.target.path, plan.source.sector_size
    if step.moved:
        _write_header(step.moved, target)
    flush(target)
    try:
        for part in plan.source.partitions:
            if part.number == step.partition and part.device:
                resize.forget(part.device, step.content)
        with window(path, step.place, sector_size, writable=True) as device:
            resize.enlarge(device, step.content)
        flush(target)
        # Through another window: what the first one cached is gone.
        with window(path, step.place, sector_size) as device:
            resize.check(device, step.content)
    except CommandFailed as error:
        raise GrowFailed(
            f"partition {step.partition} of {path} could not be enlarged: {error.message}",
            hint="--resume without --grow makes it a clone with the partitions of the source",
        ) from error
    if loops := loops_of(path):
        raise GrowFailed(
            f"{', '.join(loops)}, a part of {path}, is in use by somebody else",
            hint="what mounted or activated it? stop that, then --resume",
        )


def _write_header(moved: Moved, target: int) -> None:
    write_bytes(target, moved.new.start, moved.header)
    flush(target)
    place = Extent(moved.new.start, moved.new.start + len(moved.header))
    if read_bytes(target, place) != moved.header:
        raise ComparisonFailed(
            "the header of the swap space differs from what was written", hint="use another disk"
        )
