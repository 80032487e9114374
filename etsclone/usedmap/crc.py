"""The checksums of ext4: CRC-32C, and CRC-16 as older filesystems have it. zlib knows another CRC-32 only.

Both are reflected and neither inverted in the end (lib/ext2fs/crc32c.c and crc16.c of e2fsprogs).
"""

from functools import lru_cache


def crc32c(start: int, data: bytes) -> int:
    """CRC-32C (polynomial 0x1EDC6F41) of `data`, going on from `start`."""
    return _crc(0x82F63B78, start, data)


def crc16(start: int, data: bytes) -> int:
    """CRC-16 (polynomial 0x8005) of `data`, going on from `start`."""
    return _crc(0xA001, start, data)


@lru_cache(maxsize=64)
def _crc(reflected: int, start: int, data: bytes) -> int:
    # Remembered, because many bitmaps of a filesystem are alike: all free, or all in use.
    table, crc = _table(reflected), start
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


@lru_cache
def _table(reflected: int) -> tuple[int, ...]:
    return tuple(_shifted(reflected, byte) for byte in range(256))


def _shifted(reflected: int, value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (reflected if value & 1 else 0)
    return value
