"""Ed25519 keys in OpenSSH's files, and signatures that `ssh-keygen -Y verify` accepts.

The only importer of `cryptography`. Its reader and writer of key files is imported where there is such a file: most
commands only verify, and all its ciphers take a while to load. The formats are in `sshwire`, who is trusted for what in
`trust`.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from etsclone.errors import KeyRefused, SignatureInvalid
from etsclone.model.brd import NAMESPACE, Signer
from etsclone.overlay.sshwire import (
    SshSignature,
    armor,
    fingerprint,
    parse_signature,
    public_blob,
    public_key,
    signed_data,
    token_data,
)
from etsclone.overlay.trust import Trust, public_key_line
from etsclone.regular import read_given

_HASH = "sha512"
"""What ssh-keygen takes by default, so that our signatures are the same bytes as its own."""

MAX_KEY_FILE = 64 * 1024


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key, ready to sign."""

    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> bytes:
        """The wire form of the public key, as `Trust.signer_for` wants it."""
        return public_blob(self.private.public_key().public_bytes_raw())

    @property
    def fingerprint(self) -> str:
        """The key's SHA256 fingerprint, as `ssh-keygen -l` prints it."""
        return fingerprint(self.public_key)

    def sign(self, message: bytes, namespace: str = NAMESPACE) -> bytes:
        """The armored signature over `message`: the same bytes as `ssh-keygen -Y sign -n NAMESPACE` writes."""
        signature = self.private.sign(signed_data(_HASH, message, namespace))
        return armor(SshSignature(self.public_key, _HASH, signature), namespace)

    def in_the_clear(self) -> bytes:
        """The private key as an OpenSSH file without a passphrase. It must not leave memory."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above

        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )


def generate_key(path: Path, passphrase: bytes | None = None, comment: str = "") -> str:
    """Make a key: the private one at `path` (mode 0600, OpenSSH's format), the public one at `path` + `.pub`.

    Args:
        path: where the private key goes; neither file may exist.
        passphrase: encrypts the private key; None or empty leaves it in the clear.
        comment: the last field of the public key's line.

    Returns:
        The line of the public key, as in the `.pub` file.

    Raises:
        KeyRefused: when one of the files exists already, or others could read the private one.
        OSError: when they cannot be written.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above

    public_path = path.with_name(f"{path.name}.pub")
    if os.path.lexists(public_path):
        raise KeyRefused(
            f"{public_path} exists already", hint="choose another name: keys are never overwritten"
        )
    private = Ed25519PrivateKey.generate()
    protection = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, protection
    )
    line = public_key_line(SigningKey(private).public_key, comment)
    _write_new(path, pem, 0o600)
    _write_new(public_path, line.encode(), 0o644)
    return line


def load_private_key(path: Path, ask_passphrase: Callable[[], bytes]) -> SigningKey:
    """Read an OpenSSH Ed25519 private key; `ask_passphrase` is called only when the key is encrypted.

    Raises:
        KeyRefused: when the file is readable by others, is no OpenSSH private key, is not Ed25519, or the
            passphrase is wrong.
    """
    return parse_private_key(path, read_private(path), ask_passphrase)


def parse_private_key(path: Path, data: bytes, ask_passphrase: Callable[[], bytes]) -> SigningKey:
    """As `load_private_key`, from what was read; `path` names it in messages.

    Raises:
        KeyRefused: when it is no OpenSSH private key, is not Ed25519, or the passphrase is wrong.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above

    try:
        try:
            private: object = serialization.load_ssh_private_key(data, None)
        except TypeError:  # the documented way to say: this key is encrypted
            private = _decrypt(path, data, ask_passphrase())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefused(
            f"{path} is no OpenSSH private key that can be read: {error}",
            hint="`etsclone brd keygen` makes one",
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyRefused(
            f"the key in {path} is not of the type Ed25519", hint="`etsclone brd keygen` makes one"
        )
    return SigningKey(private)


def sign(message: bytes, key: SigningKey, namespace: str = NAMESPACE) -> bytes:
    """The armored signature over `message`: the same bytes as `ssh-keygen -Y sign -n NAMESPACE` writes."""
    return key.sign(message, namespace)


def check(message: bytes, armored: bytes, namespace: str = NAMESPACE) -> SshSignature:
    """The signature, once it holds over `message` under the key that it names itself. Trust is another question.

    Raises:
        SignatureInvalid: when the signature does not have its format, is of another namespace, or does not fit the
            message.
    """
    signature = parse_signature(armored, namespace)
    named = public_key(signature.key)
    data = signed_data(signature.hash_algorithm, message, namespace)
    if signature.token:
        data = token_data(named, signature.token, data)
    try:
        Ed25519PublicKey.from_public_bytes(named.raw).verify(signature.signature, data)
    except InvalidSignature as error:
        raise SignatureInvalid(
            "the signature does not fit: what was signed, or the signature, has been changed",
            hint="take another copy or an older generation, and find out who changed this one",
        ) from error
    return signature


def verify(
    message: bytes,
    armored: bytes,
    trust: Trust,
    role: str | None = None,
    at: datetime | None = None,
) -> Signer:
    """Whose key signed exactly this message, once that is proven and the key is trusted.

    Args:
        message: the bytes that were signed.
        armored: the signature file.
        trust: which keys may sign for which roles.
        role: the role that the key must be trusted for; None asks for any.
        at: the time at which the key's listing must be valid; None asks for any.

    Raises:
        SignatureInvalid: when the signature does not hold or its key is not trusted for this.
        TrustRefused: when nobody is trusted at all.
    """
    return trust.signer_for(check(message, armored).key, role, NAMESPACE, at)


def _decrypt(path: Path, data: bytes, passphrase: bytes) -> object:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above

    try:
        return serialization.load_ssh_private_key(data, passphrase)
    except (ValueError, TypeError) as error:
        raise KeyRefused(
            f"the passphrase does not open {path}", hint="try again; the key file is unchanged"
        ) from error


def read_private(path: Path) -> bytes:
    """The content of a private key's file, or of a pipe.

    Raises:
        KeyRefused: when it cannot be read, is larger than any key, or others than its owner can read it.
    """
    try:
        # The same rule as ssh's: a key of our own that others can read is no secret any more.
        if _others_may_read(path.stat()):
            raise KeyRefused(f"others can read the private key {path}", hint=f"chmod 600 {path}")
        return read_given(path, MAX_KEY_FILE)
    except OSError as error:
        raise KeyRefused(
            f"{path}: {error.strerror}", hint="name the file of the private key"
        ) from error


def _others_may_read(status: os.stat_result) -> bool:
    return status.st_uid == os.getuid() and bool(stat.S_IMODE(status.st_mode) & 0o077)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise KeyRefused(
            f"{path} exists already", hint="choose another name: keys are never overwritten"
        ) from error
    with open(descriptor, "wb") as file:
        if not mode & 0o077 and _others_may_read(os.fstat(descriptor)):
            path.unlink()
            raise KeyRefused(
                f"others could read {path}: its filesystem does not keep modes, as on sticks with FAT or exFAT",
                hint="make the key on a filesystem that does: ext4, xfs, btrfs",
            )
        file.write(data)
        file.flush()
        os.fsync(descriptor)
