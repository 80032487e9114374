"""What is asked of people when nobody is there to answer, or whoever is there ends the input."""

import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from etsclone.overlay.signing import generate_key
from etsclone.store.folder import create

SECONDS = 60


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key", b"open sesame")
    return tmp_path / "key"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return create(tmp_path / "store", "ets", "ltsp-isc-dhcp", ("primary", "secondary")).path


def alone(*words: str | Path, typed: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the command line without any terminal."""
    argv = [sys.executable, "-m", "etsclone", *map(str, words)]
    return subprocess.run(
        argv, input=typed, capture_output=True, text=True, check=False, start_new_session=True
    )


@pytest.mark.parametrize("command", ["verify", "capture"])
def test_a_passphrase_that_nobody_gives_is_an_error(
    command: str, encrypted: Path, store: Path
) -> None:
    if command == "verify":
        result = alone("brd", "verify", store, "--identity", encrypted)
    elif os.geteuid() == 0:
        result = alone("brd", "capture", store, "--role", "primary", "--key", encrypted)
    else:
        pytest.skip("a capture needs root")
    assert result.returncode == 3
    assert result.stderr.startswith(
        f"passphrase of {encrypted}: \n"
        f"etsclone: {encrypted} has a passphrase, and nobody answers\nhint: "
    )


def test_the_passphrase_may_come_through_a_pipe(encrypted: Path, store: Path) -> None:
    result = alone("brd", "verify", store, "--identity", encrypted, typed="wrong\n")
    assert "the passphrase does not open" in result.stderr


@pytest.mark.parametrize("typed", ["", "secret\nsecret\n"])
def test_no_key_without_a_passphrase_is_made_unasked(tmp_path: Path, typed: str) -> None:
    path = tmp_path / "new"
    result = alone("brd", "keygen", path, typed=typed)
    assert result.returncode == 2
    assert result.stderr.startswith("etsclone: there is no terminal to ask for a passphrase on\n")
    assert "--no-passphrase" in result.stderr
    assert not path.exists()
    assert alone("brd", "keygen", path, "--no-passphrase").returncode == 0
    assert path.exists()


def test_the_end_of_the_input_makes_no_key(tmp_path: Path) -> None:
    argv = ["-m", "etsclone", "brd", "keygen", str(tmp_path / "new")]
    terminal = pexpect.spawn(sys.executable, argv, encoding="utf-8", timeout=SECONDS)
    terminal.expect_exact("passphrase (empty for none): ")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert "etsclone: no passphrase was given: no key was made" in (terminal.before or "")
    assert terminal.exitstatus == 3
    assert not (tmp_path / "new").exists()
