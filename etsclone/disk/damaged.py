"""Looking at a disk that cannot be read everywhere.

sfdisk and libblkid look for many things in many places, and give up at the first sector that fails, although what they
look for there is not on this disk. So the one gets a file that holds nothing but the table, and the other is asked for
one kind of content after the other.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from etsclone.model.extents import Extent, Extents
from etsclone.model.quarantine import MARK
from etsclone.run import run
from etsclone.units import KIB, MIB, SECTOR

_EDGE = 4 * MIB
"""Nothing that libblkid knows is told by what lies further inside (VMFS: at 2 MiB)."""

_STEP = 4 * KIB
_MBR_MARK = b"\x55\xaa"
_MBR_ENTRIES = range(446, 510, 16)
_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_MOST_LOGICAL = 128

KINDS = (
    *("ext4", "ext3", "ext2", "xfs", "btrfs", "vfat", "ntfs", "exfat", "f2fs", "swap"),
    *("LVM2_member", "crypto_LUKS", "linux_raid_member"),
)
"""What libblkid is asked for one by one."""


def can_be_opened(path: str) -> bool:
    """Whether anything of a disk can be read at all: it has a medium, and we have the right to."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def can_be_read(path: str, start: int, size: int) -> bool:
    """Whether both ends of `size` bytes of a disk from `start` on can be read: that is where contents are told by."""
    edges = _ends(Extent(start, start + size)) if size else Extents()
    with open(path, "rb", buffering=0) as file:
        return all(
            _read(file.fileno(), Extent(at, min(at + _STEP, edge.end))) is not None
            for edge in edges
            for at in range(edge.start, edge.end, _STEP)
        )


def may_have_table(path: str) -> bool:
    """Whether the first sector has the mark of an MBR, as a GPT disk has it too, or cannot be read."""
    with open(path, "rb", buffering=0) as file:
        sector = _read(file.fileno(), Extent(0, SECTOR))
    return sector is None or sector.endswith(_MBR_MARK)


def has_mark(path: str) -> bool:
    """Whether a disk begins with the mark of quarantine."""
    if not can_be_opened(path):
        return False
    with open(path, "rb", buffering=0) as file:
        return _read(file.fileno(), Extent(0, len(MARK))) == MARK


def read_head(path: str) -> bytes:
    """The first MiB of a disk; nothing when some of it cannot be read."""
    with open(path, "rb", buffering=0) as file:
        return _read(file.fileno(), Extent(0, MIB)) or b""


@contextlib.contextmanager
def table_alone(path: str, size: int, sector_size: int) -> Iterator[str]:
    """A stand-in for a disk: as large, but with nothing on it except what may be its partition table.

    What cannot be read of that is zeros. It lies in a sparse file, or on a loop device where sectors are not of 512
    bytes. Offsets and sizes are in bytes.
    """
    with tempfile.NamedTemporaryFile(prefix="etsclone-table") as file:
        os.truncate(file.fileno(), size)
        with open(path, "rb", buffering=0) as disk:
            _copy(disk.fileno(), file.fileno(), _ends(Extent(0, size)))
            logical = _logical_tables(disk.fileno(), size, sector_size)
            _copy(disk.fileno(), file.fileno(), Extents.of(logical))
        if sector_size == SECTOR:
            yield file.name
            return
        sectors = ["--sector-size", str(sector_size), "--read-only"]
        device = run("losetup", ["--find", "--show", *sectors, file.name]).stdout.strip()
        try:
            yield device
        finally:
            run("losetup", ["--detach", device])


def _ends(whole: Extent) -> Extents:
    first = Extent(whole.start, min(whole.start + _EDGE, whole.end))
    return Extents.of((first, Extent(max(whole.end - _EDGE, whole.start), whole.end)))


def _copy(source: int, target: int, places: Extents) -> None:
    for place in places:
        for start in range(place.start, place.end, SECTOR):
            data = _read(source, Extent(start, min(start + SECTOR, place.end)))
            if data is not None and data.strip(b"\0"):
                os.pwrite(target, data, start)


def _read(descriptor: int, extent: Extent) -> bytes | None:
    try:
        return os.pread(descriptor, extent.size, extent.start)
    except OSError:
        return None


def _logical_tables(descriptor: int, size: int, sector_size: int) -> Iterator[Extent]:
    """The sectors that chain the logical partitions of an MBR: each names the next, counted from the first."""
    start = _extended(_read(descriptor, Extent(0, SECTOR)))
    first = place = start * sector_size
    for _ in range(_MOST_LOGICAL):
        if not start or place + sector_size > size:
            return
        yield Extent(place, place + sector_size)
        start = _extended(_read(descriptor, Extent(place, place + SECTOR)))
        place = first + start * sector_size


def _extended(sector: bytes | None) -> int:
    """Where the extended partition of a table begins, in sectors; 0 where there is none."""
    if sector is None or not sector.endswith(_MBR_MARK):
        return 0
    starts = (
        int.from_bytes(sector[at + 8 : at + 12], "little")
        for at in _MBR_ENTRIES
        if sector[at + 4] in _EXTENDED
    )
    return next(starts, 0)
