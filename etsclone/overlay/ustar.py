"""The few bytes of tar that an overlay file is made of. Pure.

Source: POSIX.1-2017, pax utility, "ustar Interchange Format". Each member has exactly one possible header, so reading
is: say what the header must be, and compare all of its bytes.
"""

import re
import struct

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two blocks of zeros end an archive. Nothing follows: no filling up to a record of 20 blocks."""

_FIELDS = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 6s 2s 32s 32s 8s 8s 155s 12x")
_CHECKSUM = slice(148, 156)
_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_MTIME = slice(136, 148)
_NUMBER = re.compile(rb"[0-7]{11}\0")


def header(name: str, size: int, mtime: int) -> bytes:
    """The 512 bytes in front of a regular file: mode 0600, owner 0, no owner names.

    Args:
        name: at most 100 ASCII characters.
        size: bytes of content, below 8 GiB.
        mtime: seconds since the epoch.

    Raises:
        ValueError: when a number needs more than eleven octal digits.
    """
    if not (0 <= size < 8**11 and 0 <= mtime < 8**11):
        raise ValueError(f"size {size} or time {mtime} does not fit into a tar header")
    zero = b"0000000\0"
    numbers = (b"0000600\0", zero, zero, b"%011o\0" % size, b"%011o\0" % mtime)
    block = _FIELDS.pack(
        name.encode("ascii"),
        *numbers,
        b" " * 8,
        b"0",
        b"",
        b"ustar\0",
        b"00",
        b"",
        b"",
        zero,
        zero,
        b"",
    )
    return block[: _CHECKSUM.start] + b"%06o\0 " % sum(block) + block[_CHECKSUM.stop :]


def size_and_mtime(block: bytes) -> tuple[int, int]:
    """What a block claims as size (bytes) and time (seconds since the epoch), if it has numbers there at all.

    Raises:
        ValueError: when it has none.
    """
    fields = (block[_SIZE], block[_MTIME])
    if not all(_NUMBER.fullmatch(field) for field in fields):
        raise ValueError("no tar header")
    return int(fields[0][:-1], 8), int(fields[1][:-1], 8)


def name_of(block: bytes) -> str:
    """The name that a block claims, fit for a message: unprintable bytes are escaped."""
    return ascii(block[_NAME].split(b"\0", 1)[0])[2:-1]


def padding(size: int) -> int:
    """How many zero bytes follow a content of `size` bytes."""
    return -size % BLOCK
