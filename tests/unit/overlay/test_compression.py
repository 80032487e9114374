"""One frame of zstd, read a few blocks at a time: whatever it claims, no piece is longer than those may be."""

import io
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from payloads import frame

from etsclone.errors import HostilePayload
from etsclone.overlay.compression import decompressed
from etsclone.units import GIB, KIB, MIB

BLOCK = 128 * KIB
MOST = 8 * BLOCK
NOISE = bytes(zstandard.ZstdCompressor(level=1).compress(bytes(range(256)) * 64)) * 100
TEXT = b"".join(b"./srv/file-%d type=file mode=0644\n" % number for number in range(20_000))


class Trickle(io.RawIOBase):
    """A pipe that gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._data.read(min(size, 7) if size > 0 else size)


def read(data: bytes, limit: int = GIB) -> bytes:
    return b"".join(decompressed(io.BytesIO(data), limit))


@pytest.mark.parametrize("content", [b"", b"a", bytes(3 * MIB), NOISE, TEXT, NOISE + bytes(MIB)])
@pytest.mark.parametrize("level", [1, 9, 19])
def test_reads_what_was_written(content: bytes, level: int) -> None:
    pieces = list(decompressed(io.BytesIO(frame(content, level)), GIB))
    assert b"".join(pieces) == content
    assert all(0 < len(piece) <= MOST for piece in pieces)


@pytest.mark.parametrize("size", [False, True])
def test_reads_frames_of_any_header(*, size: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_checksum=True, write_content_size=size)
    for content in (b"", b"x" * 300, bytes(70_000), TEXT):
        assert read(compressor.compress(content)) == content


def test_a_frame_without_a_checksum_is_refused() -> None:
    with pytest.raises(HostilePayload, match="no checksum"):
        read(zstandard.compress(TEXT))


def test_the_size_in_the_header_must_be_true() -> None:
    for size in (0, 1, 299, 301):
        sound = zstandard.ZstdCompressor(write_checksum=True).compress(b"x" * 300)
        head = zstandard.frame_header_size(sound)
        assert (head, sound[5:7]) == (7, (300 - 256).to_bytes(2, "little"))  # RFC 8878, 3.1.1.1.4
        one_byte = bytes([sound[4] & 0x3F | 0x20, size & 255])  # a single segment of less than 256
        with pytest.raises(HostilePayload):
            read(sound[:4] + one_byte + sound[head:])


def test_a_stream_may_give_less_than_it_is_asked_for() -> None:
    assert b"".join(decompressed(Trickle(frame(TEXT)), GIB)) == TEXT  # type: ignore[arg-type]


def test_a_bomb_is_bounded_while_it_is_read() -> None:
    bomb = frame(bytes(200 * MIB), 19)
    assert len(bomb) < 64 * KIB
    sizes: list[int] = []
    with pytest.raises(HostilePayload, match=r"more than 1\.00 MiB"):
        sizes.extend(map(len, decompressed(io.BytesIO(bomb), MIB)))
    assert max(sizes) <= MOST
    assert sum(sizes) <= MIB


def test_is_refused_wherever_it_is_cut_off() -> None:
    sound = frame(TEXT[:1000] + bytes(5000))
    for length in range(len(sound)):
        with pytest.raises(HostilePayload):
            read(sound[:length])


def test_nothing_may_follow() -> None:
    for more in (b"\0", frame(b""), b"\x50\x2a\x4d\x18\x04\0\0\0abcd"):
        with pytest.raises(HostilePayload, match="followed by something else"):
            read(frame(TEXT) + more)


def test_a_frame_that_readers_skip_is_none() -> None:
    with pytest.raises(HostilePayload, match="does not begin"):
        read(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + frame(TEXT))


def test_a_block_that_claims_too_much_is_refused() -> None:
    head = frame(b"")[:6]
    for kind in (0, 1, 2):
        start = (1 | kind << 1 | (BLOCK + 1) << 3).to_bytes(3, "little")
        with pytest.raises(HostilePayload, match="too long"):
            read(head + start + bytes(BLOCK + 1))


@given(
    position=st.integers(min_value=0),
    value=st.integers(min_value=0, max_value=255),
    content=st.sampled_from([TEXT[:400], bytes(300_000), TEXT[:100] + bytes(200_000)]),
)
def test_no_byte_makes_a_piece_longer(position: int, value: int, content: bytes) -> None:
    data = bytearray(frame(content))
    data[position % len(data)] = value
    with suppress(HostilePayload):
        for piece in decompressed(io.BytesIO(bytes(data)), GIB):
            assert len(piece) <= MOST
