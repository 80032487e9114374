"""Sectors that cannot be read where disks are told by: in boot area, partition table, superblocks and maps."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from etsclone.model.extents import Extent, Extents

from . import disks, filesystems
from .conftest import Cli
from .disks import MIB, Sample, loop_device
from .failing import SECTOR, failing

pytestmark = pytest.mark.loop

PARTITION = MIB


@dataclass(frozen=True)
class Spot:
    """Where a disk with one partition is bad, in bytes of the partition; whether its map is still believed."""

    kind: str
    start: int
    size: int
    mapped: bool
    note: str = ""


UNTOLD = "its beginning cannot be read, so nobody can tell what it is"
SPOTS = {
    "boot loader area": Spot("ext4", 50 * SECTOR - PARTITION, SECTOR, True),
    "where VMFS would be": Spot("ext4", MIB, SECTOR, True),
    "ext superblock": Spot("ext4", 1024, 1024, False, UNTOLD),
    "ext group descriptors": Spot("ext4", 4096, 4096, True),
    "ext bitmaps": Spot("ext4", 256 * 1024, 256 * 1024, False, "partclone.ext4 failed"),
    "xfs superblock": Spot("xfs", 0, 512, False, UNTOLD),
    "xfs free space": Spot("xfs", 4096, 8192, False, "partclone.xfs failed"),
    "btrfs superblock": Spot("btrfs", 64 * 1024, 4096, False, UNTOLD),
    "btrfs chunk tree": Spot("btrfs", 22020096, 64 * 1024, True),
    "ntfs boot sector": Spot("ntfs", 0, 512, False, UNTOLD),
    "ntfs file table": Spot("ntfs", 16 * 1024, 8192, False),
    "exfat folder": Spot("exfat", MIB, 64 * 1024, False, "partclone.exfat failed"),
    "fat boot sector": Spot("fat16", 0, 512, False, UNTOLD),
    "f2fs checkpoint": Spot("f2fs", 2 * MIB, 4096, False),
}


@pytest.fixture(scope="session")
def one_partition(workshop: Path) -> dict[str, Path]:
    """Disks with one filesystem each, made when they are asked for."""

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            kind = filesystems.KINDS[name]
            image = disks.blank(workshop / f"one-{name}.img", kind.size + 2 * MIB)
            disks.tool("sfdisk", "--quiet", image, typed=f"label: gpt\nsize={kind.size // SECTOR}")
            folder = workshop / f"one-{name}"
            folder.mkdir()
            with loop_device(image) as device:
                filesystems.furnish(kind, disks.node(device, 1), folder)
            self[name] = image
            return image

    return Made()


@pytest.mark.parametrize("spot", SPOTS.values(), ids=SPOTS)
def test_what_is_left_is_cloned(
    spot: Spot, etsclone: Cli, one_partition: dict[str, Path], tmp_path: Path
) -> None:
    image, target = tmp_path / "disk", tmp_path / "target.img"
    disks.tool("cp", "--sparse=always", one_partition[spot.kind], image)
    start = PARTITION + spot.start
    bad = Extents.between(start, start + spot.size)
    with failing(image, bad) as source:
        result = etsclone("clone", source, target, "--yes", "--json")
        if result.code == 5:  # it can be tried again, and is taken for the same disk
            again = etsclone("clone", source, target, "--resume", "--yes", "--json")
            assert again.code == 5, again.err
            assert (again.facts["lost"], again.facts["written"]) == (result.facts["lost"], 0)
    assert result.code in {0, 5}, result.err
    facts = result.facts
    lost = Extents.of(Extent(each["start"], each["end"]) for each in facts["lost"])
    assert lost - bad == Extents()
    assert (result.code == 5) == bool(lost.ranges)
    (partition,) = facts["partitions"]
    assert (partition["used"] < partition["size"]) == spot.mapped
    if spot.note:
        assert spot.note in partition["note"]
    if lost.ranges:
        assert facts["lost_owners"]
    # Everywhere else it is the same: a disk that is whole and has zeros there is a clone of the same.
    expected = tmp_path / "expected.img"
    disks.tool("cp", "--sparse=always", image, expected)
    with expected.open("r+b") as file:
        for extent in lost:
            file.seek(extent.start)
            file.write(bytes(extent.size))
    if spot.mapped:
        assert etsclone("verify", expected, target).code == 0
    else:
        subprocess.run(["cmp", expected, target], check=True)
    assert disks.is_sound_gpt(target)


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_a_table_is_read_where_sectors_fail_that_have_nothing_to_do_with_it(
    label: str, etsclone: Cli, tmp_path: Path
) -> None:
    # Also with logical partitions, whose chain of tables runs over all of the disk.
    image = disks.blank(tmp_path / "disk", 64 * MIB)
    script = {
        "gpt": "label: gpt\nsize=20MiB\nsize=20MiB\n",
        "dos": "label: dos\nsize=10MiB\ntype=5\nsize=10MiB\nsize=10MiB\nsize=5MiB\n",
    }
    disks.tool("sfdisk", "--quiet", image, typed=script[label])
    disks.scrawl(image, 30 * MIB, MIB)
    with failing(image, Extents.between(2 * MIB, 2 * MIB + SECTOR)) as source:
        assert "2097152" in etsclone("clone", source, tmp_path / "target", "--yes").err
    assert disks.table(tmp_path / "target") == disks.table(image)


def test_so_is_that_of_a_disk_with_large_sectors(
    etsclone: Cli, four_k_disk: Sample, tmp_path: Path
) -> None:
    image, target = Path(shutil.copy(four_k_disk.image, tmp_path / "disk")), tmp_path / "target"
    with (
        failing(image, Extents.between(2 * MIB, 2 * MIB + SECTOR)) as served,
        loop_device(served, sector_size=4096, read_only=True) as source,
    ):
        result = etsclone("clone", source, target, "--yes", "--json")
        assert result.code == 5, result.err
        assert [part["content"] for part in result.facts["partitions"]] == ["ext4", "swap"]
