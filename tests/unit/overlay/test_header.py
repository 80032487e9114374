import copy
import hashlib
import json
import string
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import OverlayMalformed
from etsclone.model.brd import CloneIdentity, Filesystem, Header, Member
from etsclone.model.scope import Scope
from etsclone.overlay.header import INVENTORY, MAX_HEADER, PAYLOAD, decode, digest, encode

Json = dict[str, Any]

names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
# The categories of what str.isprintable refuses.
letters = st.characters(exclude_categories=("C", "Zl", "Zp", "Zs")) | st.just(" ")
texts = st.text(letters, max_size=30)
patterns = st.lists(texts.map(lambda text: "/x" + text.replace("/", "-")), max_size=4).map(tuple)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Any header that a capture could write."""
    previous = draw(st.none() | digests)
    seconds = draw(st.integers(0, 8**11 - 1))
    sizes = draw(st.tuples(st.integers(0, 8**11 - 1), st.integers(0, 8**11 - 1)))
    return Header(
        pair=draw(names),
        role=draw(names),
        host=draw(texts),
        profile=draw(names),
        profile_sha256=draw(digests),
        scope=Scope(draw(patterns), draw(patterns), draw(patterns)),
        generation=1 if previous is None else draw(st.integers(2, 999_999)),
        created=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds),
        previous=previous,
        clone=CloneIdentity(
            draw(texts), tuple(draw(st.lists(st.builds(Filesystem, texts, texts), max_size=3)))
        ),
        members=(
            Member(PAYLOAD, sizes[0], draw(digests)),
            Member(INVENTORY, sizes[1], draw(digests)),
        ),
    )


@given(headers())
def test_what_is_encoded_is_read_back(header: Header) -> None:
    assert decode(encode(header)) == header


def test_people_can_read_it(header: Header) -> None:
    text = encode(header).decode()
    assert text.startswith(
        '{\n  "format": 1,\n  "pair": "ets",\n  "role": "primary",\n  "host": "srv-ä.example",\n'
    )
    assert text.endswith("\n}\n")
    assert '"created": "2026-11-22T03:04:05Z"' in text


def test_the_digest_is_that_of_the_bytes() -> None:
    assert digest(b"header") == hashlib.sha256(b"header").hexdigest()


def test_other_spellings_of_the_same_values_are_fine(header: Header) -> None:
    values = json.loads(encode(header))
    shuffled = json.dumps(dict(reversed(values.items())), separators=(",", ":"))
    assert decode(shuffled.encode()) == header


Change = Callable[[Json], object]

BAD: dict[str, tuple[Change, str]] = {
    "key missing": (lambda v: v.pop("host"), "lacks 'host'"),
    "key added": (lambda v: v.update(hots="x"), "unknown key 'hots'"),
    "scope without disk": (lambda v: v["scope"].pop("disk"), "the scope lacks 'disk'"),
    "scope with more": (lambda v: v["scope"].update(all=[]), "the scope has an unknown key"),
    "clone without filesystems": (lambda v: v["clone"].pop("filesystems"), "the clone lacks"),
    "filesystem with more": (
        lambda v: v["clone"]["filesystems"][0].update(label=""),
        "a filesystem has an unknown",
    ),
    "member with more": (lambda v: v["members"][0].update(mode=0), "a member has an unknown"),
    "host a number": (lambda v: v.update(host=1), "'host' of the header is no printable text"),
    "host null": (lambda v: v.update(host=None), "no printable text"),
    "host with escapes": (lambda v: v.update(host="\x1b[2J"), "no printable text"),
    "host with a half character": (lambda v: v.update(host="\ud800"), "no printable text"),
    "scope a list": (lambda v: v.update(scope=[]), "the scope is no object"),
    "scope patterns a text": (
        lambda v: v["scope"].update(role="/etc"),
        "'role' of the scope is no list",
    ),
    "scope pattern a number": (lambda v: v["scope"].update(role=[1]), "an item of 'role'"),
    "scope pattern relative": (lambda v: v["scope"].update(role=["etc"]), "no absolute path"),
    "scope pattern with ..": (lambda v: v["scope"].update(role=["/etc/../x"]), "'..' component"),
    "members an object": (lambda v: v.update(members={}), "'members' of the header is no list"),
    "no members": (lambda v: v.update(members=[]), "not exactly"),
    "one member": (lambda v: v["members"].pop(), "not exactly"),
    "members swapped": (lambda v: v["members"].reverse(), "not exactly"),
    "member twice": (lambda v: v["members"].append(v["members"][0]), "not exactly"),
    "member of another name": (lambda v: v["members"][0].update(name="payload.tar"), "not exactly"),
    "size negative": (lambda v: v["members"][0].update(size=-1), "no whole number"),
    "size true": (lambda v: v["members"][0].update(size=True), "no whole number"),
    "size a float": (lambda v: v["members"][0].update(size=1.0), "no whole number"),
    "size too large for tar": (lambda v: v["members"][0].update(size=8**11), "no whole number"),
    "digest in capitals": (lambda v: v["members"][0].update(sha256="A" * 64), "not a sha256"),
    "digest short": (lambda v: v.update(profile_sha256="a" * 63), "not a sha256"),
    "previous empty": (lambda v: v.update(previous=""), "not a sha256"),
    "generation text": (lambda v: v.update(generation="2"), "no whole number"),
    "generation 0": (lambda v: v.update(generation=0, previous=None), "does not fit"),
    "generation 1 with a predecessor": (lambda v: v.update(generation=1), "does not fit"),
    "generation 2 without": (lambda v: v.update(previous=None), "does not fit"),
    "generation too large": (lambda v: v.update(generation=1_000_000), "no whole number"),
    "role no name": (lambda v: v.update(role="../x"), "not a name"),
    "pair with a slash": (lambda v: v.update(pair="a/b"), "not a name"),
    "created with an offset": (lambda v: v.update(created="2026-11-22T03:04:05+00:00"), "format"),
    "created with fractions": (lambda v: v.update(created="2026-11-22T03:04:05.5Z"), "format"),
    "created with short digits": (
        lambda v: v.update(created="2026-11-2T3:4:5Z"),
        "Invalid isoformat string",
    ),
    "created without separators": (
        lambda v: v.update(created="20261122T030405Z"),
        "no time of the form",
    ),
    "created as a week": (
        lambda v: v.update(created="2026-W47-7T03:04:05Z"),
        "no time of the form",
    ),
    "created without a zone": (lambda v: v.update(created="2026-11-22T03:04:05"), "format"),
    "created before 1970": (
        lambda v: v.update(created="1969-12-31T23:59:59Z"),
        "no time of the form",
    ),
    "created too late for tar": (
        lambda v: v.update(created="2999-01-01T00:00:00Z"),
        "no time of the form",
    ),
    "format missing": (lambda v: v.pop("format"), "does not tell its version"),
    "format true": (lambda v: v.update(format=True), "does not tell its version"),
    "format text": (lambda v: v.update(format="1"), "does not tell its version"),
    "format 0": (lambda v: v.update(format=0), "does not tell its version"),
}


@pytest.mark.parametrize("name", BAD)
def test_other_keys_types_and_values_are_refused(name: str, header: Header) -> None:
    change, message = BAD[name]
    values = copy.deepcopy(json.loads(encode(header)))
    change(values)
    with pytest.raises(OverlayMalformed, match=message):
        decode(json.dumps(values).encode())


def test_a_newer_format_is_told_apart(header: Header) -> None:
    newer = {**json.loads(encode(header)), "format": 2, "seals": []}
    with pytest.raises(OverlayMalformed, match="made by a newer etsclone") as caught:
        decode(json.dumps(newer).encode())
    assert caught.value.hint == "use the newest etsclone"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b'{"format": 1}',
        b'{"format": 1, "format": 1}',
        b'{"format": NaN}',
        b'{"format": Infinity}',
        b"{'format': 1}",
        b'{"format": 1}}',
        b'\xef\xbb\xbf{"format": 1}',
        b'{"format": "\xff"}',
        '{"format": 1}'.encode("utf-16"),
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"format": ' + b"1" * 60_000 + b"}",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(OverlayMalformed):
        decode(data)


def test_a_key_twice_is_refused_at_every_level(header: Header) -> None:
    text = encode(header).decode()
    for line in (
        '"role": "primary"',
        '"table_uuid": "6b1f2f0e"',
        '"type": "swap"',
        f'"name": "{PAYLOAD}"',
    ):
        assert text.count(line) == 1
        with pytest.raises(OverlayMalformed, match="twice"):
            decode(text.replace(line, f"{line}, {line}").encode())


def test_the_size_has_a_limit(header: Header) -> None:
    data = encode(header)
    assert decode(data.ljust(MAX_HEADER)) == header
    with pytest.raises(OverlayMalformed, match="more than 65536"):
        decode(data.ljust(MAX_HEADER + 1))
    with pytest.raises(OverlayMalformed, match="more than 65536") as caught:
        encode(replace(header, scope=Scope((f"/{'x' * MAX_HEADER}",))))
    assert "scope" in caught.value.hint


def test_what_could_not_be_read_back_is_not_written(header: Header) -> None:
    with pytest.raises(OverlayMalformed):
        encode(replace(header, host="two\nlines"))
    with pytest.raises(OverlayMalformed):
        encode(replace(header, members=header.members[:1]))
    with pytest.raises(OverlayMalformed):
        encode(replace(header, generation=1_000_000))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fail_in_another_way(data: bytes) -> None:
    with pytest.raises(OverlayMalformed):
        decode(data)
