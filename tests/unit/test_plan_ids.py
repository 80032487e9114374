"""Which identifiers a clone gets, and tables with them. sfdisk, which others wrote, reads the tables."""

import itertools
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from etsclone.disk.probe import parse_table
from etsclone.errors import IdsRefused
from etsclone.model.disk import Content, Disk, DiskIdentity, Partition, PartitionTable
from etsclone.model.extents import Extent, Extents
from etsclone.model.ids import DISK, Inside, NewId
from etsclone.model.plan import Grow, Moved
from etsclone.plan.gpt import relocate
from etsclone.plan.ids import have_own_ids, plan_ids
from etsclone.plan.tableids import identified_head
from etsclone.units import MIB

UUID = "11111111-2222-3333-4444-555555555555"


def counting() -> Callable[[int], bytes]:
    """Other bytes each time."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def part(number: int, kind: str, uuid: str = UUID, start: int = 0, named: str = "") -> Partition:
    start = start or number * MIB
    return Partition(number, "", start, MIB, "L", uuid=named, content=Content(kind, uuid))


def disk(*parts: Partition, label: str = "gpt", uuid: str = UUID.upper()) -> Disk:
    return Disk(DiskIdentity("/dev/sda", 64 * MIB), table=PartitionTable(label, uuid, parts))


def test_everything_gets_another_one() -> None:
    parts = (
        part(1, "vfat", "AB12-CD34", named="A" + UUID[1:].upper()),
        part(2, "ext4", "B" + UUID[1:]),
        part(3, "", ""),
        part(4, "swap", ""),
    )
    step = plan_ids(disk(*parts), None, Inside(), counting())
    assert [(each.what, each.partition, each.old) for each in step.ids] == [
        ("disk", 0, UUID),
        ("partition", 1, "A" + UUID[1:]),
        ("vfat", 1, "AB12-CD34"),
        ("ext4", 2, "B" + UUID[1:]),
    ]
    assert len(set(step.mapping.values()) | set(step.mapping)) == 8
    # What has no content needs not be copied again, but what the backup table may lie in.
    behind = Extent(5 * MIB, 64 * MIB)
    assert step.spoiled == Extents.of((*(parts[index].extent for index in (0, 1, 3)), behind))


def test_what_has_the_same_keeps_having_the_same() -> None:
    step = plan_ids(disk(part(1, "ext4"), part(2, "ext4")), None, Inside(), counting())
    one, other = step.contents
    assert one.id.new == other.id.new != UUID


def test_an_mbr_gives_its_partitions_theirs() -> None:
    step = plan_ids(
        disk(
            part(1, "ext4", named="abcdef12-01"),
            part(5, "swap", named="abcdef12-05"),
            label="dos",
            uuid="0xabcdef12",
        ),
        None,
        Inside(),
        counting(),
    )
    assert step.table == (
        NewId(DISK, 0, "0xabcdef12", "0x02000000"),
        NewId("partition", 1, "abcdef12-01", "02000000-01"),
        NewId("partition", 5, "abcdef12-05", "02000000-05"),
    )


def test_no_number_is_zero_or_the_old_one() -> None:
    drawn = iter([bytes(4), bytes.fromhex("12efcdab"), b"\1\0\0\0"])
    step = plan_ids(disk(label="dos", uuid="0xabcdef12"), None, Inside(), lambda _: next(drawn))
    assert step.table[0].new == "0x00000001"


def test_what_grew_or_moved_is_changed_where_it_is() -> None:
    grown, moved = Extent(MIB, 40 * MIB), Extent(50 * MIB, 51 * MIB)
    swap = Moved(2, Extent(2 * MIB, 3 * MIB), moved, b"")
    grow = Grow(1, "ext4", grown, MIB, Extents(), swap)
    step = plan_ids(
        disk(part(1, "ext4"), part(2, "swap", "C" + UUID[1:])), grow, Inside(), counting()
    )
    assert [content.place for content in step.contents] == [grown, moved]
    assert step.spoiled == Extents.of((grown, moved, Extent(3 * MIB, 64 * MIB)))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (replace(disk(), table=None), "has no partition table"),
        (disk(part(1, "ext4"), part(2, "zfs_member")), "partition 2 holds zfs_member"),
        (disk(part(1, "xfs", start=63 * 512)), "partition 1 begins beside the boot loader"),
    ],
)
def test_what_cannot_be_changed_is_refused(source: Disk, words: str) -> None:
    with pytest.raises(IdsRefused) as caught:
        plan_ids(source, None, Inside(), counting())
    assert words in caught.value.message
    assert "--new-ids" in caught.value.hint


def test_a_filesystem_that_begins_late_enough_in_a_shared_block() -> None:
    assert plan_ids(disk(part(1, "ext4", start=63 * 512)), None, Inside(), counting()).contents


def renamed(source: Disk, step_ids: dict[str, str]) -> Disk:
    def other(each: Partition) -> Partition:
        content = replace(each.content, uuid=step_ids.get(each.content.uuid, each.content.uuid))
        return replace(each, content=content, uuid=step_ids.get(each.uuid, each.uuid))

    assert source.table
    parts = tuple(other(each) for each in source.table.partitions)
    uuid = step_ids.get(source.table.uuid, source.table.uuid)
    return replace(source, table=PartitionTable(source.table.label, uuid, parts))


def test_a_clone_with_its_own_is_told_from_others() -> None:
    source = disk(part(1, "ext4", "D" + UUID[1:], named=UUID[:-1] + "6"))
    mapping = plan_ids(source, None, Inside(), counting()).mapping
    clone = renamed(source, {old.lower(): new for old, new in mapping.items()} | mapping)
    assert have_own_ids(source, clone)
    assert not have_own_ids(source, source)
    assert not have_own_ids(source, renamed(source, {UUID.upper(): mapping[UUID.upper()]}))
    assert not have_own_ids(source, disk(part(1, "xfs", "E" + UUID[1:], named=UUID[:-1] + "7")))
    assert not have_own_ids(source, replace(source, table=None))


@pytest.mark.usefixtures("real_programs")
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_others_read_the_table(label: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, 32 * MIB)

    def sfdisk(*words: str, typed: str = "") -> str:
        done = subprocess.run(
            ["/usr/sbin/sfdisk", *words, path],
            input=typed,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout

    def rows() -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(sfdisk("--json"))["partitiontable"][
            "partitions"
        ]
        return found

    sfdisk(
        "--quiet",
        typed=f"label: {label}\nstart=2048, size=2048, bootable\nsize=2048, name=x\n".replace(
            ", name=x" if label == "dos" else ", bootable", ""
        ),
    )
    entries, table = rows(), parse_table(sfdisk("--json"), {})
    source = disk(*table.partitions, label=label, uuid=table.uuid)
    step = plan_ids(source, None, Inside(), counting())
    with path.open("r+b") as file:
        head = identified_head(file.read(MIB), source, step)
        writes = [(0, head)]
        if label == "gpt":
            head, backup = relocate(head, 512, 32 * MIB)
            writes = [(0, head), (backup.offset, backup.data)]
        for offset, data in writes:
            file.seek(offset)
            file.write(data)
    after, others = parse_table(sfdisk("--json"), {}), rows()
    assert after.uuid == step.table[0].new
    assert [part.uuid for part in after.partitions] == [each.new for each in step.table[1:]]
    for entry, other in zip(entries, others, strict=True):
        assert {**entry, "uuid": 0} == {**other, "uuid": 0}
    assert "No errors detected" in sfdisk("--verify")


def test_letters_are_large_only_where_they_were() -> None:
    """An identifier of digits alone has none to tell by: its tools write small ones."""
    many = itertools.repeat(b"\xab" * 16)
    for old, small in ((UUID, True), ("A" + UUID[1:], False), ("a" + UUID[1:], True)):
        step = plan_ids(disk(part(1, "ext4", old)), None, Inside(), lambda _: next(many))
        (new,) = (each.new for each in step.ids if each.what == "ext4")
        assert new == (new.lower() if small else new.upper())
        assert new.lower() != new.upper()
