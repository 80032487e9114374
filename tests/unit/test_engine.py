"""The copy engine on plain files, against a model that is two byte strings."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.copying.engine import Tuning, compare, copy, read_back
from etsclone.errors import ComparisonFailed, DeviceError
from etsclone.model.extents import Extent, Extents

SIZE = 4096
TUNING = Tuning(block_size=256, workers=3)
ONE_AT_A_TIME = Tuning(block_size=256, workers=1)

extents = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, 700)).map(
        lambda pair: Extent(pair[0], min(sum(pair), SIZE))
    ),
    max_size=6,
).map(Extents.of)
# Bytes with long runs of zeros, as disks have them.
contents = st.lists(
    st.tuples(st.sampled_from([b"\0", b"\0", b"a", b"b"]), st.integers(1, 600)), max_size=12
).map(lambda runs: b"".join(byte * count for byte, count in runs)[:SIZE].ljust(SIZE, b"\0"))


def ignore(_count: int) -> None:
    """For callers that do not look at progress."""


@contextmanager
def disks(folder: Path, *disks: bytes) -> Iterator[list[int]]:
    with ExitStack() as stack:
        descriptors = []
        for number, content in enumerate(disks):
            path = folder / f"disk{number}"
            path.write_bytes(content)
            descriptor = os.open(path, os.O_RDWR)
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        yield descriptors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disks")


def content_of(descriptor: int) -> bytes:
    return os.pread(descriptor, SIZE + 1, 0)


@given(contents, contents, extents)
def test_exactly_the_extents_are_copied(
    folder: Path, old: bytes, new: bytes, some: Extents
) -> None:
    done: list[int] = []
    with disks(folder, new, old) as (source, target):
        copy(source, target, some, tuning=TUNING, target_is_zero=False, advance=done.append)
        expected = bytearray(old)
        for extent in some:
            expected[extent.start : extent.end] = new[extent.start : extent.end]
        assert content_of(target) == expected
        assert content_of(source) == new
    assert sum(done) == some.size


@given(contents, extents)
def test_skipping_zeros_makes_no_difference(folder: Path, new: bytes, some: Extents) -> None:
    with disks(folder, new, bytes(SIZE), bytes(SIZE)) as (source, skipped, written):
        first = copy(source, skipped, some, tuning=TUNING, target_is_zero=True, advance=ignore)
        other = copy(source, written, some, tuning=TUNING, target_is_zero=False, advance=ignore)
        assert content_of(skipped) == content_of(written)
        assert first.tree_hash() == other.tree_hash()


def test_blocks_of_zeros_are_not_written_where_zeros_are_known_to_be(tmp_path: Path) -> None:
    marked = b"x" * SIZE  # if the promise were kept these were zeros
    with disks(tmp_path, bytes(SIZE), marked) as (source, target):
        copy(
            source,
            target,
            Extents.between(0, SIZE),
            tuning=TUNING,
            target_is_zero=True,
            advance=ignore,
        )
        assert content_of(target) == marked


@given(contents, extents.filter(lambda some: some.size > 0), st.data())
def test_read_back_finds_a_single_bit(
    folder: Path, content: bytes, some: Extents, data: st.DataObject
) -> None:
    extent = data.draw(st.sampled_from(some.ranges))
    position = data.draw(st.integers(extent.start, extent.end - 1))
    with disks(folder, content, bytes(SIZE)) as (source, target):
        digests = copy(source, target, some, tuning=TUNING, target_is_zero=False, advance=ignore)
        read_back(target, digests, tuning=TUNING, advance=ignore)
        flip(target, position)
        with pytest.raises(ComparisonFailed, match="the target differs") as caught:
            read_back(target, digests, tuning=TUNING, advance=ignore)
    start, end = (int(word) for word in caught.value.message.split() if word.isdecimal())
    assert start <= position < end
    assert end - start <= TUNING.block_size


@given(contents, extents, st.integers(0, SIZE - 1))
def test_compare_names_the_block_that_differs(
    folder: Path, content: bytes, some: Extents, position: int
) -> None:
    block = Extents.between(position - position % 256, position - position % 256 + 256)
    with disks(folder, content, content) as (source, target):
        assert compare(source, target, some, tuning=TUNING, advance=ignore) == Extents()
        flip(target, position)
        different = compare(source, target, some, tuning=TUNING, advance=ignore)
    inside = any(extent.start <= position < extent.end for extent in some)
    assert different.size == 0 or different & block & some == different
    assert (Extents.between(position, position + 1) & different).size == inside


@pytest.mark.parametrize("short", ["source", "target"])
def test_a_disk_that_ends_early_is_a_device_error(tmp_path: Path, short: str) -> None:
    whole, half = bytes(range(256)) * 16, bytes(range(256)) * 8
    everything = Extents.between(0, SIZE)
    contents = (half, whole) if short == "source" else (whole, half)
    with (
        disks(tmp_path, *contents) as (source, target),
        pytest.raises(DeviceError, match=f"the {short} ends early"),
    ):
        compare(source, target, everything, tuning=ONE_AT_A_TIME, advance=ignore)


@pytest.mark.parametrize(
    ("modes", "message"),
    [
        pytest.param((os.O_WRONLY, os.O_RDWR), "source cannot be read", id="source"),
        pytest.param((os.O_RDWR, os.O_RDONLY), "target cannot be written", id="target"),
    ],
)
def test_a_disk_that_refuses_is_a_device_error(
    tmp_path: Path, modes: tuple[int, int], message: str
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    with ExitStack() as stack:
        source, target = (os.open(path, mode) for mode in modes)
        stack.callback(os.close, source)
        stack.callback(os.close, target)
        everything = Extents.between(0, SIZE)
        with pytest.raises(DeviceError, match=f"the {message} at byte"):
            copy(source, target, everything, tuning=TUNING, target_is_zero=False, advance=ignore)


def flip(descriptor: int, position: int) -> None:
    (byte,) = os.pread(descriptor, 1, position)
    os.pwrite(descriptor, bytes([byte ^ 1]), position)
