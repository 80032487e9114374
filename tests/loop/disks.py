"""Small disks for tests: made, attached, looked at and judged with the tools of others."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from oracle import Sight, look

MIB = 1024 * 1024

SECONDS = 120
"""No program that is called here may take longer."""


@dataclass(frozen=True)
class Sample:
    """A disk image that is cloned, and what its filesystems hold (by partition number, 0 for the whole disk)."""

    image: Path
    kinds: dict[int, str]
    trees: dict[int, Sight] = field(default_factory=dict)
    sector_size: int = 512

    @property
    def size(self) -> int:
        return self.image.stat().st_size


def tool(*argv: str | Path, typed: str = "", accept: tuple[int, ...] = (0,)) -> str:
    """Run a program and return what it printed on both streams."""
    environment = os.environ | {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        argv,
        input=typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment,
        timeout=SECONDS,
    )
    assert done.returncode in accept, f"{argv}: {done.stdout}"
    return done.stdout


def blank(path: Path, size: int) -> Path:
    """An image file without content."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def scrawl(path: Path, start: int, size: int) -> None:
    """Write random bytes into a disk or image."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())


def flip(path: str | Path, position: int) -> None:
    """Change one bit of a disk or image, as a failing disk does."""
    with Path(path).open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 0x10]))
        file.flush()
        os.fsync(file.fileno())


def part_of(path: Path, start: int, end: int) -> bytes:
    """The bytes `[start, end)` of a disk or image."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


@contextmanager
def loop_device(image: Path, *, sector_size: int = 512, read_only: bool = False) -> Iterator[Path]:
    """An image as a block device with partition nodes, detached in the end."""
    access = ["--read-only"] if read_only else []
    device = Path(
        tool(
            *("losetup", "--find", "--show", "--partscan", "--sector-size", str(sector_size)),
            *access,
            image,
        ).strip()
    )
    try:
        know_partitions(device)
        yield device
    finally:
        tool("losetup", "--detach", device)
        _await_detached(device, image)


def _await_detached(device: Path, image: Path) -> None:
    # btrfs and FUSE close what was unmounted a moment later; until then the device stays.
    for _ in range(100):
        if f"({image.resolve()})" not in tool("losetup", device, accept=(0, 1)):
            return
        time.sleep(0.05)


def know_partitions(device: Path) -> None:
    """Tell the kernel of a new table; not every kernel reads it by itself."""
    for action in ("--update", "--add"):
        tool("partx", action, device, accept=(0, 1))


def node(device: Path, number: int) -> Path:
    """The device of a partition; of the disk itself for number 0."""
    return Path(f"{device}p{number}") if number else device


@contextmanager
def mounted(device: Path, where: Path, *options: str) -> Iterator[Path]:
    """A filesystem, mounted as long as the context lasts."""
    where.mkdir(exist_ok=True)
    tool("mount", "--options", ",".join(("rw", *options)), device, where)
    try:
        yield where
    finally:
        tool("umount", where)


MAKE = {
    "ext2": ("mkfs.ext2", "-q", "-F"),
    "ext3": ("mkfs.ext3", "-q", "-F"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "swap": ("mkswap", "--label", "paging"),
}
CHECK: dict[str, tuple[str, ...]] = {
    "ext2": ("e2fsck", "-f", "-n"),
    "ext3": ("e2fsck", "-f", "-n"),
    "ext4": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n"),
    "btrfs": ("btrfs", "check", "--readonly"),
    "swap": ("swaplabel",),
}
QUIET = {
    "ext2": "ro",
    "ext3": "ro,noload",
    "ext4": "ro,noload",
    "xfs": "ro,norecovery,nouuid",
    "btrfs": "ro",
}


def fill(root: Path) -> None:
    """A tree with a bit of everything that a filesystem can hold."""
    (root / "etc").mkdir()
    (root / "etc" / "hostname").write_text("primary\n")
    (root / "etc" / "link").symlink_to("hostname")
    (root / "data").write_bytes(os.urandom(4 * MIB))
    (root / "zeros").write_bytes(bytes(2 * MIB))
    (root / "gone").write_bytes(os.urandom(MIB))
    (root / "gone").unlink()
    with (root / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(8 * MIB)
        file.write(b"end")
    for number in range(200):
        (root / f"small{number}").write_bytes(os.urandom(number))
    os.setxattr(root / "data", "user.colour", b"green")
    os.chown(root / "data", 1000, 1000)
    (root / "data").chmod(0o4750)


def furnish(image: Path, kinds: dict[int, str], scratch: Path, sector_size: int = 512) -> Sample:
    """Make filesystems on an image that has its table, fill them, and note what they hold."""
    trees = {}
    with loop_device(image, sector_size=sector_size) as device:
        for number, kind in kinds.items():
            tool(*MAKE[kind], node(device, number))
            if kind != "swap":
                with mounted(node(device, number), scratch):
                    fill(scratch)
                trees[number] = sight(device, number, kind, scratch)
    return Sample(image, kinds, trees, sector_size)


def sight(device: Path, number: int, kind: str, scratch: Path) -> Sight:
    """What a filesystem holds; nothing on it is changed, not even its journal."""
    with mounted(node(device, number), scratch, QUIET[kind]):
        return look(scratch)


def check_clone(sample: Sample, clone: Path, scratch: Path) -> None:
    """Judge a clone (image or block device): its filesystems are sound and hold what the source's do."""
    if clone.is_block_device():
        know_partitions(clone)
        _check_filesystems(sample, clone, scratch)
    else:
        with loop_device(clone, sector_size=sample.sector_size, read_only=True) as device:
            _check_filesystems(sample, device, scratch)


def _check_filesystems(sample: Sample, device: Path, scratch: Path) -> None:
    for number, kind in sample.kinds.items():
        tool(*CHECK[kind], node(device, number))
        if number in sample.trees:
            assert sight(device, number, kind, scratch) == sample.trees[number]


def table(path: Path) -> str:
    """The partition table as a script, without what depends on the disk's name and size."""
    text = tool("sfdisk", "--dump", path).replace(str(path), "")
    return re.sub(r"(?m)^(device|last-lba):.*\n|^/dev/loop\d+p?", "", text)


def is_sound_gpt(path: Path) -> bool:
    """Whether sgdisk finds both copies of a GPT in their places."""
    return "No problems found" in tool("sgdisk", "--verify", path)


def signatures(path: Path) -> set[str]:
    """The types of all signatures that anybody could take a whole disk for."""
    listed = tool("wipefs", "--noheadings", "--output", "TYPE", path)
    return set(listed.split())


def looks_unfinished(path: Path) -> bool:
    """Whether nobody could take a disk for a finished clone: no table, no filesystem, no boot code."""
    found = tool("blkid", "--probe", path, accept=(0, 2))
    tool("sfdisk", "--dump", path, accept=(1,))
    return not found and part_of(path, 0, 4096) == bytes(4096)


def await_free(image: Path) -> None:
    """Wait until what a killed process left, which ends a moment after it, is gone."""
    until = time.monotonic() + 20
    while tool("losetup", "--associated", image) and time.monotonic() < until:
        time.sleep(0.05)
    # Killed between attaching a loop device and giving it up, it leaves one that nobody uses.
    for line in tool("losetup", "--associated", image).splitlines():
        tool("losetup", "--detach", line.split(":")[0])


def loops_of(folder: Path) -> list[str]:
    """The loop devices whose files lie under a folder."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().startswith(str(folder)):
                found.append(backing.parts[3])
        except OSError:  # detached since it was listed
            continue
    return found
