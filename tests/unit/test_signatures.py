"""Contents as libblkid finds them when it is asked directly: blkid(8) says the same."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etsclone.disk.signatures import find_content
from etsclone.model.disk import Content
from etsclone.units import KIB, MIB

SIZE = 128 * MIB
MADE = {
    "ext2": ("mkfs.ext2", "-q", "-F", "-L", "root"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-L", "root"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-L", "root", "--unsupported"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-L", "root"),
    "vfat": ("mkfs.vfat", "-F", "32", "-n", "ROOT"),
    "small vfat": ("mkfs.vfat", "-F", "12"),
    "ntfs": ("mkfs.ntfs", "-q", "-F", "-f", "-L", "root"),
    "exfat": ("mkfs.exfat", "-L", "root"),
    "f2fs": ("mkfs.f2fs", "-q", "-l", "root"),
    "swap": ("mkswap", "-L", "root"),
    "gpt": ("sfdisk", "--quiet", "--no-tell-kernel"),
    "nothing": ("true",),
}


def blank(path: Path, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def run(*argv: str | Path, accept: tuple[int, ...] = (0,), typed: str = "") -> str:
    words = [f"/usr/sbin/{argv[0]}" if argv[0] != "true" else "/bin/true", *map(str, argv[1:])]
    done = subprocess.run(words, input=typed, text=True, capture_output=True, check=False)
    assert done.returncode in accept, done.stderr
    return done.stdout


def told_by_blkid(path: Path, start: int, size: int) -> Content:
    place = ("--offset", str(start), "--size", str(size))
    text = run("blkid", "--probe", "--output", "export", *place, path, accept=(0, 2, 8))
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return Content(fields.get("TYPE", ""), fields.get("UUID", ""), fields.get("LABEL", ""))


@pytest.mark.parametrize("name", MADE)
def test_what_blkid_says(name: str, tmp_path: Path) -> None:
    image = blank(tmp_path / "image")
    run(*MADE[name], image, typed="label: gpt\n-\n")
    found = find_content(str(image), 0, SIZE)
    assert found == told_by_blkid(image, 0, SIZE)
    assert found.type == ("" if name in {"gpt", "nothing"} else name.removeprefix("small "))
    # The same in the middle of a disk, where it is a partition.
    disk = blank(tmp_path / "disk", SIZE + 3 * MIB)
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(image.read_bytes())
    assert find_content(str(disk), MIB, SIZE) == told_by_blkid(disk, MIB, SIZE)
    assert find_content(str(disk), MIB, SIZE).type == found.type
    assert find_content(str(disk), 2 * MIB, MIB) == told_by_blkid(disk, 2 * MIB, MIB)


def test_two_kinds_at_once_are_none(tmp_path: Path) -> None:
    image = blank(tmp_path / "image")
    run(*MADE["ext4"], image)
    other = blank(tmp_path / "other")
    run(*MADE["xfs"], other)
    with image.open("r+b") as file, other.open("rb") as superblock:
        file.write(superblock.read(512))
    both = find_content(str(image), 0, SIZE)
    assert both == told_by_blkid(image, 0, SIZE) == Content()
    assert find_content(str(image), 0, SIZE, "ext4").type == "ext4"
    assert find_content(str(image), 0, SIZE, "xfs").type == "xfs"
    assert find_content(str(image), 0, SIZE, "btrfs") == Content()


@pytest.mark.parametrize("size", [16 * KIB, 1440 * KIB, 1441 * KIB])
def test_what_is_as_small_as_a_floppy(size: int, tmp_path: Path) -> None:
    image = blank(tmp_path / "image", size)
    with image.open("r+b") as file:
        file.seek(510)
        file.write(b"\x55\xaa")
        file.seek(446)
        file.write(bytes((0, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0)))
    assert find_content(str(image), 0, size) == told_by_blkid(image, 0, size)


def test_a_label_with_spaces_is_told_as_it_is(tmp_path: Path) -> None:
    image = blank(tmp_path / "image")
    run("mkfs.ext4", "-q", "-F", "-L", "my root $1", image)
    assert find_content(str(image), 0, SIZE).label == "my root $1"


@settings(max_examples=30)
@given(data=st.binary(max_size=3 * KIB), start=st.integers(0, 4 * KIB))
def test_any_bytes(data: bytes, start: int, tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 2 * MIB)
    with image.open("r+b") as file:
        file.write(data)
    assert find_content(str(image), start, MIB) == told_by_blkid(image, start, MIB)


def test_what_is_not_there_or_too_short(tmp_path: Path) -> None:
    assert find_content(str(tmp_path / "none"), 0, MIB) == Content()
    image = blank(tmp_path / "image", MIB)
    assert find_content(str(image), 0, 2 * MIB) == Content()
