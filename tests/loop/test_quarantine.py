"""`clone --quarantine` and `release`: nobody takes the clone for a disk until it is released."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from . import disks
from .conftest import Cli, Stop
from .disks import MIB, Sample, flip, loop_device, part_of, tool

pytestmark = pytest.mark.loop

KILL = signal.SIGKILL.value
RECORD = -1
"""Wherever the record is."""


def is_hidden(path: Path) -> bool:
    """Whether nobody could take a disk for one with a system: no table, no filesystem, no boot code, no backup."""
    tool("sfdisk", "--dump", path, accept=(1,))
    found = tool("blkid", "--probe", path, accept=(0, 2))
    end = path.stat().st_size
    return (
        not found
        and part_of(path, 510, 512) == bytes(2)
        and part_of(path, end - 4096, end) == bytes(4096)
        and not disks.signatures(path)
    )


@pytest.fixture
def quarantined(etsclone: Cli, sample: Sample, tmp_path: Path) -> Path:
    if sample.kinds.keys() == {0}:
        pytest.skip("without a table there is nothing to withhold")
    target = tmp_path / "target.img"
    result = etsclone("clone", sample.image, target, "--yes", "--quarantine")
    assert result.code == 0, result.err
    assert f"{target} is a clone in quarantine, until `etsclone release {target}`" in result.out
    return target


def test_hidden_until_it_is_released(
    etsclone: Cli, sample: Sample, quarantined: Path, scratch: Path
) -> None:
    assert is_hidden(quarantined)
    with loop_device(quarantined) as device:
        assert not list(Path("/dev").glob(f"{device.name}p*"))
    result = etsclone("release", quarantined, "--yes")
    assert result.code == 0, result.err
    disks.check_clone(sample, quarantined, scratch)
    assert etsclone("verify", sample.image, quarantined).code == 0
    again = etsclone("release", quarantined, "--yes")
    assert again.code == 3
    assert "is not in quarantine" in again.err


def test_its_twin_that_is_attached_is_told(
    etsclone: Cli, sample: Sample, quarantined: Path
) -> None:
    with loop_device(sample.image) as device:
        done = etsclone("release", quarantined, "--dry-run")
        assert done.code == 0, done.err
        assert f"warning: {device} is attached and has the same " in done.out
        facts = json.loads(etsclone("release", quarantined, "--dry-run", "--json").out)
        (told,) = [line for line in facts["twins"] if f"{device} " in line]
        assert "identifier of the partition table" in told
        kinds = ("ext4", "xfs", "btrfs", "swap", "vfat")
        for number, kind in sample.kinds.items():
            assert kind not in kinds or f"{kind} of partition {number} (UUID " in told
    with loop_device(quarantined) as device:
        assert f"{device} is attached" not in etsclone("release", quarantined, "--dry-run").out


def test_a_disk_and_one_with_other_sectors(
    etsclone: Cli, four_k_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    image = disks.blank(tmp_path / "target.img", four_k_disk.size + 8 * MIB)
    with (
        loop_device(four_k_disk.image, sector_size=4096) as source,
        loop_device(image, sector_size=4096) as target,
    ):
        assert etsclone("clone", source, target, "--yes", "--quarantine").code == 0
        listed = etsclone("disks", "--json").facts
        (found,) = (each for each in listed if each["path"] == str(target))
        assert found["contents"] == "clone in quarantine"
        assert found["may_be_target"]
        moved = Path(shutil.copy(image, tmp_path / "elsewhere.img"))
        assert etsclone("release", target, "--yes").code == 0
        disks.check_clone(four_k_disk, target, scratch)
        assert etsclone("verify", source, target).code == 0
    # A copy of it, on another machine and as a file, tells all that is needed.
    assert is_hidden(moved)
    assert etsclone("release", moved, "--yes").code == 0
    assert moved.read_bytes() == image.read_bytes()


def test_what_is_in_quarantine_is_not_used(
    etsclone: Cli, ext4_disk: Sample, tmp_path: Path
) -> None:
    target = tmp_path / "target.img"
    assert etsclone("clone", ext4_disk.image, target, "--yes", "--quarantine").code == 0
    other, store = tmp_path / "other.img", tmp_path / "store"
    (tmp_path / "empty").mkdir()
    etsclone("brd", "init", store, "--pair", "school", "--profile", "ltsp-isc-dhcp")
    etsclone("brd", "keygen", tmp_path / "key", "--no-passphrase")
    etsclone("brd", "trust", store, "--role", "primary", tmp_path / "key.pub")
    for words in (
        ("clone", target, other, "--yes"),
        ("verify", target, ext4_disk.image),
        ("verify", ext4_disk.image, target),
        ("mount", target, tmp_path / "empty"),
        ("brd", "capture", store, "--disk", target, "--role", "primary", "--key", tmp_path / "key"),
    ):
        result = etsclone(*words)
        assert result.code == 3, (words, result.err)
        assert f"{target} is a clone in quarantine" in result.err
        assert f"`etsclone release {target}` makes it a disk like others" in result.err
    assert not other.exists()


def test_without_a_table_it_is_refused(etsclone: Cli, bare_disk: Sample, tmp_path: Path) -> None:
    target = tmp_path / "target.img"
    result = etsclone("clone", bare_disk.image, target, "--yes", "--quarantine")
    assert result.code == 3
    assert "no partition table that could be withheld" in result.err
    assert not target.exists()


@pytest.fixture
def held_back(etsclone: Cli, ext4_disk: Sample, tmp_path: Path) -> Path:
    target = tmp_path / "target.img"
    assert etsclone("clone", ext4_disk.image, target, "--yes", "--quarantine").code == 0
    return target


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (5, "is not in quarantine"),
        (3 * MIB // 4, "first bytes of the disk were changed"),
        (2 * MIB + 1024 + 100, "a filesystem on"),
        (RECORD, "its record is damaged"),
    ],
)
def test_what_was_written_to_is_not_released(
    position: int, words: str, etsclone: Cli, held_back: Path
) -> None:
    if position == RECORD:
        position = part_of(held_back, 0, MIB).index(b"etsclone quarantine record") + 100
    flip(held_back, position)
    before = held_back.read_bytes()
    result = etsclone("release", held_back, "--yes")
    assert result.code == 3
    assert words in result.err
    assert held_back.read_bytes() == before


def test_what_was_cut_off_is_not_released(etsclone: Cli, held_back: Path) -> None:
    os.truncate(held_back, held_back.stat().st_size - 4096)
    result = etsclone("release", held_back, "--yes")
    assert result.code == 3
    assert "when it was put into quarantine" in result.err


def test_nothing_is_written_without_a_yes(etsclone: Cli, held_back: Path) -> None:
    before = held_back.read_bytes()
    assert etsclone("release", held_back, "--dry-run").code == 0
    assert etsclone("release", held_back, typed="other\n").code == 3
    with loop_device(held_back):
        pass
    assert held_back.read_bytes() == before
    assert etsclone("release", held_back, typed="target.img\n").code == 0


def test_it_may_be_overwritten_and_refreshed(
    etsclone: Cli, ext4_disk: Sample, held_back: Path, scratch: Path
) -> None:
    words = ("clone", ext4_disk.image, held_back, "--yes")
    for how in (
        (),
        ("--refresh",),
    ):  # the command of yesterday's refresh of another spare brings out this one too
        shown = etsclone(*words[:-1], *how, "--dry-run").out
        assert "it leaves its quarantine: --quarantine keeps it there\n" in shown
    facts = etsclone(*words, "--refresh", "--quarantine", "--json").facts
    assert facts["quarantine"]
    assert facts["written"] == 0
    assert is_hidden(held_back)
    assert etsclone("release", held_back, "--yes").code == 0
    assert etsclone(*words).code == 0
    disks.check_clone(ext4_disk, held_back, scratch)


@pytest.mark.parametrize("moment", [f"write_bytes:{number}" for number in range(1, 5)])
def test_killed_while_it_is_released(
    moment: str, stopped: Stop, etsclone: Cli, ext4_disk: Sample, held_back: Path, scratch: Path
) -> None:
    assert stopped(moment, KILL, "release", held_back, "--yes").code == -KILL
    hidden = moment != "write_bytes:4"
    if hidden:
        tool("sfdisk", "--dump", held_back, accept=(1,))
    else:  # only the record is left in its place
        disks.check_clone(ext4_disk, held_back, scratch)
    result = etsclone("release", held_back, "--yes")
    assert result.code == 0, result.err
    disks.check_clone(ext4_disk, held_back, scratch)
    assert etsclone("verify", ext4_disk.image, held_back).code == 0


@pytest.mark.parametrize("moment", ["write_bytes:1", "write_bytes:2"])
def test_killed_on_the_way_into_quarantine(
    moment: str, stopped: Stop, etsclone: Cli, ext4_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    words = ("clone", ext4_disk.image, tmp_path / "target.img", "--yes", "--quarantine")
    assert stopped(moment, KILL, *words).code == -KILL
    assert disks.looks_unfinished(words[2])
    assert etsclone("release", words[2], "--yes").code == 3
    assert etsclone(*words, "--resume").code == 0
    assert etsclone("release", words[2], "--yes").code == 0
    disks.check_clone(ext4_disk, words[2], scratch)
