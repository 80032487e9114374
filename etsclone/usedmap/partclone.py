"""Which bytes of a filesystem are used, as partclone's domain mode tells it.

Facts of partclone 0.3.23 that this module deals with: the map ends at the filesystem's own block count and not at the
partition's end (the backup boot sector of NTFS lies behind it), so the tail counts as used; a damaged filesystem ends
with status 1 and an empty map; an existing output file is refused; it maps some filesystems that were not cleanly
unmounted without a word, and what only their logs know is missing then (see `unsettled`).
"""

import os
import tempfile

from etsclone.errors import FormatError
from etsclone.model.extents import Extents
from etsclone.model.mapfile import BlockStatus, parse_mapfile
from etsclone.run import run
from etsclone.usedmap.region import Finding, Region
from etsclone.usedmap.unsettled import check_settled

READERS = {
    "ext2": "partclone.ext4",
    "ext3": "partclone.ext4",
    "ext4": "partclone.ext4",
    "xfs": "partclone.xfs",
    "btrfs": "partclone.btrfs",
    "exfat": "partclone.exfat",
    "ntfs": "partclone.ntfs",
    "f2fs": "partclone.f2fs",
}
"""The partclone program for each filesystem type of blkid."""


def find_used(kind: str, region: Region) -> Finding:
    """The used bytes of a filesystem; `kind` is a key of `READERS`.

    Raises:
        FormatError: when it is not settled, or its map makes no sense.
        CommandFailed: when the reader gives up.
        DeviceError: when the disk cannot be read.
        MissingProgram: when the reader is not installed.
    """
    with region.disk.window(region.extent) as device:
        check_settled(kind, region, device)
        used = parse_domain(_read_domain(READERS[kind], device), region.size)
        if kind == "btrfs":
            from etsclone.usedmap import btrfs  # noqa: PLC0415 - no other filesystem pays for it

            used = btrfs.with_copies(used, btrfs.read_chunks(device))
            used |= Extents.between(0, min(btrfs.RESERVED, region.size))
    return Finding(used, READERS[kind])


def parse_domain(text: str, size: int) -> Extents:
    """The used bytes that a domain file tells of a filesystem in `size` bytes, and what it says nothing about.

    Raises:
        FormatError: when it does not begin at byte 0, reaches too far, or tells of no used block.
    """
    domain = parse_mapfile(text)
    if domain.end > size or domain.blocks[0][0].start != 0:
        raise FormatError("its map does not fit the partition")
    used = domain.with_status(BlockStatus.FINISHED)
    if not used.ranges:
        raise FormatError("its map has no used block")
    return used | Extents.between(domain.end, size)


def _read_domain(reader: str, device: str) -> str:
    with tempfile.TemporaryDirectory(prefix="etsclone-") as folder:
        output, log = os.path.join(folder, "domain"), os.path.join(folder, "log")
        # -f 0: its progress display sleeps between updates, for two seconds by default, and is waited for in the end.
        run(reader, ["-D", "-f", "0", "-s", device, "-o", output, "-L", log])
        with open(output, encoding="ascii", errors="replace") as file:
            return file.read()
