"""Swap space: only its header makes it one.

Source: `union swap_header` in the kernel's include/linux/swap.h. The header is the first page; its last ten bytes are
the magic, so that the magic's position tells the page size of the machine that made it. UUID and label are inside.
"""

from etsclone.errors import FormatError
from etsclone.model.extents import Extents
from etsclone.units import KIB
from etsclone.usedmap.region import Finding, Region

MAGIC = b"SWAPSPACE2"
PAGE_SIZES = tuple(size * KIB for size in (4, 8, 16, 32, 64))


def header_size(head: bytes) -> int:
    """The size in bytes of the header that `head`, the first 64 KiB or less, begins with.

    Raises:
        FormatError: when there is none.
    """
    for size in PAGE_SIZES:
        if head[size - len(MAGIC) : size] == MAGIC:
            return size
    raise FormatError("it has no swap header")


def find_header(region: Region) -> Finding:
    """The header of a swap space.

    Raises:
        FormatError: when it has none.
        DeviceError: when it cannot be read.
    """
    head = region.read(0, min(PAGE_SIZES[-1], region.size))
    return Finding(Extents.between(0, header_size(head)), "swap header")
