"""Which reader is asked, and what becomes of answers that make no sense."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import CommandFailed, FormatError, MissingProgram
from etsclone.model.disk import Content, Partition
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import UsedMap
from etsclone.units import KIB, MIB
from etsclone.usedmap import btrfs, lvm, partclone, swap, unsettled
from etsclone.usedmap.content import used_map
from etsclone.usedmap.partclone import parse_domain
from etsclone.usedmap.region import DiskAccess, Finding, Region

from .fakes import FakeDisk, physical_volume

START, SIZE = 3 * MIB, 200 * MIB
GOLDEN = (Path(__file__).parents[2] / "golden" / "lvm" / "every-kind.vg").read_text()


def find(kind: str, disk: DiskAccess | None = None, *, swap_header_only: bool = False) -> UsedMap:
    part = Partition(7, "", START, SIZE, "", content=Content(kind))
    return used_map(part, disk or FakeDisk(b""), swap_header_only=swap_header_only)


def is_whole(found: UsedMap) -> bool:
    return (found.extents, found.method) == (
        Extents.between(START, START + SIZE),
        "every block",
    )


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("", ""),
        ("swap", ""),
        ("crypto_LUKS", "encrypted with LUKS and locked, free and used look alike"),
        ("BitLocker", "encrypted with BitLocker, free and used look alike"),
        ("linux_raid_member", "a member of an md array, which may use all of it"),
        ("swsuspend", "a hibernated system is kept in it"),
        ("zfs_member", "nothing is known of the inside of zfs_member"),
    ],
)
def test_what_no_reader_knows_matters_whole(kind: str, note: str) -> None:
    for header_only in (False, kind != "swap"):
        found = find(kind, swap_header_only=header_only)
        assert is_whole(found)
        assert found.note == (f"everything is copied: {note}" if note else "")
        assert (found.partition, found.start, found.size) == (7, START, SIZE)


@pytest.mark.parametrize("page", swap.PAGE_SIZES)
def test_the_header_of_swap_ends_where_its_page_does(page: int) -> None:
    disk = FakeDisk(bytes(START + page - 10) + swap.MAGIC + b"swapped out")
    found = find("swap", disk, swap_header_only=True)
    assert (found.extents, found.method) == (Extents.between(START, START + page), "swap header")
    assert is_whole(find("swap", disk))


@given(st.binary(max_size=70 * KIB))
def test_garbage_is_no_swap_header(head: bytes) -> None:
    with pytest.raises(FormatError):
        swap.header_size(head)


def test_swap_without_a_header_is_copied_whole() -> None:
    found = find("swap", swap_header_only=True)
    assert is_whole(found)
    assert found.note == "everything is copied: it has no swap header"


def answers(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str, Region], Finding]) -> None:
    monkeypatch.setattr(partclone, "find_used", answer)


def test_a_map_is_shifted_to_its_place_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, lambda _, __: Finding(Extents.between(0, MIB), "reader"))
    found = find("ext4")
    assert (found.extents, found.method) == (Extents.between(START, START + MIB), "reader")


@pytest.mark.parametrize(
    "extents", [Extents(), Extents.between(0, SIZE + 1), Extents.between(SIZE, SIZE + 5)]
)
def test_a_map_that_makes_no_sense_is_not_believed(
    extents: Extents, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, lambda _, __: Finding(extents, "reader"))
    found = find("xfs")
    assert is_whole(found)
    assert found.note.startswith("everything is copied: its map")


@pytest.mark.parametrize("error", [CommandFailed("it failed"), FormatError("it failed")])
def test_a_reader_that_fails(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str, __: Region) -> Finding:
        raise error

    answers(monkeypatch, fail)
    found = find("xfs")
    assert is_whole(found)
    assert found.note == "everything is copied: it failed"


def test_a_reader_that_is_not_installed_is_no_reason_to_copy_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: str, __: Region) -> Finding:
        raise MissingProgram("not installed")

    answers(monkeypatch, fail)
    with pytest.raises(MissingProgram):
        find("xfs")


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "exfat", "f2fs", lvm.CONTENT])
def test_a_head_that_cannot_be_read(kind: str) -> None:
    found = find(kind, FakeDisk(b"", bad=START))
    assert is_whole(found)
    assert found.note == "everything is copied: the disk cannot be read"


def test_inside_logical_volumes_each_content_has_its_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    linear = Extent(START + MIB, START + 17 * MIB)
    behind = Extent(START + 181 * MIB, START + 189 * MIB)
    head = physical_volume(GOLDEN)
    swap_head = bytes(4086) + swap.MAGIC
    data = (bytes(START) + head).ljust(behind.start, b"\0") + swap_head
    seen: list[Region] = []

    def answer(kind: str, region: Region) -> Finding:
        seen.append(region)
        return Finding(Extents.between(0, MIB), f"reader of {kind}")

    answers(monkeypatch, answer)
    disk = FakeDisk(data, {linear: "ext4", behind: "swap"})
    found = find(lvm.CONTENT, disk, swap_header_only=True)
    assert [region.extent for region in seen] == [linear]
    assert found.method == "lvm2 metadata, reader of ext4, swap header"
    used = found.extents & (Extents((linear,)) | Extents((behind,)))
    assert used == Extents.of(
        (Extent(linear.start, linear.start + MIB), Extent(behind.start, behind.start + 4096))
    )
    nested = find(lvm.CONTENT, FakeDisk(data, {linear: lvm.CONTENT}))
    assert "vg/linear: everything is copied: it holds another physical volume" in nested.note


# --- partclone's domain files ----------------------------------------------------------------------------------------


def domain(*blocks: tuple[int, int, str]) -> str:
    return "# log\n0x100 ?\n" + "".join(f"{a:#x} {b:#x} {c}\n" for a, b, c in blocks)


def test_what_a_domain_says_nothing_about_is_used() -> None:
    text = domain((0, 16, "+"), (16, 16, "?"), (32, 8, "+"))
    assert parse_domain(text, 64) == Extents.between(0, 16) | Extents.between(32, 64)
    assert parse_domain(text, 40) == Extents.between(0, 16) | Extents.between(32, 40)


@pytest.mark.parametrize(
    "text",
    [
        "",
        domain(),
        domain((8, 8, "+")),
        domain((0, 65, "+")),
        domain((0, 64, "?")),
        domain((0, 8, "+"), (16, 8, "+")),
        domain((0, 16, "+"), (8, 8, "+")),
    ],
)
def test_domains_that_make_no_sense(text: str) -> None:
    with pytest.raises(FormatError):
        parse_domain(text, 64)


# --- filesystems that are not settled --------------------------------------------------------------------------------


def poked(size: int, position: int, value: bytes) -> bytes:
    return bytes(position) + value + bytes(size - position - len(value))


def test_settled_filesystems() -> None:
    unsettled.check_ext(poked(1024, 0x60, b"\x02"))
    unsettled.check_btrfs(poked(4096, 0x88, b"\x01"))
    unsettled.check_exfat(bytes(512))
    unsettled.check_xfs_log("    log tail: 2 head: 2 state: <CLEAN>\n")


@pytest.mark.parametrize(
    ("check", "superblock"),
    [
        (unsettled.check_ext, poked(1024, 0x60, b"\x06")),
        (unsettled.check_btrfs, poked(4096, 0x60, b"\x01")),
        (unsettled.check_btrfs, poked(4096, 0x88, b"\x02")),
        (unsettled.check_exfat, poked(512, 106, b"\x02")),
    ],
)
def test_a_superblock_that_tells_of_more_than_the_map(
    check: Callable[[bytes], None], superblock: bytes
) -> None:
    with pytest.raises(FormatError):
        check(superblock)


@pytest.mark.parametrize(
    "state", ["    log tail: 2 head: 9 state: <DIRTY>\n", "", "mounted <CLEAN>"]
)
def test_an_xfs_log_that_is_not_known_to_be_clean(state: str) -> None:
    with pytest.raises(FormatError):
        unsettled.check_xfs_log(state)


def f2fs(first: bytes, second: bytes, last: bytes | None = None) -> Region:
    """Blocks of 4 KiB, segments of 4 blocks, the packs at block 4 and 8, with 2 blocks each."""
    head = poked(1024 + 16, 1024, b"\x10\x20\xf5\xf2") + b"\x0c\0\0\0\x02\0\0\0"
    head = head.ljust(1024 + 76, b"\0") + b"\x04\0\0\0"
    blocks = [first, last if last is not None else first, b"", b"", second, second]
    data = head.ljust(4 * 4096, b"\0") + b"".join(each.ljust(4096, b"\0") for each in blocks)
    return Region(FakeDisk(data), Extent(0, MIB))


def pack(version: int, flags: int) -> bytes:
    head = version.to_bytes(8, "little").ljust(132, b"\0")
    return head + flags.to_bytes(4, "little") + (2).to_bytes(4, "little")


def test_the_newest_checkpoint_of_f2fs_counts() -> None:
    unsettled.check_f2fs(f2fs(pack(8, 1), pack(7, 0)))
    unsettled.check_f2fs(f2fs(pack(8, 0x81), pack(9, 0x85)))
    for region in (
        f2fs(pack(8, 0), pack(7, 1)),
        f2fs(pack(8, 1), pack(9, 0)),
        f2fs(pack(8, 1), pack(7, 1), last=pack(6, 1)),
        Region(FakeDisk(b""), Extent(0, MIB)),
    ):
        with pytest.raises(FormatError):
            unsettled.check_f2fs(region)


# --- btrfs -----------------------------------------------------------------------------------------------------------


def chunk(size: int, kind: str, *starts: int, count: int | None = None) -> str:
    stripes = "".join(
        f"\t\t\tstripe {number} devid 1 offset {start}\n\t\t\tdev_uuid 1-2\n"
        for number, start in enumerate(starts)
    )
    return (
        f"\titem 1 key (FIRST_CHUNK_TREE CHUNK_ITEM {7 * starts[0]}) itemoff 1 itemsize 80\n"
        f"\t\tlength {size} owner 2 stripe_len 65536 type {kind}\n"
        "\t\tio_align 65536 io_width 65536 sector_size 4096\n"
        f"\t\tnum_stripes {count or len(starts)} sub_stripes 1\n{stripes}"
    )


def tree(allocated: int, *chunks: str) -> str:
    return f"chunk tree\n\t\tdevid 1 total_bytes 999 bytes_used {allocated}\n" + "".join(chunks)


def test_the_chunks_of_btrfs() -> None:
    text = tree(50, chunk(10, "METADATA|DUP", 100, 120), chunk(30, "DATA", 200))
    assert btrfs.parse_chunks(text) == (
        btrfs.Chunk(10, (100, 120), 700),
        btrfs.Chunk(30, (200,), 1400),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        tree(40, chunk(10, "METADATA|DUP", 100, 120), chunk(30, "DATA", 200)),
        tree(20, chunk(10, "DATA|RAID0", 100, 120)),
        tree(10, chunk(10, "DATA|DUP", 100, count=2)),
        chunk(10, "DATA", 100),
    ],
)
def test_chunks_that_make_no_sense(text: str) -> None:
    with pytest.raises(FormatError):
        btrfs.parse_chunks(text)


pieces = st.builds(
    lambda start, size: Extent(start, start + size), st.integers(0, 99), st.integers(1, 9)
)


@given(st.lists(pieces, max_size=12).map(Extents.of))
def test_what_is_used_in_one_copy_is_used_in_the_other(used: Extents) -> None:
    chunks = (btrfs.Chunk(20, (5, 60)), btrfs.Chunk(10, (25,)), btrfs.Chunk(7, (85, 40)))
    bits = {position for extent in used for position in range(extent.start, extent.end)}
    for first, second, size in ((5, 60, 20), (85, 40, 7)):
        for offset in range(size):
            if bits & {first + offset, second + offset}:
                bits |= {first + offset, second + offset}
    found = btrfs.with_copies(used, chunks)
    assert {position for extent in found for position in range(extent.start, extent.end)} == bits
