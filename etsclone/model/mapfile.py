"""GNU ddrescue mapfiles: the state of every byte of a copy, as text.

Source: the GNU ddrescue manual, chapter "Mapfile structure". Comments start with `#`. The first other line is the
status line (`current_pos current_status [current_pass]`), then come `pos size status` lines without gaps, numbers in
C notation. partclone's domain files are such files with a two-field status line.
"""

from dataclasses import dataclass
from enum import Enum

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents


class BlockStatus(Enum):
    """The state of a block."""

    NOT_TRIED = "?"
    NOT_TRIMMED = "*"
    NOT_SCRAPED = "/"
    BAD_SECTOR = "-"
    FINISHED = "+"


@dataclass(frozen=True, slots=True)
class Mapfile:
    """Contiguous blocks and their states, in bytes from the start of the copied device."""

    blocks: tuple[tuple[Extent, BlockStatus], ...]

    @property
    def end(self) -> int:
        """The first byte that the file says nothing about."""
        return self.blocks[-1][0].end if self.blocks else 0

    def with_status(self, status: BlockStatus) -> Extents:
        """All bytes in one state."""
        return Extents.of(extent for extent, found in self.blocks if found is status)


def parse_mapfile(text: str) -> Mapfile:
    """Read a mapfile.

    Raises:
        FormatError: for anything that is none, a gap or an overlap between blocks, or a file without blocks.
    """
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    rows = [fields for fields in lines if fields]
    if len(rows) < 2 or not 2 <= len(rows[0]) <= 3:
        raise FormatError("no mapfile: it has no status line or no blocks")
    blocks = []
    position = None
    for row in rows[1:]:
        extent, status = _parse_block(row)
        if position is not None and extent.start != position:
            raise FormatError(f"mapfile with a gap or an overlap at {position:#x}")
        position = extent.end
        blocks.append((extent, status))
    return Mapfile(tuple(blocks))


def _parse_block(row: list[str]) -> tuple[Extent, BlockStatus]:
    try:
        start, size, status = row
        return Extent(int(start, 0), int(start, 0) + int(size, 0)), BlockStatus(status)
    except ValueError as error:
        raise FormatError(f"mapfile with an unreadable block: {' '.join(row)}") from error
