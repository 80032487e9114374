"""Names and texts as people see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.model.tree import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"/etc/hosts", "/etc/hosts"),
        ("/etc/für".encode(), "/etc/für"),
        (b"x\n", r"x\n"),
        (rb"x\n", r"x\\n"),
        (b"x\xff", r"x\xff"),
        (rb"x\xff", r"x\\xff"),
        (b"x\x1b[2J", r"x\x1b[2J"),
    ],
)
def test_a_name_is_one_line(name: bytes, shown: str) -> None:
    assert printable(name) == shown
    assert printable(printable(name)) == shown  # whoever prints a message escapes nothing twice


def test_the_backslashes_of_a_text_stay() -> None:
    assert printable(r"grep '\.conf$'" + "\n") == r"grep '\.conf$'\n"


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_no_two_names_look_the_same(one: bytes, other: bytes) -> None:
    assert (printable(one) == printable(other)) == (one == other)
