"""`brd trust` of what is no public key that can sign, and lists of the store that cannot be used."""

import subprocess
from pathlib import Path

import pytest
from stores import Made, etsclone, refuses, verify

from etsclone.overlay.signing import generate_key
from etsclone.overlay.trust import public_key_line


def trust(made: Made, key: Path) -> tuple[int, str]:
    before = made.trust.read_bytes()
    result = etsclone("brd", "trust", made.path, "--role", "primary", key)
    assert made.trust.read_bytes() == before
    assert "hint: " in result.err
    assert "Errno" not in result.err
    return result.code, result.err


def test_a_private_key_is_not_listed(made: Made, tmp_path: Path) -> None:
    key = tmp_path / "key"
    generate_key(key)
    code, said = trust(made, key)
    assert code == 3
    assert f"{key} is no public key" in said
    assert f"{key}.pub" in said


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_key_of_another_kind_is_not_listed(made: Made, tmp_path: Path, kind: str) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
    code, said = trust(made, Path(f"{key}.pub"))
    assert code == 3
    assert f"{key}.pub holds no Ed25519 public key" in said


def test_a_missing_file_is_named(made: Made, tmp_path: Path) -> None:
    code, said = trust(made, tmp_path / "none")
    assert code == 2
    assert f"cannot read the public key {tmp_path}/none: it does not exist" in said


def test_a_list_of_the_store_that_is_damaged_is_named(made: Made, tmp_path: Path) -> None:
    generate_key(tmp_path / "key")
    made.trust.write_text("nonsense\n")
    code, said = trust(made, tmp_path / "key.pub")
    assert code == 3
    assert f"{made.trust}: line 1 of the allowed signers cannot be used" in said
    refuses(verify(made), 3, f"{made.trust}: line 1 of the allowed signers cannot be used")


@pytest.mark.parametrize("listed", [False, True])
def test_a_key_that_is_revoked_is_told(made: Made, tmp_path: Path, listed: bool) -> None:
    key, revoked = tmp_path / "key.pub", tmp_path / "revoked"
    generate_key(tmp_path / "key")
    words = ("brd", "trust", made.path, "--role", "primary", key)
    if listed:
        assert "may sign for primary" in etsclone(*words).out
    revoked.write_text(key.read_text())
    result = etsclone(*words, "--revoked", revoked)
    assert result.code == 0
    assert "may sign" not in result.out
    assert f"{key} is listed for primary in {made.trust}, but revoked in {revoked}\n" in result.out
    assert key.read_text() in made.trust.read_text()
    facts = etsclone(*words, "--revoked", revoked, "--json").facts
    assert facts == {
        "role": "primary",
        "key": named_by_openssh(key),
        "list": str(made.trust),
        "revoked": True,
    }
    assert etsclone(*words, "--json").facts == facts | {"revoked": False}


def named_by_openssh(key: Path) -> str:
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True
    )
    return shown.stdout.split()[1]


def test_with_a_list_of_revoked_keys_that_cannot_be_used_nothing_is_listed(
    made: Made, tmp_path: Path
) -> None:
    generate_key(tmp_path / "key")
    before = made.trust.read_bytes()
    (tmp_path / "revoked").write_text("nonsense\n")
    words = ("brd", "trust", made.path, "--role", "primary", tmp_path / "key.pub")
    for name, told in (("revoked", "cannot be used"), ("none", "there is no list of revoked keys")):
        refuses(etsclone(*words, "--revoked", tmp_path / name), 3, told)
    assert made.trust.read_bytes() == before


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ('valid-before="20260101Z"', "only until 2026-01-01 00:00:00 UTC"),
        ('valid-after="29990101Z"', "only from 2999-01-01 00:00:00 UTC"),
    ],
)
def test_a_key_whose_line_is_of_another_time_is_not_called_listed(
    made: Made, tmp_path: Path, times: str, told: str
) -> None:
    key = tmp_path / "key.pub"
    key.write_text(public_key_line(made.keys["primary"].public_key))
    made.trust.write_text(f"primary {times} {key.read_text()}")
    code, said = trust(made, key)
    assert code == 3
    assert f"{made.trust}: line 1 of the allowed signers trusts this key {told}" in said
    assert "hint: to list it anew, change valid-after and valid-before in that line" in said
