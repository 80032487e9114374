"""What an initramfs holds: cpio archives, one behind the other, of which the later ones may be compressed.

The format is that of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. It is read as a stream,
in pieces, and never more of it than `LIMIT`. This module works inside `chroot.in_chroot`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from etsclone.boot.unpacking import Source, decompressed
from etsclone.errors import FormatError
from etsclone.units import GIB, KIB, MIB, human

LIMIT = 2 * GIB
"""Bytes that are read and unpacked at most: several times what the largest have."""

_LEAST_SPENT = 4 * KIB
"""What each file in it counts, at least: many empty ones take their time too."""

_HEADER = re.compile(rb"07070[12]([0-9A-Fa-f]{104})")
_HEADER_SIZE = 110
_LONGEST_NAME = 4 * KIB
_END = b"TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Member:
    """A file, folder, link or device of an archive; its content can be read until the next member is asked for.

    `name` has no leading slash, `mode` is that of stat(2), `size` the content's bytes; a symbolic link's content is
    where it leads.
    """

    name: bytes
    mode: int
    size: int
    content: Iterator[bytes]

    def read(self, limit: int = 16 * MIB) -> bytes:
        """All of the content.

        Raises:
            FormatError: when it is more than `limit` bytes, or cut off.
        """
        if self.size > limit:
            raise FormatError(f"the initramfs holds {human(self.size)} of {self.name!r}")
        return b"".join(self.content)


class Budget:
    """How many bytes of initramfs may still be read and unpacked."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def spent(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces."""
        for piece in pieces:
            self.spend(len(piece))
            yield piece

    def spend(self, size: int) -> None:
        """Take so many bytes.

        Raises:
            FormatError: when there are not as many left.
        """
        self._left -= size
        if self._left < 0:
            raise FormatError(
                f"the initramfs holds more than {human(self._limit)}, or those before it do"
            )


def members(file: BinaryIO, budget: Budget | None = None) -> Iterator[Member]:
    """What all archives in an initramfs hold, in their order; the same name may come more than once.

    Args:
        file: the initramfs, open for reading; it is only read forward.
        budget: what it shares with others; otherwise it is `LIMIT`.

    Raises:
        FormatError: when it is damaged, cut off, compressed in an unknown way, or holds more than the budget.
        OSError: when it cannot be read.
    """
    budget = budget or Budget(LIMIT)
    source = Source(budget.spent(iter(lambda: file.read(MIB), b"")))
    while _skipped_zeros(source):
        if _HEADER.match(source.peek(_HEADER_SIZE)):
            yield from _archive(source, budget)
        else:
            unpacked = Source(budget.spent(decompressed(source)))
            while _skipped_zeros(unpacked):
                yield from _archive(unpacked, budget)


def _skipped_zeros(source: Source) -> bool:
    """Go on to what is no padding; whether there is anything."""
    while start := source.peek(4 * KIB):
        rest = start.lstrip(b"\0")
        source.exactly(len(start) - len(rest))
        if rest:
            return True
    return False


def _archive(source: Source, budget: Budget) -> Iterator[Member]:
    while True:
        budget.spend(_LEAST_SPENT)
        header = _HEADER.fullmatch(source.exactly(_HEADER_SIZE))
        if header is None:
            raise FormatError("the initramfs is damaged: what should be an archive is none")
        fields = [int(header[1][at : at + 8], 16) for at in range(0, 104, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = _name(source, name_size)
        if name == _END:
            return
        content = source.chunks(size)
        yield Member(name.removeprefix(b"./").lstrip(b"/"), mode, size, content)
        for _ in content:
            pass
        source.exactly(-size % 4)


def _name(source: Source, size: int) -> bytes:
    if not 0 < size <= _LONGEST_NAME:
        raise FormatError("the initramfs is damaged: it has a name that is too long")
    name = source.exactly(size)
    source.exactly(-(_HEADER_SIZE + size) % 4)
    if name[-1:] != b"\0" or b"\0" in name[:-1]:
        raise FormatError("the initramfs is damaged: it has a name without an end")
    return name[:-1]
