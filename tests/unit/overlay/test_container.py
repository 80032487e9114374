import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import (
    OverlayMalformed,
    OverlayMismatch,
    SignatureInvalid,
    StoreFull,
    TrustRefused,
    UsageError,
    VerificationFailed,
)
from etsclone.model.brd import Header, Signer
from etsclone.overlay import container, ustar
from etsclone.overlay.container import (
    VerifiedOverlay,
    measure,
    open_verified,
    read_envelope,
    write_overlay,
)
from etsclone.overlay.header import INVENTORY, PAYLOAD, decode, digest, encode
from etsclone.overlay.signing import SigningKey, sign
from etsclone.overlay.trust import Trust, public_key_line

SshKeygen = Callable[..., "subprocess.CompletedProcess[bytes]"]
WriteOverlay = Callable[..., bytes]

MEMBERS = ["header.json", "header.json.sig", PAYLOAD, INVENTORY]


def verified(data: bytes, trust: Trust, **asked: Any) -> VerifiedOverlay:  # noqa: ANN401 - what open_verified takes
    return open_verified(io.BytesIO(data), trust, **asked)


def parts(overlay: bytes) -> list[bytes]:
    """The four members, each with its tar header and padding, and the end."""
    found, start = [], 0
    for _ in MEMBERS:
        size, _ = ustar.size_and_mtime(overlay[start : start + 512])
        end = start + 512 + size + ustar.padding(size)
        found.append(overlay[start:end])
        start = end
    return [*found, overlay[start:]]


@pytest.fixture
def make_tar() -> Callable[..., bytes]:
    """A tar of the members with other contents, or with other names: `make_tar(overlay, {"name": b"content"})`."""

    def make(overlay: bytes, changed: dict[str, bytes]) -> bytes:
        out = b""
        for name, part in zip(MEMBERS, parts(overlay), strict=False):
            size, mtime = ustar.size_and_mtime(part)
            content = changed.get(name, part[512 : 512 + size])
            out += (
                ustar.header(name, len(content), mtime)
                + content
                + bytes(ustar.padding(len(content)))
            )
        return out + ustar.END

    return make


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_written_overlay_is_verified_and_read(
    overlay: bytes, header: Header, key: SigningKey, trust: Trust
) -> None:
    with verified(overlay, trust, role="primary", pair="ets", generation=2) as found:
        assert found.header == header
        assert found.digest == digest(encode(header))
        assert found.signer == Signer("primary", key.fingerprint)
        assert measure(PAYLOAD, found.payload()) == header.members[0]
        assert measure(INVENTORY, found.inventory()) == header.members[1]
        assert found.payload().read() == found.payload().read()


def test_equal_arguments_give_equal_bytes(written: WriteOverlay, header: Header) -> None:
    assert written(header) == written(header)


def test_writing_tells_the_digest(header: Header, key: SigningKey) -> None:
    streams = io.BytesIO(b"payload " * 40), io.BytesIO(b"inventory")
    assert write_overlay(io.BytesIO(), header, lambda data: sign(data, key), *streams) == digest(
        encode(header)
    )


@pytest.mark.parametrize("tar", ["tar", "bsdtar"])
def test_other_programs_list_and_extract_it(
    overlay: bytes, header: Header, tmp_path: Path, tar: str
) -> None:
    path = tmp_path / "primary-000002.brd"
    path.write_bytes(overlay)
    listed = subprocess.run([tar, "-tf", path], capture_output=True, text=True, check=True)
    assert (listed.stdout.splitlines(), listed.stderr) == (MEMBERS, "")
    extracted = subprocess.run(
        [tar, "-xf", path, "-C", tmp_path], capture_output=True, text=True, check=True
    )
    assert extracted.stderr == ""
    assert (tmp_path / "header.json").read_bytes() == encode(header)
    assert (tmp_path / PAYLOAD).stat().st_mtime == header.created.timestamp()
    assert (tmp_path / PAYLOAD).stat().st_mode & 0o777 == 0o600


def test_python_reads_it_as_ustar_with_the_fields_of_the_specification(
    overlay: bytes, header: Header
) -> None:
    with tarfile.open(fileobj=io.BytesIO(overlay), mode="r:") as tar:
        for member in tar.getmembers():
            assert member.isreg()
            assert (member.mode, member.uid, member.gid, member.uname, member.gname) == (
                0o600,
                0,
                0,
                "",
                "",
            )
            assert member.mtime == int(header.created.timestamp())


def test_tar_headers_are_those_of_gnu_tar(tmp_path: Path) -> None:
    (tmp_path / PAYLOAD).write_bytes(b"payload")
    options = (
        "--format=ustar",
        "--mode=0600",
        "--numeric-owner",
        "--owner=0",
        "--group=0",
        "--mtime=@1800000000",
    )
    tar = subprocess.run(
        ["tar", *options, "-C", tmp_path, "-c", PAYLOAD], capture_output=True, check=True
    )
    assert tar.stdout[:512] == ustar.header(PAYLOAD, 7, 1_800_000_000)


def test_it_is_verified_by_hand(
    overlay: bytes, header: Header, key: SigningKey, tmp_path: Path, ssh_keygen: SshKeygen
) -> None:
    with tarfile.open(fileobj=io.BytesIO(overlay), mode="r:") as tar:
        for name in tar.getnames():
            content = tar.extractfile(name)
            assert content is not None
            (tmp_path / name).write_bytes(content.read())
    signers = tmp_path / "allowed_signers"
    signers.write_text(f"primary {public_key_line(key.public_key)}")
    arguments = (
        "-f",
        signers,
        "-I",
        "primary",
        "-n",
        "brd@etsclone",
        "-s",
        tmp_path / "header.json.sig",
    )
    done = ssh_keygen("-Y", "verify", *arguments, message=(tmp_path / "header.json").read_bytes())
    assert done.returncode == 0, done.stderr
    for member in header.members:
        assert hashlib.sha256((tmp_path / member.name).read_bytes()).hexdigest() == member.sha256


@pytest.mark.parametrize("content", [b"payload " * 39, b"payload " * 41, b"PAYLOAD " * 40, b""])
def test_a_stream_that_is_not_what_the_header_says_is_told(
    content: bytes, header: Header, key: SigningKey
) -> None:
    with pytest.raises(VerificationFailed):
        write_overlay(
            io.BytesIO(),
            header,
            lambda data: sign(data, key),
            io.BytesIO(content),
            io.BytesIO(b"inventory"),
        )


def test_a_signature_above_its_limit_is_not_written(header: Header) -> None:
    out = io.BytesIO()
    with pytest.raises(OverlayMalformed, match="signature has 4097 bytes"):
        write_overlay(out, header, lambda _: bytes(4097), io.BytesIO(), io.BytesIO())
    assert out.getvalue() == b""


# --- every byte counts ----------------------------------------------------------------------------------------------


def test_changing_any_byte_is_refused(overlay: bytes, trust: Trust) -> None:
    data = bytearray(overlay)
    for position in range(len(data)):
        data[position] ^= 1 << position % 8
        with pytest.raises(VerificationFailed):
            verified(bytes(data), trust)
        data[position] ^= 1 << position % 8
    verified(bytes(data), trust).close()


@given(changes=st.dictionaries(st.integers(0, 10**6), st.integers(1, 255), min_size=1, max_size=4))
def test_changing_bytes_at_random_is_refused(
    changes: dict[int, int], overlay: bytes, trust: Trust
) -> None:
    data = bytearray(overlay)
    for position, difference in changes.items():
        data[position % len(data)] ^= difference
    if bytes(data) != overlay:
        with pytest.raises(VerificationFailed):
            verified(bytes(data), trust)


def test_truncation_at_every_length_is_refused(overlay: bytes, trust: Trust, *, full: bool) -> None:
    near_blocks = {start + step for start in range(0, len(overlay), 512) for step in (0, 1, 511)}
    for length in range(len(overlay)) if full else sorted(near_blocks):
        with pytest.raises(OverlayMalformed, match="truncated"):
            verified(overlay[:length], trust)


@pytest.mark.parametrize("extra", [b"\0", b"x", bytes(512), bytes(10240)])
def test_nothing_may_follow(extra: bytes, overlay: bytes, trust: Trust) -> None:
    with pytest.raises(OverlayMalformed, match="after the last member"):
        verified(overlay + extra, trust)


# --- members --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("removed", range(4))
def test_a_removed_member_is_refused(removed: int, overlay: bytes, trust: Trust) -> None:
    found = parts(overlay)
    del found[removed]
    with pytest.raises(OverlayMalformed, match=f"where {MEMBERS[removed]} must stand"):
        verified(b"".join(found), trust)


@pytest.mark.parametrize("position", range(5))
def test_an_added_member_is_refused(position: int, overlay: bytes, trust: Trust) -> None:
    found = parts(overlay)
    found.insert(position, ustar.header("notes.txt", 0, 0))
    with pytest.raises(OverlayMalformed):
        verified(b"".join(found), trust)


@pytest.mark.parametrize("doubled", range(4))
def test_a_doubled_member_is_refused(doubled: int, overlay: bytes, trust: Trust) -> None:
    found = parts(overlay)
    found.insert(doubled, found[doubled])
    with pytest.raises(OverlayMalformed):
        verified(b"".join(found), trust)


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("second", range(4))
def test_swapped_members_are_refused(first: int, second: int, overlay: bytes, trust: Trust) -> None:
    found = parts(overlay)
    found[first], found[second] = found[second], found[first]
    if first != second:
        with pytest.raises(
            OverlayMalformed, match=r"(stands|is no tar header) where .* must stand"
        ):
            verified(b"".join(found), trust)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("header.json", 65537, "has 65537 bytes, more than 65536"),
        ("header.json", 8**11 - 1, "more than 65536"),
        ("header.json.sig", 4097, "has 4097 bytes, more than 4096"),
    ],
)
def test_members_above_their_limit_are_not_even_read(
    name: str, size: int, message: str, overlay: bytes, trust: Trust
) -> None:
    start = b"" if name == "header.json" else parts(overlay)[0]
    mtime = ustar.size_and_mtime(overlay)[1]
    stream = io.BytesIO(start + ustar.header(name, size, mtime) + bytes(100_000))
    with pytest.raises(OverlayMalformed, match=message):
        open_verified(stream, trust)
    assert stream.tell() == len(start) + 512


def test_other_kinds_of_files_are_told_apart(trust: Trust) -> None:
    for data in (b"\x1f\x8b" * 600, bytes(20_000), b"-----BEGIN SSH SIGNATURE-----\n" * 99):
        with pytest.raises(OverlayMalformed, match="there is no tar header"):
            verified(data, trust)
    with pytest.raises(OverlayMalformed, match="truncated"):
        verified(b"", trust)


def test_a_gnu_tar_of_the_same_members_is_refused(overlay: bytes, trust: Trust) -> None:
    with tarfile.open(fileobj=io.BytesIO(overlay), mode="r:") as tar:
        contents = [(member, tar.extractfile(member)) for member in tar.getmembers()]
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:", format=tarfile.GNU_FORMAT) as copy:
            for member, content in contents:
                copy.addfile(member, content)
    with pytest.raises(OverlayMalformed, match="is not the one that it must be"):
        verified(out.getvalue(), trust)


# --- signatures and trust -------------------------------------------------------------------------------------------


def test_nothing_is_parsed_before_a_trusted_signature(
    make_tar: Callable[..., bytes],
    overlay: bytes,
    other_key: SigningKey,
    trust: Trust,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parsed(_: bytes) -> Header:
        raise AssertionError("parsed an unverified header")

    monkeypatch.setattr(container, "decode", parsed)
    only_other = Trust(trust.listings[1:])
    evil = b'{"format": 1}'
    forged = make_tar(
        overlay, {"header.json": evil, "header.json.sig": sign(b"something else", other_key)}
    )
    for data in (overlay, forged, make_tar(overlay, {"header.json": evil})):
        with pytest.raises(SignatureInvalid):
            verified(data, only_other)


def test_a_signed_header_must_still_have_its_format(
    make_tar: Callable[..., bytes], overlay: bytes, key: SigningKey, trust: Trust
) -> None:
    evil = b'{"format": 1}'
    with pytest.raises(OverlayMalformed, match="lacks"):
        verified(
            make_tar(overlay, {"header.json": evil, "header.json.sig": sign(evil, key)}), trust
        )


def test_nobody_trusted_nothing_opened(overlay: bytes) -> None:
    with pytest.raises(TrustRefused):
        verified(overlay, Trust(()))


def test_a_key_of_another_role_is_refused(
    written: WriteOverlay, header: Header, other_key: SigningKey, trust: Trust
) -> None:
    with pytest.raises(SignatureInvalid, match="may sign for secondary, not for primary"):
        verified(written(header, other_key), trust)
    with pytest.raises(SignatureInvalid, match="may sign for primary, not for secondary"):
        verified(written(replace(header, role="secondary")), trust, role="secondary")


def test_a_genuine_overlay_of_another_role_pair_or_generation_is_refused(
    overlay: bytes, key: SigningKey, trust: Trust
) -> None:
    both_roles = Trust.parse(f"primary,secondary {public_key_line(key.public_key)}")
    for asked, wanted in {"role": "secondary", "pair": "other", "generation": 3}.items():
        for trusting in (trust, both_roles):
            with pytest.raises(
                OverlayMismatch,
                match=f"generation 2 of role primary of pair ets, not of {asked} {wanted}",
            ):
                verified(overlay, trusting, **{asked: wanted})


def test_a_signature_counts_at_the_time_that_it_was_made(
    overlay: bytes, header: Header, key: SigningKey
) -> None:
    line = public_key_line(key.public_key)
    verified(
        overlay, Trust.parse(f'primary valid-before="{header.created:%Y%m%d%H%M%S}Z" {line}')
    ).close()
    with pytest.raises(SignatureInvalid, match="signatures of 2026-11-22 03:04:05 UTC"):
        verified(overlay, Trust.parse(f'primary valid-before="20261122030404Z" {line}'))


def test_times_of_the_tar_headers_are_the_signed_one(overlay: bytes, trust: Trust) -> None:
    data = bytearray(overlay)
    start = 0
    for part in parts(overlay)[:4]:
        size, mtime = ustar.size_and_mtime(part)
        name = part[:100].rstrip(b"\0").decode()
        data[start : start + 512] = ustar.header(name, size, mtime + 1)
        start += len(part)
    with pytest.raises(OverlayMalformed, match="differ from the signed time"):
        verified(bytes(data), trust)


# --- what is handed out ---------------------------------------------------------------------------------------------


def test_only_open_verified_makes_a_verified_overlay(
    overlay: bytes, header: Header, trust: Trust
) -> None:
    with pytest.raises(TypeError):
        VerifiedOverlay(header, "", Signer("", ""), True, (), object())
    with verified(overlay, trust) as found:
        with pytest.raises(ValueError, match="seal"):
            replace(found, header=header)  # type: ignore[call-arg]
        with pytest.raises(FrozenInstanceError):
            found.header = header  # type: ignore[misc]


def test_what_is_used_is_what_was_verified(
    overlay: bytes, header: Header, trust: Trust, tmp_path: Path
) -> None:
    path = tmp_path / "overlay"
    path.write_bytes(overlay)
    with open_verified(path, trust) as found:
        path.write_bytes(bytes(len(overlay)))
        assert measure(PAYLOAD, found.payload()) == header.members[0]


def test_streams_do_not_disturb_each_other(overlay: bytes, trust: Trust) -> None:
    with verified(overlay, trust) as found:
        first, second = found.payload(), found.payload()
        assert first.read(10) == second.read(10) == b"payload pa"
        assert found.inventory().read() == b"inventory"


@pytest.mark.parametrize("in_memory", [0, container._IN_MEMORY])
def test_private_copies_have_no_name_and_end_with_the_overlay(
    in_memory: int, overlay: bytes, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_IN_MEMORY", in_memory)
    with verified(overlay, trust, spool=tmp_path) as found:
        assert list(tmp_path.iterdir()) == []
        assert found.payload().read() == b"payload " * 40
    with pytest.raises(ValueError, match="closed"):
        found.payload().read()


def test_a_refused_overlay_leaves_nothing_open(
    overlay: bytes, trust: Trust, tmp_path: Path
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OverlayMalformed):
        verified(overlay + b"x", trust, spool=tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pipe_that_gives_little_at_a_time_is_read(overlay: bytes, trust: Trust) -> None:
    class Trickle(io.RawIOBase):
        left = overlay

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            piece = self.left[: min(7, len(buffer))]
            self.left = self.left[len(piece) :]
            buffer[: len(piece)] = piece
            return len(piece)

    with open_verified(Trickle(), trust) as found:  # type: ignore[arg-type]
        assert found.header.host == "srv-ä.example"


def test_no_space_for_the_private_copies_is_told(
    overlay: bytes, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "w+b", 0))  # noqa: SIM115
    with pytest.raises(StoreFull, match="no space left"):
        verified(overlay, trust)


def test_messages_name_the_file(overlay: bytes, trust: Trust, tmp_path: Path) -> None:
    path = tmp_path / "primary-000002.brd"
    with pytest.raises(UsageError, match=r"primary-000002\.brd: No such file"):
        open_verified(path, trust)
    path.write_bytes(overlay[:-1])
    with pytest.raises(OverlayMalformed, match=r"primary-000002\.brd: the file is truncated"):
        open_verified(path, trust)


def test_the_envelope_is_read_without_trust(overlay: bytes, header: Header, tmp_path: Path) -> None:
    path = tmp_path / "overlay"
    path.write_bytes(overlay)
    assert decode(read_envelope(path).header) == header


@given(st.binary(max_size=3000))
def test_no_bytes_make_the_reader_fail_in_another_way(data: bytes) -> None:
    with pytest.raises(OverlayMalformed):
        read_envelope(io.BytesIO(data))


# --- tar headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "mtime"), [(-1, 0), (8**11, 0), (0, -1), (0, 8**11)])
def test_numbers_that_do_not_fit_are_no_tar_header(size: int, mtime: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ustar.header("x", size, mtime)


@given(st.integers(0, 8**11 - 1), st.integers(0, 8**11 - 1))
def test_numbers_are_read_back(size: int, mtime: int) -> None:
    block = ustar.header("header.json", size, mtime)
    assert len(block) == 512
    assert ustar.size_and_mtime(block) == (size, mtime)
    assert ustar.name_of(block) == "header.json"
    assert tarfile.TarInfo.frombuf(block, "ascii", "strict").size == size
