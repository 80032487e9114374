"""Larger layouts. sfdisk, which others wrote, makes the tables and reads what became of them."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.disk.probe import parse_table
from etsclone.disk.resize import check_programs
from etsclone.errors import FormatError, GrowRefused
from etsclone.model.disk import Content, Disk, DiskIdentity, PartitionTable
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import Copy, Erase, Grow, Growth, Seal, UsedMap
from etsclone.plan import gpt, mbr
from etsclone.plan.clone import content_partitions, plan_clone
from etsclone.plan.grow import GROWABLE, Ground, enlarged_partition, plan_growth
from etsclone.units import MIB, align_down

pytestmark = pytest.mark.usefixtures("real_programs")

SIZE = 64 * MIB
LARGE = 100 * MIB + 7 * 512
HEADER = bytes(4086) + b"SWAPSPACE2"
SWAP = {"swap"}


def sfdisk(*arguments: str | Path, script: str = "") -> str:
    argv = ["/usr/sbin/sfdisk", *map(str, arguments)]
    done = subprocess.run(argv, input=script, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table_of(image: Path) -> PartitionTable:
    return parse_table(sfdisk("--json", image), {})


def made(image: Path, script: str) -> Path:
    with image.open("wb") as file:
        file.truncate(SIZE)
    # Otherwise it waits a quarter of a second for a kernel that knows nothing of image files.
    sfdisk("--quiet", "--no-tell-kernel", image, script=script)
    return image


def disk_of(image: Path, contents: dict[int, str], default: str = "ext4") -> Disk:
    table = table_of(image)
    parts = tuple(
        replace(part, content=Content(contents.get(part.number, default)))
        for part in table.partitions
    )
    identity = DiskIdentity(str(image), image.stat().st_size, file=(1, 2))
    return Disk(identity, table=replace(table, partitions=parts))


def head_of(image: Path) -> bytes:
    with image.open("rb") as file:
        return file.read(MIB)


def ground_of(image: Path) -> Ground:
    head = head_of(image)
    with image.open("rb") as file:
        dos = head[512:520] != b"EFI PART"
        chain = mbr.read_chain(head, lambda lba: os.pread(file.fileno(), 512, lba * 512))
    return Ground(head, chain if dos else (), HEADER)


def growth(
    image: Path, contents: dict[int, str] | None = None, target: int = LARGE
) -> Growth | None:
    return plan_growth(disk_of(image, contents or {}), target, ground_of(image))


def cloned(image: Path, contents: dict[int, str], size: int) -> Path:
    """The image that the plan's seal makes of the source's, on a target of `size` bytes."""
    source = disk_of(image, contents)
    target = replace(source, identity=DiskIdentity("/clone", size), table=None)
    found = growth(image, contents, size)
    maps = [
        UsedMap(p.number, "", p.start, p.size, Extents.between(p.start, p.end), "test")
        for p in content_partitions(source)
    ]
    plan = plan_clone(source, target, maps, head_of(image), growth=found)
    path = image.with_name("clone")
    with path.open("wb") as file:
        file.truncate(size)
        for link in ground_of(image).chain:
            file.seek(link.lba * 512)
            file.write(link.sector)
        for step in plan.steps:
            for write in step.writes if isinstance(step, Seal) else ():
                file.seek(write.offset)
                file.write(write.data)
    return path


def check(image: Path, contents: dict[int, str], size: int) -> None:
    """Only places differ, nothing overlaps, the end is reached, and sfdisk finds no error."""
    before = disk_of(image, contents)
    clone = cloned(image, contents, size)
    after = disk_of(clone, contents)
    assert after.table is not None
    assert before.table is not None
    assert "No errors detected" in sfdisk("--verify", clone)
    assert after.table.uuid == before.table.uuid
    old = {part.number: part for part in before.partitions}
    assert [p.number for p in after.partitions] == [p.number for p in before.partitions]
    for part in after.partitions:
        assert replace(part, start=0, size=0) == replace(old[part.number], start=0, size=0)
    parts = content_partitions(after)
    assert all(left.end <= right.start for left, right in pairwise(parts))
    reserve = 34 * 512 if after.table.label == "gpt" else 0
    end = align_down(size - reserve, MIB)
    *rest, last = parts
    if last.content.type in SWAP:
        assert last.size == old[last.number].size
        assert last.start == align_down(end - last.size, MIB)
        grown = rest.pop()
        assert last.start - 2 * MIB <= grown.end <= last.start
    else:
        grown = last
        assert grown.end == end
    assert grown.start == old[grown.number].start
    assert all(part == old[part.number] for part in rest)


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[str, dict[int, str]]:
    """A table as a script, with contents; the last partition, or the one before a swap space, can grow."""
    counts = draw(sizes)
    label = draw(st.sampled_from(["gpt", "dos", "logical"]))
    if label == "gpt":
        lines = [f"size={size}MiB, name=part-{size}" for size in counts]
        numbers = list(range(1, len(counts) + 1))
    elif label == "dos":
        counts = counts[:4]
        lines = [f"size={size}MiB, type=83" for size in counts]
        numbers = list(range(1, len(counts) + 1))
    else:
        lines = ["size=5MiB, type=83", f"size={55 + draw(st.integers(0, 3))}MiB, type=5"]
        starts = [7 + sum(counts[:index]) + index for index in range(len(counts))]
        lines += [
            f"start={start}MiB, size={size}MiB, type=83"
            for start, size in zip(starts, counts, strict=True)
        ]
        numbers = list(range(5, 5 + len(counts)))
    movable = len(counts) > 1 if label != "logical" else len(counts) == 1
    swap = {numbers[-1]: "swap"} if movable and draw(st.booleans()) else {}
    script = "\n".join([f"label: {'gpt' if label == 'gpt' else 'dos'}", *lines, ""])
    return script, swap


@given(layouts(), st.integers(3 * MIB, 5000 * MIB))
def test_sfdisk_agrees_with_every_larger_layout(
    layout: tuple[str, dict[int, str]], more: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = made(Path(folder) / "disk", layout[0])
        check(image, layout[1], (SIZE + more) // 512 * 512)


GPT = "label: gpt\nsize=1MiB, name=boot\nsize=20MiB, name=root\nsize=8MiB, type=swap, name=swap\n"
LOGICAL = "label: dos\nsize=20MiB, type=83, bootable\ntype=5\nsize=8MiB, type=83\nsize=8MiB\n"
DEBIAN = (
    "label: dos\ngrain: 512\nstart=2048, size=40958, type=83\nstart=43006, size=80000, type=5\n"
    "start=43008, size=16384, type=82\n"
)


@pytest.mark.parametrize(
    ("script", "contents"),
    [
        pytest.param(GPT, {}, id="gpt"),
        pytest.param(GPT, {3: "swap"}, id="gpt with swap"),
        pytest.param(LOGICAL, {}, id="logical"),
        pytest.param(DEBIAN, {5: "swap"}, id="swap in a frame"),
        pytest.param(DEBIAN, {}, id="one logical"),
        pytest.param("label: gpt\nfirst-lba: 34\nstart=40, size=9000\n", {}, id="from sector 40"),
    ],
)
@pytest.mark.parametrize("size", [SIZE + 32 * MIB, LARGE, 3 * 1024 * 1024 * MIB])
def test_layouts(script: str, contents: dict[int, str], size: int, tmp_path: Path) -> None:
    image = made(tmp_path / "disk", script)
    if size > 2 * 1024 * 1024 * MIB and "dos" in script:
        size = 2 * 1024 * 1024 * MIB - MIB  # what 32 bits can say
    check(image, contents, size)


def test_an_mbr_grows_to_what_32_bits_can_say(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", DEBIAN)
    found = growth(image, {}, 9 * 1024 * 1024 * MIB)
    assert found is not None
    assert found.step.place.end == 2 * 1024 * 1024 * MIB - MIB


def test_what_the_step_says(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", GPT)
    found = growth(image, {3: "swap"})
    assert found is not None
    step = found.step
    assert (step.partition, step.content, step.old_size) == (2, "ext4", 20 * MIB)
    assert step.place == Extent(2 * MIB, 91 * MIB)
    assert step.moved is not None
    assert (step.moved.old, step.moved.new) == (
        Extent(22 * MIB, 30 * MIB),
        Extent(91 * MIB, 99 * MIB),
    )
    assert step.moved.header == HEADER
    assert step.spoiled == Extents.between(2 * MIB, LARGE)
    assert found.seals == ()


def test_the_tables_of_logical_partitions_are_not_trusted_either(tmp_path: Path) -> None:
    found = growth(made(tmp_path / "disk", LOGICAL))
    assert found is not None
    assert len(found.seals) == 2
    for write in found.seals:
        place = Extents.between(write.offset, write.offset + len(write.data))
        assert place - found.step.spoiled == Extents()


def test_growing_comes_between_copying_and_the_table(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", GPT)
    source = disk_of(image, {3: "swap"})
    target = replace(source, identity=DiskIdentity("/dev/sdz", LARGE), table=None)
    maps = [
        UsedMap(p.number, "", p.start, p.size, Extents.between(p.start, p.end), "test")
        for p in source.partitions
    ]
    found = growth(image, {3: "swap"})
    plan = plan_clone(source, target, maps, head_of(image), growth=found)
    assert [type(step) for step in plan.steps] == [Erase, Copy, Grow, Seal]
    assert plan.grow is plan.steps[2]
    # Neither the swap space nor what lay behind it is copied to where the filesystem will be.
    assert plan.copied.ranges[-1].end == 22 * MIB
    assert plan.maps[2].extents == Extents()


@pytest.mark.parametrize("contents", [{}, {3: "swap"}])
@pytest.mark.parametrize(
    ("size", "grows"), [(30 * MIB, False), (31 * MIB - 512, False), (31 * MIB, True)]
)
def test_only_whole_mebibytes_before_the_backup_table_count(
    contents: dict[int, str], size: int, grows: bool, tmp_path: Path
) -> None:
    image = made(tmp_path / "disk", GPT)
    assert (growth(image, contents, size + 33 * 512) is not None) is grows


def test_there_are_tools_for_all_that_is_planned() -> None:
    for content in GROWABLE:
        check_programs(content)


REFUSED: dict[str, tuple[str, dict[int, str], str]] = {
    "vfat": (GPT, {3: "vfat"}, "partition 3, the last, holds vfat"),
    "ntfs": (GPT, {3: "ntfs"}, "holds ntfs"),
    "f2fs": (GPT, {3: "f2fs"}, "holds f2fs"),
    "exfat": (GPT, {3: "exfat"}, "holds exfat"),
    "luks": (GPT, {3: "crypto_LUKS"}, "holds crypto_LUKS"),
    "hibernated": (GPT, {3: "swsuspend"}, "holds swsuspend"),
    "unknown": (GPT, {3: ""}, "holds something unknown"),
    "vfat before swap": (
        GPT,
        {2: "vfat", 3: "swap"},
        "partition 2, before the swap space 3, holds",
    ),
    "swap alone": ("label: gpt\nsize=8MiB\n", {1: "swap"}, "no partition to enlarge"),
    "no partition": ("label: gpt\n", {}, "no partition to enlarge"),
    "swap among others": (LOGICAL, {6: "swap"}, "one of several logical partitions"),
    "an empty frame behind": (
        "label: dos\nsize=8MiB, type=83\nsize=8MiB, type=5\n",
        {},
        "partition 2 reaches behind partition 1",
    ),
    "old beginnings": (
        "label: dos\ngrain: 512\nstart=63, size=20000, type=83\n",
        {1: "xfs"},
        "in the middle of a block",
    ),
}


@pytest.mark.parametrize(("script", "contents", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(script: str, contents: dict[int, str], message: str, tmp_path: Path) -> None:
    image = made(tmp_path / "disk", script)
    with pytest.raises(GrowRefused, match=message) as caught:
        growth(image, contents)
    assert "without --grow" in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_disk_without_a_table_is_refused(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", GPT)
    bare = replace(disk_of(image, {}), table=None)
    with pytest.raises(GrowRefused, match="no partition table"):
        plan_growth(bare, LARGE, ground_of(image))


def test_a_hybrid_table_is_refused(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", GPT)
    head = bytearray(head_of(image))
    head[462:478] = b"\0\0\2\0\x83\0\0\0" + (4096).to_bytes(4, "little") * 2
    with pytest.raises(GrowRefused, match="hybrid"):
        plan_growth(disk_of(image, {}), LARGE, Ground(bytes(head)))


def test_a_chain_in_another_order_is_refused(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", LOGICAL)
    source = disk_of(image, {})
    chain = ground_of(image).chain
    with pytest.raises(GrowRefused, match="not the last one in the chain"):
        plan_growth(source, LARGE, replace(ground_of(image), chain=chain[:1]))


def broken(chain: bytes, position: int, value: bytes) -> Callable[[int], bytes]:
    return lambda _: chain[:position] + value + chain[position + len(value) :]


def test_a_damaged_chain(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", LOGICAL)
    data = head_of(image)
    first = ground_of(image).chain[0]
    with pytest.raises(FormatError, match="damaged"):
        mbr.read_chain(data, broken(first.sector, 510, b"\0"))
    with pytest.raises(FormatError, match="no end"):
        mbr.read_chain(data, broken(first.sector, 470, b"\0\0\0\0"))


def test_a_partition_that_a_gpt_does_not_have(tmp_path: Path) -> None:
    head = head_of(made(tmp_path / "disk", GPT))
    for number in (0, 4, 129):
        with pytest.raises(FormatError, match=f"no partition {number}"):
            gpt.placed(head, 512, {number: Extent(MIB, 2 * MIB)})


def test_a_clone_that_was_enlarged_is_told_from_another_disk(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", GPT)
    source = disk_of(image, {})
    clone = disk_of(cloned(image, {}, LARGE), {})
    found = enlarged_partition(source, clone)
    assert found is not None
    assert found.number == 3
    assert enlarged_partition(source, source) is None
    assert enlarged_partition(clone, source) is None
    assert clone.table is not None
    other = replace(clone, table=replace(clone.table, uuid="another"))
    assert enlarged_partition(source, other) is None
    assert enlarged_partition(source, replace(clone, table=None)) is None


def test_the_json_of_sfdisk_is_what_was_meant(tmp_path: Path) -> None:
    image = made(tmp_path / "disk", DEBIAN)
    clone = cloned(image, {5: "swap"}, LARGE)
    rows = json.loads(sfdisk("--json", clone))["partitiontable"]["partitions"]
    start = 92 * 2048  # 8 MiB before the last whole MiB
    assert [(row["start"], row["size"]) for row in rows] == [
        (2048, 91 * 2048 - 2048),
        (start - 2, 8 * 2048 + 2),
        (start, 8 * 2048),
    ]
