"""What a disk holds to boot by, read from its bytes: boot code and GRUB's core, EFI system partitions.

Nothing is mounted: a FAT filesystem needs no help of the kernel, and what it holds cannot do anything to this system.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Iterator

from etsclone.errors import DeviceError, FormatError
from etsclone.model.boot import BootSector, EfiProgram, Esp, is_esp
from etsclone.model.disk import Disk, Partition
from etsclone.plan.fat import Entry, FatTree
from etsclone.plan.grubcore import CODE, core_start, is_grub, read_core, read_image
from etsclone.units import KIB, MIB, SECTOR, human

_Read = Callable[[int, int], bytes]

_LARGEST = 32 * MIB
"""Bytes of a program that are looked at: a larger one carries a kernel in it."""

_MOST_READ = 512 * MIB
_MOST_ENTRIES = 1000
"""Bytes of EFI system partitions that are read of a disk at most, and entries of a folder: there must be an end."""

_MARKS = {b"#### LoaderInfo: systemd-boot": "systemd-boot", b"UEFI SHIM": "shim"}
_ENTRY_MAKER, _KEY_MANAGER = "fb", "mm"
"""How the names of shim's companions begin."""


def read_boot_sector(disk: Disk) -> BootSector:
    """The boot code of a disk, and where its GRUB looks for its files.

    Raises:
        DeviceError: when the disk cannot be read.
    """
    with _opened(disk) as read:
        sector = read(0, SECTOR)
        if not any(sector[:CODE]):
            return BootSector(code=False)
        if not is_grub(sector):
            return BootSector(code=True)
        core = read_core(sector, lambda lba: read(lba * SECTOR, SECTOR))
        start = core_start(sector) * SECTOR
        return BootSector(code=True, grub=True, core=core, place=disk.where(start, start + SECTOR))


def read_esps(disk: Disk) -> tuple[Esp, ...]:
    """The EFI system partitions of a disk.

    Raises:
        DeviceError: when the disk cannot be read.
    """
    with _opened(disk) as unlimited:
        read = _limited(unlimited)
        return tuple(_read_esp(part, read) for part in disk.partitions if is_esp(part))


def _read_esp(part: Partition, read: _Read) -> Esp:
    def read_inside(start: int, size: int) -> bytes:
        if start + size > part.size:
            raise FormatError("it is larger than the partition")
        content = read(part.start + start, size)
        if len(content) < size:
            raise FormatError("the disk ends before it")
        return content

    try:
        tree = FatTree(read_inside)
        folders = ["/EFI/" + each.name for each in _entries(tree, "/EFI") if each.folder]
        found = tuple(program for folder in folders for program in _programs(tree, folder))
        makers = tuple(each for each in found if _name(each).startswith(_ENTRY_MAKER))
        programs = tuple(each for each in found if not _name(each).startswith(_ENTRY_MAKER))
        menus = {
            folder: content.decode("utf-8", "replace")
            for folder in folders
            if (content := tree.read(f"{folder}/grub.cfg", 64 * KIB)) is not None
        }
    except FormatError as error:
        return Esp(part.number, trouble=error.message)
    return Esp(part.number, programs, menus, entry_makers=makers)


def _limited(read: _Read) -> _Read:
    left = _MOST_READ

    def limited(start: int, size: int) -> bytes:
        nonlocal left
        left -= size
        if left < 0:
            raise FormatError(f"more than {human(_MOST_READ)} would have to be looked through")
        return read(start, size)

    return limited


def _entries(tree: FatTree, folder: str) -> tuple[Entry, ...]:
    found = tree.entries(folder)
    if len(found) > _MOST_ENTRIES:
        raise FormatError(f"a folder of it has more than {_MOST_ENTRIES} entries")
    return found


def _programs(tree: FatTree, folder: str) -> Iterator[EfiProgram]:
    for entry in _entries(tree, folder):
        name = entry.name.lower()
        if name.endswith(".efi") and not name.startswith(_KEY_MANAGER) and not entry.folder:
            path = f"{folder}/{entry.name}"
            yield _program(path, tree.read(path, _LARGEST) or b"")


def _name(program: EfiProgram) -> str:
    return program.path.lower().rpartition("/")[2]


def _program(path: str, content: bytes) -> EfiProgram:
    kind = next((kind for mark, kind in _MARKS.items() if mark in content), "")
    core = None if kind else read_image(content)
    return EfiProgram(path, _machine(content), "GRUB" if core else kind, core)


def _machine(content: bytes) -> int:
    """The machine that a PE file is for (PE format, "COFF File Header"), 0 when it is none."""
    if len(content) < 64 or content[:2] != b"MZ":
        return 0
    (header,) = struct.unpack_from("<I", content, 60)
    if content[header : header + 4] != b"PE\0\0" or len(content) < header + 6:
        return 0
    (machine,) = struct.unpack_from("<H", content, header + 4)
    return int(machine)


@contextlib.contextmanager
def _opened(disk: Disk) -> Iterator[_Read]:
    """Reads bytes of a disk; fewer of them, or none, beyond its end."""
    try:
        descriptor = os.open(disk.device or disk.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # What was written by way of a partition's device does not reach what is cached of the disk's.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            yield lambda start, size: os.pread(descriptor, size, min(start, disk.size))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeviceError(f"{disk.path} cannot be read: {error}") from error
