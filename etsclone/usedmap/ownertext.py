"""What the tellers of owners share: blocks in numbers, and numbers in what tools print."""

import re
from collections.abc import Sequence

from etsclone.model.extents import Extents
from etsclone.units import counted

MOST = 1000
"""Of how many blocks the owner is asked; behind that many, what is left is told as a number of blocks."""


def blocks_of(extents: Extents, size: int) -> list[int]:
    """The numbers of all blocks of `size` bytes that some bytes touch."""
    return [
        number
        for extent in extents.aligned(size, extents.ranges[-1].end)
        for number in range(extent.start // size, -(-extent.end // size))
    ]


def rest_of(blocks: Sequence[int]) -> list[str]:
    """What to say of the blocks that nobody was asked about."""
    return [f"and {counted(len(blocks) - MOST, 'block')} more"] if len(blocks) > MOST else []


def number_of(pattern: str, text: str) -> int:
    """The number that a pattern captures.

    Raises:
        ValueError: when it is not there.
    """
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"nothing like {pattern} was told")
    return int(match.group(1))
