import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.units import GIB, KIB, MIB, align_down, align_up, human


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
