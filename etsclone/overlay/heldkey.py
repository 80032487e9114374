"""Signing keys wherever they are: in a file, in ssh-agent, or in a hardware token.

What is not in a file is asked for through `ssh-keygen -Y sign`, which knows agents and tokens. Its signatures are
checked here like anybody's before they are used.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from etsclone.errors import CommandFailed, FormatError, KeyRefused, SignatureInvalid
from etsclone.model.brd import NAMESPACE
from etsclone.overlay.signing import (
    MAX_KEY_FILE,
    SigningKey,
    check,
    parse_private_key,
    read_private,
)
from etsclone.overlay.sshwire import HARDWARE_TYPE, fingerprint, private_file_key, split_strings
from etsclone.overlay.trust import parse_public_key
from etsclone.regular import read_given
from etsclone.run import run

logger = logging.getLogger(__name__)

_PUBLIC_STARTS = ("ssh-", "ecdsa-", "sk-")
_NO_AGENT = 2
_EMPTY_AGENT = 1


@dataclass(frozen=True, slots=True)
class HeldKey:
    """An Ed25519 key whose private part somebody else holds.

    `path` names it to ssh-keygen: its public key, or the private key file that has only a token's handle in it.
    """

    path: Path
    public_key: bytes

    @property
    def fingerprint(self) -> str:
        """The key's SHA256 fingerprint, as `ssh-keygen -l` prints it."""
        return fingerprint(self.public_key)

    @property
    def in_token(self) -> bool:
        """Whether a hardware token holds it, and not ssh-agent itself."""
        return _is_in_token(self.public_key)

    def sign(self, message: bytes, namespace: str = NAMESPACE) -> bytes:
        """The armored signature over `message`, checked; a token may wait to be touched meanwhile.

        Raises:
            KeyRefused: when agent or token do not sign, or not with this key.
            MissingProgram: without ssh-keygen.
        """
        if self.in_token:
            logger.warning("the token is asked to sign: touch it if it blinks")
        arguments = ("-q", "-Y", "sign", "-n", namespace, "-f", self.path)
        try:
            said = run("ssh-keygen", arguments, feed=message).stdout
            armored = said.encode("utf-8", "surrogateescape")
            signature = check(message, armored, namespace)
        except (CommandFailed, SignatureInvalid) as error:
            raise KeyRefused(
                f"the key {self.fingerprint} did not sign: {error.message}",
                hint="is the token plugged in, and was it touched? a PIN is asked for by the agent: `ssh-add`",
            ) from error
        if signature.key != self.public_key:
            raise KeyRefused(
                f"{self.path}: ssh-keygen signed with {fingerprint(signature.key)}, another key",
                hint="a private and a public key file of one name do not belong together",
            )
        return armored


def load_key(path: Path, ask_passphrase: Callable[[], bytes]) -> SigningKey | HeldKey:
    """The key that a file is or names, ready to sign.

    A public key (`path`, or `path` + `.pub` where `path` does not exist) stands for the private one in the agent, or
    else in the file beside it. A private key with a passphrase that the agent holds needs no passphrase.

    Raises:
        KeyRefused: when the key is not Ed25519, nobody holds it, or as `signing.load_private_key`.
        MissingProgram: when the agent or a token is needed and OpenSSH's programs are not installed.
    """
    public_path = path if path.exists() else path.with_name(f"{path.name}.pub")
    public = _public_key(public_path)
    if public is not None:
        private_path = public_path.with_suffix("")
        if _agent_holds(public):
            return HeldKey(public_path, public)
        if public_path.suffix != ".pub" or not private_path.exists():
            raise KeyRefused(
                f"nobody holds the private part of {public_path}: not the agent, no file beside it",
                hint="`ssh-add -l` lists the agent's keys; sudo needs --preserve-env=SSH_AUTH_SOCK",
            )
        path = private_path
    return _private_key(path, ask_passphrase)


def _private_key(path: Path, ask_passphrase: Callable[[], bytes]) -> SigningKey | HeldKey:
    data = read_private(path)
    try:
        public, encrypted = private_file_key(data)
        in_token = _is_in_token(public)
    except ValueError:
        # Not for us to judge: `parse_private_key` knows what is wrong with it.
        return parse_private_key(path, data, ask_passphrase)
    if in_token or (encrypted and _agent_holds(public)):
        return HeldKey(path, public)
    return parse_private_key(path, data, ask_passphrase)


def _public_key(path: Path) -> bytes | None:
    """The key of a public key file; None when it is no such file."""
    try:
        text = read_given(path, MAX_KEY_FILE).decode()
    except (OSError, UnicodeDecodeError):
        return None
    if not text.startswith(_PUBLIC_STARTS):
        return None
    try:
        return parse_public_key(text)[0]
    except FormatError as error:
        raise KeyRefused(
            f"the key in {path} is not of the type Ed25519",
            hint="`etsclone brd keygen` or `ssh-keygen -t ed25519` makes one",
        ) from error


def _is_in_token(public: bytes) -> bool:
    return split_strings(public)[:1] == [HARDWARE_TYPE.encode()]


def _agent_holds(public: bytes) -> bool:
    if not os.environ.get("SSH_AUTH_SOCK"):
        return False
    listed = run("ssh-add", ["-L"], accept=(0, _EMPTY_AGENT, _NO_AGENT)).stdout
    return any(_is_key(line, public) for line in listed.splitlines())


def _is_key(line: str, public: bytes) -> bool:
    try:
        return parse_public_key(line)[0] == public
    except FormatError:
        return False
