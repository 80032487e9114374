"""Bringing an old clone up to date, and verifying what was written."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from copies import (
    ALL,
    PIECE,
    SECTOR,
    SIZE,
    TUNING,
    content_of,
    contents,
    copying,
    disks,
    extents,
    flip,
    overlaid,
)
from hypothesis import given
from hypothesis import strategies as st

from etsclone.copying import refresh as refresh_module
from etsclone.copying.job import CopyResult, copy_extents
from etsclone.copying.passes import CopyRun, copy_pass
from etsclone.copying.refresh import check_samples, refresh
from etsclone.copying.verify import compare, read_back
from etsclone.errors import ComparisonFailed, DeviceError
from etsclone.model.extents import Extents
from etsclone.model.plan import Copy, CopyMode, VerifyMode
from etsclone.progress import Report, Shown


def changed(old: bytes, places: Extents) -> bytes:
    return overlaid(old, bytes(byte ^ 1 for byte in old), places)


def rewrite(descriptor: int, content: bytes) -> None:
    os.pwrite(descriptor, content, 0)


def job(run: CopyRun, step: Copy) -> CopyResult:
    return copy_extents(
        run, step, sector_size=SECTOR, flush=lambda _: None, shown=Report(Shown.NOTHING)
    )


@given(contents, extents(), st.booleans())
def test_what_changed_is_written_and_nothing_else(
    folder: Path, old: bytes, places: Extents, believed: bool
) -> None:
    new = changed(old, places)
    with copying(folder, old, bytes(SIZE)) as run:
        copy_pass(run, ALL)
        rewrite(run.source, new)
        check_samples(run, ALL, Extents())
        written = refresh(run, ALL, believed=believed)
        assert content_of(run.target) == new
        assert written == places.aligned(PIECE, SIZE)
        read_back(run, ALL)


@given(contents, contents, extents(PIECE), extents(PIECE))
def test_when_other_blocks_are_used_by_now(
    folder: Path, old: bytes, new: bytes, before: Extents, now: Extents
) -> None:
    trash = b"\xff" * SIZE
    with copying(folder, old, trash, Extents.between(0, SIZE)) as run:
        copy_pass(run, before)
        rewrite(run.source, new)
        check_samples(run, now, Extents())
        written = refresh(run, now, believed=True)
        left = overlaid(trash, old, before)
        assert content_of(run.target) == overlaid(left, new, now)
        assert now - before - written == Extents()
        assert written - now == Extents()


@given(contents, extents(PIECE), st.integers(0, SIZE - 1))
def test_a_target_that_was_changed_in_a_sampled_block_is_not_believed(
    folder: Path, old: bytes, places: Extents, position: int
) -> None:
    new = changed(old, places)
    step = Copy(ALL, CopyMode.REFRESH, digests_kept=True)
    with copying(folder, old, bytes(SIZE)) as run:
        copy_pass(run, ALL)
        flip(run.target, position)  # of so few blocks, every one is sampled
        with pytest.raises(ComparisonFailed, match="not as the last clone left it"):
            check_samples(run, ALL, Extents())
        rewrite(run.source, new)
        result = job(run, step)
        assert content_of(run.target) == new
        assert result.written <= places.size + PIECE


@given(contents, contents)
def test_without_digests_both_sides_are_compared(folder: Path, old: bytes, new: bytes) -> None:
    with copying(folder, new, old) as run:
        result = job(run, Copy(ALL, CopyMode.REFRESH))
        assert content_of(run.target) == new
        differing = [n for n in range(0, SIZE, PIECE) if old[n : n + PIECE] != new[n : n + PIECE]]
        assert result.written == len(differing) * PIECE


@pytest.mark.parametrize("verify", VerifyMode)
@pytest.mark.parametrize("mode", [CopyMode.NEW, CopyMode.RESUME])
def test_a_copy_says_what_it_wrote(tmp_path: Path, mode: CopyMode, verify: VerifyMode) -> None:
    with copying(tmp_path, b"x" * SIZE, bytes(SIZE)) as run:
        result = job(run, Copy(ALL, mode, verify))
        assert (result.written, result.lost) == (SIZE, Extents())
        assert content_of(run.target) == b"x" * SIZE
        again = job(run, Copy(ALL, CopyMode.REFRESH, verify))
        assert (again.written, again.tree_hash) == (0, result.tree_hash)


@given(contents, extents().filter(lambda some: some.size > 0), st.booleans(), st.data())
def test_read_back_finds_a_single_bit(
    folder: Path, content: bytes, some: Extents, full: bool, data: st.DataObject
) -> None:
    extent = data.draw(st.sampled_from(some.ranges))
    position = data.draw(st.integers(extent.start, extent.end - 1))
    with copying(folder, content, bytes(SIZE), some) as run:
        copy_pass(run, some)
        read_back(run, some, full=full)
        flip(run.target, position)
        with pytest.raises(ComparisonFailed, match="the target differs") as caught:
            read_back(run, some, full=full)
    start, end = (int(word) for word in caught.value.message.split() if word.isdecimal())
    assert start <= position < end
    assert end - start <= PIECE


def test_only_a_full_verification_sees_a_source_that_changed_meanwhile(tmp_path: Path) -> None:
    with copying(tmp_path, b"x" * SIZE, bytes(SIZE)) as run:
        copy_pass(run, ALL)
        flip(run.source, 1000)
        read_back(run, ALL)
        with pytest.raises(ComparisonFailed, match="to bytes 960 to 1024"):
            read_back(run, ALL, full=True)


@given(contents, extents(), st.integers(0, SIZE - 1))
def test_compare_names_the_piece_that_differs(
    folder: Path, content: bytes, some: Extents, position: int
) -> None:
    piece = Extents.between(position - position % PIECE, position - position % PIECE + PIECE)
    with disks(folder, content, content) as (source, target):
        assert compare(source, target, some, tuning=TUNING, advance=lambda _: None) == Extents()
        flip(target, position)
        different = compare(source, target, some, tuning=TUNING, advance=lambda _: None)
    inside = any(extent.start <= position < extent.end for extent in some)
    assert different.size == 0 or different & piece & some == different
    assert (Extents.between(position, position + 1) & different).size == inside


@pytest.mark.parametrize("short", ["source", "target"])
def test_a_disk_that_ends_early_is_a_device_error(tmp_path: Path, short: str) -> None:
    whole, half = bytes(range(256)) * 16, bytes(range(256)) * 8
    one = replace(TUNING, workers=1)
    contents = (half, whole) if short == "source" else (whole, half)
    with (
        disks(tmp_path, *contents) as (source, target),
        pytest.raises(DeviceError, match=f"the {short} ends early"),
    ):
        compare(source, target, ALL, tuning=one, advance=lambda _: None)


@pytest.mark.parametrize(("position", "found"), [(3 * PIECE + 5, True), (5 * PIECE, False)])
def test_the_beginnings_of_filesystems_are_always_looked_at(
    folder: Path, position: int, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh_module, "SAMPLES", 0)
    marks = Extents.between(3 * PIECE, 4 * PIECE)
    with copying(folder, bytes(range(256)) * (SIZE // 256), bytes(SIZE)) as run:
        copy_pass(run, ALL)
        flip(run.target, position)
        caught = False
        try:
            check_samples(run, ALL, marks)
        except ComparisonFailed:
            caught = True
    assert caught is found
