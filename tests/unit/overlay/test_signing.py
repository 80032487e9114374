import base64
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import KeyRefused, SignatureInvalid, TrustRefused
from etsclone.model.brd import NAMESPACE, RECEIPT_NAMESPACE
from etsclone.overlay import sshwire
from etsclone.overlay.signing import SigningKey, check, generate_key, load_private_key, sign, verify
from etsclone.overlay.sshwire import SshSignature, armor, pack_strings, parse_signature
from etsclone.overlay.trust import Trust, public_key_line

SshKeygen = Callable[..., "subprocess.CompletedProcess[bytes]"]

MESSAGE = b'{"format": 1}\n'


def no_passphrase() -> bytes:
    raise AssertionError("this key needs no passphrase")


def blob_of(armored: bytes) -> bytes:
    return base64.b64decode(b"".join(armored.splitlines()[1:-1]))


def rearmored(blob: bytes) -> bytes:
    text = base64.b64encode(blob)
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return b"\n".join(
        [b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""]
    )


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_new_key_is_private_and_ssh_keygen_reads_it(
    tmp_path: Path, ssh_keygen: SshKeygen
) -> None:
    path = tmp_path / "key"
    line = generate_key(path, comment="srv1 (primary)")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key.pub").read_text() == line
    assert line.endswith(" srv1 (primary)\n")
    assert ssh_keygen("-y", "-f", path).stdout.split()[:2] == line.encode().split()[:2]


def test_no_key_is_left_where_others_could_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without_modes(path: Path, flags: int, _mode: int) -> int:
        """As a filesystem does that gives all files one mode."""
        return real(path, flags, 0o755)

    monkeypatch.setattr(os, "open", without_modes)
    with pytest.raises(KeyRefused, match="others could read"):
        generate_key(tmp_path / "key")
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_is_the_one_of_ssh_keygen(
    key: SigningKey, key_path: Path, ssh_keygen: SshKeygen
) -> None:
    assert ssh_keygen("-l", "-f", key_path).stdout.split()[1].decode() == key.fingerprint


def test_a_passphrase_is_asked_for_and_must_be_right(tmp_path: Path, ssh_keygen: SshKeygen) -> None:
    path = tmp_path / "key"
    generate_key(path, b"open sesame")
    assert load_private_key(path, lambda: b"open sesame").public_key
    assert ssh_keygen("-y", "-P", "open sesame", "-f", path).returncode == 0
    for wrong in (b"", b"Open sesame"):
        with pytest.raises(KeyRefused, match="passphrase does not open"):
            load_private_key(path, lambda answer=wrong: answer)  # type: ignore[misc]


def test_keys_of_ssh_keygen_are_read(tmp_path: Path, ssh_keygen: SshKeygen) -> None:
    path = tmp_path / "key"
    ssh_keygen("-q", "-t", "ed25519", "-N", "secret", "-C", "comment", "-f", path)
    key = load_private_key(path, lambda: b"secret")
    assert public_key_line(key.public_key, "comment") == (tmp_path / "key.pub").read_text()


@pytest.mark.parametrize("existing", ["key", "key.pub"])
def test_no_key_file_is_ever_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(KeyRefused, match="exists already"):
        generate_key(tmp_path / "key")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        (existing, "precious")
    ]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    generate_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyRefused, match="others can read") as caught:
        load_private_key(path, no_passphrase)
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_are_refused(tmp_path: Path, kind: str, ssh_keygen: SshKeygen) -> None:
    path = tmp_path / "key"
    ssh_keygen("-q", "-t", kind, "-N", "", "-f", path)
    with pytest.raises(KeyRefused, match="not of the type Ed25519"):
        load_private_key(path, no_passphrase)


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"]
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyRefused, match="no OpenSSH private key"):
        load_private_key(path, no_passphrase)


def test_a_missing_key_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="No such file"):
        load_private_key(tmp_path / "key", no_passphrase)


def test_private_keys_are_not_shown(key: SigningKey) -> None:
    assert "Private" not in repr(key)


# --- signatures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [b"", b"x", MESSAGE, bytes(range(256)) * 300])
def test_signatures_are_the_bytes_that_ssh_keygen_writes(
    key: SigningKey, key_path: Path, message: bytes, ssh_keygen: SshKeygen
) -> None:
    theirs = ssh_keygen("-q", "-Y", "sign", "-n", NAMESPACE, "-f", key_path, message=message).stdout
    assert sign(message, key) == theirs


def test_a_receipts_signature_is_no_overlays(
    key: SigningKey, key_path: Path, trust: Trust, ssh_keygen: SshKeygen
) -> None:
    arguments = ("-q", "-Y", "sign", "-n", RECEIPT_NAMESPACE, "-f", key_path)
    signature = sign(MESSAGE, key, RECEIPT_NAMESPACE)
    assert signature == ssh_keygen(*arguments, message=MESSAGE).stdout
    with pytest.raises(SignatureInvalid, match="it was made for 'receipt@etsclone'"):
        verify(MESSAGE, signature, trust)


def test_a_sha256_signature_of_ssh_keygen_is_verified(
    key_path: Path, trust: Trust, ssh_keygen: SshKeygen
) -> None:
    arguments = ("-q", "-Y", "sign", "-O", "hashalg=sha256", "-n", NAMESPACE, "-f", key_path)
    theirs = ssh_keygen(*arguments, message=MESSAGE).stdout
    assert parse_signature(theirs).hash_algorithm == "sha256"
    assert verify(MESSAGE, theirs, trust, "primary").principal == "primary"


def test_a_signature_tells_its_signer(key: SigningKey, trust: Trust) -> None:
    signer = verify(MESSAGE, sign(MESSAGE, key), trust, "primary")
    assert (signer.principal, signer.fingerprint) == ("primary", key.fingerprint)


def test_a_key_of_one_role_does_not_sign_for_the_other(key: SigningKey, trust: Trust) -> None:
    with pytest.raises(SignatureInvalid, match="may sign for primary, not for secondary"):
        verify(MESSAGE, sign(MESSAGE, key), trust, "secondary")


def test_nobody_is_trusted_by_default(key: SigningKey) -> None:
    with pytest.raises(TrustRefused, match="no key is trusted"):
        verify(MESSAGE, sign(MESSAGE, key), Trust(()), "primary")


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_every_bit_of_message_and_signature_counts(position: int, bit: int) -> None:
    key = load_key_once()
    armored = sign(MESSAGE, key)
    both = bytearray(MESSAGE + armored)
    both[position % len(both)] ^= 1 << bit
    with pytest.raises(SignatureInvalid):
        verify(bytes(both[: len(MESSAGE)]), bytes(both[len(MESSAGE) :]), trust_of(key), "primary")


def test_a_signature_cut_off_anywhere_is_refused(key: SigningKey) -> None:
    armored = sign(MESSAGE, key)
    for length in range(len(armored)):
        with pytest.raises(SignatureInvalid):
            check(MESSAGE, armored[:length])


def test_every_other_armor_of_the_same_signature_is_refused(key: SigningKey) -> None:
    armored = sign(MESSAGE, key)
    begin, *lines, end = armored.splitlines(keepends=True)
    text = b"".join(lines).replace(b"\n", b"")
    others = [
        armored + b"\n",
        b"\n" + armored,
        armored[:-1],
        armored.replace(b"\n", b"\r\n"),
        begin + text + b"\n" + end,
        begin + b"".join(lines) + b"\n" + end,
        begin + b" " + b"".join(lines) + end,
        begin + b"".join(lines)[:-1] + b"=\n" + end,
        begin + b"".join(lines).replace(b"+", b"-").replace(b"/", b"_") + b"A\n" + end,
        armored + armored,
        b"",
        begin + end,
    ]
    for other in others:
        with pytest.raises(SignatureInvalid, match="format"):
            parse_signature(other)


def test_blobs_that_are_not_exactly_ours_are_refused(key: SigningKey) -> None:
    public, namespace, signature = (
        key.public_key,
        NAMESPACE.encode(),
        pack_strings(b"ssh-ed25519", bytes(64)),
    )

    def blob(version: int = 1, *fields: bytes, rest: bytes = b"") -> bytes:
        return b"SSHSIG" + version.to_bytes(4, "big") + pack_strings(*fields) + rest

    good = (public, namespace, b"", b"sha512", signature)
    assert parse_signature(rearmored(blob(1, *good))) == SshSignature(public, "sha512", bytes(64))
    bad = {
        "no SSHSIG": b"sshsig" + blob(1, *good)[6:],
        "version 1": blob(2, *good),
        "not 5": blob(1, *good, b""),
        "cut off": blob(1, *good, rest=b"\0"),
        "made for 'git'": blob(1, public, b"git", b"", b"sha512", signature),
        "made for ''": blob(1, public, b"", b"", b"sha512", signature),
        "reserved": blob(1, public, namespace, b"x", b"sha512", signature),
        "hash algorithm 'sha1'": blob(1, public, namespace, b"", b"sha1", signature),
        "hash algorithm 'SHA512'": blob(1, public, namespace, b"", b"SHA512", signature),
        "not of the type": blob(
            1, pack_strings(b"ssh-rsa", bytes(32)), namespace, b"", b"sha512", signature
        ),
        "not of 32 bytes": blob(
            1, pack_strings(b"ssh-ed25519", bytes(31)), namespace, b"", b"sha512", signature
        ),
        "not of 64 bytes": blob(
            1, public, namespace, b"", b"sha512", pack_strings(b"ssh-ed25519", bytes(65))
        ),
        "value is not of 64": blob(
            1, public, namespace, b"", b"sha512", signature + pack_strings(b"")
        ),
    }
    for message, data in bad.items():
        with pytest.raises(SignatureInvalid, match=message):
            parse_signature(rearmored(data))


@given(st.binary(max_size=400))
def test_no_bytes_make_the_parser_fail_in_another_way(data: bytes) -> None:
    for armored in (data, rearmored(data), rearmored(b"SSHSIG\0\0\0\1" + data)):
        with pytest.raises(SignatureInvalid):
            parse_signature(armored)


def test_signatures_of_other_kinds_of_keys_are_refused(
    tmp_path: Path, ssh_keygen: SshKeygen
) -> None:
    path = tmp_path / "key"
    ssh_keygen("-q", "-t", "ecdsa", "-N", "", "-f", path)
    theirs = ssh_keygen("-q", "-Y", "sign", "-n", NAMESPACE, "-f", path, message=MESSAGE).stdout
    with pytest.raises(SignatureInvalid, match="not of the type ssh-ed25519"):
        verify(MESSAGE, theirs, Trust(()))


@given(
    st.integers(0, 2**32).map(lambda number: number.to_bytes(5, "big")),
    st.binary(min_size=64, max_size=64),
)
def test_armor_is_read_back(padding: bytes, signature: bytes) -> None:
    wanted = SshSignature(sshwire.public_blob(padding.ljust(32, b"\1")), "sha256", signature)
    armored = armor(wanted)
    assert parse_signature(armored) == wanted
    assert max(map(len, armored.splitlines())) <= 70
    assert rearmored(blob_of(armored)) == armored


_KEYS: list[SigningKey] = []


def load_key_once() -> SigningKey:
    """A key for tests that hypothesis drives, to which it cannot give fixtures of a function."""
    if not _KEYS:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            generate_key(Path(folder) / "key")
            _KEYS.append(load_private_key(Path(folder) / "key", no_passphrase))
    return _KEYS[0]


def trust_of(key: SigningKey) -> Trust:
    return Trust.parse(f"primary {public_key_line(key.public_key)}")
