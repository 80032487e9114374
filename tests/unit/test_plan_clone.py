"""The clone plan: pure, so every kind of disk is a few lines here."""

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import FormatError
from etsclone.model.disk import Content, Disk, DiskIdentity, Partition, PartitionTable
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import (
    PIECE,
    Clear,
    ClonePlan,
    CloneWishes,
    Copy,
    CopyMode,
    CreateImage,
    Erase,
    Seal,
    Unused,
    UsedMap,
    VerifyMode,
)
from etsclone.plan.clone import HEAD_SIZE, content_partitions, plan_clone
from etsclone.units import KIB, MIB

SIZE = 64 * MIB
LARGER = 100 * MIB
SECTOR = 512


def part(number: int, start: int, end: int, type_: str = "83") -> Partition:
    return Partition(number, f"/dev/sda{number}", start, end - start, type_)


def disk(path: str, size: int = SIZE, table: PartitionTable | None = None) -> Disk:
    return Disk(DiskIdentity(path, size), device=path, table=table)


def gpt(*partitions: Partition) -> Disk:
    return disk("/dev/sda", table=PartitionTable("gpt", "id", partitions))


def mbr(*partitions: Partition) -> Disk:
    return disk("/dev/sda", table=PartitionTable("dos", "id", partitions))


def gpt_head(entries_end: int = 34 * SECTOR) -> bytes:
    """A protective MBR and a GPT with room for 128 partitions; none is listed, the snapshot tells them."""
    entries = bytes(128 * 128)
    last = SIZE // SECTOR - 1
    fields = (
        1,
        last,
        entries_end // SECTOR,
        last - 33,
        bytes(16),
        2,
        128,
        128,
        zlib.crc32(entries),
    )
    layout = "<8sIIIIQQQQ16sQIII"
    header = struct.pack(layout, b"EFI PART", 0x10000, 92, 0, 0, *fields)
    header = struct.pack(layout, b"EFI PART", 0x10000, 92, zlib.crc32(header), 0, *fields)
    return (bytes(SECTOR) + header.ljust(SECTOR, b"\0") + entries).ljust(HEAD_SIZE, b"\xee")


def used(partition: Partition, *extents: Extent) -> UsedMap:
    chosen = Extents.of(extents) if extents else Extents.between(partition.start, partition.end)
    return UsedMap(partition.number, "ext4", partition.start, partition.size, chosen, "test")


def plan(
    source: Disk, *, target: Disk | None = None, head: bytes = b"\xaa" * HEAD_SIZE
) -> ClonePlan:
    maps = [used(each) for each in content_partitions(source)]
    if source.table is None:
        maps = [UsedMap(0, "ext4", 0, source.size, Extents.between(0, source.size), "test")]
    return plan_clone(source, target or disk("/dev/sdb"), maps, head)


def wished(source: Disk, head: bytes, wishes: CloneWishes, size: int = LARGER) -> ClonePlan:
    """A plan for a disk of which only some blocks of each partition are used."""
    maps = [
        used(each, Extent(each.start, (each.start + each.end) // 2 // SECTOR * SECTOR))
        for each in content_partitions(source)
    ]
    if source.table is None:
        maps = [UsedMap(0, "ext4", 0, source.size, Extents.between(0, 9 * MIB), "test")]
    return plan_clone(source, disk("/dev/sdb", size), maps, head, wishes=wishes, fingerprint="mark")


def sealed(found: ClonePlan) -> Extents:
    return Extents.of(
        Extent(write.offset, write.offset + len(write.data))
        for step in found.steps
        if isinstance(step, Seal)
        for write in step.writes
    )


def erased(found: ClonePlan) -> Extents:
    return Extents.of(e for step in found.steps if isinstance(step, Erase) for e in step.extents)


ROOT = part(2, 2 * MIB, 60 * MIB)
GPT = gpt(part(1, MIB, 2 * MIB), ROOT)
LAYOUTS = [
    pytest.param(GPT, gpt_head(), id="gpt"),
    pytest.param(gpt(part(1, 34 * SECTOR, 60 * MIB)), gpt_head(), id="gpt from sector 34"),
    pytest.param(gpt(part(1, 40 * MIB, 60 * MIB)), gpt_head(), id="gpt with a gap"),
    pytest.param(gpt(), gpt_head(), id="gpt without partitions"),
    pytest.param(mbr(part(1, MIB, SIZE)), b"\xaa" * HEAD_SIZE, id="mbr"),
    pytest.param(mbr(part(1, 63 * SECTOR, 9 * MIB)), b"\xaa" * HEAD_SIZE, id="mbr from sector 63"),
    pytest.param(mbr(part(1, SECTOR, 9 * MIB)), b"\xaa" * HEAD_SIZE, id="mbr from sector 1"),
    pytest.param(
        mbr(part(1, MIB, 9 * MIB), part(2, 9 * MIB, SIZE, "5"), part(5, 10 * MIB, 20 * MIB)),
        b"\xaa" * HEAD_SIZE,
        id="mbr with a logical partition",
    ),
    pytest.param(disk("/dev/sda"), b"\xaa" * HEAD_SIZE, id="no table"),
]


@pytest.mark.parametrize(("source", "head"), LAYOUTS)
def test_the_steps_come_in_the_order_that_power_cuts_need(source: Disk, head: bytes) -> None:
    found = plan(source, head=head)
    assert [type(step) for step in found.steps] == [Erase, Copy, Seal]
    seal = found.steps[-1]
    assert isinstance(seal, Seal)
    assert seal.writes[-1].offset == 0
    assert all(write.offset > 0 for write in seal.writes[:-1])


@pytest.mark.parametrize(("source", "head"), LAYOUTS)
@pytest.mark.parametrize("size", [SIZE, LARGER])
def test_nothing_of_the_head_is_copied_before_the_end(source: Disk, head: bytes, size: int) -> None:
    found = plan(source, head=head, target=disk("/dev/sdb", size))
    first = sealed(found).ranges[0]
    assert found.copied & Extents((first,)) == Extents()
    assert first.size >= 4 * KIB
    # Copying goes by whole blocks, so one may touch the backup table, which is written after it.
    assert (found.copied & sealed(found)).size < 4 * KIB


@pytest.mark.parametrize(("source", "head"), LAYOUTS)
@pytest.mark.parametrize("size", [SIZE, LARGER])
def test_every_byte_that_is_not_known_to_be_free_is_written(
    source: Disk, head: bytes, size: int
) -> None:
    # All maps here call the whole of their partition used. On a larger target, the source's own backup table is the
    # one thing that does not come along.
    found = plan(source, head=head, target=disk("/dev/sdb", size))
    missing = Extents.between(0, SIZE) - found.copied - sealed(found)
    is_gpt = source.table is not None and source.table.label == "gpt"
    assert missing.size <= (33 * SECTOR if is_gpt and size > SIZE else 0)


@pytest.mark.parametrize(("source", "head"), LAYOUTS)
def test_the_head_is_the_sources(source: Disk, head: bytes) -> None:
    seal = plan(source, head=head).steps[-1]
    assert isinstance(seal, Seal)
    for write in seal.writes:
        if write.offset + len(write.data) <= HEAD_SIZE:
            assert write.data == head[write.offset : write.offset + len(write.data)]


@pytest.mark.parametrize("size", [SIZE, LARGER, 1 * MIB, 3 * KIB])
def test_both_ends_of_the_target_are_erased_first(size: int) -> None:
    source = disk("/dev/sda", 3 * KIB)
    found = plan(source, target=disk("/dev/sdb", size), head=b"\xaa" * (3 * KIB))
    ends = Extents.of([Extent(0, min(MIB, size)), Extent(max(0, size - MIB), size)])
    assert ends - erased(found) == Extents()
    assert erased(found).ranges[-1].end == size


@given(st.lists(st.tuples(st.integers(2 * MIB, 60 * MIB - 1), st.integers(1, MIB)), max_size=8))
def test_of_a_partition_only_what_is_used_is_copied(pairs: list[tuple[int, int]]) -> None:
    wanted = Extents.of(Extent(start, min(start + size, ROOT.end)) for start, size in pairs)
    boot = used(GPT.partitions[0])
    root = replace(used(ROOT), extents=wanted)
    found = plan_clone(GPT, disk("/dev/sdb"), [boot, root], gpt_head())
    inside = Extents.between(ROOT.start, ROOT.end)
    assert found.copied & inside == wanted.aligned(PIECE, SIZE)


def test_on_a_larger_target_the_backup_table_is_at_its_end() -> None:
    found = plan(GPT, head=gpt_head(), target=disk("/dev/sdb", LARGER))
    seal = found.steps[-1]
    assert isinstance(seal, Seal)
    backup = seal.writes[0]
    assert backup.offset + len(backup.data) == LARGER
    assert found.copied.ranges[-1].end <= SIZE


def test_a_new_image_is_created_first() -> None:
    target = replace(disk("clone.img"), exists=False)
    found = plan(GPT, head=gpt_head(), target=target)
    assert found.steps[0] == CreateImage("clone.img", SIZE)


@pytest.mark.parametrize("type_", ["5", "F", "85"])
def test_an_extended_partition_is_a_frame(type_: str) -> None:
    frame, logical = part(2, 9 * MIB, SIZE, type_), part(5, 10 * MIB, 20 * MIB)
    assert content_partitions(mbr(frame, logical)) == (logical,)


def test_a_gpt_type_is_never_taken_for_an_extended_partition() -> None:
    odd = part(1, MIB, 2 * MIB, "5")
    assert content_partitions(gpt(odd)) == (odd,)


def test_the_chain_of_logical_partitions_is_copied() -> None:
    source = mbr(part(2, 9 * MIB, SIZE, "5"), part(5, 10 * MIB, 20 * MIB))
    free = replace(used(source.partitions[1]), extents=Extents())
    found = plan_clone(source, disk("/dev/sdb"), [free], b"\xaa" * HEAD_SIZE)
    assert found.copied & Extents.between(9 * MIB, 10 * MIB) == Extents.between(9 * MIB, 10 * MIB)
    assert found.copied & Extents.between(10 * MIB, 20 * MIB) == Extents()


def test_a_damaged_gpt_is_refused() -> None:
    with pytest.raises(FormatError, match="no GPT header"):
        plan(GPT, head=bytes(HEAD_SIZE))


def test_free_space_of_a_filesystem_without_a_table_is_not_copied() -> None:
    source = replace(disk("/dev/sda"), content=Content("ext4"))
    maps = [UsedMap(0, "ext4", 0, SIZE, Extents.between(0, 9 * MIB), "test")]
    found = plan_clone(source, disk("/dev/sdb"), maps, b"\xaa" * HEAD_SIZE)
    assert found.copied == Extents.between(MIB, 9 * MIB)
    assert sealed(found) == Extents.between(0, MIB)


@pytest.mark.parametrize(("source", "head"), LAYOUTS)
@pytest.mark.parametrize("size", [SIZE, LARGER])
def test_whole_pieces_are_copied(source: Disk, head: bytes, size: int) -> None:
    # But for the disk's end, and for the first piece where the head ends in it.
    for extent in wished(source, head, CloneWishes(), size).copied.ranges[1:]:
        assert extent.start % PIECE == 0
        assert extent.end % PIECE == 0 or extent.end > SIZE - PIECE


@pytest.mark.parametrize(("source", "head"), LAYOUTS)
@pytest.mark.parametrize("mode", [CopyMode.RESUME, CopyMode.REFRESH])
@pytest.mark.parametrize("size", [SIZE, LARGER])
def test_what_an_earlier_clone_brought_stays(
    source: Disk, head: bytes, mode: CopyMode, size: int
) -> None:
    found = wished(source, head, CloneWishes(mode), size)
    assert erased(found) & found.copied == Extents()
    assert not any(step.empty for step in found.steps if isinstance(step, Erase))
    # But until the end it has no table, whatever it had.
    assert sealed(found) - erased(found) - found.copied == Extents()
    assert Extents.between(0, 4 * KIB) - erased(found) == Extents()


@pytest.mark.parametrize(("source", "head"), LAYOUTS)
@pytest.mark.parametrize("how", [Unused.DISCARD, Unused.WIPE])
@pytest.mark.parametrize("size", [SIZE, LARGER])
def test_unused_space_is_cleared_and_nothing_else(
    source: Disk, head: bytes, how: Unused, size: int
) -> None:
    found = wished(source, head, CloneWishes(unused=how), size)
    clears = [step for step in found.steps if isinstance(step, Clear)]
    assert all(step is found.steps[1] and step.how is how for step in clears)
    cleared = Extents.of(extent for step in clears for extent in step.extents)
    # What was erased is zeros already, and must stay so: a discarded block may read as anything.
    assert cleared & (found.copied | sealed(found) | erased(found)) == Extents()
    everything = cleared | found.copied | sealed(found) | erased(found)
    assert everything == Extents.between(0, size)


def test_wishes_are_passed_on() -> None:
    wishes = CloneWishes(
        CopyMode.REFRESH, VerifyMode.FULL, Unused.LEAVE, retries=7, digests_kept=True
    )
    found = wished(GPT, gpt_head(), wishes)
    assert found.fingerprint == "mark"
    assert found.copy == Copy(
        found.copied,
        CopyMode.REFRESH,
        VerifyMode.FULL,
        retries=7,
        digests_kept=True,
        marks=found.copy.marks,
    )
    # The beginning of each partition, where whoever mounts it leaves a trace.
    assert all(
        Extents.between(part.start, part.start + PIECE) - found.copy.marks == Extents()
        for part in GPT.partitions
    )


def test_an_existing_image_gives_up_what_it_holds() -> None:
    image = replace(disk("clone.img"), identity=DiskIdentity("clone.img", SIZE, file=(1, 2)))
    steps = plan(GPT, head=gpt_head(), target=image).steps
    assert [step.empty for step in steps if isinstance(step, Erase)] == [True]
    device = DiskIdentity("/dev/sdb", SIZE, device=(8, 16))
    steps = plan(GPT, head=gpt_head(), target=replace(image, identity=device)).steps
    assert [step.empty for step in steps if isinstance(step, Erase)] == [False]
