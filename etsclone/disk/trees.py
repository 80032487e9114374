"""Trees of files: how large they are, copied with every kind of metadata, and compared.

cp copies (docs/decisions.md); what it does not know, the flags of chattr(1) and project numbers, is added here. What
is compared is read by this module alone, so that nobody judges his own work. All of it happens in a process that has
the tree as its root: no symbolic link leads out of it.
"""

import array
import fcntl
import os
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import BinaryIO

import xxhash

from etsclone.chroot import in_chroot
from etsclone.errors import CommandFailed, ComparisonFailed, TargetFull
from etsclone.model.fit import TreeSize
from etsclone.progress import Report, progress
from etsclone.run import run
from etsclone.units import KIB

_CP = ("--archive", "--sparse=always", "--one-file-system")

_GETFLAGS = 0x80086601
_SETFLAGS = 0x40086602
_GETXATTR = 0x801C581F
_SETXATTR = 0x401C5820
"""Source: FS_IOC_GETFLAGS and its kin in include/uapi/linux/fs.h, for 64-bit machines."""

_PROJECT = struct.Struct("<IIIII8s")
"""`struct fsxattr`: flags, extent size, extents, project number, copy-on-write extent size."""

_KEPT_FLAGS = 0x2283C0FB
"""chattr's s, u, S, i, a, d, A, j, t, D, T, C, x and P; the others tell how a filesystem keeps a file (`FS_*_FL`)."""

_NEARLY_FULL = 100
"""Of a filesystem, the part that may be free although there was no space for a file."""

_LOST_AND_FOUND = "/lost+found"
_MANY = 5
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, slots=True)
class Marked:
    """A file or folder with flags or a project number."""

    path: bytes
    flags: int
    project: int


def size_of(root: str) -> TreeSize:
    """What the tree mounted at `root` takes."""
    return in_chroot(root, _size)


def copy_tree(source: str, target: str, size: int, *, shown: Report) -> None:
    """Copy the filesystem mounted at `source` into the new one mounted at `target`.

    Args:
        source: the folder where it is mounted.
        target: the folder where the new one is mounted.
        size: bytes of all files, for the progress.
        shown: who is told how far it is.

    Raises:
        TargetFull: when there is no space.
        CommandFailed: when something cannot be copied.
    """
    if not in_chroot(source, _has_lost_and_found):
        in_chroot(target, _remove_lost_and_found)
    try:
        with progress("files", size, shown=shown) as advance, _watched(target, advance):
            run("cp", [*_CP, "--", f"{source}/.", f"{target}/"])
    except CommandFailed as error:
        space = os.statvfs(target)
        if space.f_bavail < space.f_blocks // _NEARLY_FULL or space.f_ffree == 0:
            raise TargetFull(
                "the files do not fit into the new filesystem", hint="use a larger disk"
            ) from error
        raise
    marked = in_chroot(source, _marked)
    if marked:
        in_chroot(target, lambda: _mark(marked))


@contextmanager
def _watched(folder: str, advance: Callable[[int], None]) -> Iterator[None]:
    """Tell now and then how much more a filesystem holds."""
    done = threading.Event()

    def watch() -> None:
        before = _used(folder)
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            now = _used(folder)
            advance(max(0, now - before))
            before = max(now, before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _used(folder: str) -> int:
    space = os.statvfs(folder)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def compare_trees(source: str, target: str) -> None:
    """Read two mounted trees in full, and compare every file's content and metadata.

    Raises:
        ComparisonFailed: naming the first paths that differ, and in what.
    """
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
        for root, file in ((source, one), (target, other)):
            descriptor = file.fileno()
            in_chroot(root, lambda descriptor=descriptor: _list(descriptor))  # type: ignore[misc]
            file.seek(0)
        different = list(_different(one, other))
    if different:
        more = f" and {len(different) - _MANY} more" if len(different) > _MANY else ""
        raise ComparisonFailed(
            f"what was copied differs from the source in {'; '.join(different[:_MANY])}{more}",
            hint="use a disk of at least the source's size, without --fit",
        )


def _different(one: BinaryIO, other: BinaryIO) -> Iterator[str]:
    for mine, theirs in zip_longest(one, other, fillvalue=b""):
        if mine != theirs:
            path, *facts = (mine or theirs).decode("ascii").rstrip("\n").split("\t")
            them = theirs.decode("ascii").rstrip("\n").split("\t")
            if not mine or not theirs or them[0] != path:
                yield f"{path} (there is not the same file)"
                return
            names = [
                fact.partition("=")[0]
                for fact, its in zip(facts, them[1:], strict=True)
                if fact != its
            ]
            yield f"{path} ({', '.join(names)})"


def _has_lost_and_found() -> bool:
    return os.path.lexists(_LOST_AND_FOUND)


def _remove_lost_and_found() -> None:
    with suppress(FileNotFoundError):
        os.rmdir(_LOST_AND_FOUND)


def _walk(folder: bytes = b"/") -> Iterator[bytes]:
    """Every path of the tree that is the root of this process, in one order, parents first."""
    pending = [folder]
    while pending:
        path = pending.pop()
        yield path
        if stat.S_ISDIR(os.lstat(path).st_mode):
            pending += sorted((os.path.join(path, name) for name in os.listdir(path)), reverse=True)


def _size() -> TreeSize:
    inodes: set[int] = set()
    data = 0
    for path in _walk():
        status = os.lstat(path)
        if status.st_ino not in inodes:
            inodes.add(status.st_ino)
            data += status.st_blocks * 512
    return TreeSize(data, len(inodes))


def _marked() -> list[Marked]:
    found = []
    for path in _walk():
        flags, project = _marks(path, os.lstat(path).st_mode)
        if flags or project:
            found.append(Marked(path, flags, project))
    return found


def _mark(marked: list[Marked]) -> None:
    for each in marked:
        descriptor = _opened(each.path)
        try:
            if each.project:
                attributes = bytearray(_PROJECT.size)
                fcntl.ioctl(descriptor, _GETXATTR, attributes)
                fields = list(_PROJECT.unpack(attributes))
                fields[3] = each.project
                fcntl.ioctl(descriptor, _SETXATTR, _PROJECT.pack(*fields))
            # Last: nothing more can be changed of what is immutable.
            value = array.array("l", [0])
            fcntl.ioctl(descriptor, _GETFLAGS, value)
            value[0] = (value[0] & ~_KEPT_FLAGS) | each.flags
            fcntl.ioctl(descriptor, _SETFLAGS, value)
        finally:
            os.close(descriptor)


def _marks(path: bytes, mode: int) -> tuple[int, int]:
    """Flags and project number; only files and folders have them, and not in every filesystem."""
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return 0, 0
    value, attributes = array.array("l", [0]), bytearray(_PROJECT.size)
    descriptor = _opened(path)
    try:
        with suppress(OSError):
            fcntl.ioctl(descriptor, _GETFLAGS, value)
        with suppress(OSError):
            fcntl.ioctl(descriptor, _GETXATTR, attributes)
    finally:
        os.close(descriptor)
    return value[0] & _KEPT_FLAGS, _PROJECT.unpack(attributes)[3]


def _opened(path: bytes) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _list(descriptor: int) -> None:
    """Write a line for each path: the path as Python writes bytes, then `name=value` for all that is compared."""
    first: dict[int, int] = {}
    with open(descriptor, "wb", closefd=False) as file:
        for number, path in enumerate(_walk()):
            facts = _facts(path, first, number)
            words = [repr(path), *(f"{name}={value}" for name, value in facts.items())]
            file.write("\t".join(words).encode("ascii") + b"\n")


def _facts(path: bytes, first: dict[int, int], number: int) -> dict[str, object]:
    status = os.lstat(path)
    mode = status.st_mode
    flags, project = _marks(path, mode)
    links = 1 if stat.S_ISDIR(mode) else status.st_nlink
    return {
        "mode": oct(mode),
        "owner": f"{status.st_uid}:{status.st_gid}",
        "time": status.st_mtime_ns,
        "device": status.st_rdev if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else 0,
        # Names of one inode are told by the place of the first.
        "links": f"{links}/{first.setdefault(status.st_ino, number) if links > 1 else ''}",
        "attributes": _attributes(path),
        "flags": hex(flags),
        "project": project,
        "content": _content(path, mode),
    }


def _attributes(path: bytes) -> str:
    total = xxhash.xxh3_128()
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        value = os.getxattr(path, name, follow_symlinks=False)
        encoded = os.fsencode(name)
        total.update(struct.pack("<II", len(encoded), len(value)) + encoded + value)
    return total.hexdigest()


def _content(path: bytes, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return os.readlink(path).hex()
    if not stat.S_ISREG(mode):
        return ""
    total, size = xxhash.xxh3_128(), 0
    descriptor = _opened(path)
    try:
        while block := os.read(descriptor, 256 * KIB):
            total.update(block)
            size += len(block)
    finally:
        os.close(descriptor)
    return f"{total.hexdigest()}/{size}"
