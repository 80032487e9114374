"""Boot code and cores as GRUB's sources lay them out, made piece by piece."""

import lzma
import struct
from collections.abc import Callable

from etsclone.units import SECTOR

PREFIX, CONFIG = 3, 2
UNPACKER = 2832
LZMA = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}


def kernel(prefix: str, config: str = "", *, wide: bool = False) -> bytes:
    """A kernel with its modules, as it is in memory."""
    modules = module(0, b"\x7fELF a module") + (module(CONFIG, config.encode()) if config else b"")
    modules += module(PREFIX, prefix.encode())
    layout = struct.Struct("<4sxxxxQQ" if wide else "<4sII")
    info = layout.pack(b"mimg", layout.size, layout.size + len(modules))
    return b"mimg is code here, too\xff\xff\xff\xff" * 200 + info + modules


def module(kind: int, content: bytes) -> bytes:
    """One module: its header, its content with a zero, filled up to four bytes."""
    content += bytes(4 - len(content) % 4)
    return struct.pack("<II", kind, len(content) + 8) + content


def packed(image: bytes) -> bytes:
    """A core without its first sector: what unpacks it, and the packed kernel."""
    compressor = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[LZMA])
    stream = compressor.compress(image) + compressor.flush()
    unpacker = bytearray(b"\x90" * UNPACKER)
    struct.pack_into("<II", unpacker, 8, len(stream), len(image))
    return bytes(unpacker) + stream


def boot_code(core: int) -> bytes:
    """A disk's first sector with GRUB's code that loads the core from this LBA."""
    sector = bytearray(SECTOR)
    sector[0x180:0x190] = b"GRUB \0Geom\0Hard "
    struct.pack_into("<Q", sector, 0x5C, core)
    return bytes(sector)


def installed(prefix: str, config: str = "", start: int = 2048) -> dict[int, bytes]:
    """The sectors, by LBA, of a GRUB whose core begins at `start` and is in two pieces."""
    content = packed(kernel(prefix, config))
    content += bytes(-len(content) % SECTOR)
    sectors = [content[at : at + SECTOR] for at in range(0, len(content), SECTOR)]
    second = start + 100
    first = bytearray(SECTOR)
    struct.pack_into("<QHH", first, 0x1F4, start + 1, 3, 0x820)
    struct.pack_into("<QHH", first, 0x1E8, second, len(sectors) - 3, 0x880)
    return {
        0: boot_code(start),
        start: bytes(first),
        **{start + 1 + number: sector for number, sector in enumerate(sectors[:3])},
        **{second + number: sector for number, sector in enumerate(sectors[3:])},
    }


def reader(sectors: dict[int, bytes]) -> Callable[[int], bytes]:
    """Reads sectors; the others are empty."""
    return lambda lba: sectors.get(lba, bytes(SECTOR))


def efi_program(machine: int, content: bytes) -> bytes:
    """A PE file for a machine."""
    head = bytearray(128)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 60, 64)
    head[64:68] = b"PE\0\0"
    struct.pack_into("<H", head, 68, machine)
    return bytes(head) + content
