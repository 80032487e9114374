"""`etsclone verify` on clones that are what they should be, and on others."""

import shutil
from pathlib import Path

import pytest

from . import disks
from .conftest import Cli
from .disks import MIB, Sample

pytestmark = pytest.mark.loop


@pytest.fixture
def clone(small_disk: Sample, tmp_path: Path) -> Path:
    return Path(shutil.copy(small_disk.image, tmp_path / "clone.img"))


def test_equal_disks(small_disk: Sample, clone: Path, etsclone: Cli) -> None:
    result = etsclone("verify", small_disk.image, clone)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("equal: ")
    facts = etsclone("verify", small_disk.image, clone, "--json").facts
    assert (facts["equal"], facts["different"]) == (True, [])
    assert facts["compared"] > 4 * MIB


@pytest.mark.parametrize(
    ("position", "where"),
    [
        pytest.param(2 * MIB + 1024 + 5, "partition 2", id="superblock"),
        pytest.param(MIB + 77, "partition 1", id="boot partition"),
        pytest.param(5, "outside the partitions", id="boot code"),
        pytest.param(512 + 60, "outside the partitions", id="table"),
        pytest.param(MIB - 100, "outside the partitions", id="boot loader"),
        pytest.param(48 * MIB - 10, "outside the partitions", id="backup table"),
    ],
)
def test_a_single_bit_is_found_and_its_place_named(
    position: int, where: str, small_disk: Sample, clone: Path, etsclone: Cli
) -> None:
    disks.flip(clone, position)
    result = etsclone("verify", small_disk.image, clone, "--json")
    assert result.code == 4
    (place,) = result.facts["different"]
    assert place["start"] <= position < place["end"]
    assert result.facts["equal"] is False
    assert result.err == (
        f"etsclone: {clone} differs from {small_disk.image} in"
        f" bytes {place['start']} to {place['end']} ({where})\n"
        "hint: clone again; a clone that was mounted or booted since differs for good reasons\n"
    )


def test_a_difference_in_free_blocks_is_none(
    small_disk: Sample, clone: Path, etsclone: Cli
) -> None:
    free = 40 * MIB
    assert disks.part_of(clone, free, free + MIB) == bytes(MIB)
    disks.scrawl(clone, free, MIB)
    assert etsclone("verify", small_disk.image, clone).code == 0


def test_of_many_differences_the_first_are_named(
    small_disk: Sample, clone: Path, etsclone: Cli
) -> None:
    # Alternate blocks, or they would be one range.
    for position in range(MIB // 2, MIB, 4096 * 2):
        disks.flip(clone, position)
    disks.flip(clone, MIB + 5)
    disks.flip(clone, 2 * MIB + 1030)
    disks.flip(clone, 48 * MIB - 10)
    result = etsclone("verify", small_disk.image, clone)
    assert result.code == 4
    assert result.err.count("bytes") <= 3


def test_a_smaller_disk_is_no_clone(small_disk: Sample, tmp_path: Path, etsclone: Cli) -> None:
    small = disks.blank(tmp_path / "small.img", small_disk.size - 512)
    result = etsclone("verify", small_disk.image, small)
    assert result.code == 4
    assert (
        result.err
        == f"etsclone: {small} is smaller than {small_disk.image}: it is no clone of it\n"
    )


def test_an_unfinished_clone_is_to_go_on(
    small_disk: Sample, clone: Path, tmp_path: Path, etsclone: Cli
) -> None:
    unfinished = disks.blank(tmp_path / "unfinished.img", small_disk.size)
    assert "--resume" in etsclone("verify", small_disk.image, unfinished).err
    disks.scrawl(clone, MIB, MIB)
    assert "--resume" not in etsclone("verify", small_disk.image, clone).err


def test_a_disk_is_not_compared_with_itself(small_disk: Sample, etsclone: Cli) -> None:
    result = etsclone("verify", small_disk.image, small_disk.image)
    assert result.code == 2
    assert result.err.splitlines()[0] == "etsclone: a disk was to be compared with itself"
