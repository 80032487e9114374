"""What is kept before programs of a clone make its disk boot, so that `--undo` brings that back; and its boot code.

All that makes up a boot loader belongs together: of what cannot be kept as a whole nothing is, and that is said.
"""

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from etsclone.errors import ComparisonFailed, DeviceError, TargetChanged, UnsafePath
from etsclone.model.disk import Disk
from etsclone.model.keep import BootCode, Keep, WriteCode
from etsclone.model.scope import Scope
from etsclone.model.tree import join, name_of, parent_of, printable
from etsclone.overlay.files import opened_folder, opened_root
from etsclone.plan.bootwork import BootCommand, code_places
from etsclone.units import KIB, MIB, human

_SPARE = 8 * MIB
_BLOCK = 4 * KIB


@dataclass(frozen=True, slots=True)
class Work:
    """Programs that change one thing, and what that is called."""

    name: str
    commands: Sequence[BootCommand]

    @property
    def paths(self) -> tuple[bytes, ...]:
        """What they change."""
        return tuple(sorted({path for each in self.commands for path in each.changes}))


def keep_for(works: Sequence[Work], scope: Scope, mounts: Collection[bytes]) -> Keep:
    """What can be kept of what programs will change, but for boot code; to be called inside the system.

    Args:
        works: what will be done.
        scope: of the role; it has steps of its own.
        mounts: where other filesystems are mounted in the system.
    """
    room = _Room()
    paths: set[bytes] = set()
    lost = []
    for work in works:
        try:
            room.take(_sizes(work.paths, scope, mounts))
            paths.update(work.paths)
        except UnsafePath as error:
            lost.append(f"{work.name}: {error.message}")
    return Keep(tuple(sorted(paths)), lost=tuple(lost))


def with_code(keep: Keep, works: Sequence[Work], disk: Disk) -> Keep:
    """The same with the boot code of the disk, where programs write that and what belongs to it is kept.

    Raises:
        DeviceError: when the disk cannot be read.
    """
    writes = any(
        command.code and keep.paths and set(work.paths) <= set(keep.paths)
        for work in works
        for command in work.commands
    )
    return replace(keep, code=read_code(disk)) if writes else keep


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Size:
    """How much a file takes, and on which filesystem: its device number, and how much is free there."""

    device: int
    free: int
    size: int


class _Room:
    """How much copies take of each filesystem."""

    def __init__(self) -> None:
        self._taken: Counter[int] = Counter()

    def take(self, found: Sequence[_Size]) -> None:
        """Raises `UnsafePath` when there is not enough: for the copies, and for what the programs need themselves."""
        taken, largest = Counter[int](), Counter[int]()
        for each in found:
            taken[each.device] += each.size
            largest[each.device] = max(largest[each.device], each.size)
        free = {each.device: each.free for each in found}
        for device, size in taken.items():
            if self._taken[device] + size + largest[device] + _SPARE > free[device]:
                raise UnsafePath(f"there is no room for a copy of {human(size)}")
        self._taken.update(taken)


def _sizes(paths: Sequence[bytes], scope: Scope, mounts: Collection[bytes]) -> list[_Size]:
    """The files at and beneath some paths. Raises `UnsafePath` where one of them cannot be kept, and says why."""
    found: list[_Size] = []
    with opened_root("/") as top:
        for path in paths:
            if path in scope or scope.may_hold(path):
                raise UnsafePath(f"the scope of the role reaches into {printable(path)}")
            if any(mount == path or mount.startswith(path + b"/") for mount in mounts):
                raise UnsafePath(f"another filesystem is mounted in {printable(path)}")
            try:
                with opened_folder(top, parent_of(path)) as folder:
                    _check_top(folder, path)
                    found += _sizes_in(folder, path)
            except FileNotFoundError as error:
                raise UnsafePath(f"there is no {printable(parent_of(path))}") from error
    return found


def _check_top(folder: int, path: bytes) -> None:
    """Raise `UnsafePath` where programs would not write to what takes this path's place: a copy of what is listed."""
    try:
        status = os.lstat(name_of(path), dir_fd=folder)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise UnsafePath(f"{printable(path)} is a symbolic link, and programs write through it")
    if os.fsdecode(name_of(path)) not in os.listdir(folder):
        raise UnsafePath(f"{printable(path)} is there by another spelling of its name")


def _sizes_in(folder: int, path: bytes) -> Iterator[_Size]:
    try:
        status = os.lstat(name_of(path), dir_fd=folder)
    except FileNotFoundError:
        return
    above = os.fstat(folder)
    if status.st_dev != above.st_dev:
        raise UnsafePath(f"{printable(path)} is a filesystem of its own")
    if stat.S_ISDIR(status.st_mode):
        with opened_folder(folder, name_of(path)) as inside:
            for name in map(os.fsencode, os.listdir(inside)):
                yield from _sizes_in(inside, join(path, name))
    elif not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise UnsafePath(f"{printable(path)} is neither file, folder nor symbolic link")
    room = os.fstatvfs(folder)
    size = -(-status.st_size // _BLOCK) * _BLOCK
    yield _Size(above.st_dev, room.f_bavail * room.f_frsize, size)


# --- boot code -------------------------------------------------------------------------------------------------------


def read_code(disk: Disk) -> tuple[BootCode, ...]:
    """What is where GRUB for BIOS machines lies on a disk.

    Raises:
        DeviceError: when the disk cannot be read.
    """
    with _opened(disk, os.O_RDONLY) as descriptor:
        try:
            # What was written by way of a partition's device does not reach what is cached of the disk's.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            return tuple(
                BootCode(start, os.pread(descriptor, size, start))
                for start, size in code_places(disk)
            )
        except OSError as error:
            raise DeviceError(f"{disk.path} cannot be read: {error}") from error


def check_code(keep: Keep, disk: Disk | None) -> None:
    """Raise `TargetChanged` unless the boot code that is kept is what is on the disk."""
    if disk and keep.code and read_code(disk) != keep.code:
        raise TargetChanged(
            "the boot code changed since the plan was shown", hint="run the same command again"
        )


def fits(code: Sequence[BootCode], disk: Disk) -> bool:
    """Whether a disk has its boot code where this was: its partitions may have moved, as on a clone of another size."""
    return tuple(each.place for each in code) == code_places(disk)


@contextmanager
def code_writer(code: Sequence[BootCode], disk: Disk | None) -> Iterator[WriteCode | None]:
    """Who writes boot code to a disk, from inside its system, too; nobody where the disk is not known.

    Nothing is written to a disk that it does not fit.

    Args:
        code: what there is to be written.
        disk: a snapshot of it, writable.
    """
    if disk is None or not code:
        yield None
        return
    with _opened(disk, os.O_WRONLY) as descriptor:

        def write(code: Sequence[BootCode], /) -> None:
            try:
                for each in code if fits(code, disk) else ():
                    _put(descriptor, each)
                os.fsync(descriptor)
            except OSError as error:
                raise DeviceError(f"{disk.path} cannot be written: {error}") from error

        yield write


def _put(descriptor: int, code: BootCode) -> None:
    if os.pwrite(descriptor, code.before, code.start) != len(code.before):
        raise DeviceError("boot code was not written whole")


def verify_code(code: Sequence[BootCode], disk: Disk | None) -> None:
    """Read boot code that was brought back again.

    Raises:
        ComparisonFailed: when it is not what is on the disk, or the disk has no such places.
        DeviceError: when that cannot be read.
    """
    if disk and code and read_code(disk) != tuple(code):
        raise ComparisonFailed(
            "the boot code is not what it was before",
            hint="see that nothing else writes to the disk",
        )


@contextmanager
def _opened(disk: Disk, how: int) -> Iterator[int]:
    try:
        descriptor = os.open(disk.device or disk.path, how | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"{disk.path} cannot be opened: {error}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
