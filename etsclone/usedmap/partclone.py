"""Which bytes of a filesystem are used, as partclone's domain mode tells it.

Facts of partclone 0.3.23 that this module deals with: the map ends at the filesystem's own block count and not at the
partition's end (the backup boot sector of NTFS lies behind it), so the tail counts as used; an unclean or damaged
filesystem ends with status 1 and an empty map; an existing output file is refused.
"""

import os
import tempfile

from etsclone.errors import CommandFailed, FormatError
from etsclone.model.disk import Partition
from etsclone.model.extents import Extents
from etsclone.model.mapfile import BlockStatus, parse_mapfile
from etsclone.model.plan import UsedMap
from etsclone.run import run

READERS = {
    "ext2": "partclone.ext4",
    "ext3": "partclone.ext4",
    "ext4": "partclone.ext4",
    "xfs": "partclone.xfs",
    "btrfs": "partclone.btrfs",
    "vfat": "partclone.vfat",
    "exfat": "partclone.exfat",
    "ntfs": "partclone.ntfs",
    "f2fs": "partclone.f2fs",
}
"""The partclone program for each filesystem type of blkid."""


def used_map(partition: Partition) -> UsedMap:
    """The bytes of a partition that matter, in bytes of the disk.

    Where no reader knows the content, or the reader fails, everything matters, and the note says why.
    """
    reader = READERS.get(partition.content.type)
    if reader is None:
        return _everything(partition, "")
    if not partition.device:
        return _everything(partition, "everything is copied: the kernel has no device for it")
    try:
        used = _read_domain(reader, partition)
    except (CommandFailed, FormatError) as error:
        return _everything(partition, f"everything is copied: {error.message}")
    return UsedMap(
        partition.number,
        partition.content.type,
        partition.start,
        partition.size,
        used.shifted(partition.start),
        reader,
    )


def _read_domain(reader: str, partition: Partition) -> Extents:
    with tempfile.TemporaryDirectory(prefix="etsclone-") as folder:
        output, log = os.path.join(folder, "domain"), os.path.join(folder, "log")
        # -f 0: its progress display sleeps between updates, for two seconds by default, and is waited for in the end.
        run(reader, ["-D", "-f", "0", "-s", partition.device, "-o", output, "-L", log])
        with open(output, encoding="ascii", errors="replace") as file:
            domain = parse_mapfile(file.read())
    if domain.end > partition.size or domain.blocks[0][0].start != 0:
        raise FormatError("its map does not fit the partition")
    used = domain.with_status(BlockStatus.FINISHED)
    if not used.ranges:
        raise FormatError("its map has no used block")
    return used | Extents.between(domain.end, partition.size)


def _everything(partition: Partition, note: str) -> UsedMap:
    whole = Extents.between(partition.start, partition.end)
    return UsedMap(
        partition.number,
        partition.content.type,
        partition.start,
        partition.size,
        whole,
        "every block",
        note,
    )
