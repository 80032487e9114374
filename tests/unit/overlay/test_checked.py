"""The record that nothing changed, and the digest that tells whether anything did."""

import io
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import (
    OverlayMalformed,
    OverlayMismatch,
    SignatureInvalid,
    VerificationFailed,
)
from etsclone.model.brd import CloneIdentity, Header
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import inventory, ustar
from etsclone.overlay.checked import Check, open_check, peek_check, write_check
from etsclone.overlay.compression import compressed
from etsclone.overlay.container import open_verified, write_signed
from etsclone.overlay.content import content_digest, lines_digest, noted
from etsclone.overlay.signing import SigningKey, sign
from etsclone.overlay.trust import Trust, add_signer, public_key_line

CHECK = Check("ets", "primary", 7, "a" * 64, datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
def record(tmp_path: Path, key: SigningKey) -> Path:
    return written(tmp_path, CHECK, key)


def written(folder: Path, check: Check, key: SigningKey) -> Path:
    out = io.BytesIO()
    write_check(out, check, partial(sign, key=key))
    path = folder / "primary.checked"
    path.write_bytes(out.getvalue())
    return path


def test_a_record_is_read_back(record: Path, trust: Trust) -> None:
    assert open_check(record, trust, pair="ets", role="primary") == CHECK
    assert peek_check(record) == CHECK


def test_a_record_is_verified_by_hand(
    record: Path,
    tmp_path: Path,
    trusted_file: Path,
    ssh_keygen: Callable[..., "subprocess.CompletedProcess[bytes]"],
) -> None:
    subprocess.run(["tar", "-xf", record, "-C", tmp_path], check=True)
    arguments = ("-f", trusted_file, "-I", "primary", "-n", "brd@etsclone")
    statement = (tmp_path / "check.json").read_bytes()
    signature = ("-s", tmp_path / "check.json.sig")
    assert ssh_keygen("-Y", "verify", *arguments, *signature, message=statement).returncode == 0


@pytest.fixture
def trusted_file(tmp_path: Path, key: SigningKey) -> Path:
    path = tmp_path / "allowed_signers"
    path.write_text(add_signer("", "primary", public_key_line(key.public_key)))
    return path


def test_no_byte_of_it_can_change(record: Path, trust: Trust) -> None:
    data = record.read_bytes()
    for position in range(len(data)):
        record.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(VerificationFailed):
            open_check(record, trust, pair="ets", role="primary")


@given(st.integers(0, 2559))
def test_it_cannot_be_cut_off(tmp_path: Path, key: SigningKey, trust: Trust, size: int) -> None:
    path = written(tmp_path, CHECK, key)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(OverlayMalformed):
        open_check(path, trust, pair="ets", role="primary")


def test_nothing_follows_it(record: Path, trust: Trust) -> None:
    record.write_bytes(record.read_bytes() + b"\0")
    with pytest.raises(OverlayMalformed, match="after the last member"):
        open_check(record, trust, pair="ets", role="primary")


def test_it_is_of_one_pair_and_role(record: Path, trust: Trust) -> None:
    for pair, role in (("office", "primary"), ("ets", "secondary")):
        with pytest.raises(OverlayMismatch):
            open_check(record, trust, pair=pair, role=role)


def test_who_may_not_sign_for_the_role_may_not_sign_its_records(
    tmp_path: Path, other_key: SigningKey, trust: Trust
) -> None:
    with pytest.raises(SignatureInvalid, match="not for primary"):
        open_check(written(tmp_path, CHECK, other_key), trust, pair="ets", role="primary")


def test_an_overlay_is_no_record_and_a_record_no_overlay(
    tmp_path: Path, overlay: bytes, record: Path, trust: Trust
) -> None:
    with pytest.raises(OverlayMalformed):
        open_verified(record, trust)
    (tmp_path / "x").write_bytes(overlay)
    with pytest.raises(OverlayMalformed):
        open_check(tmp_path / "x", trust, pair="ets", role="primary")


@pytest.mark.parametrize(
    "statement",
    [b"", b"{}", b"[]", b"null", b"1", b"\xff", b'{"pair": "a"}', b"[" * 60_000, b'{"checked": 1}'],
)
def test_a_signed_statement_of_another_form_is_refused(
    tmp_path: Path, key: SigningKey, trust: Trust, statement: bytes
) -> None:
    out = io.BytesIO()
    write_signed(out, "check.json", statement, 0, partial(sign, key=key))
    path = tmp_path / "x"
    path.write_bytes(out.getvalue() + ustar.END)
    with pytest.raises(OverlayMalformed, match="does not have its format"):
        open_check(path, trust, pair="ets", role="primary")


# --- what counts as a change ----------------------------------------------------------------------------------------

FILE = Entry(b"/etc/hosts", Kind.FILE, 0o644, 0, 0, 1_000_000_007, "root", "root", 3, "b" * 64)
LINK = Entry(b"/etc/a time=1.000000000", Kind.SYMLINK, 0o777, 0, 0, 5, target=b"x time=2.0")


def packed(content: bytes, level: int = 3) -> io.BytesIO:
    out = io.BytesIO()
    with compressed(out, level) as plain:
        plain.write(content)
    return io.BytesIO(out.getvalue())


def listing_digest(*entries: Entry) -> str:
    out = io.BytesIO()
    inventory.write(entries, out)
    return lines_digest(
        zstandard.ZstdDecompressor().decompressobj().decompress(out.getvalue())
    ).hex()


def payload_digest(stream: io.BytesIO) -> str:
    out = io.BytesIO()
    with noted(out) as note:
        while piece := stream.read(7):
            note.file.write(piece)
    assert out.getvalue() == stream.getvalue()
    return note.digest


def digest(header: Header, payload: bytes = b"payload", *entries: Entry) -> str:
    listing = listing_digest(*(entries or (FILE, LINK)))
    return content_digest(header, (payload_digest(packed(payload)), listing))


def test_payloads_are_digested_as_they_are() -> None:
    assert (
        payload_digest(packed(b"a time=1.000000000")) == sha256(b"a time=1.000000000").hexdigest()
    )


def test_when_and_how_it_was_captured_does_not_count(header: Header) -> None:
    later = replace(
        header,
        created=header.created + timedelta(days=3),
        generation=9,
        previous="e" * 64,
        members=header.members[::-1],
    )
    assert digest(later) == digest(header)
    assert payload_digest(packed(b"payload", 19)) == payload_digest(packed(b"payload"))


def test_who_signs_it_counts(header: Header) -> None:
    """What a stolen key signed is not confirmed by the key that took its place."""
    contents = ("a" * 64, "b" * 64)
    assert content_digest(header, contents, signer="x") != content_digest(
        header, contents, signer="y"
    )


def test_to_whom_it_is_sealed_counts(header: Header) -> None:
    contents = ("a" * 64, "b" * 64)
    assert content_digest(header, contents) != content_digest(header, contents, ["age1x"])
    assert content_digest(header, contents, ["a", "b"]) == content_digest(
        header, contents, ["b", "a"]
    )


def test_times_outside_the_scope_do_not_count(header: Header) -> None:
    touched = replace(FILE, mtime_ns=-5)
    assert digest(header, b"payload", touched, LINK) == digest(header)


@pytest.mark.parametrize(
    "change",
    [
        {"host": "other"},
        {"profile": "other"},
        {"profile_sha256": "1" * 64},
        {"scope": Scope(("/etc",), (), ())},
        {"clone": CloneIdentity("other")},
        {"pair": "other"},
        {"role": "secondary"},
    ],
)
def test_what_the_header_says_of_the_system_counts(
    header: Header, change: dict[str, object]
) -> None:
    assert digest(replace(header, **change)) != digest(header)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "entry",
    [
        replace(FILE, sha256="c" * 64),
        replace(FILE, mode=0o600),
        replace(FILE, uid=1),
        replace(FILE, size=4),
        replace(FILE, uname="other"),
        replace(FILE, path=b"/etc/hostz"),
    ],
)
def test_everything_else_in_the_listing_counts(header: Header, entry: Entry) -> None:
    assert digest(header, b"payload", entry, LINK) != digest(header)


def test_names_that_look_like_times_count(header: Header) -> None:
    for other in (
        replace(LINK, path=b"/etc/a time=2.000000000"),
        replace(LINK, target=b"x time=3.0"),
    ):
        assert digest(header, b"payload", FILE, other) != digest(header)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_the_payload_counts(header: Header, one: bytes, other: bytes) -> None:
    assert (digest(header, one) == digest(header, other)) == (one == other)


def test_a_long_listing_is_digested_whole(header: Header) -> None:
    many = [replace(FILE, path=b"/etc/%06d" % number) for number in range(20_000)]
    touched = [replace(each, mtime_ns=number) for number, each in enumerate(many)]
    assert digest(header, b"", *touched) == digest(header, b"", *many)
    last = replace(many[-1], mode=0)
    assert digest(header, b"", *many[:-1], last) != digest(header, b"", *many)
