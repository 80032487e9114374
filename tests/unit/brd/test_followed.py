"""Which newest file of a role a new generation may follow."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from stores import START, Made, contents, generation, verify

from etsclone.commands.history import followed
from etsclone.errors import ChainBroken
from etsclone.overlay.container import read_envelope
from etsclone.overlay.header import digest
from etsclone.overlay.signing import SigningKey, generate_key, load_private_key
from etsclone.overlay.trust import Trust, public_key_line


def follow(made: Made, revoked: str = "") -> str:
    """The header that a capture would follow, by the store's list."""
    trust = Trust.parse(made.trust.read_text(), revoked)
    return followed(made.store, made.store.history("primary")[-1], trust)


def refused(made: Made, path: Path) -> ChainBroken:
    """Why nothing may follow, which names the file; the store stays as it was."""
    before = contents(made.path)
    trust = Trust.parse(made.trust.read_text())
    check = partial(followed, made.store, trust=trust)
    with pytest.raises(ChainBroken) as caught, made.store.new_overlay("primary", check):
        pytest.fail("nothing may be written")
    assert contents(made.path) == before
    assert str(path) in caught.value.message
    return caught.value


def name(path: Path) -> str:
    return digest(read_envelope(path).header)


def test_the_newest_generation_is_followed(made: Made) -> None:
    assert follow(made) == name(generation(made, 5))


def replayed(made: Made, path: Path) -> None:
    shutil.copy(generation(made, 1), path)


def of_the_other_role(made: Made, path: Path) -> None:
    shutil.copy(generation(made, 2, "secondary"), path)


def of_another_pair(made: Made, path: Path) -> None:
    made.capture(pair="other")
    assert path.exists()


def signed_by_the_other_role(made: Made, path: Path) -> None:
    Made(made.store, {"primary": made.keys["secondary"]}).capture()
    assert path.exists()


def unknown(made: Made, path: Path) -> None:
    key = made.path.parent / "unknown"
    generate_key(key)
    Made(made.store, {"primary": load_private_key(key, lambda: b"")}).capture()
    assert path.exists()


def empty(_: Made, path: Path) -> None:
    path.touch()


def truncated(made: Made, path: Path) -> None:
    made.capture()
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("put", "hint"),
    [
        (replayed, "mistake or malice: remove it, and capture again"),
        (of_the_other_role, "mistake or malice: remove it, and capture again"),
        (of_another_pair, "mistake or malice: remove it, and capture again"),
        (signed_by_the_other_role, "else remove the file, and capture again"),
        (unknown, "else remove the file, and capture again"),
        (empty, "remove it, then `etsclone brd copy`"),
        (truncated, "remove it, then `etsclone brd copy`"),
    ],
)
def test_what_is_none_of_the_chain_is_named_and_once_it_is_gone_the_chain_goes_on(
    made: Made, put: Callable[[Made, Path], None], hint: str
) -> None:
    path = generation(made, 6)
    put(made, path)
    assert hint in refused(made, path).hint
    path.unlink()
    assert follow(made) == name(generation(made, 5))
    made.capture()
    assert verify(made).code == 0


@pytest.mark.parametrize("suffix", ["brd", "header"])
def test_an_empty_file_uses_up_no_numbers(made: Made, suffix: str) -> None:
    path = generation(made, 999_999, suffix=suffix)
    path.touch()
    assert "remove it" in refused(made, path).hint


def test_a_header_alone_is_followed_and_a_damaged_content_is_no_matter(made: Made) -> None:
    path = generation(made, 5)
    path.write_bytes(path.read_bytes()[:-1])
    assert follow(made) == name(path)
    path.rename(generation(made, 5, suffix="header"))
    assert follow(made) == name(generation(made, 5, suffix="header"))


@pytest.fixture
def new(tmp_path: Path) -> SigningKey:
    generate_key(tmp_path / "new")
    return load_private_key(tmp_path / "new", lambda: b"")


def test_what_a_retired_or_revoked_key_signed_is_followed(made: Made, new: SigningKey) -> None:
    old, path = public_key_line(made.keys["primary"].public_key), generation(made, 5)
    line = f"primary {public_key_line(new.public_key)}"
    made.trust.write_text(f'primary valid-before="{START:%Y%m%d}Z" {old}{line}')
    assert follow(made) == name(path)
    made.trust.write_text(line)
    assert follow(made, old) == name(path)
    made.trust.write_text(f"primary {old}{line}")
    assert follow(made, old) == name(path)


def test_a_revoked_key_vouches_for_no_other_name(made: Made) -> None:
    old, path = public_key_line(made.keys["primary"].public_key), generation(made, 6)
    shutil.copy(generation(made, 1), path)
    with pytest.raises(ChainBroken, match="not of generation 6") as caught:
        follow(made, old)
    assert "remove it" in caught.value.hint


def test_what_a_key_signed_that_is_off_the_list_is_followed_where_it_was_seen(
    made: Made, new: SigningKey
) -> None:
    path = generation(made, 5)
    listed = made.trust.read_text()
    made.trust.write_text(f"primary {public_key_line(new.public_key)}")
    assert "revoked keys" in refused(made, path).hint
    made.trust.write_text(listed)
    assert verify(made).code == 0
    made.trust.write_text(f"primary {public_key_line(new.public_key)}")
    assert follow(made) == name(path)
    made.capture(created=START + timedelta(days=9))
    assert "revoked keys" in refused(made, generation(made, 6)).hint
