"""What a kernel can unpack of an initramfs: bytes out of pieces, and pieces out of compressed bytes, within bounds."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator

import zstandard

from etsclone.errors import FormatError
from etsclone.units import KIB, MIB

_ZSTD_FEED = 512
"""Bytes given to a decompressor of zstd at once: it cannot be told how much to yield, and this is 16 MiB at most."""

_PIECE = MIB
_MEMORY = 128 * MIB
"""What a dictionary or window may take: the most that the kernel's own decompressors accept."""

_LZ4_BLOCK = 8 * MIB
_LZ4_MAGIC = b"\x02\x21\x4c\x18"


class Source:
    """Bytes in the amounts that are asked for, out of pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self._at = 0

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, or as many as there are, which stay where they are."""
        while len(self._rest) - self._at < count and (piece := next(self._pieces, b"")):
            self._rest, self._at = self._rest[self._at :] + piece, 0
        return self._rest[self._at : self._at + count]

    def upto(self, count: int) -> bytes:
        """The next bytes: at least one and at most `count`; none at the end."""
        taken = self.peek(1) and self._rest[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def chunks(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes in pieces; raises `FormatError` when there are fewer."""
        while count:
            piece = self.upto(min(count, _PIECE))
            if not piece:
                raise FormatError("the initramfs is cut off")
            count -= len(piece)
            yield piece

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes; raises `FormatError` when there are fewer."""
        return b"".join(self.chunks(count))

    def give_back(self, taken: bytes) -> None:
        """Put bytes that were taken too many in front of the rest."""
        self._rest, self._at = taken + self._rest[self._at :], 0


def decompressed(source: Source) -> Iterator[bytes]:
    """What the compressed stream at the beginning of `source` holds.

    Once it is read to its end, `source` goes on behind the stream. Known are gzip, bzip2, xz, lzma, zstd and lz4's
    legacy frames: what Linux unpacks, but for lzo.

    Raises:
        FormatError: here, when it begins like none of them; while it is read, when it is damaged or cut off.
    """
    start = source.peek(8)
    for magic, pieces in _FORMATS:
        if start.startswith(magic):
            return _typed_errors(pieces(source))
    raise FormatError(
        f"the initramfs is compressed in no known way: it begins with {start.hex(' ')}"
    )


def _typed_errors(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, without empty ones; what a decompressor complains of is a `FormatError`."""
    try:
        yield from filter(None, pieces)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise FormatError(f"the initramfs is damaged: {error}") from error


def _gzip(source: Source) -> Iterator[bytes]:
    worker = zlib.decompressobj(wbits=31)
    tail = b""
    while not worker.eof:
        piece = worker.decompress(tail or _feed(source), _PIECE)
        tail = worker.unconsumed_tail
        yield piece
    source.give_back(worker.unused_data)


def _bzip2(source: Source) -> Iterator[bytes]:
    return _stepped(source, bz2.BZ2Decompressor())


def _xz(source: Source) -> Iterator[bytes]:
    return _stepped(source, lzma.LZMADecompressor(memlimit=_MEMORY))


def _stepped(
    source: Source, worker: bz2.BZ2Decompressor | lzma.LZMADecompressor
) -> Iterator[bytes]:
    while not worker.eof:
        yield worker.decompress(_feed(source) if worker.needs_input else b"", _PIECE)
    source.give_back(worker.unused_data)


def _zstd(source: Source) -> Iterator[bytes]:
    worker = zstandard.ZstdDecompressor(max_window_size=_MEMORY).decompressobj()
    while not worker.eof:
        yield worker.decompress(_feed(source, _ZSTD_FEED))
    source.give_back(worker.unused_data)


def _feed(source: Source, count: int = 64 * KIB) -> bytes:
    block = source.upto(count)
    if not block:
        raise FormatError("the initramfs is cut off")
    return block


def _lz4(source: Source) -> Iterator[bytes]:
    """Legacy frames (lz4_Frame_format.md): a magic number, then blocks with their lengths until the end."""
    while head := source.peek(4):
        size = int.from_bytes(head, "little")
        if head == _LZ4_MAGIC:
            source.exactly(4)
        elif 0 < size <= 2 * _LZ4_BLOCK:
            source.exactly(4)
            yield _lz4_block(source.exactly(size))
        else:
            return  # zeros that fill up, or another archive


def _lz4_block(data: bytes) -> bytes:
    """Decode one block (lz4_Block_format.md) of at most 8 MiB."""
    out = bytearray()
    at = 0
    try:
        while True:
            token = data[at]
            count, at = _lz4_length(data, at + 1, token >> 4)
            out += data[at : at + count]
            at += count
            if at >= len(data):
                break
            offset = data[at] | data[at + 1] << 8
            count, at = _lz4_length(data, at + 2, token & 15)
            _repeat(out, offset, count + 4)
    except IndexError:
        at = len(data) + 1
    if at != len(data):
        raise FormatError("the initramfs is damaged: a block is cut off")
    return bytes(out)


def _lz4_length(data: bytes, at: int, count: int) -> tuple[int, int]:
    """A length that begins with four bits of a token, and where it ends."""
    if count == 15:
        while (more := data[at]) == 255:
            count, at = count + 255, at + 1
        count, at = count + more, at + 1
    return count, at


def _repeat(out: bytearray, offset: int, count: int) -> None:
    """Append `count` bytes of those that begin `offset` bytes before the end; they may overlap what they append."""
    if not 0 < offset <= len(out) or len(out) + count > _LZ4_BLOCK:
        raise FormatError("the initramfs is damaged: a block refers to what it does not hold")
    start = len(out) - offset
    if offset >= count:
        out += out[start : start + count]
    else:
        out += (out[start:] * (count // offset + 1))[:count]


_FORMATS: tuple[tuple[bytes, Callable[[Source], Iterator[bytes]]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bzip2),
    (b"\xfd7zXZ\0", _xz),
    (b"\x5d\0\0", _xz),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (_LZ4_MAGIC, _lz4),
)
