"""Attacks on whole overlays: what anybody can do to the file, and what only the owner of a trusted key can.

Each is refused as early as it can be. Of a file without a trusted signature nothing is decompressed and nothing copied;
of one with a signature, where the owner of the key is the enemy, nothing is written to the clone.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import zstandard
from oracle import look

from etsclone.errors import HostilePayload, Refused, VerificationFailed
from etsclone.model.brd import Header, Member
from etsclone.model.extents import Extent
from etsclone.model.scope import Scope
from etsclone.model.tree import Kind, twins
from etsclone.overlay import apply as apply_module
from etsclone.overlay import container, inventory, pax, ustar
from etsclone.overlay.apply import apply_plan
from etsclone.overlay.container import measure, open_verified, write_overlay
from etsclone.overlay.header import INVENTORY, PAYLOAD, encode
from etsclone.overlay.payload import read_payload
from etsclone.overlay.scan import scan
from etsclone.overlay.signing import SigningKey, sign
from etsclone.overlay.sshwire import pack_strings
from etsclone.overlay.trust import Trust
from etsclone.plan.tree import plan_tree
from etsclone.units import GIB, KIB, MIB

from .test_container import parts
from .test_payload import ETC, HOST, HOSTILE, file, other, packed, sparse
from .test_signing import rearmored

SCOPE = Scope(("/etc", "/srv/x*"), ("/etc/fstab",))
LISTING = zstandard.compress(b"#mtree\n. type=dir mode=0755 uid=0 gid=0 time=0.000000000\n")


@dataclass(frozen=True)
class Enemy:
    """Who has the primary's overlay and keys of his own; `key` is the primary's."""

    header: Header
    key: SigningKey
    other_key: SigningKey
    overlay: bytes

    def signed(self, payload: bytes, listing: bytes = LISTING, **changes: object) -> bytes:
        """An overlay as the owner of the primary's key can make it."""
        members = (measure(PAYLOAD, io.BytesIO(payload)), measure(INVENTORY, io.BytesIO(listing)))
        header = replace(self.header, scope=SCOPE, members=members, **changes)  # type: ignore[arg-type]
        return self.written(header, lambda data: sign(data, self.key), payload, listing)

    def written(
        self, header: Header, signer: Callable[[bytes], bytes], payload: bytes, listing: bytes
    ) -> bytes:
        out = io.BytesIO()
        write_overlay(out, header, signer, io.BytesIO(payload), io.BytesIO(listing))
        return out.getvalue()

    def with_signature(self, signature: bytes) -> bytes:
        """The genuine overlay with another signature."""
        found, mtime = parts(self.overlay), ustar.size_and_mtime(self.overlay)[1]
        block = ustar.header("header.json.sig", len(signature), mtime)
        found[1] = block + signature + bytes(ustar.padding(len(signature)))
        return b"".join(found)

    def with_size(self, member: int, size: int) -> bytes:
        """The genuine overlay, one of whose tar headers tells another size."""
        found, mtime = parts(self.overlay), ustar.size_and_mtime(self.overlay)[1]
        name = ustar.name_of(found[member][:512])
        found[member] = ustar.header(name, size, mtime) + found[member][512:]
        return b"".join(found)


@pytest.fixture
def enemy(header: Header, key: SigningKey, other_key: SigningKey) -> Enemy:
    maker = Enemy(header, key, other_key, b"")
    return replace(maker, overlay=maker.signed(packed(ETC, HOST)))


# --- what anybody can do to the file -------------------------------------------------------------------------------


def ssh_blob(
    public: bytes, namespace: bytes = b"brd@etsclone", signature: bytes | None = None
) -> bytes:
    signature = pack_strings(b"ssh-ed25519", bytes(64)) if signature is None else signature
    fields = pack_strings(public, namespace, b"", b"sha512", signature)
    return rearmored(b"SSHSIG" + (1).to_bytes(4, "big") + fields)


def reordered(overlay: bytes, *order: int) -> bytes:
    found = parts(overlay)
    return b"".join(found[number] for number in order) + found[-1]


def without_namespace(enemy: Enemy) -> bytes:
    """What `ssh-keygen -Y sign -n git` makes with the primary's own key."""
    header = parts(enemy.overlay)[0]
    size = ustar.size_and_mtime(header)[0]
    return enemy.with_signature(sign(header[512 : 512 + size], enemy.key, "receipt@etsclone"))


OUTSIDE: dict[str, Callable[[Enemy], bytes]] = {
    "empty": lambda _: b"",
    "zeros": lambda _: bytes(64 * KIB),
    "trailing-zero": lambda enemy: enemy.overlay + b"\0",
    "trailing-member": lambda enemy: enemy.overlay + ustar.header("x", 0, 0) + ustar.END,
    "trailing-overlay": lambda enemy: enemy.overlay * 2,
    "duplicate-header": lambda enemy: reordered(enemy.overlay, 0, 0, 1, 2, 3),
    "duplicate-signature": lambda enemy: reordered(enemy.overlay, 0, 1, 1, 2, 3),
    "duplicate-payload": lambda enemy: reordered(enemy.overlay, 0, 1, 2, 2, 3),
    "duplicate-inventory": lambda enemy: reordered(enemy.overlay, 0, 1, 2, 3, 3),
    "reordered-signature-first": lambda enemy: reordered(enemy.overlay, 1, 0, 2, 3),
    "reordered-payload-first": lambda enemy: reordered(enemy.overlay, 2, 0, 1, 3),
    "reordered-payload-last": lambda enemy: reordered(enemy.overlay, 0, 1, 3, 2),
    "missing-signature": lambda enemy: reordered(enemy.overlay, 0, 2, 3),
    "missing-inventory": lambda enemy: reordered(enemy.overlay, 0, 1, 2),
    "oversize-header": lambda enemy: enemy.with_size(0, 64 * KIB + 1),
    "oversize-header-8-gib": lambda enemy: enemy.with_size(0, 8 * GIB - 1),
    "oversize-signature": lambda enemy: enemy.with_size(1, 4 * KIB + 1),
    "oversize-payload": lambda enemy: enemy.with_size(2, 8 * GIB - 1),
    "oversize-inventory": lambda enemy: enemy.with_size(3, 8 * GIB - 1),
    "undersize-payload": lambda enemy: enemy.with_size(2, 1),
    "header-of-negative-size": lambda enemy: (
        b"\xff" + enemy.overlay[1:124] + b"\x80" + enemy.overlay[125:]
    ),
    "signature-empty": lambda enemy: enemy.with_signature(b""),
    "signature-of-zeros": lambda enemy: enemy.with_signature(ssh_blob(enemy.key.public_key)),
    "namespace-other": without_namespace,
    "namespace-empty": lambda enemy: enemy.with_signature(ssh_blob(enemy.key.public_key, b"")),
    "namespace-longer": lambda enemy: enemy.with_signature(
        ssh_blob(enemy.key.public_key, b"brd@etsclone\0")
    ),
    "key-rsa": lambda enemy: enemy.with_signature(
        ssh_blob(pack_strings(b"ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 256))
    ),
    "key-ecdsa": lambda enemy: enemy.with_signature(
        ssh_blob(pack_strings(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + bytes(64)))
    ),
    "key-dsa": lambda enemy: enemy.with_signature(ssh_blob(pack_strings(b"ssh-dss", b"\1"))),
    "key-of-a-token": lambda enemy: enemy.with_signature(
        ssh_blob(pack_strings(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:"))
    ),
    "key-short": lambda enemy: enemy.with_signature(
        ssh_blob(pack_strings(b"ssh-ed25519", bytes(31)))
    ),
    "key-empty": lambda enemy: enemy.with_signature(ssh_blob(pack_strings(b"ssh-ed25519", b""))),
    "key-of-small-order": lambda enemy: enemy.with_signature(
        # The neutral element signs anything for verifiers that take it for a key; nobody trusts it here.
        ssh_blob(
            pack_strings(b"ssh-ed25519", b"\1" + bytes(31)),
            signature=pack_strings(b"ssh-ed25519", b"\1" + bytes(63)),
        )
    ),
    "signed-by-the-other-role": lambda enemy: enemy.written(
        replace(enemy.header, members=genuine_members()),
        lambda data: sign(data, enemy.other_key),
        packed(ETC, HOST),
        LISTING,
    ),
    "signature-over-the-other-role": lambda enemy: enemy.with_signature(
        sign(encode(replace(enemy.header, role="secondary")), enemy.key)
    ),
}


def genuine_members() -> tuple[Member, Member]:
    return (
        measure(PAYLOAD, io.BytesIO(packed(ETC, HOST))),
        measure(INVENTORY, io.BytesIO(LISTING)),
    )


@pytest.fixture
def _nothing_decompresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Iterator[bytes]:
        raise AssertionError("decompressed")

    monkeypatch.setattr(zstandard, "ZstdDecompressor", never)


def refused_unopened(data: bytes, trust: Trust, folder: Path, **asked: str | int) -> None:
    """Refused by typed error, with nothing written to the folder for private copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "_IN_MEMORY", 0)
        with pytest.raises(VerificationFailed):
            open_verified(io.BytesIO(data), trust, spool=folder, **asked)  # type: ignore[arg-type]
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("_nothing_decompresses")
@pytest.mark.parametrize("attack", OUTSIDE)
def test_a_tampered_file_is_never_decompressed(
    attack: str, enemy: Enemy, trust: Trust, tmp_path: Path
) -> None:
    refused_unopened(OUTSIDE[attack](enemy), trust, tmp_path, role="primary", pair="ets")


@pytest.mark.usefixtures("_nothing_decompresses")
def test_truncated_at_each_boundary(enemy: Enemy, trust: Trust, tmp_path: Path) -> None:
    ends = [0]
    for part in parts(enemy.overlay):
        ends += [ends[-1] + 512, ends[-1] + len(part)]
    near = {end + step for end in ends for step in (-1, 0, 1)}
    for length in sorted(near & set(range(len(enemy.overlay)))):
        refused_unopened(enemy.overlay[:length], trust, tmp_path)


@pytest.mark.usefixtures("_nothing_decompresses")
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"role": "secondary"}, id="another-role"),
        pytest.param({"pair": "other"}, id="another-pair"),
        pytest.param({"generation": 1}, id="an-older-generation"),
    ],
)
def test_a_genuine_overlay_in_anothers_place(
    asked: dict[str, str | int], enemy: Enemy, trust: Trust, tmp_path: Path
) -> None:
    refused_unopened(enemy.overlay, trust, tmp_path, **asked)


# --- what the owner of a trusted key can do ------------------------------------------------------------------------

device = {"device": (8, 0)}
INSIDE: dict[str, list[bytes]] = {
    **{what.replace(" ", "-"): members for (what, _), members in HOSTILE.items()},
    "device-node-out-of-scope": [other(b"/dev", Kind.BLOCK_DEVICE, **device)],
    "device-node-by-traversal": [ETC, other(b"/etc/../dev/sda", Kind.BLOCK_DEVICE, **device)],
    "fifo-out-of-scope": [other(b"/run", Kind.FIFO)],
    "symlink-out-of-scope": [other(b"/bin", Kind.SYMLINK, target=b"/etc")],
    "symlink-then-through-it": [
        ETC,
        other(b"/etc/cron.d", Kind.SYMLINK, target=b"/root"),
        file(b"/etc/cron.d/x"),
    ],
    "symlink-and-folder-of-one-name": [
        ETC,
        other(b"/etc/a", Kind.SYMLINK, target=b"/root"),
        other(b"/etc/a", Kind.FOLDER),
        file(b"/etc/a/b"),
    ],
    "hard-link-to-a-symlink": [
        ETC,
        other(b"/etc/a", Kind.SYMLINK, target=b"/etc/shadow"),
        other(b"/etc/b", Kind.FILE, link_to=b"/etc/a"),
    ],
    "hard-link-to-the-disks-own": [ETC, other(b"/etc/z", Kind.FILE, link_to=b"/etc/fstab")],
    "hard-link-with-attributes": [
        ETC,
        HOST,
        other(b"/etc/z", Kind.FILE, link_to=b"/etc/hostname").replace(
            b"mtime=0", b"SCHILY.fflags=schg\n30 mtime=0"
        ),
    ],
    "scope-by-prefix": [file(b"/etcetera")],
    "scope-by-case": [other(b"/ETC", Kind.FOLDER)],
    "scope-widened-by-nul": [file(b"/srv/x" + b"a" * 120).replace(b"srv/xa", b"usr\0xa")],
    "flags-unknown": [ETC.replace(b"mtime=", b"SCHILY.fflags=x\n99 mtime=")],
    "holes-of-an-exbibyte": [ETC, sparse(1 << 60)],
    "holes-beyond-the-limit-together": [
        ETC,
        sparse(3 * GIB),
        sparse(3 * GIB).replace(b"sparse", b"sparsf"),
    ],
    "pieces-out-of-order": [
        ETC,
        sparse(4096, Extent(0, 512)).replace(b"2\n0\n512\n4096\n0\n", b"2\n0\n512\n0\n512\n"),
    ],
}


def compressed_with(window_log: int, content: bytes) -> bytes:
    asked = zstandard.ZstdCompressionParameters(window_log=window_log, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=asked).compressobj()
    return compressor.compress(content) + compressor.flush()


BOMBS: dict[str, Callable[[], bytes]] = {
    "zstd-bomb-of-zeros": lambda: zstandard.ZstdCompressor(level=19).compress(bytes(64 * MIB)),
    "zstd-bomb-in-a-file": lambda: packed(ETC, file(b"/etc/x", bytes(64 * MIB))),
    "zstd-window-of-a-gigabyte": lambda: compressed_with(30, ETC + pax.END),
    "zstd-two-frames": lambda: packed(ETC) + packed(HOST),
    "zstd-skippable-frame": lambda: b"\x50\x2a\x4d\x18\x04\0\0\0evil" + packed(ETC),
    "zstd-empty-frame": lambda: zstandard.compress(b""),
    "zstd-cut-off": lambda: packed(ETC, HOST)[:-5],
    "zstd-wrong-checksum": lambda: (
        zstandard.ZstdCompressor(write_checksum=True).compress(ETC + pax.END)[:-4] + bytes(4)
    ),
    "not-compressed": lambda: ETC + pax.END,
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    for name in ("etc/hostname", "etc/fstab", "etc/shadow", "root/x", "usr/x"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def rebuild(data: bytes, trust: Trust, root: Path, limit: int = 8 * MIB) -> None:
    """From the file to the clone, as production does it."""
    with open_verified(io.BytesIO(data), trust, role="primary") as overlay:
        scope = overlay.header.scope
        with read_payload(overlay.payload(), scope, limit=limit) as payload:
            seen = scan(str(root), scope)
            plan = plan_tree(seen.scope, payload.tree, scope, seen.outside)
            apply_plan(str(root), plan, payload)


def test_the_same_way_a_sound_one_is_applied(enemy: Enemy, trust: Trust, clone: Path) -> None:
    rebuild(enemy.signed(packed(ETC, HOST, file(b"/etc/shadow", b"new"))), trust, clone)
    assert (clone / "etc/hostname").read_text() == "x"
    assert (clone / "etc/shadow").read_text() == "new"


@pytest.mark.parametrize("attack", [*INSIDE, *BOMBS])
def test_a_signed_attack_changes_nothing(
    attack: str, enemy: Enemy, trust: Trust, clone: Path
) -> None:
    before = look(clone)
    payload = BOMBS[attack]() if attack in BOMBS else packed(*INSIDE[attack])
    with pytest.raises(HostilePayload):
        rebuild(enemy.signed(payload), trust, clone)
    assert look(clone) == before


@pytest.mark.parametrize("bomb", ["zstd-bomb-of-zeros", "zstd-bomb-in-a-file"])
def test_an_inventory_bomb_is_bounded(bomb: str) -> None:
    data = BOMBS[bomb]()
    with pytest.raises(HostilePayload):
        list(inventory.read(io.BytesIO(data), limit=MIB))


def test_what_unpacks_large_takes_little_memory() -> None:
    """A sound archive of 300 MiB in a few KiB, in a process that may have little more than the interpreter needs."""
    program = f"""
import io, zstandard, resource
from etsclone.model.extents import Extents
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import pax
from etsclone.overlay.payload import read_payload
size = {300 * MIB}
compressor = zstandard.ZstdCompressor(level=1).compressobj()
start = pax.header(Entry(b"/etc", Kind.FILE, 0o644, 0, 0, 0, size=size), Extents.between(0, size))
bomb = compressor.compress(start)
bomb += b"".join(compressor.compress(bytes({MIB})) for _ in range(300))
bomb += compressor.compress(pax.END) + compressor.flush()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {250 * MIB}, used + {250 * MIB}))
with read_payload(io.BytesIO(bomb), Scope(("/etc",))) as payload:
    print(payload.tree[b"/etc"].size)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{300 * MIB}\n")


# --- twins ---------------------------------------------------------------------------------------------------------

TWINS = {
    "case": (b"/etc/Hosts", b"/etc/hosts"),
    "case-of-a-folder": (b"/etc/A", b"/etc/a"),
    "unicode-composed": ("/etc/caf\u00e9".encode(), "/etc/cafe\u0301".encode()),
    "unicode-sharp-s": (b"/etc/STRASSE", "/etc/stra\u00dfe".encode()),
    "unicode-kelvin": (b"/etc/k", "/etc/\u212a".encode()),
}


@pytest.mark.parametrize("pair", TWINS)
def test_twins_are_two_where_the_filesystem_tells_them_apart(
    pair: str, enemy: Enemy, trust: Trust, clone: Path
) -> None:
    one, another = sorted(TWINS[pair])
    rebuild(enemy.signed(packed(ETC, file(one, b"one"), file(another, b"other"))), trust, clone)
    assert Path(os.fsdecode(os.fsencode(clone) + one)).read_bytes() == b"one"
    assert Path(os.fsdecode(os.fsencode(clone) + another)).read_bytes() == b"other"
    assert any("differs from" in warning for warning in scan(str(clone), SCOPE).warnings)


@pytest.mark.parametrize("pair", TWINS)
def test_twins_are_refused_where_it_does_not(
    pair: str, enemy: Enemy, trust: Trust, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with chattr's F, which not every kernel has; a real exFAT is among the tests with loop devices."""
    monkeypatch.setattr(apply_module, "folds_case", lambda _: True)
    one, another = sorted(TWINS[pair])
    before = look(clone)
    with pytest.raises(Refused, match="would be one on this filesystem"):
        rebuild(enemy.signed(packed(ETC, file(one), file(another))), trust, clone)
    assert look(clone) == before


def test_what_is_no_twin() -> None:
    assert not twins([b"/a/x", b"/b/x", b"/a", b"/a.", b"/\xff", b"/\xfe", b"/a/y"])
    assert twins([b"/a/x", b"/A/x"]) == [(b"/a/x", b"/A/x")]
