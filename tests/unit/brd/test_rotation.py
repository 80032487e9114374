"""A store whose overlays an old and a new key signed: what each command says while both are trusted, and after."""

from datetime import timedelta
from pathlib import Path

import pytest
from stores import (
    START,
    Made,
    check,
    copy,
    etsclone,
    flaws,
    generation,
    make,
    prune,
    refuses,
    verify,
)

from etsclone.overlay.container import read_envelope
from etsclone.overlay.signing import SigningKey, generate_key, load_private_key
from etsclone.overlay.trust import public_key_line

CHANGE = START + timedelta(days=2, hours=12)
"""Between the second and the third generation."""


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    path = tmp_path_factory.mktemp("new") / "primary"
    generate_key(path)
    return load_private_key(path, lambda: b"")


@pytest.fixture
def old(keys: dict[str, SigningKey]) -> SigningKey:
    return keys["primary"]


@pytest.fixture
def made(tmp_path: Path, old: SigningKey, new: SigningKey) -> Made:
    """A store with two generations of each key; the list says when the one began to sign, and the other ended."""
    made = make(tmp_path / "store", {"primary": old})
    for key in (old, old, new, new):
        Made(made.store, {"primary": key}).capture()
    trust(made, old, new)
    return Made(made.store, {"primary": new})


def trust(made: Made, old: SigningKey, new: SigningKey, at: str = f"{CHANGE:%Y%m%d%H%M}Z") -> None:
    made.trust.write_text(
        f'primary namespaces="brd@etsclone",valid-before="{at}" {public_key_line(old.public_key)}'
        f'primary namespaces="brd@etsclone",valid-after="{at}" {public_key_line(new.public_key)}'
    )


@pytest.fixture
def revoked(tmp_path: Path, old: SigningKey) -> tuple[str, str]:
    """The option that revokes the old key."""
    path = tmp_path / "revoked"
    path.write_text(public_key_line(old.public_key, "stolen"))
    return "--revoked", str(path)


def signer(made: Made, number: int) -> str:
    return str(etsclone("brd", "show", generation(made, number), "--json").facts["signed_by"])


def test_each_key_is_believed_for_its_time(made: Made, old: SigningKey, new: SigningKey) -> None:
    result = verify(made)
    assert result.code == 0, result.err
    assert "all 4 generations of pair ets verify" in result.out
    assert [signer(made, number) for number in (1, 2, 3, 4)] == [
        *[old.fingerprint] * 2,
        *[new.fingerprint] * 2,
    ]
    for key, number in ((old, 2), (new, 3)):
        one = etsclone("brd", "verify", generation(made, number), "--trust", made.trust)
        assert one.code == 0, one.err
        assert f"signed by {key.fingerprint}" in one.out


def test_what_a_key_signed_at_another_time_is_told(
    made: Made, old: SigningKey, new: SigningKey
) -> None:
    trust(made, old, new, "20260102Z")
    result = verify(made, "--json")
    assert (result.code, flaws(result)) == (
        4,
        [("untrusted", "primary", 1), ("untrusted", "primary", 2)],
    )
    assert "is not trusted for signatures of 2026-01-02 03:00:00 UTC" in result.out
    trust(made, old, new, "20260201Z")
    assert flaws(verify(made, "--json")) == [
        ("untrusted", "primary", 3),
        ("untrusted", "primary", 4),
    ]
    refuses(check(made, "1000w"), 4, "is not trusted for signatures of 2026-01-05 03:00:00 UTC")


def test_a_check_counts_when_its_key_may_sign_at_that_time(made: Made, old: SigningKey) -> None:
    made.check("primary", START + timedelta(days=9))
    assert verify(made).code == 0
    assert check(made, "1000w", "--role", "primary").code == 0
    Made(made.store, {"primary": old}).check("primary", START + timedelta(days=9))
    refuses(
        check(made, "1000w", "--role", "primary"), 4, "not trusted for signatures of 2026-01-10"
    )
    assert flaws(verify(made, "--json")) == [("damaged", "primary", 4)]


def test_a_revoked_key_is_believed_nothing_and_the_newest_generation_stands(
    made: Made, old: SigningKey, revoked: tuple[str, str]
) -> None:
    result = verify(made, *revoked, "--json")
    assert (result.code, flaws(result)) == (
        4,
        [("untrusted", "primary", 1), ("untrusted", "primary", 2)],
    )
    assert result.out.count(f"signed by a revoked key: {old.fingerprint}") == 4
    assert "hint: whoever has that key could have made this" in result.err
    assert "brd copy" not in result.err
    # What it says of itself can still be looked at.
    assert signer(made, 1) == old.fingerprint
    assert check(made, "1000w", "--role", "primary", *revoked).code == 0
    one = etsclone("brd", "verify", generation(made, 4), "--trust", made.trust, *revoked)
    assert one.code == 0, one.err


def test_what_a_revoked_key_signed_is_neither_copied_nor_pruned(
    made: Made, revoked: tuple[str, str], tmp_path: Path
) -> None:
    result = copy(made, tmp_path / "second", *revoked)
    refuses(result, 4, "the copy is not whole")
    assert "`etsclone brd prune --drop-unverified` lets it go" in result.err
    second = made.at(tmp_path / "second")
    assert [item.number for item in second.store.generations("primary")] == [3, 4]
    result = prune(made, "--keep-last", "1", "--yes", *revoked)
    assert result.code == 0, result.err
    assert [item.number for item in made.store.generations("primary")] == [1, 2, 4]


def test_what_a_revoked_key_signed_can_be_let_go(
    made: Made, revoked: tuple[str, str], tmp_path: Path
) -> None:
    """Of two that it signed one was pruned before: both headers stay, and those that follow vouch for them."""
    assert prune(made, "--keep-last", "3", "--yes").code == 0
    assert flaws(verify(made, *revoked, "--json")) == [("untrusted", "primary", 2)]
    result = prune(made, "--drop-unverified", "--yes", *revoked)
    assert result.code == 0, result.err
    assert "drop: it does not verify" in result.out
    assert "primary-000002.brd: signed by a revoked key: " in result.out
    assert [item.number for item in made.store.generations("primary")] == [3, 4]
    assert len(made.store.history("primary")) == 4
    whole = verify(made, *revoked)
    assert whole.code == 0, whole.err
    assert whole.out.count("pruned; its key is no longer trusted, but a later generation") == 2
    copied = copy(made, tmp_path / "second", *revoked)
    assert copied.code == 0, copied.err
    assert verify(made.at(tmp_path / "second"), *revoked).code == 0
    # Again, there is nothing to do.
    assert "0 generations will be pruned" in prune(made, "--drop-unverified", *revoked).out


def test_nobody_vouches_for_what_a_revoked_key_signed_last(
    made: Made, old: SigningKey, revoked: tuple[str, str]
) -> None:
    Made(made.store, {"primary": old}).capture(created=START + timedelta(days=1))
    result = prune(made, "--drop-unverified", "--yes", *revoked)
    assert result.code == 0, result.err
    assert "left alone: it does not verify" in result.out
    assert [item.number for item in made.store.generations("primary")] == [3, 4, 5]
    assert flaws(verify(made, *revoked, "--json")) == [("untrusted", "primary", 5)]


def test_nobody_vouches_for_another_header_of_a_revoked_key(
    made: Made, old: SigningKey, revoked: tuple[str, str], tmp_path: Path
) -> None:
    """A thief cannot bring in a header that was not there: what follows names the one that was."""
    assert prune(made, "--drop-unverified", "--yes", *revoked).code == 0
    thief = make(tmp_path / "thief", {"primary": old})
    thief.capture(content=b"of a thief")
    forged = generation(thief, 1)
    path = made.path / "primary/primary-000001.header"
    path.write_bytes(forged.read_bytes()[: read_envelope(forged).size])
    assert ("untrusted", "primary", 1) in flaws(verify(made, *revoked, "--json"))


def test_a_thief_can_choose_the_time_so_only_revocation_helps(
    made: Made, old: SigningKey, revoked: tuple[str, str]
) -> None:
    Made(made.store, {"primary": old}).capture(created=START + timedelta(days=1))
    assert verify(made).code == 0
    result = verify(made, *revoked, "--json")
    assert [number for _, _, number in flaws(result)] == [1, 2, 5]
    refuses(check(made, "1000w", "--role", "primary", *revoked), 4, "signed by a revoked key")


def test_a_new_store_is_begun_where_the_old_one_is_in_doubt(
    made: Made, new: SigningKey, revoked: tuple[str, str], tmp_path: Path
) -> None:
    assert verify(made).code == 0
    fresh = make(tmp_path / "fresh", {"primary": new})
    fresh.capture()
    for _ in range(2):
        assert flaws(verify(fresh, *revoked, "--json")) == [("rollback", "primary", 4)]
    assert verify(fresh, *revoked, "--accept").code == 0
    assert verify(fresh, *revoked).code == 0
    assert check(fresh, "1000w", "--role", "primary", *revoked).code == 0
