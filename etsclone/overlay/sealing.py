"""Sealing: payload and inventory encrypted in the age format to whoever holds a recovery key.

The only importer of `pyrage` (why that: docs/decisions.md). Recipients are age's X25519 keys and ssh-ed25519 keys; what
seals cannot open. The format is age-encryption.org/v1, binary: `age -d -i IDENTITY` opens it too.
"""

import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyrage

from etsclone.errors import EtscloneError, FormatError, HostilePayload, KeyRefused, OverlaySealed
from etsclone.model.brd import check_recipient
from etsclone.overlay.signing import parse_private_key
from etsclone.overlay.sshwire import KEY_TYPE
from etsclone.overlay.trust import parse_public_key
from etsclone.regular import read_given

MAX_AGE_HEADER = 16 * 1024
"""Bytes that the part of a sealed member before its ciphertext may have; a recipient needs 120 at most."""

_FIRST_LINE = b"age-encryption.org/v1\n"
_LAST_LINE = re.compile(rb"\n--- [A-Za-z0-9+/]{43}\n")
_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_SSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_IDENTITY_START = "AGE-SECRET-KEY-1"
_IDENTITY_HINT = "name the private key: a file of `age-keygen`, or an OpenSSH ssh-ed25519 key"
_MAX_IDENTITY = 64 * 1024

_Recipient = pyrage.x25519.Recipient | pyrage.ssh.Recipient
_Identity = pyrage.x25519.Identity | pyrage.ssh.Identity


@dataclass(frozen=True, slots=True)
class Identities:
    """Private keys that open what was sealed to them."""

    keys: tuple[_Identity, ...] = field(repr=False)

    def unseal(self, sealed: BinaryIO, out: BinaryIO, name: str) -> None:
        """Open a sealed member; see `unseal` below."""
        unseal(sealed, out, self, name)


# --- recipients -----------------------------------------------------------------------------------------------------


def parse_recipient(text: str) -> str:
    """The line by which a store keeps a recipient: `age1...`, or `ssh-ed25519 BASE64 comment`.

    Raises:
        KeyRefused: when it is no public key that can be sealed to.
    """
    line = text.strip()
    if line.upper().startswith(_IDENTITY_START):
        raise KeyRefused(
            "a secret key was given as a recipient",
            hint="give its public key, age1...: `age-keygen -y FILE`; and make a new one if others saw this",
        )
    try:
        _recipient(check_recipient(line))
    except (ValueError, FormatError, pyrage.RecipientError) as error:
        raise KeyRefused(
            f"not a public key that can be sealed to: {line[:40]!a}",
            hint=_why_not(line),
        ) from error
    return line


def parse_recipients(text: str) -> tuple[str, ...]:
    """The recipients in the text of a file: one a line, with blank lines and `#` comments.

    Raises:
        KeyRefused: when a line is none, or there is none at all.
    """
    lines = [line.strip() for line in text.splitlines()]
    found = tuple(parse_recipient(line) for line in lines if line and not line.startswith("#"))
    if not found:
        raise KeyRefused(
            "there is no public key in it", hint="write one a line: age1... or ssh-ed25519 ..."
        )
    return found


def _recipient(line: str) -> _Recipient:
    if line.startswith("age1"):
        return pyrage.x25519.Recipient.from_str(line)
    parse_public_key(line)  # stricter than the library, which would also take RSA
    return pyrage.ssh.Recipient.from_str(line)


def _why_not(line: str) -> str:
    if line.startswith("sk-"):
        return "a hardware token can sign, but it cannot open: take `age-keygen` or `ssh-keygen -t ed25519`"
    if line.startswith(("ssh-", "ecdsa-")) and not line.startswith(KEY_TYPE):
        return "of the keys of OpenSSH only ssh-ed25519 can be sealed to: `ssh-keygen -t ed25519`, or `age-keygen`"
    return "it looks like age1... (`age-keygen`) or ssh-ed25519 AAAA... (`ssh-keygen -t ed25519`)"


# --- identities -----------------------------------------------------------------------------------------------------


def load_identities(path: Path, ask_passphrase: Callable[[], bytes]) -> Identities:
    """The private keys in a file: age's own, also one that `age -p` encrypted, or an OpenSSH ssh-ed25519 one.

    That others can read the file is no reason to refuse it: it may come from a stick whose filesystem knows no modes.

    Raises:
        KeyRefused: when there are none, or the passphrase is wrong.
    """
    try:
        data = read_given(path, _MAX_IDENTITY)
    except OSError as error:
        raise KeyRefused(
            f"{path}: {error.strerror}", hint="name the file of the recovery key"
        ) from error
    if data.lstrip().startswith(_SSH):
        key = parse_private_key(path, data, ask_passphrase)
        return Identities((pyrage.ssh.Identity.from_buffer(key.in_the_clear()),))
    if data.startswith((_FIRST_LINE, _ARMOR)):
        data = _with_passphrase(path, data, ask_passphrase())
    return Identities(_age_identities(path, data))


def _age_identities(path: Path, data: bytes) -> tuple[_Identity, ...]:
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    try:
        keys = tuple(
            pyrage.x25519.Identity.from_str(line)
            for line in lines
            if line and not line.startswith("#")
        )
    except pyrage.IdentityError as error:
        # What the library says of the line is not repeated: it may be a key with one wrong letter.
        raise KeyRefused(
            f"{path} holds a line that is no identity of age", hint=_IDENTITY_HINT
        ) from error
    if not keys:
        raise KeyRefused(f"there is no identity in {path}", hint=_IDENTITY_HINT)
    return keys


def _with_passphrase(path: Path, data: bytes, passphrase: bytes) -> bytes:
    try:
        return bytes(pyrage.passphrase.decrypt(data, passphrase.decode()))
    except (pyrage.DecryptError, OSError, UnicodeDecodeError) as error:
        raise KeyRefused(
            f"the passphrase does not open {path}", hint="try again; the file is unchanged"
        ) from error


# --- sealing and opening --------------------------------------------------------------------------------------------


@contextmanager
def sealing(out: BinaryIO, recipients: Sequence[str]) -> Iterator[BinaryIO]:
    """A file to write to whose bytes arrive sealed in `out`; without recipients it is `out` itself.

    Plain text is only ever in memory: it goes to the library through a pipe, which a thread reads.

    Raises:
        KeyRefused: when a recipient is none.
        OSError: whatever writing to `out` raises.
    """
    if not recipients:
        yield out
        return
    keys = [_recipient(parse_recipient(line)) for line in recipients]
    failures: list[BaseException] = []
    reader, writer = os.pipe()
    thread = threading.Thread(target=_seal, args=(reader, out, keys, failures))
    thread.start()
    try:
        with open(writer, "wb") as plain:
            yield plain
    except BrokenPipeError:
        if not failures:
            raise
    finally:
        thread.join()
    if failures:
        raise failures[0]


_DRAINED = 1 << 16


def _seal(
    reader: int, out: BinaryIO, keys: list[_Recipient], failures: list[BaseException]
) -> None:
    sink = _Watched(out)
    # Closed early, it breaks the pipe: the other side must not wait for ever.
    with open(reader, "rb") as source:
        try:
            pyrage.encrypt_io(source, sink, keys)
        except (pyrage.EncryptError, OSError) as error:
            failures.append(EtscloneError(f"sealing failed: {error}"))
            # Other processes may hold this end of the pipe too, and then closing it would not tell the writer.
            while source.read(_DRAINED):
                pass
    # First what really happened; the library only words it anew.
    failures[:0] = sink.errors


def unseal(sealed: BinaryIO, out: BinaryIO, identities: Identities, name: str) -> None:
    """Open a sealed member. Only once this returns is what `out` got known to be what was sealed, and complete.

    Args:
        sealed: the member, seekable; its digest must have been checked before.
        out: gets the plain text, which is never longer than the sealed one.
        identities: who opens it.
        name: what it is called in messages.

    Raises:
        OverlaySealed: when it was not sealed to any of the identities.
        HostilePayload: when it is no age file in the binary format, or is damaged.
        OSError: whatever writing to `out` raises.
    """
    _check_header(sealed, name)
    sealed.seek(0)
    source, sink = _Watched(sealed), _Watched(out)
    try:
        pyrage.decrypt_io(source, sink, list(identities.keys))
    except (pyrage.DecryptError, OSError) as error:
        for real in (*source.errors, *sink.errors):
            raise real from error
        raise _not_opened(name, error) from error
    for real in sink.errors:
        raise real


def _not_opened(name: str, error: Exception) -> EtscloneError:
    if isinstance(error, OSError):
        return HostilePayload(f"{name} is damaged: {error}")
    return OverlaySealed(
        f"no given identity opens {name}",
        hint="it was sealed to other recipients: name one of their private keys with --identity",
    )


def _check_header(sealed: BinaryIO, name: str) -> None:
    sealed.seek(0)
    start = sealed.read(MAX_AGE_HEADER)
    if not start.startswith(_FIRST_LINE) or not _LAST_LINE.search(start):
        raise HostilePayload(f"{name} does not begin as an age file does")


class _Watched(io.BufferedIOBase):
    """A file whose errors are kept: the library loses those of its last write, and words the others anew."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        with self._watching():
            return self._file.read(-1 if size is None else size)

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer; Python 3.11 has no name for that
        with self._watching():
            return self._file.write(data)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.errors.append(error)
            raise
