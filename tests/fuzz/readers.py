"""The readers of what an enemy may have written, each as a function of bytes that says whether they are accepted.

A reader may refuse with the errors that it is documented to raise, and with no others. What it accepts must mean one
thing: written again it is the same. Used by the fuzzer and by the tests of what it has found.
"""

import hashlib
import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from unittest import mock

import zstandard

from etsclone.boot.initramfs import members
from etsclone.errors import (
    FormatError,
    HostilePayload,
    OverlayMalformed,
    OverlaySealed,
    SignatureInvalid,
    VerificationFailed,
)
from etsclone.model.boot import Names
from etsclone.model.disk import Content, Partition
from etsclone.model.extents import Extent, Extents
from etsclone.model.journal import (
    Progress,
    begun_line,
    head_line,
    parse_journal,
    progress_line,
    step_lines,
)
from etsclone.model.mapfile import parse_mapfile
from etsclone.model.packages import Installed
from etsclone.model.scope import Scope
from etsclone.model.tree import Kind
from etsclone.overlay import inventory
from etsclone.overlay.checked import peek_check, write_check
from etsclone.overlay.comparing import Listing
from etsclone.overlay.compression import decompressed
from etsclone.overlay.container import open_verified, read_envelope, write_signed
from etsclone.overlay.header import decode, encode
from etsclone.overlay.pax import END, padding
from etsclone.overlay.pax import header as member_header
from etsclone.overlay.payload import Payload, read_payload
from etsclone.overlay.sealing import load_identities, unseal
from etsclone.overlay.signing import parse_private_key
from etsclone.overlay.sshwire import armor, parse_signature
from etsclone.overlay.trust import Trust
from etsclone.plan.bootids import mend, unknown_names
from etsclone.plan.fat import FatTree
from etsclone.plan.grubcore import read_core
from etsclone.plan.nicmentions import mentions
from etsclone.plan.nics import bindings, rewrite
from etsclone.store.memory import recall
from etsclone.units import MIB, SECTOR

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))  # the fuzzer runs without pytest's

from payloads import frame  # noqa: E402

GOLDEN = HERE.parent / "golden/v1"
KEY = parse_private_key(Path("test_key"), (GOLDEN / "test_key").read_bytes(), bytes)
TRUST = Trust.parse((GOLDEN / "allowed_signers").read_text())
IDENTITIES = load_identities(GOLDEN / "test_identity", bytes)
BLOCK = 512
_CHECKSUM = slice(148, 156)
_MAGIC = slice(257, 262)


def header(data: bytes) -> bool:
    """`header.json`."""
    try:
        found = decode(data)
    except OverlayMalformed:
        return False
    assert decode(encode(found)) == found
    return True


def signature(data: bytes) -> bool:
    """`header.json.sig`."""
    try:
        found = parse_signature(data)
    except SignatureInvalid:
        return False
    assert armor(found) == data
    return True


def container(data: bytes) -> bool:
    """The first two members of an overlay file."""
    try:
        found = read_envelope(io.BytesIO(data))
    except OverlayMalformed:
        return False
    assert found.header in data
    assert found.signature in data
    return True


_PASSED_OVER = re.compile(
    rb"SCHILY\.xattr\.(?!(?:user|trusted|security)\.|system\.posix_acl_(?:access|default)=)"
)


def pax(data: bytes) -> bool:
    """The plain archive of a payload; checksums are made right, since no fuzzer would find them."""
    scope = Scope(("/etc", "/srv/*"), ("/etc/fstab",))
    data = with_checksums(data)
    try:
        payload = read_payload(io.BytesIO(frame(data)), scope, limit=MIB)
    except HostilePayload:
        return False
    with payload:
        for path, entry in payload.tree.items():
            assert path in scope
            assert entry.path == path
            assert entry.link_to is None or payload.tree[entry.link_to].link_to is None
        if not _PASSED_OVER.search(data):
            assert b"".join(map(partial(archived, payload), payload.tree)) + END == data
    return True


def archived(payload: Payload, path: bytes) -> bytes:
    """A member of a payload as captures write it."""
    entry, pieces = payload.tree[path], []
    if entry.kind is Kind.FILE and not entry.link_to:
        pieces = list(payload.pieces(path))
    extents = Extents.of(Extent(start, start + len(piece)) for start, piece in pieces)
    content = b"".join(piece for _, piece in pieces)
    return member_header(entry, extents) + content + padding(len(content))


def mtree(data: bytes) -> bool:
    """The plain listing of an inventory."""
    try:
        entries = list(inventory.read(io.BytesIO(frame(data)), limit=MIB))
        listing = Listing(io.BytesIO(frame(data)), limit=MIB)
        again = [listing.take() for _ in entries]
    except HostilePayload:
        return False
    assert listing.at_end()
    assert again == entries
    out = io.BytesIO()
    with inventory.writing(out, Installed(listing.packages)) as add:
        for entry in entries:
            add(entry)
    assert plain(out.getvalue()) == data
    return True


def zstd(data: bytes) -> bool:
    """One frame: what is read of it is what zstd itself makes of it, in pieces that are bounded."""
    try:
        pieces = list(decompressed(io.BytesIO(data), MIB))
    except HostilePayload:
        return False
    assert all(len(piece) <= MIB for piece in pieces)
    assert b"".join(pieces) == plain(data)
    return True


def overlay(data: bytes) -> bool:
    """A whole overlay file; the header is signed anew, since no fuzzer would find the signature."""
    try:
        found = read_envelope(io.BytesIO(data))
    except OverlayMalformed:
        return False
    signed = io.BytesIO()
    write_signed(signed, "header.json", found.header, found.mtime, KEY.sign)
    data = signed.getvalue() + data[found.size :]
    try:
        verified = open_verified(io.BytesIO(data), TRUST)
    except VerificationFailed:
        return False
    with verified:
        contents = (
            [verified.payload().read(), verified.inventory().read()] if verified.opened else []
        )
    assert all(content in data for content in contents)
    assert data.endswith(bytes(1024))
    return True


def sealed(data: bytes) -> bool:
    """A sealed member, opened with a key that it may be sealed to."""
    out = io.BytesIO()
    try:
        unseal(io.BytesIO(data), out, IDENTITIES, "a member")
    except (HostilePayload, OverlaySealed):
        return False
    assert len(out.getvalue()) <= len(data)
    return True


def check(data: bytes) -> bool:
    """`check.json`; the time of the tar header around it is made right."""
    stamp = re.search(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", data)
    with suppress(ValueError):
        moment = (
            datetime.fromisoformat(stamp[0].decode()) if stamp else datetime.fromtimestamp(0, UTC)
        )
        return _checked(data, int(moment.timestamp()))
    return False


def _checked(data: bytes, mtime: int) -> bool:
    record = io.BytesIO()
    write_signed(record, "check.json", data, mtime, KEY.sign)
    record.write(END)
    with NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(record.getvalue())
        file.flush()
        try:
            found = peek_check(Path(file.name))
        except OverlayMalformed:
            return False
        again = io.BytesIO()
        write_check(again, found, KEY.sign)
        assert again.getvalue() == record.getvalue()
    return True


def journal(data: bytes) -> bool:
    """What a rebuild writes down on the clone; the digest of its steps is made right."""
    try:
        found = parse_journal(with_digests(data))
    except FormatError:
        return False
    if found.tops:
        again = head_line(found) + step_lines(found.steps)
        if found.progress is not Progress.STAGED:
            again += begun_line(again)
            again += progress_line(found.progress) if found.progress is not Progress.BEGUN else b""
        assert parse_journal(again) == found
    return True


def memory(data: bytes) -> bool:
    """What this machine remembers of a role."""
    with (
        TemporaryDirectory(dir="/dev/shm") as folder,
        mock.patch.dict(os.environ, ETSCLONE_STATE=folder),
    ):
        path = Path(folder, "roles", "ets", "primary.json")
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        try:
            recall("ets", "primary")
        except FormatError:
            return False
    return True


def allowed_signers(data: bytes) -> bool:
    """Who is trusted."""
    try:
        trust = Trust.parse(data.decode("utf-8", "surrogateescape"))
    except FormatError:
        return False
    for listing in trust.listings:
        listing.for_role("primary")
        listing.for_namespace("brd@etsclone")
    return True


def mapfile(data: bytes) -> bool:
    """What is done of a clone."""
    try:
        found = parse_mapfile(data.decode("utf-8", "replace"))
    except FormatError:
        return False
    assert parse_mapfile(found.text()) == found
    return True


def initramfs(data: bytes) -> bool:
    """What a clone boots with."""
    try:
        for member in members(io.BytesIO(data)):
            assert sum(map(len, member.content)) == member.size
    except FormatError:
        return False
    return True


def nics(data: bytes) -> bool:
    """A file of network configuration: the first line is its path, the rest its content."""
    path, _, content = data.partition(b"\n")
    if b"\0" in path:
        return False
    files = OneFile(path, content)
    found = [binding.mac for binding in bindings(files)]
    spare = (f"0a:00:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(65536))
    assert all(str(each).isprintable() for each in mentions(files, ()).found)
    mapping = dict(
        zip(dict.fromkeys(found), (mac for mac in spare if mac not in found), strict=False)
    )
    if mapping:
        (edit,) = rewrite(files, mapping)
        after = OneFile(path, edit.after)
        assert [binding.mac for binding in bindings(after)] == [mapping[mac] for mac in found]
        (back,) = rewrite(after, {new: old for old, new in mapping.items()})
        assert back.after.lower() == content.lower()
    return True


def fat(data: bytes) -> bool:
    """An EFI system partition."""

    def read(start: int, size: int) -> bytes:
        piece = data[start : start + size]
        if len(piece) < size:
            raise FormatError("the partition ends before that")
        return piece

    try:
        tree = FatTree(read)
        for folder in ("/", *(f"/{each.name}" for each in tree.entries("/"))):
            for each in tree.entries(folder):
                content = tree.read(f"{folder}/{each.name}", MIB)
                assert content is None or len(content) <= each.size or each.folder
    except FormatError:
        return False
    return True


def grub(data: bytes) -> bool:
    """A disk whose first sector is GRUB's."""

    def read(lba: int) -> bytes:
        return data[lba * SECTOR : (lba + 1) * SECTOR]

    core = read_core(read(0).ljust(SECTOR, b"\0"), read)
    return core is not None and isinstance(core.prefix, str)


def names(data: bytes) -> bool:
    """A file that names disks: the first line is its path, the rest its content. All that can be are accepted."""
    path, _, content = data.partition(b"\n")
    if b"\0" in path:
        return False  # no file has such a path
    files = OneFile(path, content)
    edits = mend(files, PARTS, {})
    after = OneFile(path, edits[0].after) if edits else files
    assert mend(after, PARTS, {}) == ()
    left = [each.message for each in unknown_names(after, PARTS)]
    assert len(left) <= len(unknown_names(files, PARTS))
    assert all(message.isprintable() for message in left)
    return True


_ROOT = Partition(
    1, "", 0, MIB, "", "1-2", content=Content("ext4", "11111111-2222-4333-8444-555555555555")
)
_SWAP = Partition(
    2, "", MIB, MIB, "", "3-4", content=Content("swap", "22222222-2222-4333-8444-555555555555")
)
PARTS = Names((_ROOT, _SWAP), root=_ROOT, boot=_ROOT)


class OneFile:
    """`model.edit.Folders` with just one file in them."""

    def __init__(self, path: bytes, content: bytes) -> None:
        self._path = path
        self._content = content

    def read(self, path: bytes) -> bytes | None:
        """The content of the one file."""
        return self._content if path == self._path else None

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        """The names on the way to it."""
        start = folder + b"/"
        below = self._path.startswith(start) and self._path[len(start) :].split(b"/")[0]
        return (below,) if below else ()

    def is_folder(self, path: bytes) -> bool:
        """Whether it is on the way to it."""
        return bool(self.names(path))


READERS: dict[str, Callable[[bytes], bool]] = {
    reader.__name__: reader
    for reader in (
        header,
        signature,
        container,
        overlay,
        sealed,
        check,
        zstd,
        pax,
        mtree,
        journal,
        memory,
        allowed_signers,
        mapfile,
        initramfs,
        nics,
        fat,
        grub,
        names,
    )
}


def plain(data: bytes) -> bytes:
    """A frame decompressed by the library alone."""
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def with_digests(data: bytes) -> bytes:
    """A journal with the digest right in each line that has one."""
    out = b""
    for line in data.splitlines(keepends=True):
        digest = hashlib.sha256(out).hexdigest().encode()
        out += re.sub(rb'"sha256":"[0-9a-f]{64}"', b'"sha256":"%s"' % digest, line)
    return out


def with_checksums(data: bytes) -> bytes:
    """A tar archive with the checksum right in each block that looks like a header."""
    out = bytearray(data)
    for start in range(0, len(out) - BLOCK + 1, BLOCK):
        block = out[start : start + BLOCK]
        if block[_MAGIC] == b"ustar":
            block[_CHECKSUM] = b" " * 8
            out[start + 148 : start + 156] = b"%06o\0 " % (sum(block) % 8**6)
    return bytes(out)
