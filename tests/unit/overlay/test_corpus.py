"""Valid and invalid signatures on which we and `ssh-keygen -Y verify` agree, and those where we are stricter."""

import base64
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from agents import SoftToken
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import EtscloneError, FormatError, SignatureInvalid
from etsclone.model.brd import NAMESPACE
from etsclone.overlay.signing import SigningKey, sign, verify
from etsclone.overlay.sshwire import pack_strings, signed_data
from etsclone.overlay.trust import Trust, public_key_line

SshKeygen = Callable[..., "subprocess.CompletedProcess[bytes]"]

MESSAGE = b'{"format": 1}\n'
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group of Ed25519
TOKEN = SoftToken()


@dataclass(frozen=True)
class Judge:
    """What the real ssh-keygen says of a signature for the role primary."""

    folder: Path
    run: SshKeygen

    def accepts(self, signature: bytes, message: bytes, signers: str, revoked: str | None) -> bool:
        for name, text in (("sig", signature), ("signers", signers.encode())):
            (self.folder / name).write_bytes(text)
        words = ["-Y", "verify", "-n", NAMESPACE, "-I", "primary"]
        words += ["-f", str(self.folder / "signers"), "-s", str(self.folder / "sig")]
        if revoked is not None:
            (self.folder / "revoked").write_text(revoked)
            words += ["-r", str(self.folder / "revoked")]
        return self.run(*words, message=message).returncode == 0


@pytest.fixture
def judge(tmp_path: Path, ssh_keygen: SshKeygen) -> Judge:
    return Judge(tmp_path, ssh_keygen)


def accepts(signature: bytes, message: bytes, signers: str, revoked: str | None = None) -> bool:
    """What we say."""
    try:
        verify(message, signature, Trust.parse(signers, revoked or ""), "primary")
    except EtscloneError:
        return False
    return True


def wrapped(blob: bytes, columns: int = 70, end: bytes = b"\n") -> bytes:
    text = base64.b64encode(blob)
    lines = [text[start : start + columns] for start in range(0, len(text), columns)]
    marks = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
    return end.join([marks[0], *lines, marks[1], b""])


@dataclass(frozen=True)
class Parts:
    """What a signature is made of, to be changed one by one."""

    key: bytes
    value: bytes
    magic: bytes = b"SSHSIG"
    version: int = 1
    namespace: bytes = NAMESPACE.encode()
    reserved: bytes = b""
    hash_algorithm: bytes = b"sha512"
    rest: bytes = b""

    @property
    def blob(self) -> bytes:
        fields = (self.key, self.namespace, self.reserved, self.hash_algorithm, self.value)
        return self.magic + self.version.to_bytes(4, "big") + pack_strings(*fields) + self.rest


def signed_by(key: SigningKey, hash_algorithm: str = "sha512", namespace: str = NAMESPACE) -> Parts:
    raw = key.private.sign(signed_data(hash_algorithm, MESSAGE, namespace))
    value = pack_strings(b"ssh-ed25519", raw)
    parts = Parts(key.public_key, value, hash_algorithm=hash_algorithm.encode())
    return replace(parts, namespace=namespace.encode())


def signed_by_token(token: SoftToken, hash_algorithm: str = "sha512") -> Parts:
    value = token.sign(signed_data(hash_algorithm, MESSAGE))
    return Parts(token.public_key, value, hash_algorithm=hash_algorithm.encode())


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def corpus(key: SigningKey, other: SigningKey) -> dict[str, tuple[bytes, bytes, bool]]:
    """Name: signature, message, and what both say."""
    good, token = signed_by(key), signed_by_token(TOKEN)
    untouched = signed_by_token(replace(TOKEN, flags=0))
    armored = sign(MESSAGE, key)
    cases = {
        "as we sign": (armored, True),
        "sha512": (wrapped(good.blob), True),
        "sha256": (wrapped(signed_by(key, "sha256").blob), True),
        "a token": (wrapped(token.blob), True),
        "a token with sha256": (wrapped(signed_by_token(TOKEN, "sha256").blob), True),
        "a token that nobody touched": (wrapped(untouched.blob), True),
        "another key": (sign(MESSAGE, other), False),
        "another token": (wrapped(signed_by_token(SoftToken()).blob), False),
        "another application of the token": (
            wrapped(replace(token, key=replace(TOKEN, application=b"ssh:x").public_key).blob),
            False,
        ),
        "the token's flags changed": (
            wrapped(replace(token, value=flipped(token.value, len(token.value) - 5)).blob),
            False,
        ),
        "the token's counter changed": (
            wrapped(replace(token, value=flipped(token.value, len(token.value) - 1)).blob),
            False,
        ),
        "the token's counter missing": (
            wrapped(replace(token, value=token.value[:-4]).blob),
            False,
        ),
        "the token's counter too long": (
            wrapped(replace(token, value=token.value + b"\0").blob),
            False,
        ),
        "a counter without a token": (
            wrapped(replace(good, value=good.value + bytes(5)).blob),
            False,
        ),
        "a token's key, a plain signature": (
            wrapped(replace(good, key=TOKEN.public_key).blob),
            False,
        ),
        "a plain key, a token's signature": (
            wrapped(replace(token, key=key.public_key).blob),
            False,
        ),
        "another key's name": (wrapped(replace(good, key=other.public_key).blob), False),
        "another hash's name": (wrapped(replace(good, hash_algorithm=b"sha256").blob), False),
        "an unknown hash": (wrapped(replace(good, hash_algorithm=b"sha1").blob), False),
        "another namespace": (wrapped(signed_by(key, namespace="git").blob), False),
        "another namespace's name": (wrapped(replace(good, namespace=b"git").blob), False),
        "no namespace": (wrapped(signed_by(key, namespace="").blob), False),
        "version 2": (wrapped(replace(good, version=2).blob), False),
        "another magic": (wrapped(replace(good, magic=b"SSHSIh").blob), False),
        "something behind": (wrapped(replace(good, rest=b"\0").blob), False),
        "a field more": (wrapped(replace(good, rest=pack_strings(b"")).blob), False),
        "cut off": (wrapped(good.blob[:-1]), False),
        "a short signature": (
            wrapped(replace(good, value=pack_strings(b"ssh-ed25519", bytes(63))).blob),
            False,
        ),
        "a long signature": (
            wrapped(replace(good, value=pack_strings(b"ssh-ed25519", bytes(65))).blob),
            False,
        ),
        "a signature of zeros": (
            wrapped(replace(good, value=pack_strings(b"ssh-ed25519", bytes(64))).blob),
            False,
        ),
        "another type of signature": (
            wrapped(replace(good, value=pack_strings(b"ssh-rsa", bytes(64))).blob),
            False,
        ),
        "a key without its end": (wrapped(replace(good, key=good.key[:-1]).blob), False),
        "a key with more": (wrapped(replace(good, key=good.key + b"\0").blob), False),
        "no signature": (b"", False),
        "no armor": (good.blob, False),
        "half of the armor": (armored[: len(armored) // 2], False),
        "without its last line": (armored[: armored.index(b"-----END")], False),
        "another armor": (armored.replace(b"SSH SIGNATURE", b"SSH SIGNATURA"), False),
        "a letter that is no base64": (armored.replace(b"U1NIU0lH", b"U1NIU0l!"), False),
    }
    whole = {name: (signature, MESSAGE, said) for name, (signature, said) in cases.items()}
    for name, message in (
        ("another message", MESSAGE + b"x"),
        ("no message", b""),
        ("one bit of the message", flipped(MESSAGE, 3)),
    ):
        whole[name] = (armored, message, False)
        whole[f"{name}, a token"] = (wrapped(token.blob), message, False)
    return whole


def names() -> list[str]:
    private = SoftToken().private
    return list(corpus(SigningKey(private), SigningKey(private)))


def signers_of(*keys: bytes) -> str:
    return "".join(f"primary {public_key_line(key)}" for key in keys)


@pytest.mark.parametrize("name", names())
def test_we_say_what_ssh_keygen_says(
    name: str, key: SigningKey, other_key: SigningKey, judge: Judge
) -> None:
    signature, message, expected = corpus(key, other_key)[name]
    signers = signers_of(key.public_key, TOKEN.public_key)
    assert accepts(signature, message, signers) is expected
    assert judge.accepts(signature, message, signers, None) is expected


def stricter(key: SigningKey) -> dict[str, bytes]:
    """Signatures that ssh-keygen may put up with, and we do not: one signature has one form."""
    good, armored = signed_by(key), sign(MESSAGE, key)
    raw = good.value[-64:]
    larger = int.from_bytes(raw[32:], "little") + ORDER
    return {
        "S plus the order of the group": wrapped(
            replace(
                good,
                value=pack_strings(b"ssh-ed25519", raw[:32] + larger.to_bytes(32, "little")),
            ).blob
        ),
        "version 0": wrapped(replace(good, version=0).blob),
        "something in the reserved field": wrapped(replace(good, reserved=b"x").blob),
        "lines of 64": wrapped(good.blob, 64),
        "one line": wrapped(good.blob, 10_000),
        "carriage returns": wrapped(good.blob, end=b"\r\n"),
        "a blank line behind": armored + b"\n",
        "another signature behind": armored + armored,
        "text before": b"text\n" + armored,
    }


@pytest.mark.parametrize("name", stricter(SigningKey(TOKEN.private)))
def test_a_signature_has_one_form(name: str, key: SigningKey) -> None:
    signature = stricter(key)[name]
    with pytest.raises(SignatureInvalid):
        verify(MESSAGE, signature, Trust.parse(signers_of(key.public_key)), "primary")


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), token=st.booleans())
def test_every_bit_counts(place: int, bit: int, *, token: bool, key: SigningKey) -> None:
    blob = bytearray((signed_by_token(TOKEN) if token else signed_by(key)).blob)
    signers = signers_of(key.public_key, TOKEN.public_key)
    assert accepts(wrapped(bytes(blob)), MESSAGE, signers)
    blob[place % len(blob)] ^= 1 << bit
    assert not accepts(wrapped(bytes(blob)), MESSAGE, signers)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "dsa"])
def test_other_kinds_of_keys_never_sign_an_overlay(
    kind: str, tmp_path: Path, ssh_keygen: SshKeygen, judge: Judge
) -> None:
    path = tmp_path / "key"
    ssh_keygen("-q", "-t", kind, "-N", "", "-f", path)
    signature = ssh_keygen("-q", "-Y", "sign", "-n", NAMESPACE, "-f", path, message=MESSAGE).stdout
    signers = f"primary {path.with_name('key.pub').read_text()}"
    assert judge.accepts(signature, MESSAGE, signers, None)
    with pytest.raises(SignatureInvalid, match="not of the type ssh-ed25519"):
        verify(MESSAGE, signature, Trust.parse(signers), "primary")


# --- revocation -----------------------------------------------------------------------------------------------------


REVOKED = {
    "nobody": ("", True),
    "comments": ("# KEY\n\n   \n", True),
    "another key": ("OTHER", True),
    "the key": ("KEY", False),
    "the key with a comment": ("KEY stolen in May", False),
    "indented": (" \t KEY", False),
    "among others": ("# lost\nOTHER\n\nKEY\n", False),
    "windows line ends": ("OTHER comment\r\nKEY comment\r\n", False),
    "another kind, then the key": ("ECDSA\nKEY\n", False),
}


@pytest.mark.parametrize("name", REVOKED)
@pytest.mark.parametrize("by", ["key", "token"])
def test_a_revoked_key_is_refused_by_both(
    name: str, by: str, key: SigningKey, other_key: SigningKey, judge: Judge, ecdsa: str
) -> None:
    text, expected = REVOKED[name]
    parts = signed_by(key) if by == "key" else signed_by_token(TOKEN)
    for word, line in (
        ("KEY", public_key_line(parts.key).strip()),
        ("OTHER", public_key_line(other_key.public_key).strip()),
        ("ECDSA", ecdsa),
    ):
        text = text.replace(word, line)
    signature, signers = wrapped(parts.blob), signers_of(parts.key)
    assert accepts(signature, MESSAGE, signers, text) is expected
    assert judge.accepts(signature, MESSAGE, signers, text) is expected


@pytest.fixture(scope="session")
def ecdsa(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ecdsa") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", path], check=True)
    return " ".join(path.with_name("key.pub").read_text().split()[:2])


@pytest.mark.parametrize("bad", ["nonsense", "ssh-ed25519", "ssh-ed25519 AAAA", "primary KEY"])
def test_a_list_that_cannot_be_read_revokes_everything(
    bad: str, key: SigningKey, judge: Judge
) -> None:
    text = bad.replace("KEY", public_key_line(key.public_key).strip())
    signature, signers = sign(MESSAGE, key), signers_of(key.public_key)
    with pytest.raises(FormatError, match="line 2 of the revoked keys"):
        Trust.parse(signers, f"# ours\n{text}\n")
    assert not judge.accepts(signature, MESSAGE, signers, f"# ours\n{text}\n")


def test_a_binary_list_is_refused_with_a_hint(
    tmp_path: Path, key_path: Path, key: SigningKey, ssh_keygen: SshKeygen
) -> None:
    public = shutil.copy(f"{key_path}.pub", tmp_path / "stolen.pub")
    ssh_keygen("-q", "-k", "-f", tmp_path / "krl", public)
    text = (tmp_path / "krl").read_bytes().decode("latin-1")
    with pytest.raises(FormatError) as caught:
        Trust.parse(signers_of(key.public_key), text)
    assert "KRL" in caught.value.hint


def test_revocation_beats_every_listing(key: SigningKey) -> None:
    line = public_key_line(key.public_key)
    trust = Trust.parse(f'* {line}primary namespaces="{NAMESPACE}" {line}', line)
    for role in ("primary", None):
        with pytest.raises(SignatureInvalid, match="signed by a revoked key") as caught:
            verify(MESSAGE, sign(MESSAGE, key), trust, role)
        assert "another key signed" in caught.value.hint
