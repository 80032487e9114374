"""Agents to sign through: the real ssh-agent, and one of our own that has a hardware token in software."""

import base64
import contextlib
import hashlib
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedRWPair
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from etsclone.overlay.sshwire import HARDWARE_TYPE, pack_strings, split_strings

_REQUEST_IDENTITIES, _IDENTITIES = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_FAILURE = 5
_COUNTER = 5
TOUCHED = 1


@dataclass
class SoftToken:
    """What a FIDO token does with an ssh-ed25519-sk key (OpenSSH's PROTOCOL.u2f), without the token."""

    application: bytes = b"ssh:"
    flags: int = TOUCHED
    counter: int = 41
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> bytes:
        """The public key in its wire form."""
        raw = self.private.public_key().public_bytes_raw()
        return pack_strings(HARDWARE_TYPE.encode(), raw, self.application)

    def sign(self, data: bytes) -> bytes:
        """The signature in its wire form."""
        self.counter += 1
        extra = struct.pack(">BI", self.flags, self.counter)
        hashes = [hashlib.sha256(each).digest() for each in (self.application, data)]
        signature = self.private.sign(hashes[0] + extra + hashes[1])
        return pack_strings(HARDWARE_TYPE.encode(), signature) + extra


@contextlib.contextmanager
def ssh_agent(folder: Path) -> Iterator[Path]:
    """The real ssh-agent; the path of its socket."""
    path = folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE)
    assert agent.stdout
    agent.stdout.readline()  # it tells its socket once it listens
    try:
        yield path
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.stdout.close()
        agent.wait()


def add(agent: Path, key: Path, passphrase: str = "") -> None:
    """Have the agent hold a key."""
    helper = key.with_name("askpass")
    helper.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
    helper.chmod(0o700)
    asking = {
        "SSH_ASKPASS": str(helper),
        "SSH_ASKPASS_REQUIRE": "force",
        "SSH_AUTH_SOCK": str(agent),
    }
    subprocess.run(
        ["ssh-add", "-q", key], env=os.environ | asking, check=True, stdin=subprocess.DEVNULL
    )


@contextlib.contextmanager
def token_agent(folder: Path, token: SoftToken) -> Iterator[Path]:
    """An agent (draft-miller-ssh-agent) that holds the token; the path of its socket."""

    def serve(stream: BufferedRWPair) -> None:
        while head := stream.read(4):
            (length,) = struct.unpack(">I", head)
            stream.write(pack_strings(_answer(stream.read(length), token)))
            stream.flush()

    with _listening(folder / "token-agent", serve) as path:
        yield path


@contextlib.contextmanager
def plugged_in(folder: Path, token: SoftToken) -> Iterator[dict[str, str]]:
    """The token without an agent, for ssh-keygen to find; the environment that says where."""

    def serve(stream: BufferedRWPair) -> None:
        signed = token.sign(stream.read())
        extra = signed[-_COUNTER:]
        stream.write(extra + split_strings(signed[:-_COUNTER])[1])
        stream.flush()

    provider = folder / "provider.so"
    source = Path(__file__).with_name("token_provider.c")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", provider, source], check=True
    )
    with _listening(folder / "token", serve) as path:
        yield {"SSH_SK_PROVIDER": str(provider), "SOFT_TOKEN": str(path), "SSH_AUTH_SOCK": ""}


def write_token_key(path: Path, token: SoftToken) -> None:
    """The private key file of a token's key, which has only its handle in it (OpenSSH's PROTOCOL.key)."""
    kind, raw, application = split_strings(token.public_key)
    check = struct.pack(">II", 1, 1)
    private = check + pack_strings(kind, raw, application) + bytes([TOUCHED])
    private += pack_strings(b"handle", b"", b"a token")
    private += bytes(range(1, 8))[: -len(private) % 8]
    blob = b"openssh-key-v1\0" + pack_strings(b"none", b"none", b"") + struct.pack(">I", 1)
    text = base64.encodebytes(blob + pack_strings(token.public_key, private)).decode()
    path.write_text(
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}-----END OPENSSH PRIVATE KEY-----\n"
    )
    path.chmod(0o600)


@contextlib.contextmanager
def _listening(path: Path, serve: Callable[[BufferedRWPair], None]) -> Iterator[Path]:
    """Serve whoever connects to a socket, one after the other."""

    def work() -> None:
        with contextlib.suppress(OSError):  # the socket was shut down
            while True:
                connection, _ = server.accept()
                with connection, connection.makefile("rwb") as stream:
                    serve(stream)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield path
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answer(request: bytes, token: SoftToken) -> bytes:
    if request[0] == _REQUEST_IDENTITIES:
        one = struct.pack(">I", 1) + pack_strings(token.public_key, b"a token")
        return bytes([_IDENTITIES]) + one
    if request[0] == _SIGN_REQUEST:
        key, data = split_strings(request[1:-4])
        if key == token.public_key:
            return bytes([_SIGN_RESPONSE]) + pack_strings(token.sign(data))
    return bytes([_FAILURE])
