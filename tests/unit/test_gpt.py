"""Moving a GPT to a disk of another size. sgdisk and sfdisk, which others wrote, make the tables and judge them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from etsclone.errors import FormatError
from etsclone.plan.gpt import parse_header, relocate
from etsclone.units import KIB, MIB

HEAD = MIB
SMALL, LARGE = 32 * MIB, 77 * MIB + 512

pytestmark = pytest.mark.usefixtures("real_programs")


def sgdisk(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["/usr/sbin/sgdisk", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def entries(path: Path) -> object:
    done = subprocess.run(
        ["/usr/sbin/sfdisk", "--json", path], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.replace(str(path), ""))["partitiontable"]["partitions"]


@pytest.fixture(scope="module")
def made_by_sgdisk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = blank(tmp_path_factory.mktemp("gpt") / "disk", SMALL)
    sgdisk("-n1:2048:+1M", "-t1:ef02", "-n2:0:+8M", "-c2:root", "-n3:0:+4M", "-t3:8200", path)
    return path


@pytest.fixture
def disk(made_by_sgdisk: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made_by_sgdisk, tmp_path))


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def moved(disk: Path, size: int, sector_size: int = 512) -> Path:
    """A disk of `size` bytes with nothing on it but the moved table."""
    with disk.open("rb") as file:
        head, backup = relocate(file.read(HEAD), sector_size, size)
    path = disk.with_name("moved")
    with path.open("wb") as file:
        file.truncate(size)
        file.write(head)
        file.seek(backup.offset)
        file.write(backup.data)
        assert file.tell() <= size
    return path


@pytest.mark.parametrize("size", [SMALL, SMALL + 512, LARGE, 3 * 1024 * 1024 * MIB])
def test_sgdisk_has_nothing_to_say_against_a_moved_table(disk: Path, size: int) -> None:
    other = moved(disk, size)
    report = sgdisk("--verify", other)
    assert "No problems found" in report
    assert "Warning" not in report.replace("Warning: There is a gap", "")
    assert entries(other) == entries(disk)


def test_on_a_disk_of_the_same_size_nothing_changes(disk: Path) -> None:
    assert moved(disk, SMALL).read_bytes()[:HEAD] == disk.read_bytes()[:HEAD]
    assert moved(disk, SMALL).read_bytes()[-33 * 512 :] == disk.read_bytes()[-33 * 512 :]


def test_the_moved_table_can_use_all_of_a_larger_disk(disk: Path) -> None:
    header = parse_header(moved(disk, LARGE).read_bytes()[512:1024])
    last = LARGE // 512 - 1
    assert (header.other_lba, header.last_usable) == (last, last - 33)


def test_the_backup_alone_is_enough_to_repair_a_disk(disk: Path) -> None:
    other = moved(disk, LARGE)
    with other.open("r+b") as file:
        file.seek(512)
        file.write(bytes(33 * 512))
    subprocess.run(["/usr/sbin/sgdisk", "-e", other], check=True, capture_output=True)
    assert entries(other) == entries(disk)


def test_a_disk_that_ends_within_a_sector(disk: Path) -> None:
    assert "No problems found" in sgdisk("--verify", moved(disk, LARGE + 100))


def test_more_entries_than_usual(disk: Path) -> None:
    sgdisk("--resize-table=256", disk)
    other = moved(disk, LARGE)
    assert "No problems found" in sgdisk("--verify", other)
    assert entries(other) == entries(disk)


def fdisk_4k(path: Path, *arguments: str, commands: str = "") -> str:
    """sgdisk and sfdisk take a file for a disk with 512-byte sectors; fdisk can be told otherwise."""
    argv = ["/usr/sbin/fdisk", "--sector-size", "4096", *arguments, str(path)]
    done = subprocess.run(argv, input=commands, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk", SMALL)
    fdisk_4k(disk, commands="g\nn\n\n\n+8M\nn\n\n\n+4M\nw\n")
    other = moved(disk, LARGE - LARGE % 4096, sector_size=4 * KIB)
    columns = ("--list", "--output", "Start,End,Type,UUID")
    before, after = (fdisk_4k(each, *columns).split("Start")[1] for each in (disk, other))
    assert before == after
    assert "No errors detected" in fdisk_4k(other, commands="v\nq\n")
    backup = parse_header(other.read_bytes()[-4096:])
    assert (backup.own_lba, backup.other_lba) == (LARGE // 4096 - 1, 1)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        pytest.param(512, "no GPT header", id="signature"),
        pytest.param(512 + 13, "impossible sizes", id="header size"),
        pytest.param(512 + 24, "header with a wrong checksum", id="header"),
        pytest.param(512 + 16, "header with a wrong checksum", id="header checksum"),
        pytest.param(1024 + 3, "entries with a wrong checksum", id="entries"),
    ],
)
def test_a_damaged_table_is_refused(disk: Path, position: int, message: str) -> None:
    head = bytearray(disk.read_bytes()[:HEAD])
    head[position] ^= 0x80
    with pytest.raises(FormatError, match=message):
        relocate(bytes(head), 512, SMALL)


@pytest.mark.parametrize("size", [0, 512, 1024, 1024 + 100, 34 * 512 - 1])
def test_a_head_that_ends_within_the_table_is_refused(disk: Path, size: int) -> None:
    with pytest.raises(FormatError):
        relocate(disk.read_bytes()[:size], 512, SMALL)
