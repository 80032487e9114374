"""Overlay files whose contents are sealed: verified without the recovery key, opened with it, never half."""

import io
from dataclasses import replace
from typing import BinaryIO

import pyrage
import pytest

from etsclone.errors import (
    HostilePayload,
    OverlayMalformed,
    OverlaySealed,
    SignatureInvalid,
    VerificationFailed,
)
from etsclone.model.brd import Header
from etsclone.overlay.container import (
    measure,
    write_overlay,
)
from etsclone.overlay.header import SEALED_MEMBERS, decode, encode
from etsclone.overlay.sealing import Identities, sealing
from etsclone.overlay.signing import SigningKey, sign
from etsclone.overlay.trust import Trust

from .test_container import verified

RECOVERY = pyrage.x25519.Identity.from_str(
    "AGE-SECRET-KEY-1RFW0S9JYMQTRM402MFG0PTVHYNSQ6TEGHZLGLXYEW0PH6ZKA2LEQZ44AWS"
)
OPENS = Identities((RECOVERY,))
OPENS_NOT = Identities((pyrage.x25519.Identity.generate(),))


def sealed(plain: bytes) -> bytes:
    out = io.BytesIO()
    with sealing(out, [str(RECOVERY.to_public())]) as file:
        file.write(plain)
    return out.getvalue()


def overlay_of(header: Header, key: SigningKey, *contents: bytes) -> bytes:
    """A genuine overlay whose sealed members have these contents."""
    streams = [io.BytesIO(content) for content in contents]
    members = tuple(measure(*each) for each in zip(SEALED_MEMBERS, streams, strict=True))
    out = io.BytesIO()
    again = [io.BytesIO(content) for content in contents]
    write_overlay(out, replace(header, members=members), key.sign, *again)
    return out.getvalue()


@pytest.fixture
def sealed_overlay(header: Header, key: SigningKey) -> bytes:
    return overlay_of(header, key, sealed(b"payload"), sealed(b"inventory"))


def test_sealed_contents_open_with_the_identity(sealed_overlay: bytes, trust: Trust) -> None:
    with verified(sealed_overlay, trust, identities=OPENS) as found:
        assert found.header.sealed
        assert found.opened
        assert (found.payload().read(), found.inventory().read()) == (b"payload", b"inventory")
        assert found.payload().read() == b"payload"


def test_sealed_contents_are_verified_without_the_identity(
    sealed_overlay: bytes, trust: Trust
) -> None:
    with verified(sealed_overlay, trust) as found:
        assert not found.opened
        for content in (found.payload, found.inventory):
            with pytest.raises(OverlaySealed, match="generation 2 of primary is sealed") as caught:
                content()
            assert "--identity" in caught.value.hint


def test_contents_that_are_not_sealed_need_no_identity(overlay: bytes, trust: Trust) -> None:
    with verified(overlay, trust, identities=OPENS_NOT) as found:
        assert not found.header.sealed
        assert found.opened
        assert found.inventory().read() == b"inventory"


def test_another_identity_is_refused(sealed_overlay: bytes, trust: Trust) -> None:
    with pytest.raises(OverlaySealed, match="no given identity opens payload"):
        verified(sealed_overlay, trust, identities=OPENS_NOT)


def test_nothing_is_decrypted_before_all_digests_hold(sealed_overlay: bytes, trust: Trust) -> None:
    decrypted: list[str] = []

    class Watched:
        def unseal(self, sealed: BinaryIO, out: BinaryIO, name: str) -> None:
            decrypted.append(name)
            OPENS.unseal(sealed, out, name)

    watched = Watched()
    start, end = 512, len(sealed_overlay)
    for place in (*range(start, end - 1024, 97), end - 1, end - 1500):
        bad = bytearray(sealed_overlay)
        bad[place] ^= 1
        with pytest.raises(VerificationFailed):
            verified(bytes(bad), trust, identities=watched)
        with pytest.raises(VerificationFailed):
            verified(sealed_overlay[:place], trust, identities=watched)
    with pytest.raises(OverlayMalformed, match="bytes after"):
        verified(sealed_overlay + b"\0", trust, identities=watched)
    assert decrypted == []
    verified(sealed_overlay, trust, identities=watched).close()
    assert decrypted == list(SEALED_MEMBERS)


def test_nothing_is_handed_out_before_it_is_authentic_to_its_end(
    header: Header, key: SigningKey, trust: Trust
) -> None:
    """Signed by a trusted key, and yet not what age writes."""
    good, long = sealed(b"good"), sealed(bytes(200_000))
    for bad in (
        long[:-1],
        long[:100_000],
        flipped(long, len(long) - 1),
        long + b"x",
        b"plain",
        b"",
    ):
        for contents in ((bad, good), (good, bad)):
            data = overlay_of(header, key, *contents)
            verified(data, trust).close()
            with pytest.raises(HostilePayload):
                verified(data, trust, identities=OPENS)


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def test_members_are_both_sealed_or_none(header: Header) -> None:
    plain, closed = header.members, tuple(replace(m, name=f"{m.name}.age") for m in header.members)
    assert decode(encode(replace(header, members=closed))).sealed
    for members in ((plain[0], closed[1]), (closed[0], plain[1]), closed[::-1]):
        with pytest.raises(OverlayMalformed, match="both sealed or none"):
            encode(replace(header, members=members))


def test_a_signature_that_does_not_hold_is_never_written(header: Header, key: SigningKey) -> None:
    for sign_wrong in (lambda data: sign(data + b" ", key), lambda data: sign(data, key)[:-9]):
        out = io.BytesIO()
        with pytest.raises(SignatureInvalid):
            write_overlay(out, header, sign_wrong, io.BytesIO(), io.BytesIO())
        assert out.getvalue() == b""
