"""GNU ddrescue mapfiles: the state of every byte of a copy, as text.

Source: the GNU ddrescue manual, chapter "Mapfile structure". Comments start with `#`. The first other line is the
status line (`current_pos current_status [current_pass]`), then come `pos size status` lines without gaps, numbers in
C notation. partclone's domain files are such files with a two-field status line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

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

    @classmethod
    def of(cls, states: Mapping[BlockStatus, Extents], end: int) -> "Mapfile":
        """The mapfile of a device of `end` bytes; what no state claims was not tried.

        Raises:
            ValueError: when two states claim the same bytes, or bytes behind the end.
        """
        claimed = [(extent, status) for status, extents in states.items() for extent in extents]
        rest = Extents.of(extent for extent, _ in claimed).complement(end)
        blocks = sorted(
            [*claimed, *((extent, BlockStatus.NOT_TRIED) for extent in rest)],
            key=lambda block: block[0],
        )
        if any(left.end != right.start for (left, _), (right, _) in pairwise(blocks)) or (
            blocks and blocks[-1][0].end != end
        ):
            raise ValueError("states overlap or reach beyond the device")
        return cls(tuple(blocks))

    @property
    def end(self) -> int:
        """The first byte that the file says nothing about."""
        return self.blocks[-1][0].end if self.blocks else 0

    def with_status(self, status: BlockStatus) -> Extents:
        """All bytes in one state."""
        return Extents.of(extent for extent, found in self.blocks if found is status)

    def without(self, extents: Extents) -> "Mapfile":
        """The same state, but that these bytes were not tried."""
        return Mapfile.of(
            {status: self.with_status(status) - extents for status in BlockStatus}, self.end
        )

    def text(self, comment: str = "") -> str:
        """The file's content. The current position is the first byte that is not finished."""
        todo = [
            extent.start for extent, status in self.blocks if status is not BlockStatus.FINISHED
        ]
        status = "?" if todo else "+"
        lines = [f"# {line}" for line in ("Mapfile. Created by etsclone", *comment.splitlines())]
        lines += [
            "# current_pos  current_status  current_pass",
            f"{todo[0] if todo else 0:#010x}     {status}     1",
        ]
        lines += ["#      pos        size  status"]
        lines += [
            f"{extent.start:#010x}  {extent.size:#010x}  {found.value}"
            for extent, found in self.blocks
        ]
        return "\n".join(lines) + "\n"


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
