import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import os
import random
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from cpio import archive, entry, padded
from hypothesis import given, settings
from hypothesis import strategies as st

from etsclone.boot import initramfs
from etsclone.boot.initramfs import members
from etsclone.boot.unpacking import Source, decompressed
from etsclone.errors import FormatError
from etsclone.units import MIB

MICROCODE = padded(archive(("kernel/x86/microcode/GenuineIntel.bin", b"\x01" * 1001)), 512)
TEXT = b"".join(b"line %d of a file that repeats itself, repeats itself\n" % n for n in range(9000))
MAIN = archive(("init", TEXT), ("./etc/fstab", b""), ("/conf/conf.d/resume", b"RESUME=none\n"))
FOUND = [("init", TEXT), ("etc/fstab", b""), ("conf/conf.d/resume", b"RESUME=none\n")]


def lz4(data: bytes) -> bytes:
    return subprocess.run(["lz4", "-l", "-c", "-9"], input=data, stdout=-1, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "not": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": zstandard.ZstdCompressor(level=19).compress,
}


def read(data: bytes) -> list[tuple[str, bytes]]:
    return [(os.fsdecode(each.name), each.read()) for each in members(io.BytesIO(data))]


def names(data: bytes) -> list[bytes]:
    return [each.name for each in members(io.BytesIO(data))]


@pytest.mark.parametrize("packer", PACKERS)
def test_an_archive_behind_an_early_one(packer: str) -> None:
    found = read(MICROCODE + PACKERS[packer](MAIN) + bytes(700))
    assert found[0] == ("kernel/x86/microcode/GenuineIntel.bin", b"\x01" * 1001)
    assert found[1:] == FOUND


def test_lz4_of_the_kernels_kind() -> None:
    noise = random.Random(4).randbytes(9 * MIB) + bytes(MIB)  # more than one block, and long runs
    packed = lz4(archive(("noise", noise), ("init", TEXT)))
    assert read(packed + bytes(3) + packed) == [("noise", noise), ("init", TEXT)] * 2


@pytest.mark.parametrize("first", PACKERS)
@pytest.mark.parametrize("second", PACKERS)
def test_archives_follow_each_other_however_compressed(first: str, second: str) -> None:
    data = PACKERS[first](MAIN) + bytes(8) + PACKERS[second](archive(("other", b"x")) + MICROCODE)
    assert [name for name, _ in read(data)][len(FOUND) :] == [
        "other",
        "kernel/x86/microcode/GenuineIntel.bin",
    ]


def test_what_is_not_read_is_passed_over() -> None:
    assert names(MICROCODE + gzip.compress(MAIN))[1:] == [name.encode() for name, _ in FOUND]


def test_kinds_are_told_apart() -> None:
    data = entry("lib", b"usr/lib", mode=0o120777) + entry("x", b"", magic="070702") + archive()
    first, second = members(io.BytesIO(data))
    assert (first.mode, first.size, second.mode) == (0o120777, 7, 0o100644)


def test_an_empty_file_holds_nothing() -> None:
    assert read(b"") == read(bytes(9000)) == []


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_cut_off(packer: str, kept: float) -> None:
    whole = PACKERS[packer](MAIN)
    with pytest.raises(
        FormatError, match=r"the initramfs is (cut off|compressed in no known way|damaged)"
    ):
        read(whole[: int(len(whole) * kept)])


@pytest.mark.parametrize(
    "garbage",
    [
        b"MZ\x90\0 no initramfs at all",
        b"\x89LZO\0\r\n\x1a\n",
        b"070701" + b"G" * 104,
        b"070701" + b"0" * 88 + b"FFFFFFFF" + b"0" * 8,  # a name of 4 GiB
        b"070701" + b"0" * 104,  # no name
        padded(b"070701" + b"0" * 94 + b"02" + b"0" * 8 + b"ab"),  # a name without an end
        gzip.compress(b"no archive"),
        gzip.compress(gzip.compress(MAIN)),
        gzip.compress(MAIN)[:-8] + bytes(8),  # the checksum is wrong
        archive(("init", b""), end=False),
        MAIN + b"\0\0\0\1",
    ],
    ids=itertools.count(),  # bytes would be the names, and gzip puts the time into them
)
def test_garbage_is_a_typed_error(garbage: bytes) -> None:
    with pytest.raises(FormatError):
        read(garbage)


@pytest.mark.parametrize("packer", [name for name in PACKERS if name != "not"])
def test_a_bomb_ends_early_and_in_little_memory(
    packer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initramfs, "LIMIT", 80 * MIB)
    bomb = PACKERS[packer](archive(("zeros", bytes(100 * MIB))))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=r"more than 80\.0 MiB"):
            names(bomb)
        assert tracemalloc.get_traced_memory()[1] < 60 * MIB
    finally:
        tracemalloc.stop()


def test_a_dictionary_that_is_too_large_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 * MIB}]
    packer = lzma.LZMACompressor(filters=filters)
    head = packer.compress(MAIN) + packer.flush()
    with pytest.raises(FormatError, match="damaged"):
        read(head)


def test_a_large_member_is_not_read_at_once() -> None:
    (member,) = members(io.BytesIO(archive(("big", bytes(2 * MIB)))))
    with pytest.raises(FormatError, match=r"holds 2\.00 MiB of"):
        member.read(MIB)


@settings(max_examples=300)
@given(
    st.sampled_from([MAIN[:2000], *(PACKERS[name](MAIN) for name in PACKERS)]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_is_a_typed_error_or_goes_unseen(data: bytes, bits: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for at, value in bits:
        damaged[at % len(damaged)] = value
    with contextlib.suppress(FormatError):
        read(bytes(damaged))


@given(st.binary(max_size=60))
def test_lz4_blocks_of_garbage(block: bytes) -> None:
    source = Source(iter([b"\x02\x21\x4c\x18" + len(block).to_bytes(4, "little") + block]))
    with contextlib.suppress(FormatError):
        assert sum(map(len, decompressed(source))) <= 8 * MIB


def test_what_was_taken_too_much_is_given_back() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"first") + packer.flush()
    source = Source(iter([packed + b"rest", b" of it"]))
    assert b"".join(decompressed(source)) == b"first"
    assert source.exactly(10) == b"rest of it"


def test_empty_files_without_number_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(*((f"{number}", b"") for number in range(1000)))
    assert len(names(data)) >= 1000
    monkeypatch.setattr(initramfs, "LIMIT", 2 * MIB)
    with pytest.raises(FormatError, match="holds more than"):
        names(data)
