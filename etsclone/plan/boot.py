"""The boot loader of BIOS machines as bytes: GRUB's first sectors, which find what follows by its place on the disk.

Source: GRUB 2.06, grub-core/boot/i386/pc/{boot,diskboot}.S and include/grub/i386/pc/boot.h: boot.img, in the disk's
first sector, holds the LBA of core.img (64 bits little-endian at 0x5c). The first sector of core.img ends with the list
of where its rest lies: entries of LBA (64 bits), sectors and segment (16 bits each), from 0x1f4 downwards until one has
no sectors. All that core.img looks for it finds by partition number and filesystem UUID, which stay. GRUB's
error-correcting code does not cover that first sector (GRUB_KERNEL_I386_PC_NO_REED_SOLOMON_LENGTH).
"""

import struct
from collections.abc import Callable, Sequence

from etsclone.model.fit import How, Place
from etsclone.model.write import Write
from etsclone.units import SECTOR

_CODE = 440
_CORE = 0x5C
_FIRST_ENTRY = 0x1F4
_ENTRY = struct.Struct("<QHH")
_LAST_ENTRY = 0x40

_AGAIN = "run grub-install in the clone before it is to boot on a BIOS machine"


def moved_loader(
    head: bytes, places: Sequence[Place], read: Callable[[int], bytes]
) -> tuple[bytes, tuple[Write, ...], tuple[str, ...]]:
    """Let GRUB find its core at its new place.

    Args:
        head: the source's first bytes.
        places: where partitions go.
        read: gives 512 bytes of the source from a byte on.

    Returns:
        The head for the target, what else is to be written there, and what a person should know.
    """
    if not any(head[:_CODE]):
        return head, (), ()
    if b"GRUB" not in head[:_CODE]:
        note = "boot code that is not GRUB's is copied as it is: if it loads by block number, install it again"
        return head, (), (note,)
    (core,) = struct.unpack_from("<Q", head, _CORE)
    owner = next((place for place in places if _holds(place, core)), None)
    if owner is None or (owner.how is How.BLOCKS and owner.extent.start == owner.partition.start):
        return head, (), ("GRUB stays where it is, and finds its files by UUID",)
    if owner.how is not How.BLOCKS:
        note = f"GRUB's core is a file of partition {owner.partition.number}, found by block number: {_AGAIN}"
        return head, (), (note,)
    distance = (owner.extent.start - owner.partition.start) // SECTOR
    sector = _listed(read(core * SECTOR), owner, distance)
    if sector is None:
        return head, (), (f"GRUB's core is not in one piece: {_AGAIN}",)
    head = head[:_CORE] + struct.pack("<Q", core + distance) + head[_CORE + 8 :]
    write = Write((core + distance) * SECTOR, sector, "first sector of GRUB's core")
    return head, (write,), (f"GRUB is installed anew in partition {owner.partition.number}",)


def _holds(place: Place, lba: int) -> bool:
    return place.partition.start <= lba * SECTOR < place.partition.end


def _listed(sector: bytes, owner: Place, distance: int) -> bytes | None:
    """The first sector of a core whose list names places `distance` sectors later; None when it lies elsewhere too."""
    changed = bytearray(sector)
    for at in range(_FIRST_ENTRY, _LAST_ENTRY, -_ENTRY.size):
        start, count, segment = _ENTRY.unpack_from(sector, at)
        if not count:
            return bytes(changed)
        if not _holds(owner, start) or not _holds(owner, start + count - 1):
            return None
        _ENTRY.pack_into(changed, at, start + distance, count, segment)
    return None
