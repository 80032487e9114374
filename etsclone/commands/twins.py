"""Disks of this machine that have the same identifiers as a clone that is about to be a disk like others."""

import os
from collections.abc import Iterator

from etsclone.disk.probe import list_disks, read_content
from etsclone.errors import EtscloneError
from etsclone.model.disk import Disk, Partition
from etsclone.model.quarantine import Quarantine
from etsclone.plan.quarantine import table_id


def twin_warnings(disk: Disk, record: Quarantine) -> tuple[str, ...]:
    """In words, which attached disks a disk in quarantine is the twin of, when it is released.

    A clone has its source's layout: what the source's partitions hold is looked for at the same places of the clone.
    """
    try:
        others = [each for each in list_disks() if not _is(each, disk)]
        found = [(each, tuple(_shared(each, disk, record))) for each in others]
    except (EtscloneError, OSError) as error:
        return (f"whether a disk with the same identifiers is attached could not be seen: {error}",)
    return tuple(
        f"{each.path} is attached and has the same {', '.join(shared)}: fstab by UUID, LVM, md and btrfs of this"
        " machine may take one for the other; detach one of the two first"
        for each, shared in found
        if shared
    )


def _is(other: Disk, disk: Disk) -> bool:
    """Whether they are one: a loop device of an image is the image."""
    one, two = other.identity, disk.identity
    same_file = one.file is not None and (one.file, one.volume) == (two.file, two.volume)
    return same_file or os.path.realpath(other.path) == os.path.realpath(disk.path)


def _shared(other: Disk, disk: Disk, record: Quarantine) -> Iterator[str]:
    if other.table and other.table.uuid and other.table.uuid.lower() == table_id(record).lower():
        yield "identifier of the partition table"
    for part in other.partitions:
        uuid = part.content.uuid
        if uuid and part.end <= disk.size and _uuid_at(disk, part) == uuid:
            yield f"{part.content.type} of partition {part.number} (UUID {uuid})"


def _uuid_at(disk: Disk, part: Partition) -> str:
    return read_content(disk.path, part.start, part.size).uuid
