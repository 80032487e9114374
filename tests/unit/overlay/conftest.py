"""What the tests of signed overlays share: keys, a small overlay, and the real ssh-keygen to agree with."""

import hashlib
import io
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from etsclone.model.brd import CloneIdentity, Filesystem, Header, Member
from etsclone.model.scope import Scope
from etsclone.overlay.container import measure, write_overlay
from etsclone.overlay.header import INVENTORY, PAYLOAD
from etsclone.overlay.signing import SigningKey, generate_key, load_private_key, sign
from etsclone.overlay.trust import Trust, add_signer, public_key_line

SshKeygen = Callable[..., "subprocess.CompletedProcess[bytes]"]
WriteOverlay = Callable[..., bytes]

PAYLOAD_BYTES = b"payload " * 40
INVENTORY_BYTES = b"inventory"


@pytest.fixture
def ssh_keygen() -> SshKeygen:
    """Run the real ssh-keygen: `ssh_keygen(*arguments, message=b"")`."""

    def run(*arguments: str | Path, message: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        argv = ["ssh-keygen", *(str(argument) for argument in arguments)]
        return subprocess.run(argv, input=message, capture_output=True, check=False, timeout=240)

    return run


@pytest.fixture(scope="session")
def key_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "primary"
    generate_key(path, comment="the primary's key")
    return path


@pytest.fixture(scope="session")
def key(key_path: Path) -> SigningKey:
    return load_private_key(key_path, lambda: b"")


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    path = tmp_path_factory.mktemp("key") / "secondary"
    generate_key(path)
    return load_private_key(path, lambda: b"")


@pytest.fixture
def header() -> Header:
    return Header(
        pair="ets",
        role="primary",
        host="srv-ä.example",
        profile="ltsp-isc-dhcp",
        profile_sha256=hashlib.sha256(b"profile").hexdigest(),
        scope=Scope(("/etc/hostname", "/etc/dhcp/**"), ("/etc/fstab",), ("/var/log",)),
        generation=2,
        created=datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC),
        previous=hashlib.sha256(b"the one before").hexdigest(),
        clone=CloneIdentity("6b1f2f0e", (Filesystem("ext4", "0e5a-41"), Filesystem("swap", "77"))),
        members=(
            Member(PAYLOAD, len(PAYLOAD_BYTES), hashlib.sha256(PAYLOAD_BYTES).hexdigest()),
            Member(INVENTORY, len(INVENTORY_BYTES), hashlib.sha256(INVENTORY_BYTES).hexdigest()),
        ),
    )


@pytest.fixture
def trust(key: SigningKey, other_key: SigningKey) -> Trust:
    """The first key may sign for the primary, the other one for the secondary."""
    text = add_signer("", "primary", public_key_line(key.public_key))
    return Trust.parse(add_signer(text, "secondary", public_key_line(other_key.public_key)))


@pytest.fixture
def written(key: SigningKey) -> WriteOverlay:
    """Write an overlay: `written(header)` or `written(header, key)`; the bytes of the whole file."""

    def write(header: Header, signer: SigningKey = key) -> bytes:
        out = io.BytesIO()
        streams = io.BytesIO(PAYLOAD_BYTES), io.BytesIO(INVENTORY_BYTES)
        write_overlay(out, header, partial(sign, key=signer), *streams)
        return out.getvalue()

    return write


@pytest.fixture
def overlay(written: WriteOverlay, header: Header) -> bytes:
    assert measure(PAYLOAD, io.BytesIO(PAYLOAD_BYTES)) == header.members[0]
    return written(header)
