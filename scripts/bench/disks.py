"""The disks of the bench: image files on loop devices, filled as a server's disk is, and changed as one changes."""

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from measure import MIB, BenchError, drop_caches, flush, tool

from etsclone.model.extents import Extents
from etsclone.model.mapfile import BlockStatus, parse_mapfile

BLOCK = 4096
ESP_MIB, SWAP_MIB = 128, 256
USED_PART = 0.4
"""How much of the root filesystem is used: half of it files of /usr, half large files of random bytes."""
LARGE_FILES = 6


@dataclass(frozen=True, slots=True)
class Disk:
    """An image file and the loop device that it is attached to."""

    file: Path
    device: str
    size_mib: int

    def partition(self, number: int) -> str:
        """The device node of a partition."""
        return f"{self.device}p{number}"


def require_memory(folder: Path, mib: int) -> None:
    """Refuse a folder without room for `mib` MiB.

    Raises:
        BenchError: saying how much there is.
    """
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize // MIB
    if tool("stat", "--file-system", "--format=%T", folder).strip() == "tmpfs":
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = {name: rest.split()[0] for name, rest in (line.split(":") for line in lines)}
        free = min(free, int(fields["MemAvailable"]) // 1024)
    if free < mib:
        raise BenchError(
            f"{folder} has room for {free} MiB, {mib} MiB are needed: --where takes another folder"
        )


@contextlib.contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder that is gone in the end."""
    folder = Path(tempfile.mkdtemp(prefix="etsclone-bench.", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def loop_disk(file: Path, size_mib: int) -> Iterator[Disk]:
    """A sparse image file on a loop device, which takes direct access where the file's filesystem does."""
    file.touch()
    os.truncate(file, size_mib * MIB)
    device = tool("losetup", "--find", "--show", "--partscan", file).strip()
    try:
        # Without this the image would be cached as well as the device: no disk does that.
        tool("losetup", "--direct-io=on", device, accept=(0, 1))
        yield Disk(file, device, size_mib)
    finally:
        tool("partx", "--delete", device, accept=(0, 1))
        tool("losetup", "--detach", device)
        file.unlink()


@contextlib.contextmanager
def mounted(partition: str, folder: Path) -> Iterator[Path]:
    """A filesystem, mounted for writing."""
    folder.mkdir(exist_ok=True)
    tool("mount", partition, folder)
    try:
        yield folder
    finally:
        tool("umount", folder)


def make_table(disk: Disk, *, swap: bool) -> None:
    """An EFI system partition, a root partition, swap behind it, and one free MiB for the backup table."""
    last = disk.size_mib - 1
    root = last - 1 - ESP_MIB - (SWAP_MIB if swap else 0)
    script = f"label: gpt\nstart=1MiB, size={ESP_MIB}MiB, type=U\nsize={root}MiB, type=L\n"
    if swap:
        script += f"size={SWAP_MIB}MiB, type=S\n"
    tool("sfdisk", "--quiet", "--no-reread", disk.device, feed=script)
    tool("partx", "--update", disk.device)


def fill_server_disk(disk: Disk, work: Path, seed: int) -> None:
    """Make the disk of a server: ESP with a boot loader's worth of files, ext4 root, swap."""
    make_table(disk, swap=True)
    tool("mkfs.vfat", "-F", "32", disk.partition(1))
    tool("mkfs.ext4", "-q", "-L", "root", disk.partition(2))
    tool("mkswap", disk.partition(3))
    noise = random.Random(seed)  # noqa: S311 - repeatable
    boot = work / "boot"
    boot.write_bytes(noise.randbytes(32 * MIB))
    tool("mcopy", "-i", disk.partition(1), boot, "::boot")
    boot.unlink()
    with mounted(disk.partition(2), work / "root") as root:
        status = os.statvfs(root)
        used = int(status.f_blocks * status.f_frsize * USED_PART)
        _copy_tree(Path("/usr"), root / "usr", used // 2)
        _large_files(root, used // 2, noise)
    drop_caches()


def _copy_tree(source: Path, target: Path, budget: int) -> None:
    """Copy files in the order of their names until `budget` bytes are copied."""
    for folder, folders, names in os.walk(source):
        folders.sort()
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True)
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_symlink() or not file.is_file():
                continue
            budget -= -(-file.stat().st_size // BLOCK) * BLOCK
            if budget < 0:
                return
            shutil.copyfile(file, place / name)


def _large_files(root: Path, size: int, noise: random.Random) -> None:
    for number in range(LARGE_FILES):
        with open(root / f"large-{number}", "wb") as file:
            file.writelines(noise.randbytes(MIB) for _ in range(size // LARGE_FILES // MIB))


def change_scattered(disk: Disk, work: Path, size: int, seed: int) -> None:
    """Overwrite about `size` bytes of the root's files in pieces of 4 KiB, anywhere."""
    noise = random.Random(seed)  # noqa: S311 - repeatable
    with mounted(disk.partition(2), work / "root") as root:
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        whole = [path.stat().st_size // BLOCK for path in files]
        pieces = sorted(noise.sample(range(sum(whole)), size // BLOCK))
        first = 0
        for path, count in zip(files, whole, strict=True):
            inside = []
            while pieces and pieces[0] < first + count:
                inside.append((pieces.pop(0) - first) * BLOCK)
            _overwrite(path, inside, BLOCK, noise)
            first += count
    flush(disk.device)


def change_clustered(disk: Disk, work: Path, size: int, seed: int) -> None:
    """Overwrite about `size` bytes of the root's large files in one run in each."""
    noise = random.Random(seed)  # noqa: S311 - repeatable
    run = size // LARGE_FILES // BLOCK * BLOCK
    with mounted(disk.partition(2), work / "root") as root:
        for path in sorted(root.glob("large-*")):
            start = noise.randrange((path.stat().st_size - run) // BLOCK) * BLOCK
            _overwrite(path, [start], run, noise)
    flush(disk.device)


def _overwrite(path: Path, starts: list[int], size: int, noise: random.Random) -> None:
    if not starts:
        return
    with open(path, "r+b", buffering=0) as file:
        for start in starts:
            os.pwrite(file.fileno(), noise.randbytes(size), start)


def fill_root(disk: Disk, kind: str, work: Path) -> None:
    """Make the root filesystem of a disk without swap, with a few thousand files and holes between them."""
    make_table(disk, swap=False)
    tool("mkfs.vfat", "-F", "32", disk.partition(1))
    tool(f"mkfs.{kind}", "-q", disk.partition(2))
    with mounted(disk.partition(2), work / "root") as root:
        for number in range(20_000):
            (root / str(number)).write_bytes(b"etsclone" * 2048)
        os.sync()
        for number in range(0, 20_000, 2):
            (root / str(number)).unlink()
    flush(disk.device)


def used_extents(disk: Disk, readers: dict[int, str], work: Path) -> Extents:
    """The bytes that matter: what partclone says of filesystems, and all that lies outside of them.

    `readers` has the partclone program for each partition that holds a filesystem. Whole 4 KiB blocks.
    """
    free = Extents()
    output = work / "used"
    for number, reader in readers.items():
        node = disk.partition(number)
        sysfs = Path("/sys/class/block", os.path.basename(node))
        start, size = (int((sysfs / name).read_text()) * 512 for name in ("start", "size"))
        output.unlink(missing_ok=True)
        tool(f"partclone.{reader}", "-D", "-f", "0", "-s", node, "-o", output, "-L", work / "log")
        domain = parse_mapfile(output.read_text(encoding="ascii"))
        # What lies behind the filesystem's own end is used.
        inside = domain.with_status(BlockStatus.NOT_TRIED) & Extents.between(0, size)
        free |= inside.shifted(start)
    end = disk.size_mib * MIB
    return (Extents.between(0, end) - free).aligned(BLOCK, end)


def write_extents(extents: Extents, path: Path) -> None:
    """The list that clone-limit reads."""
    lines = [f"{extent.start} {extent.size}\n" for extent in extents]
    path.write_text("".join(lines), encoding="ascii")


def write_domain(extents: Extents, end: int, path: Path) -> None:
    """The same as a domain mapfile of ddrescue."""
    blocks = [(extent, "+") for extent in extents]
    blocks += [(extent, "?") for extent in extents.complement(end)]
    lines = [f"{extent.start:#x} {extent.size:#x} {status}\n" for extent, status in sorted(blocks)]
    path.write_text("0x0 ? 1\n" + "".join(lines), encoding="ascii")


def wipe(disk: Disk) -> None:
    """Make every block of a disk allocated and zero."""
    tool(
        "dd",
        "if=/dev/zero",
        f"of={disk.device}",
        "bs=4M",
        f"count={disk.size_mib // 4}",
        "oflag=direct",
        "conv=fsync",
        "status=none",
    )


def changed_bytes(one: Disk, other: Disk, extents: Extents) -> int:
    """How many bytes of `extents` lie in 4 KiB blocks that differ between two disks."""
    flush(one.device)
    flush(other.device)
    changed = 0
    # The files: that is quicker than through the devices, whose data is flushed to them.
    with open(one.file, "rb", buffering=0) as left, open(other.file, "rb", buffering=0) as right:
        for extent in extents:
            for start in range(extent.start, extent.end, MIB):
                size = min(MIB, extent.end - start)
                changed += _different(
                    _read(left.fileno(), start, size), _read(right.fileno(), start, size)
                )
    return changed


def _read(descriptor: int, start: int, size: int) -> bytes:
    data = os.pread(descriptor, size, start)
    if len(data) != size:
        raise BenchError(f"only {len(data)} of {size} bytes could be read at {start}")
    return data


def _different(left: bytes, right: bytes) -> int:
    if left == right:
        return 0
    starts = range(0, len(left), BLOCK)
    return sum(BLOCK for at in starts if left[at : at + BLOCK] != right[at : at + BLOCK])
