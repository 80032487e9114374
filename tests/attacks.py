"""Attacks on whole overlays, and how far each gets: for the readers alone, and for the commands that use them.

`OUTSIDE` is what anybody can do to a file; `PAYLOADS` and `LISTINGS` are what only the owner of a trusted key can sign.
"""

import base64
import io
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyrage
import pytest
import zstandard
from agents import SoftToken
from payloads import ETC, HOST, HOSTILE, OTHER_FORMS, file, frame, other, packed, sparse

from etsclone.model.brd import Header
from etsclone.model.extents import Extent
from etsclone.model.scope import Scope
from etsclone.model.tree import Kind
from etsclone.overlay import container, pax, ustar
from etsclone.overlay.container import measure, write_overlay
from etsclone.overlay.header import INVENTORY, PAYLOAD, SEALED_MEMBERS, encode
from etsclone.overlay.header import MEMBERS as CLEAR_MEMBERS
from etsclone.overlay.signing import SigningKey, sign
from etsclone.overlay.sshwire import pack_strings, signed_data
from etsclone.overlay.trust import add_signer, public_key_line
from etsclone.units import GIB, KIB, MIB

SCOPE = Scope(("/etc", "/srv/x*"), ("/etc/fstab",))
ROOT = b". type=dir mode=0755 uid=0 gid=0 time=0.000000000\n"
LISTING = frame(b"#mtree\n" + ROOT)

HOSTILE_SCOPE = Scope(
    ("/etc", "/srv/" + "*a" * 30 + "b", "/srv" + "/**/a" * 30 + "/b"), ("/etc/fstab",)
)
"""Signed patterns that never end for whoever tries all ways to share `HOSTILE_PATH` out among the wildcards."""

HOSTILE_PATH = b"/srv/" + b"a" * 200

Signed = Callable[[bytes], bytes]


@contextmanager
def watching() -> Iterator[list[str]]:
    """What is reached meanwhile: `parse` of a header, `copy` of a member, `age` that opens one, `zstd`."""
    reached: list[str] = []

    with pytest.MonkeyPatch.context() as patch:

        def watch(
            where: object, name: str, stage: str, *, of: frozenset[str] | None = None
        ) -> None:
            real = getattr(where, name)

            def noted(*words: object, **more: object) -> object:
                if of is None or of & set(words):
                    reached.append(stage)
                return real(*words, **more)

            patch.setattr(where, name, noted)

        watch(container, "decode", "parse")
        watch(container, "_check_block", "copy", of=frozenset((*CLEAR_MEMBERS, *SEALED_MEMBERS)))
        watch(pyrage, "decrypt_io", "age")
        watch(zstandard, "ZstdDecompressor", "zstd")
        yield reached


@dataclass(frozen=True)
class Enemy:
    """Who has the primary's overlay and keys of his own; `key` is the primary's, `foreign` of kinds not taken."""

    header: Header
    key: SigningKey = field(repr=False)
    other_key: SigningKey = field(repr=False)
    foreign: Mapping[str, Path]
    token: SoftToken = field(default_factory=SoftToken, repr=False)
    overlay: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not self.overlay:
            object.__setattr__(self, "overlay", self.signed(packed(ETC, HOST)))

    @property
    def signers(self) -> str:
        """An `allowed_signers` with all but the token: nothing but their kind is wrong with the foreign keys."""
        text = add_signer("", "primary", public_key_line(self.key.public_key))
        text = add_signer(text, "secondary", public_key_line(self.other_key.public_key))
        return text + "".join(
            f"primary {path.with_suffix('.pub').read_text()}" for path in self.foreign.values()
        )

    def signed(
        self,
        payload: bytes,
        listing: bytes = LISTING,
        signer: Signed | None = None,
        scope: Scope = SCOPE,
    ) -> bytes:
        """An overlay as the owner of the primary's key can make it."""
        members = (measure(PAYLOAD, io.BytesIO(payload)), measure(INVENTORY, io.BytesIO(listing)))
        header = replace(self.header, scope=scope, members=members)
        out = io.BytesIO()
        signer = signer or (lambda data: sign(data, self.key))
        write_overlay(out, header, signer, io.BytesIO(payload), io.BytesIO(listing))
        return out.getvalue()

    @property
    def signed_bytes(self) -> bytes:
        """Those of the genuine header."""
        size = ustar.size_and_mtime(self.overlay)[0]
        return self.overlay[512 : 512 + size]

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

    def reordered(self, *order: int) -> bytes:
        """The genuine overlay with its members in another order."""
        found = parts(self.overlay)
        return b"".join(found[number] for number in order) + found[-1]

    def flipped(self, member: int) -> bytes:
        """The genuine overlay, one bit of a member's content turned."""
        found = parts(self.overlay)
        found[member] = found[member][:520] + bytes([found[member][520] ^ 1]) + found[member][521:]
        return b"".join(found)

    def signed_by_foreign(self, kind: str) -> bytes:
        """Signed by OpenSSH with a key of another kind."""
        argv: list[str | Path] = [
            "ssh-keygen",
            "-Y",
            "sign",
            "-q",
            "-n",
            "brd@etsclone",
            "-f",
            self.foreign[kind],
        ]
        done = subprocess.run(argv, input=self.signed_bytes, capture_output=True, check=True)
        return self.with_signature(done.stdout)

    def signed_by_token(self) -> bytes:
        """Signed soundly by a token that nobody listed."""
        value = self.token.sign(signed_data("sha512", self.signed_bytes))
        return self.with_signature(ssh_blob(self.token.public_key, signature=value))


def make_foreign(folder: Path) -> dict[str, Path]:
    """Keys of other kinds, made by OpenSSH."""
    for kind in ("rsa", "ecdsa"):
        argv: list[str | Path] = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", folder / kind]
        subprocess.run(argv, check=True)
    return {kind: folder / kind for kind in ("rsa", "ecdsa")}


def parts(overlay: bytes) -> list[bytes]:
    """The four members, each with its tar header and padding, and the end."""
    found, start = [], 0
    for _ in range(4):
        size, _ = ustar.size_and_mtime(overlay[start : start + 512])
        end = start + 512 + size + ustar.padding(size)
        found.append(overlay[start:end])
        start = end
    return [*found, overlay[start:]]


def ssh_blob(public: bytes, signature: bytes | None = None) -> bytes:
    """A signature of zeros, or another one, in its armor."""
    signature = pack_strings(b"ssh-ed25519", bytes(64)) if signature is None else signature
    fields = pack_strings(public, b"brd@etsclone", b"", b"sha512", signature)
    text = base64.b64encode(b"SSHSIG" + (1).to_bytes(4, "big") + fields)
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    marks = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
    return b"\n".join([marks[0], *lines, marks[1], b""])


# --- what anybody can do to the file -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outside:
    """An attack, what the refusal says, and how far it may get: what of `watching` may be reached."""

    make: Callable[[Enemy], bytes]
    says: str
    reaches: frozenset[str] = frozenset()


HEADER = frozenset({"parse"})
MEMBERS = frozenset({"parse", "copy"})


def _before(make: Callable[[Enemy], bytes], says: str) -> Outside:
    return Outside(make, says)


def _behind(make: Callable[[Enemy], bytes], says: str) -> Outside:
    return Outside(make, says, MEMBERS)


OUTSIDE = {
    "empty": _before(lambda _: b"", "truncated"),
    "zeros": _before(lambda _: bytes(64 * KIB), "no tar header"),
    "trailing-zero": _behind(lambda enemy: enemy.overlay + b"\0", "after the last member"),
    "trailing-member": _behind(
        lambda enemy: enemy.overlay + ustar.header("x", 0, 0) + ustar.END, "after the last member"
    ),
    "trailing-overlay": _behind(lambda enemy: enemy.overlay * 2, "after the last member"),
    "duplicate-header": _before(
        lambda enemy: enemy.reordered(0, 0, 1, 2, 3), "where header.json.sig must"
    ),
    "duplicate-signature": _behind(
        lambda enemy: enemy.reordered(0, 1, 1, 2, 3), "where payload.tar.zst must"
    ),
    "duplicate-payload": _behind(
        lambda enemy: enemy.reordered(0, 1, 2, 2, 3), "where inventory.mtree.zst must"
    ),
    "duplicate-inventory": _behind(
        lambda enemy: enemy.reordered(0, 1, 2, 3, 3), "after the last member"
    ),
    "reordered-signature-first": _before(
        lambda enemy: enemy.reordered(1, 0, 2, 3), "where header.json must"
    ),
    "reordered-payload-first": _before(
        lambda enemy: enemy.reordered(2, 0, 1, 3), "where header.json must"
    ),
    "reordered-payload-last": _behind(
        lambda enemy: enemy.reordered(0, 1, 3, 2), "where payload.tar.zst must"
    ),
    "missing-signature": _before(
        lambda enemy: enemy.reordered(0, 2, 3), "where header.json.sig must"
    ),
    "missing-inventory": _behind(
        lambda enemy: enemy.reordered(0, 1, 2), "where inventory.mtree.zst must"
    ),
    "oversize-header": _before(
        lambda enemy: enemy.with_size(0, 64 * KIB + 1), "65537 bytes, more than 65536"
    ),
    "oversize-header-8-gib": _before(lambda enemy: enemy.with_size(0, 8 * GIB - 1), "more than"),
    "oversize-signature": _before(
        lambda enemy: enemy.with_size(1, 4 * KIB + 1), "4097 bytes, more than 4096"
    ),
    "oversize-payload": _behind(
        lambda enemy: enemy.with_size(2, 8 * GIB - 1), "payload.tar.zst is not the one"
    ),
    "oversize-inventory": _behind(
        lambda enemy: enemy.with_size(3, 8 * GIB - 1), "inventory.mtree.zst is not the one"
    ),
    "undersize-payload": _behind(
        lambda enemy: enemy.with_size(2, 1), "payload.tar.zst is not the one"
    ),
    "header-of-negative-size": _before(
        lambda enemy: b"\xff" + enemy.overlay[1:124] + b"\x80" + enemy.overlay[125:],
        "no tar header",
    ),
    "header-changed": _before(lambda enemy: enemy.flipped(0), "does not fit"),
    "payload-changed": _behind(lambda enemy: enemy.flipped(2), "payload.tar.zst does not have"),
    "inventory-changed": _behind(
        lambda enemy: enemy.flipped(3), "inventory.mtree.zst does not have"
    ),
    "signature-empty": _before(lambda enemy: enemy.with_signature(b""), "first or last line"),
    "signature-of-zeros": _before(
        lambda enemy: enemy.with_signature(ssh_blob(enemy.key.public_key)), "does not fit"
    ),
    # With the primary's own key, for other purposes: what `ssh-keygen -Y sign -n git` makes.
    **{
        f"namespace-{name}": _before(
            lambda enemy, namespace=namespace: enemy.with_signature(  # type: ignore[misc]
                sign(enemy.signed_bytes, enemy.key, namespace)
            ),
            "it was made for",
        )
        for name, namespace in (
            ("other", "git"),
            ("empty", ""),
            ("longer", "brd@etsclone\0"),
            ("of-a-receipt", "receipt@etsclone"),
        )
    },
    # Sound, and their keys are listed: only their kind is wrong.
    "key-rsa": _before(lambda enemy: enemy.signed_by_foreign("rsa"), "key is not of the type"),
    "key-ecdsa": _before(lambda enemy: enemy.signed_by_foreign("ecdsa"), "key is not of the type"),
    "key-dsa": _before(
        lambda enemy: enemy.with_signature(ssh_blob(pack_strings(b"ssh-dss", b"\1"))),
        "key is not of the type",
    ),
    "key-of-a-strange-token": _before(lambda enemy: enemy.signed_by_token(), "is not known"),
    "key-short": _before(
        lambda enemy: enemy.with_signature(ssh_blob(pack_strings(b"ssh-ed25519", bytes(31)))),
        "not of 32 bytes",
    ),
    "key-empty": _before(
        lambda enemy: enemy.with_signature(ssh_blob(pack_strings(b"ssh-ed25519", b""))),
        "not of 32 bytes",
    ),
    "key-of-small-order": _before(
        # The neutral element signs anything for verifiers that take it for a key; nobody trusts it here.
        lambda enemy: enemy.with_signature(
            ssh_blob(
                pack_strings(b"ssh-ed25519", b"\1" + bytes(31)),
                pack_strings(b"ssh-ed25519", b"\1" + bytes(63)),
            )
        ),
        "is not known",
    ),
    "signed-by-the-other-role": Outside(
        lambda enemy: enemy.signed(
            packed(ETC, HOST), signer=lambda data: sign(data, enemy.other_key)
        ),
        "may sign for secondary, not for primary",
        HEADER,
    ),
    "signature-over-the-other-role": _before(
        lambda enemy: enemy.with_signature(
            sign(encode(replace(enemy.header, role="secondary")), enemy.key)
        ),
        "does not fit",
    ),
}


# --- what the owner of a trusted key can do ------------------------------------------------------------------------

_DEVICE = {"device": (8, 0)}
_INSIDE: dict[str, list[bytes]] = {
    **{what.replace(" ", "-"): members for (what, _), members in HOSTILE.items()},
    **{f"form-{what.replace(' ', '-')}": [member] for what, member in OTHER_FORMS.items()},
    "device-node-out-of-scope": [other(b"/dev", Kind.BLOCK_DEVICE, **_DEVICE)],
    "device-node-by-traversal": [ETC, other(b"/etc/../dev/sda", Kind.BLOCK_DEVICE, **_DEVICE)],
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
    "attribute-larger-than-the-kernels": [
        other(b"/etc", Kind.FOLDER, xattrs=(("user.a", bytes(64 * KIB + 1)),))
    ],
    "path-longer-than-the-kernels": [ETC, other(b"/etc" + b"/a" * 2046, Kind.FOLDER)],
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


def _with_window(log: int, content: bytes) -> bytes:
    asked = zstandard.ZstdCompressionParameters(
        window_log=log, compression_level=1, write_checksum=True
    )
    compressor = zstandard.ZstdCompressor(compression_params=asked).compressobj()
    return compressor.compress(content) + compressor.flush()


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "zstd-window-of-a-gigabyte": lambda content: _with_window(30, content),
    "zstd-two-frames": lambda content: frame(content) + frame(content),
    "zstd-skippable-frame": lambda content: b"\x50\x2a\x4d\x18\x04\0\0\0evil" + frame(content),
    "zstd-empty-frame": lambda _: frame(b""),
    "zstd-of-zeros": lambda _: frame(bytes(64 * MIB)),
    "zstd-cut-off": lambda content: frame(content)[:-5],
    "zstd-without-checksum": zstandard.compress,
    "zstd-wrong-checksum": lambda content: frame(content)[:-4] + bytes(4),
    "not-compressed": lambda content: content,
}

PAYLOADS: dict[str, Callable[[], bytes]] = {
    **{name: lambda members=members: packed(*members) for name, members in _INSIDE.items()},  # type: ignore[misc]
    **{
        name: lambda make=make: make(ETC + HOST + pax.END)  # type: ignore[misc]
        for name, make in FRAMES.items()
    },
}


def _line(path: bytes, words: bytes = b"") -> bytes:
    return path + b" type=dir mode=0755 uid=0 gid=0 time=0.000000000" + words + b"\n"


_LINES: dict[str, bytes] = {
    "nothing": b"",
    "no-first-line": ROOT,
    "no-paths": b"#mtree\n",
    "no-root": b"#mtree\n" + _line(b"./etc"),
    "root-not-first": b"#mtree\n" + _line(b"./a") + ROOT,
    "path-twice": b"#mtree\n" + ROOT + _line(b"./a") + _line(b"./a"),
    "path-out-of-order": b"#mtree\n" + ROOT + _line(b"./b") + _line(b"./a"),
    "path-upwards": b"#mtree\n" + ROOT + _line(b"./../a"),
    "path-absolute": b"#mtree\n" + ROOT + _line(b"/a"),
    "path-escaped-without-need": b"#mtree\n" + ROOT + _line(b"./\\141"),
    "path-not-escaped": b"#mtree\n" + ROOT + _line(b"./\x1b[2J"),
    "unknown-word": b"#mtree\n" + ROOT + _line(b"./a", b" optional"),
    "number-with-zeros": b"#mtree\n" + ROOT + _line(b"./a").replace(b"uid=0", b"uid=00"),
    "comment": b"#mtree\n" + ROOT + b"# anything\n",
    "package-behind-paths": b"#mtree\n" + ROOT + b"# package: a 1 all\n",
    "package-twice": b"#mtree\n" + b"# package: a 1 all\n" * 2 + ROOT,
    "last-line-cut-off": b"#mtree\n" + ROOT + b"./a",
    "line-too-long": b"#mtree\n" + ROOT + _line(b"./" + b"a" * 70_000),
}

LISTINGS: dict[str, Callable[[], bytes]] = {
    **{name: lambda lines=lines: frame(lines) for name, lines in _LINES.items()},  # type: ignore[misc]
    **{
        name: lambda make=make: make(b"#mtree\n" + ROOT + _line(b"./a"))  # type: ignore[misc]
        for name, make in FRAMES.items()
    },
}
