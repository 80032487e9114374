"""What is remembered of a path tells it from what it becomes."""

import os
import stat

import pytest

from etsclone.overlay.remembered import marks_of


@pytest.mark.parametrize("seconds", [2**34 - 1, 2**63 - 1, -(2**62)])
def test_times_beyond_64_bits_of_nanoseconds_are_known_again(seconds: int) -> None:
    words = [stat.S_IFREG, 7, 1, 1, 0, 0, 0, 0, 0, 0, *[0.0] * 3]
    late, later = (
        os.stat_result([*words, *[(seconds + more) * 10**9] * 3, *[0] * 3]) for more in (0, 1)
    )
    assert late.st_mtime_ns == seconds * 10**9
    assert marks_of([late], 1) == marks_of([late], 1) != marks_of([later], 1)
