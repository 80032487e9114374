"""Reading around bad sectors, as ddrescue does: first all that is easy, then closer and closer to what is broken.

Where the copy pass met an error it went on further ahead. What it left is read from behind (a defect often spoils only
one direction); then the edges of the unreadable areas are trimmed sector by sector; then what is inside is scraped
sector by sector; then what is bad is tried again. After each step the state tells what is known of every byte.
"""

import mmap
from collections.abc import Iterator

from etsclone.copying.access import single_sectors, small_blocks, write_block
from etsclone.copying.passes import CopyRun, copy_pass
from etsclone.errors import ReadFailed
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus
from etsclone.units import MIB


def rescue(run: CopyRun, wanted: Extents, *, sector_size: int, retries: int) -> Extents:
    """Read what the first pass over `wanted` could not, and return what cannot be read at all.

    Args:
        run: the copy.
        wanted: all that was to be copied.
        sector_size: the source's logical sector in bytes: what is read or lost as one.
        retries: how often a bad sector is tried again.

    Raises:
        DeviceError: when the target cannot be written, or a disk is gone.
    """
    copy_pass(run, run.state.not_tried(wanted), backward=True)
    with single_sectors(sector_size, run.source, run.target) as buffer:
        sectors = _Sectors(run, buffer, sector_size)
        for area in run.state.area(BlockStatus.NOT_TRIMMED) & wanted:
            sectors.trim(area)
            run.tick()
        for area in run.state.area(BlockStatus.NOT_SCRAPED) & wanted:
            sectors.scrape(area)
        for _ in range(retries):
            for area in run.state.area(BlockStatus.BAD_SECTOR) & wanted:
                sectors.scrape(area)
    return run.state.area(BlockStatus.BAD_SECTOR) & wanted


def blank(run: CopyRun, bad: Extents, *, sector_size: int) -> None:
    """Write zeros where the source could not be read: what an old file left on the target must not stand in for it."""
    with small_blocks(run.target, sector_size):
        for extent in bad:
            for start in range(extent.start, extent.end, MIB):
                block = Extent(start, min(extent.end, start + MIB))
                with mmap.mmap(-1, block.size) as zeros, memoryview(zeros) as buffer:
                    write_block(run.target, block, buffer)


class _Sectors:
    """Copies single sectors and says what became of them."""

    def __init__(self, run: CopyRun, buffer: memoryview, size: int) -> None:
        self._run = run
        self._buffer = buffer
        self._size = size

    def trim(self, area: Extent) -> None:
        """Read inwards from both ends up to the first bad sector; what lies between is left to scrape."""
        start, end = area.start, area.end
        for sector in self._split(area):
            start = sector.end
            if not self._copy(sector):
                break
        for sector in reversed(list(self._split(Extent(start, end)))) if start < end else []:
            end = sector.start
            if not self._copy(sector):
                break
        if start < end:
            self._run.state.mark(Extent(start, end), BlockStatus.NOT_SCRAPED)

    def scrape(self, area: Extent) -> None:
        """Read every sector of an area."""
        for sector in self._split(area):
            self._copy(sector)
            self._run.tick()

    def _copy(self, sector: Extent) -> bool:
        run = self._run
        try:
            run.read_source(sector, self._buffer)
        except ReadFailed:
            run.state.mark(sector, BlockStatus.BAD_SECTOR)
            return False
        run.digests.forget(sector)
        write_block(run.target, sector, self._buffer)
        run.state.mark(sector, BlockStatus.FINISHED)
        run.advance(sector.size, -sector.size)
        return True

    def _split(self, area: Extent) -> Iterator[Extent]:
        for start in range(area.start, area.end, self._size):
            yield Extent(start, min(area.end, start + self._size))
