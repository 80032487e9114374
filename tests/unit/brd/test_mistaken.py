"""What a capture says when it may have been of the wrong system."""

from pathlib import Path

import pytest
from stores import Made, make

from etsclone.commands.brd.mistaken import mistaken_notes
from etsclone.model.brd import CloneIdentity, Filesystem
from etsclone.overlay.container import read_envelope
from etsclone.overlay.header import decode
from etsclone.overlay.signing import SigningKey

OURS = CloneIdentity("AA-1", (Filesystem("ext4", "bb-2"),))
ANEW = CloneIdentity(
    "cc-3", (Filesystem("ext4", "BB-2"),)
)  # the disk has another table, the filesystem stayed
ALIEN = CloneIdentity("dd-4", (Filesystem("ext4", "ee-5"),))


@pytest.fixture
def made(tmp_path: Path, keys: dict[str, SigningKey]) -> Made:
    """A store into which each server was captured once."""
    made = make(tmp_path / "store", keys)
    assert notes(made, "primary", "one") == ()
    assert notes(made, "secondary", "two") == ()
    return made


def notes(made: Made, role: str, host: str, clone: CloneIdentity = OURS) -> tuple[str, ...]:
    path = made.capture(role, host=host, clone=clone)
    return mistaken_notes(made.store, decode(read_envelope(path).header))


def test_the_other_server_is_not_taken_for_this_one_in_silence(made: Made) -> None:
    (note,) = notes(made, "primary", "two")
    assert "calls itself two, as that of generation 1 of secondary did" in note
    assert notes(made, "primary", "one") == ()


@pytest.mark.parametrize("host", ["one", "renamed", ""])
def test_a_name_that_is_not_the_others_is_no_matter(made: Made, host: str) -> None:
    assert notes(made, "primary", host) == ()


def test_servers_that_share_a_name_are_told_of_once(
    tmp_path: Path, keys: dict[str, SigningKey]
) -> None:
    made = make(tmp_path / "store", keys)
    assert notes(made, "primary", "same") == ()
    assert len(notes(made, "secondary", "same")) == 1
    assert notes(made, "secondary", "same") == ()
    assert notes(made, "primary", "same") == ()


@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_a_disk_of_another_pair_is_told_of(made: Made, role: str) -> None:
    (note,) = notes(made, role, "new", ALIEN)
    assert f"generation 1 of {role}" in note
    assert "--other-clone" in note


@pytest.mark.parametrize("clone", [OURS, ANEW, CloneIdentity()])
def test_one_identifier_in_common_is_enough_and_an_unknown_disk_no_other(
    made: Made, clone: CloneIdentity
) -> None:
    assert notes(made, "primary", "one", clone) == ()


def test_a_damaged_generation_is_passed_over(made: Made) -> None:
    made.store.overlay("secondary").write_bytes(b"nothing")
    assert notes(made, "primary", "two") == ()
