"""The identifiers in a partition table of either kind."""

from uuid import UUID

from etsclone.model.disk import Disk
from etsclone.model.ids import DISK, Identify
from etsclone.plan import gpt, mbr


def identified_head(head: bytes, source: Disk, step: Identify) -> bytes:
    """A clone's head with the identifiers that a step gives to disk and partitions.

    Raises:
        FormatError: when the head holds no intact table.
    """
    disk = next(each.new for each in step.table if each.what == DISK)
    if source.table is not None and source.table.label == "gpt":
        partitions = {each.partition: UUID(each.new) for each in step.table if each.what != DISK}
        return gpt.identified(head, source.sector_size, UUID(disk), partitions)
    return mbr.identified(head, int(disk, 16))
