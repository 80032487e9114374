"""zstd (RFC 8878) as overlays use it: one frame with a content checksum, read within bounds."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

import zstandard

from etsclone.errors import HostilePayload
from etsclone.units import MIB, human

WINDOW = 128 * MIB
"""The memory that a frame may ask for: the default limit of `zstd -d`, so both read the same files."""

_FEED = 512
"""Bytes given to the decompressor at once. Four bytes can stand for 128 KiB, so one feed yields 16 MiB at most."""


def compressed(out: BinaryIO, level: int) -> AbstractContextManager[BinaryIO]:
    """A file to write to whose bytes arrive compressed in `out`; the frame ends with the `with` block."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
    return compressor.stream_writer(out, closefd=False)


def decompressed(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    """The content of the one frame that `stream` holds, in pieces.

    Raises:
        HostilePayload: when it is no such frame, is cut off, is followed by anything, asks for too much memory, or
            holds more than `limit` bytes.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
    total = 0
    while not decompressor.eof:
        block = stream.read(_FEED)
        if not block:
            raise HostilePayload("compressed data is cut off")
        try:
            piece = decompressor.decompress(block)
        except zstandard.ZstdError as error:
            raise HostilePayload(f"compressed data is damaged: {error}") from error
        total += len(piece)
        if total > limit:
            raise HostilePayload(f"compressed data holds more than {human(limit)}")
        if piece:
            yield piece
    if decompressor.unused_data or stream.read(1):
        raise HostilePayload("compressed data is followed by something else")


class Source:
    """Bytes in exact amounts, out of pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def chunks(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes in pieces.

        Raises:
            HostilePayload: when there are fewer.
        """
        while count:
            if not self._rest and not self._advance():
                raise HostilePayload("archive is cut off")
            piece, self._rest = self._rest[:count], self._rest[count:]
            count -= len(piece)
            yield piece

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes; raises `HostilePayload` when there are fewer."""
        return b"".join(self.chunks(count))

    def end(self) -> None:
        """Raises `HostilePayload` when anything is left."""
        if self._rest or self._advance():
            raise HostilePayload("archive is followed by something else")

    def _advance(self) -> bool:
        self._rest = memoryview(next(self._pieces, b""))
        return bool(self._rest)


def lines(pieces: Iterator[bytes], longest: int) -> Iterator[bytes]:
    """The lines that `pieces` make up, without their ends.

    Raises:
        HostilePayload: for a line of more than `longest` bytes, or when the last one has no end.
    """
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > longest or any(len(line) > longest for line in whole):
            raise HostilePayload("line is too long")
        yield from whole
    if rest:
        raise HostilePayload("last line is cut off")
