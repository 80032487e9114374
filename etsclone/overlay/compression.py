"""zstd (RFC 8878) as overlays use it: one frame with a content checksum, read within bounds."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, cast

import zstandard

from etsclone.errors import HostilePayload
from etsclone.units import KIB, MIB, human

WINDOW = 128 * MIB
"""The memory that a frame may ask for: the default limit of `zstd -d`, so both read the same files."""

_MAGIC = b"\x28\xb5\x2f\xfd"
_HAS_CHECKSUM = 4
"""The bit for it in the fifth byte, the descriptor."""

_BLOCK_HEAD, _CHECKSUM = 3, 4
_BLOCK_MOST = 128 * KIB
"""The most that one block may stand for, in whatever way it is written."""

_LONGEST_PART = _BLOCK_HEAD + _BLOCK_MOST
_RLE, _COMPRESSED = 1, 2
_UNKNOWN = -1
"""What python-zstandard says of a frame whose header does not tell the size of its content."""


def compressed(
    out: BinaryIO, level: int, expected: int | None = None
) -> AbstractContextManager[BinaryIO]:
    """A file to write to whose bytes arrive compressed in `out`; the frame ends with the `with` block.

    Args:
        out: where they arrive.
        level: how hard to try; the high ones prepare tables for megabytes, which takes longer than a small content.
        expected: about how many bytes will be written, so that no larger tables are made; None is not to know.
    """
    wishes = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=max(expected, MIB) if expected is not None else 0, write_checksum=True
    )
    return zstandard.ZstdCompressor(compression_params=wishes).stream_writer(out, closefd=False)


class Unpacked:
    """The content of the one frame that `stream` holds, to be read like a file, in order.

    Args:
        stream: the frame; it need not be seekable.
        limit: how many bytes of content are read at most.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._frame = _Frame(stream)
        self._limit = limit
        self._total = 0
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        file = cast("BinaryIO", self._frame)  # of a file only `read` is used
        self._content = decompressor.stream_reader(file, read_size=_LONGEST_PART)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer, or less of it where the content ends; how many bytes it was, 0 behind the end.

        Raises:
            HostilePayload: when it is no such frame, has no checksum, is cut off, is followed by anything, asks for
                too much memory, or holds more than the limit.
        """
        try:
            count = self._content.readinto(buffer)
        except zstandard.ZstdError as error:
            raise HostilePayload(f"compressed data is damaged: {error}") from error
        self._total += count
        if self._total > self._limit:
            raise HostilePayload(f"compressed data holds more than {human(self._limit)}")
        if not count:
            self._frame.check_end(self._total)
        return count


def decompressed(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    """The content of the one frame that `stream` holds, in pieces of at most 128 KiB; else as `Unpacked`."""
    unpacked = Unpacked(stream, limit)
    buffer = bytearray(_BLOCK_MOST)
    while count := unpacked.readinto(buffer):
        yield bytes(memoryview(buffer)[:count])


class _Frame:
    """A frame as a file that is read part by part."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._parts = _parts(stream)
        self._claimed: int | None = None

    def read(self, _size: int = -1, /) -> bytes:
        part = next(self._parts, b"")
        if self._claimed is None:  # the first part has the header
            self._claimed = zstandard.frame_content_size(part)
        return part

    def check_end(self, total: int) -> None:
        """Raises `HostilePayload` unless this is the end, behind a content of `total` bytes."""
        if next(self._parts, b"") or self._stream.read(1):
            raise HostilePayload("compressed data is followed by something else")
        # Fed block by block, zstd does not look at this when the last one is empty.
        if self._claimed not in (_UNKNOWN, total):
            raise HostilePayload("compressed data holds another size than it says")


def _parts(stream: BinaryIO) -> Iterator[bytes]:
    """What a frame is made of (RFC 8878, section 3.1.1): its header, each of its blocks, its checksum.

    What is no such part is told apart by whoever decompresses it; but no part is longer than a block may be.
    """
    head = _exactly(stream, len(_MAGIC) + 1)
    if not head.startswith(_MAGIC):
        raise HostilePayload("compressed data does not begin as a frame of zstd does")
    if not head[len(_MAGIC)] & _HAS_CHECKSUM:
        raise HostilePayload("compressed data has no checksum of its content")
    yield head + _exactly(stream, zstandard.frame_header_size(head) - len(head))
    last = False
    while not last:
        start = _exactly(stream, _BLOCK_HEAD)
        word = int.from_bytes(start, "little")
        last, kind, size = bool(word & 1), word >> 1 & 3, word >> 3
        if size > _BLOCK_MOST:
            raise HostilePayload("compressed data is damaged: a block is too long")
        if kind == _COMPRESSED and not size:  # fed block by block, zstd passes over it
            raise HostilePayload("compressed data is damaged: a block lacks its content")
        yield start + _exactly(stream, 1 if kind == _RLE else size)
    yield _exactly(stream, _CHECKSUM)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    while len(data) < size:  # a pipe may give less than it is asked for
        more = stream.read(size - len(data))
        if not more:
            raise HostilePayload("compressed data is cut off")
        data += more
    return data


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
