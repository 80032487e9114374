"""Which bytes of a partition that is encrypted with LUKS matter: all, or while it is unlocked what is used inside.

Unlocked, the mapping of device-mapper tells where the encrypted data begins and shows what it holds. Headers, key slots
and all that lies outside of it matter whole. What is left out holds old ciphertext on the source and anything on the
target: whoever sees the target can tell how much of it is used, and where (as with discard, cryptsetup(8)).
"""

from collections.abc import Callable

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import Volume
from etsclone.units import KIB
from etsclone.usedmap.region import Finding, Region

CONTENT = "crypto_LUKS"
"""What blkid calls it."""

_LARGEST_SECTOR = 4 * KIB
"""Of a sector of ciphertext a part is worth nothing (cryptsetup(8), --sector-size)."""


def find_used(region: Region, find_inside: Callable[[Region], Finding]) -> Finding:
    """The bytes that matter; `find_inside` tells those of what is encrypted.

    Raises:
        FormatError: when it is locked.
        DeviceError: when it cannot be read.
    """
    unlocked = region.disk.unlocked(region.extent)
    if unlocked is None:
        raise FormatError("encrypted with LUKS and locked, free and used look alike")
    payload = Extent(unlocked.start, unlocked.start + unlocked.size)
    if payload.end > region.size:
        raise FormatError("its encrypted data does not fit the partition")
    inside = find_inside(Region(unlocked.disk, Extent(0, unlocked.size)))
    used = inside.extents.aligned(_LARGEST_SECTOR, unlocked.size)
    free = (Extents.between(0, unlocked.size) - used).shifted(payload.start)
    # Nobody can read there what it is without the key; but that it changed can be seen.
    volume = Volume(payload.shifted(region.extent.start), "")
    return Finding(
        Extents.between(0, region.size) - free, f"LUKS, {inside.method}", inside.note, (volume,)
    )
