"""Filesystems for tests of used maps: made, filled, looked at and judged with the tools of others.

What this kernel cannot mount is reached through FUSE, or by tools that need no mount.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oracle import look

from etsclone.model.extents import Extents

from . import disks
from .disks import MIB, tool

BACKGROUND = b"\xaa"
"""What stands in all blocks that a map leaves out: a block that is missing shows."""

Contents = Mapping[bytes, object]


@dataclass(frozen=True)
class Kind:
    """How to make, check, mount, and mount read-only; what cannot be mounted is filled and read by its own tools."""

    make: tuple[str, ...]
    check: tuple[str, ...]
    mount: tuple[str, ...] = ()
    look: tuple[str, ...] = ()
    size: int = 64 * MIB


def _kernel(make: str, check: str, quiet: str, size: int = 64 * MIB) -> Kind:
    mount = ("mount", "--options")
    return Kind(tuple(make.split()), tuple(check.split()), (*mount, "rw"), (*mount, quiet), size)


def _fuse(make: str, check: str, mount: str) -> Kind:
    return Kind(tuple(make.split()), tuple(check.split()), (mount,), (mount, "-o", "ro"))


def _ext(make: str, quiet: str = "ro,noload") -> Kind:
    return _kernel(f"{make} -q -F", "e2fsck -f -n", quiet)


XFS, BTRFS = "ro,norecovery,nouuid", "ro"

KINDS = {
    "ext2": _ext("mkfs.ext2", "ro"),
    "ext3": _ext("mkfs.ext3"),
    "ext4": _ext("mkfs.ext4"),
    "ext4 with small blocks": _ext("mkfs.ext4 -b 1024"),
    "ext4 with meta_bg": _ext("mkfs.ext4 -b 4096 -O ^resize_inode,meta_bg,^flex_bg -g 2048"),
    "xfs": _kernel("mkfs.xfs -q -f", "xfs_repair -n", XFS, 320 * MIB),
    "btrfs": _kernel("mkfs.btrfs -q -f", "btrfs check --readonly", BTRFS, 160 * MIB),
    "fat32": Kind(("mkfs.vfat", "-F", "32"), ("fsck.fat", "-n")),
    "fat16": Kind(("mkfs.vfat", "-F", "16", "-s", "4"), ("fsck.fat", "-n")),
    "fat12": Kind(("mkfs.vfat", "-F", "12", "-s", "64"), ("fsck.fat", "-n")),
    "exfat": _fuse("mkfs.exfat", "fsck.exfat -n", "mount.exfat-fuse"),
    "ntfs": _fuse("mkfs.ntfs -Q -F -q", "ntfsfix -n", "ntfs-3g"),
    "f2fs": Kind(("mkfs.f2fs", "-q", "-f"), ("fsck.f2fs", "--dry-run"), size=128 * MIB),
}


def only_used(image: Path, unused: Extents, target: Path) -> Path:
    """A copy of an image without its unused ranges."""
    shutil.copy(image, target)
    with target.open("r+b") as file:
        for extent in unused:
            file.seek(extent.start)
            for position in range(extent.start, extent.end, MIB):
                file.write(BACKGROUND * min(MIB, extent.end - position))
    return target


def furnish(kind: Kind, device: Path, folder: Path) -> Contents:
    """Make a filesystem, put files into it, and tell what it holds then."""
    tool(*kind.make, device)
    if kind.mount:
        with mounted(kind.mount, device, folder) as root:
            _fill(root, plain=kind.mount[0] != "mount")
    else:
        _fill_unmounted(kind, device, folder)
    return contents(kind, device, folder)


def _fill(root: Path, *, plain: bool) -> None:
    if not plain:
        disks.fill(root)
    (root / "folder").mkdir()
    for number in range(120):
        (root / "folder" / f"file{number}").write_bytes(os.urandom(997 * number % 90_000 + 1))
    for number in range(0, 120, 3):
        (root / "folder" / f"file{number}").unlink()
    for number in range(0, 30, 3):
        (root / f"later{number}").write_bytes(os.urandom(200_000))


def _fill_unmounted(kind: Kind, device: Path, folder: Path) -> None:
    tree = folder / "tree"
    tree.mkdir()
    _fill(tree, plain=True)
    if kind.make[0] == "mkfs.f2fs":
        tool("sload.f2fs", "-f", tree, device)
    else:
        tool("mcopy", "-s", "-i", device, *tree.iterdir(), "::/")
        tool("mdel", "-i", device, "::/later0", "::/later9")
        tool("mcopy", "-s", "-i", device, tree / "folder", "::/again")


def crowd(root: Path) -> None:
    """Fill a filesystem to the brim with pieces that lie between other pieces."""
    block = os.urandom(MIB)

    def fill(name: str, step: int) -> list[Path]:
        made: list[Path] = []
        try:
            while True:
                made.append(root / f"{name}{len(made)}")
                # Every file begins with its own name, so that no two are alike.
                made[-1].write_bytes(made[-1].name.encode() + block[: step * (1 + len(made) % 7)])
        except OSError:
            made.pop().unlink(missing_ok=True)
            return made

    for path in fill("first", 30_000)[::2]:
        path.unlink()
    os.sync()
    for path in fill("second", 13_000)[::40]:
        path.unlink()


@contextmanager
def mounted(command: tuple[str, ...], device: Path, folder: Path) -> Iterator[Path]:
    """A filesystem, mounted with one of the commands of its kind."""
    where = folder / "mnt"
    where.mkdir(exist_ok=True)
    tool(*command, device, where)
    try:
        yield where
    finally:
        tool("umount", where)


def contents(kind: Kind, device: Path, folder: Path) -> Contents:
    """What a filesystem holds: of those that are mounted all of it, of others the contents of the files."""
    if kind.look:
        with mounted(kind.look, device, folder) as root:
            return look(root) if kind.look[0] == "mount" else _files(root)
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    if kind.make[0] == "mkfs.f2fs":
        # It asks, and puts each inode into a folder of its own choice.
        for number in range(4, 150):
            dump = ("dump.f2fs", "-i", f"{number:x}", device)
            tool("env", f"--chdir={out}", *dump, typed="Y\n", accept=(0, 255))
    else:
        tool("mcopy", "-s", "-i", device, "::/*", out)
    return _files(out)


def _files(root: Path) -> Contents:
    return {
        os.fsencode(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()
    }


def check(kind: Kind, device: Path, expected: Contents, folder: Path) -> None:
    """Judge a filesystem: its own checker finds nothing, and it holds what is expected."""
    tool(*kind.check, device)
    found = contents(kind, device, folder)
    different = [path for path in found.keys() | expected if found.get(path) != expected.get(path)]
    assert different == [], different
    if kind.make[0] == "mkfs.btrfs":
        # Reads every copy of every block, and compares checksums.
        with mounted(kind.look, device, folder) as root:
            report = tool("btrfs", "scrub", "start", "-B", "-r", root, accept=(0, 1, 2, 3))
            assert "no errors found" in report, f"scrub said {report!r}"
