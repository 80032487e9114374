"""`brd trust` of what is no public key that can sign, and lists of the store that cannot be used."""

import subprocess
from pathlib import Path

import pytest
from stores import Made, etsclone, refuses, verify

from etsclone.overlay.signing import generate_key


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
