"""Smaller layouts. sfdisk, which others wrote, makes the tables and reads what became of them."""

import json
import os
import subprocess
import tempfile
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.disk.probe import parse_table
from etsclone.errors import SourceRefused, TargetRefused
from etsclone.model.disk import Content, Disk, DiskIdentity, PartitionTable
from etsclone.model.extents import Extent, Extents
from etsclone.model.fit import (
    Candidate,
    CheckFilesystem,
    CopyBlocks,
    CopyFiles,
    FitPlan,
    How,
    MakeFilesystem,
    Recipe,
)
from etsclone.model.plan import Copy, Erase, Guard, Seal
from etsclone.plan.fit import check_table, plan_fit, shortfall
from etsclone.plan.guards import clone_refusals
from etsclone.units import MIB, align_down

pytestmark = pytest.mark.usefixtures("real_programs")

SIZE = 64 * MIB
SCRIPTS = {
    "gpt": "label: gpt\nsize=1MiB, name=boot\nsize=20MiB\nsize=10MiB, type=swap\nsize=30MiB, name=last\n",
    "gpt, unaligned": "label: gpt\nfirst-lba: 34\nstart=40, size=2007\nstart=2047, size=40960\nstart=43007, size=2049\n"
    "start=45100, size=80000\n",
    "mbr": "label: dos\nstart=63, size=2000, bootable\nsize=20MiB\nsize=10MiB, type=82\nsize=25MiB\n",
}


def sfdisk(*arguments: str | Path, script: str = "") -> str:
    argv = ["/usr/sbin/sfdisk", *map(str, arguments)]
    done = subprocess.run(argv, input=script, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=list(SCRIPTS.values()), ids=list(SCRIPTS))
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return made(tmp_path / "source.img", request.param)


def made(path: Path, script: str) -> Path:
    with path.open("wb") as file:
        file.truncate(SIZE)
        for offset, piece in pieces_of(script):
            os.pwrite(file.fileno(), piece, offset)
    return path


@cache
def pieces_of(script: str) -> list[tuple[int, bytes]]:
    """What sfdisk writes, by offset: nearly all of a disk stays empty."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(SIZE)
        sfdisk("--quiet", "--no-tell-kernel", file.name, script=script)
        data = Path(file.name).read_bytes()
    pieces = ((start, data[start : start + MIB]) for start in range(0, SIZE, MIB))
    return [(start, piece) for start, piece in pieces if any(piece)]


def head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MIB)


def table_of(path: Path) -> PartitionTable:
    return parse_table(sfdisk("--json", path), {})


def disk_of(path: Path) -> Disk:
    identity = DiskIdentity(str(path), path.stat().st_size, file=(1, 2))
    return Disk(identity, table=table_of(path))


def target_of(size: int) -> Disk:
    return Disk(DiskIdentity("/target.img", size, file=(1, 3)))


RECIPE = Recipe("ext4", "1234", "", 0, ())
SWAP = Recipe("swap", "5678", "", 0, ())


def candidates_of(source: Disk, minima: dict[int, int]) -> list[Candidate]:
    """The partitions named in `minima` can shrink to so many bytes; the third is swap space."""
    return [
        Candidate(part, minima[part.number], SWAP if part.number == 3 else RECIPE)
        if part.number in minima
        else Candidate(part, part.size)
        for part in source.partitions
    ]


def planned(path: Path, size: int, minima: dict[int, int], source: Disk | None = None) -> FitPlan:
    source = source or disk_of(path)
    used = {part.number: Extents.between(part.start, part.end) for part in source.partitions}
    head = head_of(path)

    def read(start: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(512)

    return plan_fit(source, target_of(size), candidates_of(source, minima), used, head, read)


def sealed(plan: FitPlan, path: Path) -> Path:
    """A target with nothing but what the seal writes."""
    with path.open("wb") as file:
        file.truncate(plan.target.size)
        for step in plan.steps:
            for write in step.writes if isinstance(step, Seal) else ():
                file.seek(write.offset)
                file.write(write.data)
    return path


sizes = st.integers(MIB, 30 * MIB)


@given(data=st.data(), two=sizes, three=sizes, four=sizes)
def test_layouts(data: st.DataObject, two: int, three: int, four: int, tmp_path: Path) -> None:
    path = tmp_path / "any.img"
    made(path, data.draw(st.sampled_from(sorted(SCRIPTS.values()))))
    source, minima = disk_of(path), {2: two, 3: three, 4: four}
    size = data.draw(st.integers(8, SIZE // 512 - 1)) * 512
    candidates, head = candidates_of(source, minima), head_of(path)
    if missing := shortfall(source, target_of(size), candidates, head):
        with pytest.raises(TargetRefused, match=rf"\({missing} bytes are missing\)"):
            planned(path, size, minima, source)
        with pytest.raises(TargetRefused, match=r"\(1 byte is missing\)"):
            planned(path, size + missing - 1, minima, source)
        size += missing
    plan = planned(path, size, minima, source)
    places = [place.extent for place in plan.places]
    assert all(left.end <= right.start for left, right in pairwise(places))
    assert places[0].start == source.partitions[0].start
    for place in plan.places:
        part = place.partition
        assert place.extent.start == part.start or place.extent.start % MIB == 0
        assert place.extent.start <= part.start
        least = min(minima.get(part.number, part.size), part.size)
        assert least <= place.extent.size <= part.size
        assert (place.how is How.BLOCKS) == (place.extent.size == part.size)
        assert place.extent.size == part.size or place.extent.size % MIB == 0
    check_written(plan, sealed(plan, tmp_path / "target.img"))


def check_written(plan: FitPlan, target: Path) -> None:
    """sfdisk reads the same partitions in their new places, and finds nothing wrong."""
    before, after = plan.source.table, table_of(target)
    assert before is not None
    assert (after.label, after.uuid) == (before.label, before.uuid)
    wanted = [
        replace(place.partition, start=place.extent.start, size=place.extent.size)
        for place in plan.places
    ]
    assert list(after.partitions) == [replace(part, content=Content()) for part in wanted]
    if before.label == "gpt":
        checked = subprocess.run(
            ["/usr/sbin/sgdisk", "--verify", target], capture_output=True, text=True, check=True
        )
        assert "No problems found" in checked.stdout
        last = json.loads(sfdisk("--json", target))["partitiontable"]["lastlba"]
        assert all(place.extent.end <= (last + 1) * 512 for place in plan.places)


def test_what_is_left_over_is_shared_out(tmp_path: Path) -> None:
    path = made(tmp_path / "source.img", SCRIPTS["gpt"])
    plan = planned(path, SIZE - 20 * MIB, {2: 2 * MIB, 4: 3 * MIB})
    given_up = {
        place.partition.number: place.partition.size - place.extent.size for place in plan.places
    }
    assert given_up[1] == given_up[3] == 0
    # 18 and 27 MiB could go: in these proportions, and no MiB more than was asked for (rounding aside).
    assert 18 * MIB <= given_up[2] + given_up[4] <= 22 * MIB
    assert abs(given_up[2] * 27 - given_up[4] * 18) <= 27 * MIB


def test_a_layout_with_empty_space_behind_keeps_all_sizes(tmp_path: Path) -> None:
    path = made(tmp_path / "source.img", "label: gpt\nsize=4MiB\nsize=8MiB\n")
    plan = planned(path, 20 * MIB, {2: MIB})
    assert [place.how for place in plan.places] == [How.BLOCKS, How.BLOCKS]


def test_the_order_of_the_steps(image: Path) -> None:
    plan = planned(image, SIZE - 20 * MIB, {2: MIB, 3: MIB, 4: MIB})
    kinds = [type(step) for step in plan.steps if type(step) is not Copy]
    assert kinds == [
        *(Erase, CopyBlocks),
        *(MakeFilesystem, CopyFiles, CheckFilesystem),
        *(MakeFilesystem, CheckFilesystem),
        *(MakeFilesystem, CopyFiles, CheckFilesystem),
        Seal,
    ]
    (seal,) = (step for step in plan.steps if isinstance(step, Seal))
    assert seal.writes[-1].offset == 0
    # Nothing that the seal writes reaches into a partition.
    for write in seal.writes:
        written = Extents.between(write.offset, write.offset + len(write.data))
        assert all(not (written & Extents((place.extent,))).ranges for place in plan.places)


def test_the_gap_beyond_the_head_is_copied(tmp_path: Path) -> None:
    path = made(tmp_path / "source.img", "label: dos\nstart=8192, size=20480\nsize=30MiB\n")
    plan = planned(path, SIZE - 20 * MIB, {2: MIB})
    (gap,) = (step for step in plan.steps if isinstance(step, Copy))
    assert gap.extents == Extents((Extent(MIB, 4 * MIB),))


def test_logical_partitions_are_refused(tmp_path: Path) -> None:
    script = "label: dos\nsize=10MiB\nsize=30MiB, type=5\nsize=10MiB\n"
    path = made(tmp_path / "source.img", script)
    with pytest.raises(SourceRefused, match="logical partitions"):
        check_table(disk_of(path), head_of(path))


def test_a_filesystem_without_a_table_is_refused() -> None:
    bare = Disk(DiskIdentity("/bare.img", SIZE), content=Content("ext4"))
    with pytest.raises(SourceRefused, match="no partitions that could be made smaller"):
        check_table(bare, bytes(MIB))


def test_why_a_partition_keeps_its_size_is_told(tmp_path: Path) -> None:
    path = made(tmp_path / "source.img", SCRIPTS["gpt"])
    source = disk_of(path)
    candidates = [Candidate(part, part.size, note="it is dirty") for part in source.partitions]
    with pytest.raises(TargetRefused) as caught:
        plan_fit(source, target_of(MIB), candidates, {}, head_of(path), lambda _: b"")
    assert "partition 4 keeps its size: it is dirty" in caught.value.hint


def test_the_hint_names_fit_only_where_it_can_help(tmp_path: Path) -> None:
    source = disk_of(made(tmp_path / "source.img", SCRIPTS["gpt"]))

    def hint(content: str, size: int) -> str:
        parts = tuple(replace(part, content=Content(content)) for part in source.partitions)
        table = PartitionTable("gpt", "", parts)
        refusals = clone_refusals(replace(source, table=table), target_of(size))
        return next(each.hint for each in refusals if each.guard is Guard.TOO_SMALL)

    assert "--fit" in hint("ext4", align_down(SIZE // 2, MIB))
    assert "--fit" not in hint("LVM2_member", SIZE - MIB)


def test_with_fit_only_the_size_is_forgiven(tmp_path: Path) -> None:
    source = disk_of(made(tmp_path / "source.img", SCRIPTS["gpt"]))
    source = replace(source, content=Content("ext4"))
    target = replace(target_of(SIZE - MIB), sector_size=4096)
    assert [each.guard for each in clone_refusals(source, target, fit=True)] == [Guard.SECTOR_SIZE]
