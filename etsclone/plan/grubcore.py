"""What an installed GRUB says of where it finds its files: the prefix and the configuration in its core, as bytes.

Sources: GRUB 2.06. grub-core/boot/i386/pc/{boot,diskboot}.S for the way from the disk's first sector to the core (see
`plan.boot`); grub-core/boot/i386/pc/startup_raw.S and include/grub/offsets.h for its head (GRUB_DECOMPRESSOR_MACHINE_
COMPRESSED_SIZE at 8, _UNCOMPRESSED_SIZE at 12); util/mkimage.c for its LZMA parameters; include/grub/kernel.h for the
modules behind the kernel (grub_module_info, grub_module_header).
"""

import lzma
import struct
from collections.abc import Callable, Iterator
from itertools import islice

from etsclone.model.boot import Core
from etsclone.units import SECTOR

CODE = 440
"""Bytes of boot code in a disk's first sector; disk signature and partitions come after it."""

_CORE = 0x5C
_FIRST_ENTRY = 0x1F4
_LAST_ENTRY = 0x40
_ENTRY = struct.Struct("<QHH")

_SIZES = struct.Struct("<II")
_SIZES_AT = 8
_MAX_UNPACKED = 4 * 1024 * 1024
_MAX_SECTORS = 2048
_MAX_UNPACKER = 8 * 1024
"""The code that unpacks the rest comes first, and is some 2,800 bytes long; nothing says how long."""

_TASTE = 4096
_MAX_TRIES = 64
"""How many bytes are unpacked to see whether a stream may begin here, and how often it then is unpacked whole."""

_LZMA = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}

_MODULES = b"mimg"
_MAX_LISTS = 64
_MAX_LISTED = 4096
"""How many lists of modules are looked through, and how much of each: GRUB has one, of some three hundred."""

_INFO = struct.Struct("<4sII")
_INFO_64 = struct.Struct("<4sxxxxQQ")
_HEADER = struct.Struct("<II")
_CONFIG = 2
_PREFIX = 3


def is_grub(sector: bytes) -> bool:
    """Whether the boot code in a disk's first sector is GRUB's."""
    return b"GRUB" in sector[:CODE]


def core_start(sector: bytes) -> int:
    """The LBA at which GRUB's boot code looks for its core."""
    (start,) = struct.unpack_from("<Q", sector, _CORE)
    return int(start)


def read_core(sector: bytes, read: Callable[[int], bytes]) -> Core | None:
    """What the core says that GRUB's boot code loads; None when there is no core where it looks for one.

    Args:
        sector: the disk's first sector.
        read: gives the sector with this LBA; empty beyond the disk's end.
    """
    first = read(core_start(sector))
    if len(first) < SECTOR:
        return None
    sectors = (lba for begin, count in _pieces(first) for lba in range(begin, begin + count))
    core = b"".join(map(read, islice(sectors, _MAX_SECTORS)))
    return next((found for image in _unpacked(core) for found in _find(image)), None)


def read_image(image: bytes) -> Core | None:
    """What GRUB's core for UEFI says, which is a PE file; None when it is no GRUB."""
    return next(_find(image), None)


def _pieces(first: bytes) -> Iterator[tuple[int, int]]:
    """Where the rest of the core lies: LBA and sectors."""
    for at in range(_FIRST_ENTRY, _LAST_ENTRY, -_ENTRY.size):
        start, count, _ = _ENTRY.unpack_from(first, at)
        if not count:
            return
        yield start, count


def _unpacked(core: bytes) -> Iterator[bytes]:
    if len(core) < _SIZES_AT + _SIZES.size:
        return
    packed, unpacked = _SIZES.unpack_from(core, _SIZES_AT)
    if not packed or unpacked > _MAX_UNPACKED:
        return
    tried, view = 0, memoryview(core)
    # The first byte of a raw LZMA stream is always zero: few places are left, and nearly all of them fail at once.
    for start in range(_SIZES_AT + _SIZES.size, min(_MAX_UNPACKER, len(core))):
        if core[start] or not _expanded(view[start : start + packed], _TASTE):
            continue
        tried += 1
        if tried > _MAX_TRIES:
            return
        image = _expanded(view[start : start + packed], unpacked)
        if len(image) == unpacked:
            yield image


def _expanded(packed: memoryview, size: int) -> bytes:
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_LZMA]).decompress(packed, size)
    except lzma.LZMAError:
        return b""


def _find(image: bytes) -> Iterator[Core]:
    for start, end in islice(_lists(image), _MAX_LISTS):
        modules = dict(islice(_modules(image, start, end), _MAX_LISTED))
        if _PREFIX in modules:
            yield Core(_text(modules[_PREFIX]), _text(modules.get(_CONFIG, b"")))


def _lists(image: bytes) -> Iterator[tuple[int, int]]:
    """Where lists of modules may be."""
    at = image.find(_MODULES)
    while at >= 0:
        for layout in (_INFO, _INFO_64):
            if at + layout.size <= len(image):
                _, offset, size = layout.unpack_from(image, at)
                if layout.size <= offset < size <= len(image) - at:
                    yield at + offset, at + size
        at = image.find(_MODULES, at + 1)


def _modules(image: bytes, position: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The modules of such a list, as type and content; others than those that tell something without it."""
    while position + _HEADER.size <= end:
        kind, length = _HEADER.unpack_from(image, position)
        if length < _HEADER.size:
            return
        told = kind in {_CONFIG, _PREFIX}
        yield kind, image[position + _HEADER.size : position + length] if told else b""
        position += length


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
