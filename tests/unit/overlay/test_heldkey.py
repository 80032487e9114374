"""Signing with keys that are not in a file: the real ssh-keygen, the real ssh-agent, and a token in software."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agents import SoftToken, add, plugged_in, ssh_agent, token_agent, write_token_key

from etsclone.commands.receipt import signer
from etsclone.errors import KeyRefused, SignatureInvalid
from etsclone.model.brd import NAMESPACE, RECEIPT_NAMESPACE
from etsclone.overlay.heldkey import HeldKey, load_key
from etsclone.overlay.signing import SigningKey, check, generate_key, sign, verify
from etsclone.overlay.sshwire import parse_signature
from etsclone.overlay.trust import Trust, add_signer, public_key_line

SshKeygen = Callable[..., "subprocess.CompletedProcess[bytes]"]

MESSAGE = b'{"format": 1}\n'

pytestmark = pytest.mark.usefixtures("real_programs")


def no_passphrase() -> bytes:
    raise AssertionError("this key needs no passphrase")


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with ssh_agent(tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path


@pytest.fixture
def token() -> SoftToken:
    return SoftToken()


@pytest.fixture
def token_key(tmp_path: Path, token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The public key of a token that an agent holds."""
    path = tmp_path / "id_ed25519_sk.pub"
    path.write_text(public_key_line(token.public_key, "a token"))
    with token_agent(tmp_path, token) as listening:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(listening))
        yield path


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A key with the passphrase "sesame"."""
    path = tmp_path / "locked"
    generate_key(path, b"sesame")
    return path


def test_a_file_needs_no_agent(key_path: Path, key: SigningKey) -> None:
    assert load_key(key_path, no_passphrase).public_key == key.public_key


def test_a_public_key_stands_for_the_private_one_beside_it(key_path: Path, key: SigningKey) -> None:
    named = load_key(key_path.with_name(f"{key_path.name}.pub"), no_passphrase)
    assert isinstance(named, SigningKey)
    assert named.public_key == key.public_key


def test_the_agents_signature_is_the_one_of_the_key(
    agent: Path, key_path: Path, key: SigningKey, tmp_path: Path
) -> None:
    add(agent, key_path)
    public = Path(shutil.copy(f"{key_path}.pub", tmp_path / "elsewhere.pub"))
    for named in (
        public,
        tmp_path / "elsewhere",
    ):  # the private key file is on no disk of this machine
        held = load_key(named, no_passphrase)
        assert isinstance(held, HeldKey)
        assert (held.public_key, held.fingerprint) == (key.public_key, key.fingerprint)
        assert held.sign(MESSAGE) == sign(MESSAGE, key)
        assert held.sign(MESSAGE, RECEIPT_NAMESPACE) == sign(MESSAGE, key, RECEIPT_NAMESPACE)


def test_a_key_with_a_passphrase_that_the_agent_holds_needs_none(agent: Path, locked: Path) -> None:
    with pytest.raises(AssertionError):
        load_key(locked, no_passphrase)
    add(agent, locked, "sesame")
    held = load_key(locked, no_passphrase)
    assert isinstance(held, HeldKey)
    assert held.sign(MESSAGE) == sign(MESSAGE, load_without_agent(locked))


def test_an_agent_signs_receipts(agent: Path, key_path: Path, key: SigningKey) -> None:
    add(agent, key_path)
    make = signer(key_path.with_name(f"{key_path.name}.pub"))
    assert make is not None
    assert make(MESSAGE) == sign(MESSAGE, key, RECEIPT_NAMESPACE)


def load_without_agent(path: Path) -> SigningKey:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSH_AUTH_SOCK")
        found = load_key(path, lambda: b"sesame")
    assert isinstance(found, SigningKey)
    return found


@pytest.mark.usefixtures("agent")
def test_a_key_that_nobody_holds_is_refused(key_path: Path, tmp_path: Path) -> None:
    public = shutil.copy(f"{key_path}.pub", tmp_path / "alone.pub")
    for named in (Path(public), Path(shutil.copy(public, tmp_path / "no-suffix"))):
        with pytest.raises(KeyRefused, match="nobody holds the private part"):
            load_key(named, no_passphrase)


def test_an_agent_that_is_gone_holds_nothing(
    key_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    public = Path(shutil.copy(f"{key_path}.pub", tmp_path / "alone.pub"))
    with pytest.raises(KeyRefused, match="nobody holds"):
        load_key(public, no_passphrase)


def test_a_key_that_leaves_the_agent_is_told(agent: Path, key_path: Path, tmp_path: Path) -> None:
    add(agent, key_path)
    public = Path(shutil.copy(f"{key_path}.pub", tmp_path / "alone.pub"))
    held = load_key(public, no_passphrase)
    subprocess.run(["ssh-add", "-q", "-D"], check=True)
    with pytest.raises(KeyRefused, match="did not sign"):
        held.sign(MESSAGE)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_public_keys_are_refused(
    agent: Path, kind: str, tmp_path: Path, ssh_keygen: SshKeygen
) -> None:
    path = tmp_path / "key"
    bits = {"rsa": "1024", "ecdsa": "256"}[kind]
    ssh_keygen("-q", "-t", kind, "-b", bits, "-N", "", "-f", path)
    add(agent, path)
    with pytest.raises(KeyRefused, match="not of the type Ed25519"):
        load_key(path.with_name("key.pub"), no_passphrase)


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_signs_and_is_believed(token_key: Path, token: SoftToken) -> None:
    held = load_key(token_key, no_passphrase)
    assert held.public_key == token.public_key
    signature = held.sign(MESSAGE)
    trust = Trust.parse(add_signer("", "primary", token_key.read_text()))
    assert verify(MESSAGE, signature, trust, "primary").fingerprint == held.fingerprint
    assert parse_signature(signature).token == bytes([1, 0, 0, 0, token.counter])
    assert held.sign(MESSAGE) != signature  # it counts


def test_a_token_signs_for_its_namespace_only(token_key: Path) -> None:
    signature = load_key(token_key, no_passphrase).sign(MESSAGE, RECEIPT_NAMESPACE)
    assert check(MESSAGE, signature, RECEIPT_NAMESPACE)
    with pytest.raises(SignatureInvalid, match="it was made for 'receipt@etsclone'"):
        check(MESSAGE, signature, NAMESPACE)


def test_a_token_that_signs_something_else_is_not_believed(
    token_key: Path, token: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = load_key(token_key, no_passphrase)
    honest = token.sign
    monkeypatch.setattr(token, "sign", lambda data: honest(data + b"!"))
    with pytest.raises(KeyRefused, match="did not sign"):
        held.sign(MESSAGE)


def test_a_tokens_key_file_needs_no_agent(
    token: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "id_ed25519_sk"
    write_token_key(path, token)
    with plugged_in(tmp_path, token) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        held = load_key(path, no_passphrase)
        assert isinstance(held, HeldKey)
        assert held.public_key == token.public_key
        signature = held.sign(MESSAGE)
    assert parse_signature(signature).token == bytes([1, 0, 0, 0, token.counter])
    trust = Trust.parse(add_signer("", "primary", public_key_line(token.public_key)))
    assert verify(MESSAGE, signature, trust, "primary").fingerprint == held.fingerprint
    with pytest.raises(KeyRefused, match="did not sign"):
        held.sign(MESSAGE)
