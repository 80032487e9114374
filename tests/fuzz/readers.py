"""The readers of what an enemy may have written, each as a function of bytes that says whether they are accepted.

A reader may refuse with the errors that it is documented to raise, and with no others. What it accepts must mean one
thing: written again it is the same. Used by the fuzzer and by the tests of what it has found.
"""

import io
from collections.abc import Callable

import zstandard

from etsclone.errors import FormatError, HostilePayload, OverlayMalformed, SignatureInvalid
from etsclone.model.mapfile import parse_mapfile
from etsclone.model.scope import Scope
from etsclone.overlay import inventory
from etsclone.overlay.container import read_envelope
from etsclone.overlay.header import decode, encode
from etsclone.overlay.payload import read_payload
from etsclone.overlay.sshwire import armor, parse_signature
from etsclone.overlay.trust import Trust
from etsclone.units import MIB

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


def pax(data: bytes) -> bool:
    """The plain archive of a payload; checksums are made right, since no fuzzer would find them."""
    scope = Scope(("/etc", "/srv/*"), ("/etc/fstab",))
    try:
        with read_payload(
            io.BytesIO(zstandard.compress(with_checksums(data))), scope, limit=MIB
        ) as payload:
            for path, entry in payload.tree.items():
                assert path in scope
                assert entry.path == path
                assert entry.link_to is None or payload.tree[entry.link_to].link_to is None
    except HostilePayload:
        return False
    return True


def mtree(data: bytes) -> bool:
    """The plain listing of an inventory."""
    try:
        entries = list(inventory.read(io.BytesIO(zstandard.compress(data)), limit=MIB))
    except HostilePayload:
        return False
    again = io.BytesIO()
    inventory.write(entries, again)
    assert list(inventory.read(io.BytesIO(again.getvalue()))) == entries
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


READERS: dict[str, Callable[[bytes], bool]] = {
    reader.__name__: reader
    for reader in (header, signature, container, pax, mtree, allowed_signers, mapfile)
}


def with_checksums(data: bytes) -> bytes:
    """A tar archive with the checksum right in each block that looks like a header."""
    out = bytearray(data)
    for start in range(0, len(out) - BLOCK + 1, BLOCK):
        block = out[start : start + BLOCK]
        if block[_MAGIC] == b"ustar":
            block[_CHECKSUM] = b" " * 8
            out[start + 148 : start + 156] = b"%06o\0 " % (sum(block) % 8**6)
    return bytes(out)
