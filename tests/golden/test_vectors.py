"""The test vectors of docs/brd-format.md: etsclone and the programs of every system make the same of them."""

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from documents import FORMAT, commands, needs, printed_files, section, told_files, typed

from etsclone.model.brd import NAMESPACE, Signer
from etsclone.model.extents import Extents
from etsclone.model.packages import Installed, Package
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import inventory, pax
from etsclone.overlay.checked import Check, open_check, write_check
from etsclone.overlay.container import (
    open_verified,
    read_envelope,
    verify_envelope,
    write_overlay,
)
from etsclone.overlay.header import decode, encode
from etsclone.overlay.payload import read_payload
from etsclone.overlay.sealing import load_identities, unseal
from etsclone.overlay.signing import SigningKey, load_private_key, sign
from etsclone.overlay.sshwire import signed_data
from etsclone.overlay.trust import Trust

SECTION = section(FORMAT, "Test vectors")
GIVEN = printed_files(SECTION)
MADE = told_files(SECTION)
OVERLAY = "primary-000001.brd"
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
TRUST = Trust.parse(GIVEN["allowed_signers"].decode())
SCOPE = Scope(("/etc/demo",), ("/etc/demo/disk",))

TIME = 1_782_000_000 * 10**9
root = partial(Entry, uid=0, gid=0, mtime_ns=TIME, uname="root", gname="root")
folder = partial(root, kind=Kind.FOLDER, mode=0o755)
GREETING = b"hello\n"
TREE = (
    folder(b"/etc/demo"),
    Entry(
        b"/etc/demo/greeting",
        Kind.FILE,
        0o640,
        0,
        4_000_000_000,
        TIME + 1,
        "root",
        size=6,
        sha256=hashlib.sha256(GREETING).hexdigest(),
        xattrs=(("user.a=b", b"\0"),),
    ),
    root(b"/etc/demo/old", Kind.SYMLINK, 0o777, mtime_ns=-1_500_000_000, target=b"greeting"),
)
PACKAGE = Package("demo", "all", "1:2.0-1")
LISTING = (
    folder(b"/"),
    folder(b"/etc"),
    *TREE,
    folder(b"/usr"),
    root(
        b"/usr/a b",
        Kind.FILE,
        0o4755,
        sha256=hashlib.sha256().hexdigest(),
        package="demo",
    ),
    root(b"/usr/null", Kind.CHAR_DEVICE, 0o666, device=(1, 3)),
)
CHECK = Check(
    "demo",
    "primary",
    1,
    hashlib.sha256(GIVEN["header.json"]).hexdigest(),
    datetime(2026, 11, 23, 3, 4, 5, tzinfo=UTC),
)


def plain(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


def told(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


def overlay() -> bytes:
    """The overlay as our writer makes it of the given parts."""
    out = io.BytesIO()
    members = io.BytesIO(GIVEN["payload.tar.zst"]), io.BytesIO(GIVEN["inventory.mtree.zst"])
    write_overlay(out, decode(GIVEN["header.json"]), partial(sign, key=KEY), *members)
    return out.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """All given files, as a person would save them."""
    for name, data in GIVEN.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "test_key").chmod(0o600)
    return tmp_path


def test_none_is_missing() -> None:
    assert set(GIVEN) == {
        "test_key",
        "allowed_signers",
        "header.json",
        "signed.bin",
        "header.json.sig",
        "payload.tar.zst",
        "inventory.mtree",
        "inventory.mtree.zst",
        "check.json",
        "check.json.sig",
        "identity",
        "payload.tar.zst.age",
    }
    assert set(MADE) == {"payload.tar", OVERLAY, "primary-000001.header", "primary.checked"}


def test_the_key_is_the_one_of_the_numbers_0_to_31(files: Path) -> None:
    assert load_private_key(files / "test_key", bytes).public_key == KEY.public_key
    assert KEY.private.public_key().public_bytes_raw().hex() in SECTION
    signer = TRUST.signer_for(KEY.public_key, "primary", NAMESPACE, None)
    assert signer == Signer("primary", KEY.fingerprint)


def test_header_and_signature() -> None:
    header = GIVEN["header.json"]
    assert encode(decode(header)) == header
    assert signed_data("sha512", header) == GIVEN["signed.bin"]
    assert sign(header, KEY) == GIVEN["header.json.sig"]


def test_the_overlay_that_they_make(tmp_path: Path) -> None:
    data = overlay()
    path = tmp_path / OVERLAY
    path.write_bytes(data)
    envelope = read_envelope(path)
    pruned = data[: envelope.size]
    assert told(data) == MADE[OVERLAY]
    assert told(pruned) == MADE["primary-000001.header"]
    assert verify_envelope(read_envelope(io.BytesIO(pruned)), TRUST)[0].generation == 1
    with open_verified(path, TRUST, role="primary", pair="demo", generation=1) as verified:
        assert verified.digest == CHECK.digest
        assert verified.header.scope == SCOPE
        with read_payload(verified.payload(), verified.header.scope) as payload:
            assert tuple(payload.tree.values()) == TREE
            assert list(payload.pieces(b"/etc/demo/greeting")) == [(0, GREETING)]
        # mtree(5) has no words for attributes.
        listed = tuple(replace(entry, xattrs=()) for entry in LISTING)
        assert tuple(inventory.read(verified.inventory())) == listed


def test_payload_and_inventory_are_written_as_they_were() -> None:
    archive = b"".join(
        pax.header(entry, Extents.between(0, 6)) + GREETING + pax.padding(6)
        if entry.kind is Kind.FILE
        else pax.header(entry, Extents())
        for entry in TREE
    )
    assert told(archive + pax.END) == MADE["payload.tar"]
    assert archive + pax.END == plain(GIVEN["payload.tar.zst"])
    listing = io.BytesIO()
    with inventory.writing(listing, Installed((PACKAGE,))) as add:
        for entry in LISTING:
            add(entry)
    assert plain(listing.getvalue()) == GIVEN["inventory.mtree"]
    assert plain(GIVEN["inventory.mtree.zst"]) == GIVEN["inventory.mtree"]


def test_the_check(tmp_path: Path) -> None:
    path = tmp_path / "primary.checked"
    with path.open("wb") as out:
        write_check(out, CHECK, partial(sign, key=KEY))
    assert told(path.read_bytes()) == MADE[path.name]
    assert GIVEN["check.json"] in path.read_bytes()
    assert GIVEN["check.json.sig"] == sign(GIVEN["check.json"], KEY)
    assert open_check(path, TRUST, pair="demo", role="primary") == CHECK


def test_the_sealed_payload_opens(files: Path) -> None:
    opened = io.BytesIO()
    identities = load_identities(files / "identity", bytes)
    unseal(io.BytesIO(GIVEN["payload.tar.zst.age"]), opened, identities, "payload.tar.zst.age")
    assert opened.getvalue() == GIVEN["payload.tar.zst"]


@needs("ssh-keygen", "age", "zstd", "tar")
def test_by_hand_they_are_the_same(files: Path) -> None:
    lines = typed(commands(SECTION)[-1], files).splitlines()
    assert lines[0].startswith('Good "brd@etsclone" signature for primary with ED25519 key SHA256:')
    assert GIVEN["signed.bin"].endswith(bytes.fromhex(lines[1].split()[0]))
    sums = {name: sha256 for sha256, name in (line.split() for line in lines[2:])}
    members = {member.name: member.sha256 for member in decode(GIVEN["header.json"]).members}
    assert sums == members | {name: sha256 for name, (_, sha256) in MADE.items()}
    assert {name: (files / name).stat().st_size for name in MADE} == {
        name: size for name, (size, _) in MADE.items()
    }
