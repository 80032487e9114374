"""The list of what a clone with identifiers of its own was cloned from."""

from hypothesis import given
from hypothesis import strategies as st

from etsclone.model.brd import CloneIdentity, Filesystem
from etsclone.plan.origins import parse_origins, with_origin

FIRST = CloneIdentity(
    "11111111-2222-3333-4444-555555555555",
    (Filesystem("ext4", "aaaaaaaa-2222-3333-4444-555555555555"), Filesystem("vfat", "AB12-CD34")),
)
SECOND = CloneIdentity(
    "0x1234abcd", (Filesystem("LVM2_member", "abcdef-1234-5678-90ab-cdef-1234-567890"),)
)


def test_generations_of_clones_are_all_known() -> None:
    text = with_origin(with_origin(b"", FIRST, "gpt"), SECOND, "dos")
    assert parse_origins(text) == (
        Filesystem("gpt", FIRST.table_uuid),
        *FIRST.filesystems,
        Filesystem("dos", "0x1234abcd"),
        *SECOND.filesystems,
    )


def test_the_same_source_again_is_known_once() -> None:
    text = with_origin(with_origin(b"", FIRST, "gpt"), SECOND, "dos")
    again = with_origin(text, FIRST, "gpt")
    assert set(parse_origins(again)) == set(parse_origins(text))
    assert len(again.splitlines()) == len(text.splitlines())
    assert parse_origins(again)[-1] == FIRST.filesystems[-1]


def test_the_latest_are_kept() -> None:
    text = b""
    for number in range(300):
        text = with_origin(text, CloneIdentity(f"0x{number:08x}"), "dos")
    found = parse_origins(text)
    assert len(found) == 256
    assert found[-1] == Filesystem("dos", f"0x{299:08x}")


def test_a_source_without_identifiers_adds_nothing() -> None:
    assert with_origin(b"", CloneIdentity(), "") == b""


@given(st.binary(max_size=300))
def test_what_a_clone_says_can_be_kept_in_a_header(text: bytes) -> None:
    for each in parse_origins(b"gpt 1234\n" + text + b"\next4 \x1b[2J\n"):
        assert each.type.isprintable()
        assert each.uuid.isprintable()
        assert len(each.type) + len(each.uuid) <= 72
