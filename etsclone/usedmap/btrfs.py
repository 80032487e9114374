"""What partclone does not know of btrfs: where a boot loader may be, and the second copies of blocks.

With the profile DUP, the default for metadata, every block lies twice on one device. partclone 0.3.23 maps the first
copy only. A clone without the other works, but has lost what DUP is for, and a scrub reports errors. Where the copies
are, the chunk tree tells.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.run import run
from etsclone.units import MIB

RESERVED = MIB
"""Bytes at the beginning that btrfs leaves to a boot loader (`BTRFS_DEVICE_RANGE_RESERVED`), and counts as free."""

_CHUNK = re.compile(
    r"CHUNK_ITEM (?P<logical>\d+)\) .*\n"
    r"\s*length (?P<size>\d+) owner \d+ stripe_len \d+ type (?P<type>\S+)\n"
    r"\s*io_align .*\n"
    r"\s*num_stripes (?P<count>\d+) .*\n"
    r"(?P<stripes>(?:\s*stripe \d+ devid \d+ offset \d+\n\s*dev_uuid .*\n)+)",
    re.MULTILINE,
)
_STRIPE = re.compile(r"stripe \d+ devid \d+ offset (\d+)")
_ALLOCATED = re.compile(r"^\s*devid \d+ total_bytes \d+ bytes_used (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Chunk:
    """`size` bytes of the filesystem, and where each copy of them begins on the device.

    `logical` is their address in the filesystem.
    """

    size: int
    starts: tuple[int, ...]
    logical: int = 0

    @property
    def copies(self) -> tuple[Extent, ...]:
        """Where they lie on the device."""
        return tuple(Extent(start, start + self.size) for start in self.starts)


def read_chunks(device: str) -> tuple[Chunk, ...]:
    """The chunks of a btrfs that is on this one device.

    Raises:
        CommandFailed: when its chunk tree cannot be read.
        FormatError: when that makes no sense.
        MissingProgram: when btrfs-progs are not installed.
    """
    return parse_chunks(
        run("btrfs", ["inspect-internal", "dump-tree", "--noscan", "-t", "chunk", device]).stdout
    )


def parse_chunks(text: str) -> tuple[Chunk, ...]:
    """Read what `btrfs inspect-internal dump-tree -t chunk` prints of a filesystem on one device.

    Raises:
        FormatError: when the chunks are not all that the device has, or are no plain copies.
    """
    found = tuple(_chunk(match) for match in _CHUNK.finditer(text))
    allocated = _ALLOCATED.findall(text)
    total = sum(chunk.size * len(chunk.starts) for chunk in found)
    if [str(total)] != allocated:
        raise FormatError("its chunks are not those that the device has")
    return found


def _chunk(match: re.Match[str]) -> Chunk:
    starts = tuple(int(start) for start in _STRIPE.findall(match["stripes"]))
    if len(starts) != int(match["count"]) or int(match["size"]) == 0:
        raise FormatError("its chunks make no sense")
    if len(starts) > 1 and "DUP" not in match["type"].split("|"):
        raise FormatError(f"its chunks are no plain copies: {match['type']}")
    return Chunk(int(match["size"]), starts, int(match["logical"]))


def with_copies(used: Extents, chunks: Sequence[Chunk]) -> Extents:
    """`used`, and what is the same as used bytes in another copy of their chunk; all in bytes of the device."""
    doubled = [chunk for chunk in chunks if len(chunk.starts) > 1]
    places = Extents.of(copy for chunk in doubled for copy in chunk.copies)
    ranges = (used & places).ranges
    copies = (copy for chunk in doubled for copy in _copies(chunk, ranges))
    return Extents.of((*used, *copies))


def _copies(chunk: Chunk, ranges: tuple[Extent, ...]) -> Iterator[Extent]:
    for place in chunk.copies:
        for extent in _inside(place, ranges):
            yield from (extent.shifted(start - place.start) for start in chunk.starts)


def _inside(place: Extent, ranges: tuple[Extent, ...]) -> Iterator[Extent]:
    """What of the sorted `ranges` lies in `place`."""
    first = bisect_right(ranges, place.start, key=lambda extent: extent.end)
    last = bisect_left(ranges, place.end, key=lambda extent: extent.start)
    for extent in ranges[first:last]:
        yield Extent(max(extent.start, place.start), min(extent.end, place.end))
