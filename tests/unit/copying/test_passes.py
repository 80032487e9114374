"""The copy pass on plain files, against a model that is two byte strings."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from copies import (
    ALL,
    PIECE,
    SIZE,
    TUNING,
    content_of,
    contents,
    copying,
    extents,
    one_at_a_time,
    overlaid,
    unreadable,
)
from hypothesis import given
from hypothesis import strategies as st

from etsclone.copying.passes import RateLimit, copy_pass
from etsclone.copying.pieces import UNKNOWN, digests_of
from etsclone.errors import DeviceError
from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus


@given(contents, contents, extents(), st.booleans())
def test_exactly_the_extents_are_copied(
    folder: Path, old: bytes, new: bytes, some: Extents, backward: bool
) -> None:
    done: list[int] = []

    def advance(count: int, unreadable: int = 0, /) -> None:
        assert unreadable == 0
        done.append(count)

    with copying(folder, new, old, some) as run:
        copy_pass(replace(run, advance=advance), some, backward=backward)
        assert content_of(run.target) == overlaid(old, new, some)
        assert content_of(run.source) == new
        assert run.state.area(BlockStatus.FINISHED) == some
        assert run.state.not_tried(some) == Extents()
    assert sum(done) == some.size


@given(contents, extents(PIECE))
def test_digests_are_those_of_the_source(folder: Path, new: bytes, some: Extents) -> None:
    with copying(folder, new, bytes(SIZE), some) as run:
        copy_pass(run, some)
        for extent in some:
            expected = digests_of(extent, memoryview(new)[extent.start : extent.end])
            assert run.digests.known(extent) == expected


@given(contents, extents())
def test_skipping_zeros_makes_no_difference(folder: Path, new: bytes, some: Extents) -> None:
    with copying(folder, new, bytes(SIZE), some, target_is_zero=True) as run:
        copy_pass(run, some)
        assert content_of(run.target) == overlaid(bytes(SIZE), new, some)


def test_blocks_of_zeros_are_not_written_where_zeros_are_known_to_be(tmp_path: Path) -> None:
    marked = b"x" * SIZE  # if the promise were kept these were zeros
    with copying(tmp_path, bytes(SIZE), marked, target_is_zero=True) as run:
        copy_pass(run, ALL)
        assert content_of(run.target) == marked
        assert UNKNOWN not in run.digests.known(Extent(0, PIECE))


@given(contents, extents(PIECE), extents(PIECE))
def test_what_an_error_leaves_is_told_to_the_byte(
    folder: Path, new: bytes, some: Extents, bad: Extents
) -> None:
    old = b"\xff" * SIZE
    with copying(folder, new, old, some) as run, unreadable(run.source, bad):
        copy_pass(run, some, backward=True)
        done, failed = (
            run.state.area(status) for status in (BlockStatus.FINISHED, BlockStatus.NOT_TRIMMED)
        )
        assert done | failed == some
        assert done & failed == Extents()
        assert done & bad == Extents()
        assert content_of(run.target) == overlaid(old, new, done)


def test_after_an_error_it_jumps_ahead_and_further_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = TUNING.block_size
    monkeypatch.setattr("etsclone.copying.passes._Forward._FIRST_JUMP", block)
    with (
        copying(tmp_path, b"x" * SIZE, bytes(SIZE)) as run,
        unreadable(run.source, Extents.between(block, SIZE)) as tried,
    ):
        copy_pass(one_at_a_time(run), ALL)
        # The jumps are 1, 2 and 4 blocks long.
        assert [extent.start // block for extent in tried] == [0, 1, 3, 6, 11]
        assert run.state.area(BlockStatus.FINISHED) == Extents.between(0, block)
        assert len(run.state.not_tried(ALL)) == 4


@pytest.mark.parametrize(
    ("modes", "message"),
    [
        pytest.param((os.O_RDWR, os.O_RDONLY), "the target cannot be written at byte", id="write"),
        pytest.param((os.O_RDWR, os.O_RDWR), "the source ends early, at byte 4096", id="end"),
    ],
)
def test_a_disk_that_refuses_is_a_device_error(
    tmp_path: Path, modes: tuple[int, int], message: str
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * SIZE)
    with ExitStack() as stack, copying(tmp_path, b"", b"") as run:
        source, target = (os.open(path, mode) for mode in modes)
        stack.callback(os.close, source)
        stack.callback(os.close, target)
        with pytest.raises(DeviceError, match=message):
            copy_pass(replace(run, source=source, target=target), Extents.between(0, SIZE + PIECE))


@contextmanager
def clock() -> Iterator[list[float]]:
    """A clock that only sleeping moves on."""
    now = [100.0]

    def monotonic() -> float:
        return now[0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with (
        mock.patch("etsclone.copying.passes.time.monotonic", monotonic),
        mock.patch("etsclone.copying.passes.time.sleep", sleep),
    ):
        yield now


@given(st.lists(st.integers(1, 10**6), min_size=1), st.integers(1, 10**6))
def test_a_rate_limit_is_what_passes_in_the_time(sizes: list[int], rate: int) -> None:
    with clock() as now:
        limit = RateLimit(rate)
        for size in sizes:
            limit.wait(size)
        assert now[0] - 100 == pytest.approx(sum(sizes) / rate)


def test_idle_time_is_not_saved_up() -> None:
    with clock() as now:
        limit = RateLimit(10)
        now[0] += 1000
        limit.wait(50)
        assert now[0] == 1105


def test_without_a_limit_nobody_waits() -> None:
    with clock() as now:
        RateLimit(None).wait(10**12)
        assert now[0] == 100
