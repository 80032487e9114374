from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.commands.brd.capture import Captured
from etsclone.units import (
    GIB,
    KIB,
    MIB,
    align_down,
    align_up,
    counted,
    human,
    human_age,
    parse_age,
    parse_size,
)


@given(st.integers(0, 2**64), st.integers(1, 2**20))
def test_alignment_is_the_nearest_multiple(value: int, step: int) -> None:
    down, up = align_down(value, step), align_up(value, step)
    assert down % step == up % step == 0
    assert value - step < down <= value <= up < value + step


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.00 KiB"),
        (1474560, "1.41 MiB"),
        (999 * KIB, "999 KiB"),
        (1000 * KIB, "0.98 MiB"),
        (10 * MIB, "10.0 MiB"),
        (233 * GIB, "233 GiB"),
        (5000 * 1024**5, "5000 PiB"),
    ],
)
def test_people_read_three_digits(size: int, text: str) -> None:
    assert human(size) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 64 * KIB),
        ("64k", 64 * KIB),
        ("64KiB", 64 * KIB),
        ("64kB", 64 * KIB),
        ("1.5M", 3 * MIB // 2),
        (" 2GiB ", 2 * GIB),
        ("3T", 3 * KIB * GIB),
        ("1P", MIB * GIB),
        ("5B", 5),
        ("9007199254740993", 9007199254740993),
        ("9007199254740993K", 9007199254740993 * KIB),
    ],
)
def test_people_write_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "-1", "1 K", "1..5M", "1.M", ".5M", "1E", "0x10", "1KK", "one", "1,5M", "٣"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@given(st.integers(0, 999), st.sampled_from("KMGTP"))
def test_what_is_shown_can_be_typed(number: int, unit: str) -> None:
    size = parse_size(f"{number}{unit}")
    if number:
        assert parse_size(human(size).replace(" ", "")) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("36h", 129_600), (" 2d ", 172_800), ("1w", 604_800), ("0s", 0)],
)
def test_ages_as_people_write_them(text: str, seconds: int) -> None:
    assert parse_age(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "2", "d", "-1d", "2 d", "1y", "1.5h", "1000000s", "2D", "\u0662d"]
)
def test_no_age(text: str) -> None:
    with pytest.raises(ValueError, match="not a length of time"):
        parse_age(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 m"),
        (7199, "119 m"),
        (7200, "2 h"),
        (172_800, "2 d"),
        (15 * 86400, "2 w"),
        (-7200, "-2 h"),
    ],
)
def test_ages_for_people(seconds: int, text: str) -> None:
    assert human_age(timedelta(seconds=seconds)) == text


def test_one_is_not_many() -> None:
    assert [counted(number, "file") for number in range(3)] == ["0 files", "1 file", "2 files"]
    assert [counted(number, "byte", "is", "are") for number in range(3)] == [
        "0 bytes are",
        "1 byte is",
        "2 bytes are",
    ]


def test_a_capture_tells_of_one_path() -> None:
    amounts = Captured("host", 1, 1, 1, (), ()).amounts
    assert amounts == (
        "1 path of the role is kept, 1 path of the system is listed, 1 file was read for it"
    )
    assert Captured("host", 2, 0, 3, (), ()).amounts == (
        "2 paths of the role are kept, 0 paths of the system are listed, 3 files were read for it"
    )
