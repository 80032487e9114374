"""Overlays of format 1, made once and kept for ever: see v1/README.md."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from etsclone.errors import OverlaySealed, SignatureInvalid
from etsclone.model.brd import CloneIdentity, Filesystem, Header, Member
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import inventory
from etsclone.overlay.container import VerifiedOverlay, open_verified, read_envelope
from etsclone.overlay.payload import read_payload
from etsclone.overlay.sealing import load_identities
from etsclone.overlay.signing import load_private_key, sign
from etsclone.overlay.trust import Trust
from etsclone.store.folder import open_store

FOLDER = Path(__file__).parent / "v1"
OVERLAY = FOLDER / "primary-000003.brd"
SEALED = FOLDER / "sealed-primary-000004.brd"
TOKEN_SIGNED = FOLDER / "token-primary-000005.brd"
TIME = 1_782_000_000_123_456_789

HEADER = Header(
    pair="ets",
    role="primary",
    host="srv1.example",
    profile="ltsp-isc-dhcp",
    profile_sha256="1900eab6c028483d7126599ee6f50de0d27907b5c65fa90524580b4b0f9852b0",
    scope=Scope(("/etc/hostname", "/etc/dhcp"), ("/etc/fstab",), ("/var/log",)),
    generation=3,
    created=datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC),
    previous="34ed9014dd283924d1935df6be1be3ae88bde0abebb8d568048221754f618034",
    clone=CloneIdentity(
        "8f3b2f2e-6a0e-4f6e-9c0b-1d2e3f405162",
        (
            Filesystem("vfat", "6A1B-22C3"),
            Filesystem("ext4", "3c9d2a4e-1f0b-4b58-8a53-0d6a0a4b7c11"),
        ),
    ),
    members=(
        Member(
            "payload.tar.zst",
            603,
            "10a7c9552f276af35cbff8a202ac635f400908cfaac1ba20c90f0cf5583c67ea",
        ),
        Member(
            "inventory.mtree.zst",
            559,
            "e6d04ce7cfa644682757cc73a37a82eb84ad7f559a9eb3360be8453f85e2938c",
        ),
    ),
)

ACL = (  # version 2; user:: rw-, user:100: r--, group:: r--, mask:: r--, other:: ---
    "0200000001000600ffffffff020004006400000004000400ffffffff10000400ffffffff20000000ffffffff"
)
LEASES = bytes(1 << 19) + b"lease\n" + bytes((1 << 19) - 6)

root = partial(Entry, uid=0, gid=0, uname="root", gname="root", mtime_ns=TIME)
config = partial(
    root,
    kind=Kind.FILE,
    mode=0o640,
    size=33,
    sha256=hashlib.sha256(b'failover peer "ets" { primary; }\n').hexdigest(),
    xattrs=(("system.posix_acl_access", bytes.fromhex(ACL)),),
)
TREE = (
    root(b"/etc/dhcp", Kind.FOLDER, 0o755),
    Entry(b"/etc/dhcp/active", Kind.SYMLINK, 0o777, 101, 102, TIME, target=b"dhcpd.conf"),
    config(b"/etc/dhcp/dhcpd.conf"),
    config(b"/etc/dhcp/dhcpd.conf.singleserver", link_to=b"/etc/dhcp/dhcpd.conf"),
    root(
        b"/etc/dhcp/leases",
        Kind.FILE,
        0o644,
        size=1 << 20,
        sha256=hashlib.sha256(LEASES).hexdigest(),
    ),
    Entry(
        path=b"/etc/dhcp/odd \xff=name\n",
        kind=Kind.FILE,
        mode=0o4750,
        uid=1000,
        gid=4_000_000_000,
        mtime_ns=1,
        sha256=hashlib.sha256().hexdigest(),
        xattrs=(("user.note", b"a\0b=\xff"),),
    ),
    root(b"/etc/dhcp/omapi", Kind.FIFO, 0o644),
    root(
        b"/etc/hostname",
        Kind.FILE,
        0o644,
        mtime_ns=TIME + 1,
        size=5,
        sha256=hashlib.sha256(b"srv1\n").hexdigest(),
    ),
)


def opened(role: str = "primary") -> VerifiedOverlay:
    trust = Trust.parse((FOLDER / "allowed_signers").read_text())
    return open_verified(OVERLAY, trust, role=role, pair="ets", generation=3)


def test_the_overlay_is_verified_and_says_what_it_said() -> None:
    with opened() as overlay:
        assert overlay.header == HEADER
        assert overlay.digest == "aff2fd4109e8694fe32b1e3b07d881fe054d282e6d0aa0e93d20d54245d00047"
        assert overlay.signer.fingerprint == "SHA256:PMJKWljCS7vCcYP2Q1QWH6uvrwuiHmng6/ERT13UWbM"


def test_the_payload_holds_what_it_held() -> None:
    with opened() as overlay, read_payload(overlay.payload(), overlay.header.scope) as payload:
        assert tuple(payload.tree.values()) == TREE
        assert list(payload.pieces(b"/etc/hostname")) == [(0, b"srv1\n")]
        assert sum(len(piece) for _, piece in payload.pieces(b"/etc/dhcp/leases")) < 1 << 16


def test_the_inventory_lists_what_it_listed() -> None:
    with opened() as overlay:
        listed = {entry.path: entry for entry in inventory.read(overlay.inventory())}
    assert list(listed) == sorted(
        [
            b"/",
            b"/etc",
            b"/etc/fstab",
            b"/usr",
            b"/usr/bin",
            b"/usr/bin/true",
            *(entry.path for entry in TREE),
        ]
    )
    assert listed[b"/etc/hostname"] == TREE[-1]


def test_the_key_still_makes_the_same_signature(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes((FOLDER / "test_key").read_bytes())
    path.chmod(0o600)
    envelope = read_envelope(OVERLAY)
    assert sign(envelope.header, load_private_key(path, bytes)) == envelope.signature


def test_it_is_not_trusted_by_others() -> None:
    other = (
        "primary ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICk113kggmCce96wcJSJxHX6XE6q4pXTaQAINM8qlCKJ"
    )
    with pytest.raises(SignatureInvalid, match="is not known"):
        open_verified(OVERLAY, Trust.parse(other))


# --- sealed, and signed by a token ----------------------------------------------------------------------------------


def trust(name: str = "allowed_signers") -> Trust:
    return Trust.parse((FOLDER / name).read_text())


@pytest.mark.parametrize("identity", ["test_identity", "test_key"])
def test_the_sealed_overlay_opens_and_holds_the_same(identity: str) -> None:
    identities = load_identities(FOLDER / identity, bytes)
    with (
        open_verified(SEALED, trust(), generation=4, identities=identities) as sealed,
        opened() as plain,
    ):
        assert sealed.digest == "6db35bff15915bfb648282de8f497094813df5fbb88e918a07761432636b2a91"
        assert sealed.header.sealed
        assert sealed.header.previous == plain.digest
        assert sealed.payload().read() == plain.payload().read()
        assert sealed.inventory().read() == plain.inventory().read()


def test_the_sealed_overlay_is_verified_without_its_identity() -> None:
    with open_verified(SEALED, trust()) as sealed:
        assert sealed.header == replace(
            HEADER,
            generation=4,
            created=HEADER.created + timedelta(days=1),
            previous="aff2fd4109e8694fe32b1e3b07d881fe054d282e6d0aa0e93d20d54245d00047",
            members=(
                Member(
                    "payload.tar.zst.age",
                    954,
                    "aac55831621c2deb05ee4e72ed076de0ce97c1c52169d216bb16531370f1303f",
                ),
                Member(
                    "inventory.mtree.zst.age",
                    894,
                    "5b0f1ead0214eae12270097027177dd3ca7588e1b650a4a21a1a834438dd3e23",
                ),
            ),
        )
        with pytest.raises(OverlaySealed):
            sealed.payload()


def test_the_tokens_signature_is_believed() -> None:
    with open_verified(TOKEN_SIGNED, trust("allowed_signers_token")) as overlay:
        assert overlay.signer.fingerprint == "SHA256:PI6a0fR3JQf6jrVn9r4V11SH3JaL1jwyB/9Or1j2JcA"
        assert overlay.digest == "fbcf646a2eb96e64ae6030028aa3da67325efdfe278621cb44f2705b66b9f093"
    with pytest.raises(SignatureInvalid, match="is not known"):
        open_verified(TOKEN_SIGNED, trust())


def test_stores_say_what_they_said(tmp_path: Path) -> None:
    config = tmp_path / "brd.toml"
    config.write_bytes((FOLDER / "brd.toml").read_bytes())
    store = open_store(tmp_path)
    assert (store.pair, store.profile, store.roles) == (
        "ets",
        "ltsp-isc-dhcp",
        ("primary", "secondary"),
    )
    assert store.recipients == ()
    config.write_bytes((FOLDER / "brd-sealed.toml").read_bytes())
    assert open_store(tmp_path) == replace(
        store,
        recipients=(
            "age1kus9x94jaq9hu9rzt98rmtu58tcvjwuw0nx3etmf6hhyvf94pcvqpm74ae",
            (FOLDER / "test_key.pub").read_text().strip(),
        ),
    )
