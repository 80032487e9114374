"""The door to the files of a tree: folder by folder, and no symbolic link is ever followed.

Paths are absolute bytes as seen inside the tree; `root` is a descriptor of the tree's top folder. Nothing here
imports a module late or asks the system for user names, so all of it works inside `etsclone.chroot.in_chroot`.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from etsclone.errors import DeviceError, TargetFull, UnsafePath
from etsclone.model.extents import Extent, Extents
from etsclone.model.tree import STAGING, ancestors, printable

CHUNK = 1 << 20
"""How many bytes are read at a time."""

_PAGE = 4096

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening what has just become a fifo would wait for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Attributes = tuple[tuple[str, bytes], ...]

_NAMESPACES = ("user.", "trusted.", "security.")
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


@contextmanager
def opened_root(root: str) -> Iterator[int]:
    """The top folder of a tree as a descriptor; `root` may itself be reached through symbolic links."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_folder(root: int, path: bytes) -> Iterator[int]:
    """A folder of the tree as a descriptor.

    Raises:
        UnsafePath: when a component is a symbolic link or no folder.
        FileNotFoundError: when a component is missing.
    """
    descriptor = os.dup(root)
    try:
        for component in filter(None, path.split(b"/")):
            below = folder_below(descriptor, component, path)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def folder_below(folder: int, name: bytes, path: bytes) -> int:
    """Open a folder that an opened one holds; the caller closes it. Raises as `opened_folder`, about `path`."""
    try:
        return _open_quietly(name, _FOLDER, folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise UnsafePath(
            f"{printable(name)} on the way to {printable(path)} is a link or no folder",
            hint="see what it is on the disk: the overlay expects a folder there",
        ) from error


def _open_quietly(name: bytes, flags: int, folder: int) -> int:
    """Open without leaving a new access time; only the owner of a file (and root) may ask for that."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=folder)
    except PermissionError:
        return os.open(name, flags, dir_fd=folder)


@contextmanager
def opened_file(folder: int, name: bytes) -> Iterator[int]:
    """A regular file of an opened folder, for reading; never what a link points to.

    Raises:
        FileNotFoundError: when there is no regular file of that name.
    """
    descriptor, _ = open_file(folder, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_any(folder: int, name: bytes) -> Iterator[int | None]:
    """A regular file or a folder; None for what must not be opened, and has no flags."""
    mode = os.lstat(name, dir_fd=folder).st_mode
    if stat.S_ISREG(mode):
        with opened_file(folder, name) as descriptor:
            yield descriptor
    elif stat.S_ISDIR(mode):
        with opened_folder(folder, name) as descriptor:
            yield descriptor
    else:
        yield None


def open_file(folder: int, name: bytes) -> tuple[int, os.stat_result]:
    """As `opened_file`, where every microsecond counts, with what the system tells of it; the caller closes it."""
    try:
        descriptor = _open_quietly(name, _FILE, folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket
            raise FileNotFoundError(errno.ENOENT, "not a file", name) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a file", name)
    return descriptor, status


def read_link(name: bytes, folder: int | None = None) -> bytes:
    """Where a symbolic link of an opened folder, or else of the working one, leads.

    Raises:
        FileNotFoundError: when there is no symbolic link of that name.
    """
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise FileNotFoundError(errno.ENOENT, "not a symbolic link", name) from error
        raise


def chunks(descriptor: int) -> Iterator[memoryview]:
    """All bytes from a file's position to its end. A piece is valid until the next is asked for."""
    size, total = os.fstat(descriptor).st_size, 0
    # Most files are small, and a fresh large buffer costs more than reading them does.
    buffer = memoryview(bytearray(min(max(size + 1, _PAGE), CHUNK)))
    while count := os.readv(descriptor, [buffer]):
        yield buffer[:count]
        total += count
        if (
            count < len(buffer) and total >= size
        ):  # the end: no need to be told by a read of nothing
            return


def data_extents(descriptor: int, size: int) -> Extents:
    """Which of the first `size` bytes of a file are stored; the rest are holes that read as zeros."""
    extents: list[Extent] = []
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind `position`
                break
            raise
        position = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        if start < position:
            extents.append(Extent(start, position))
    return Extents.of(extents)


def runs(size: int, data: Extents) -> Iterator[tuple[int, int, bool]]:
    """Start, length, and whether it is stored, of the data and holes that a file consists of, in order."""
    stored = [(extent.start, extent.size, True) for extent in data]
    holes = [(extent.start, extent.size, False) for extent in data.complement(size)]
    yield from sorted(stored + holes)


# --- extended attributes -------------------------------------------------------------------------------------------


def is_kept_attribute(name: str) -> bool:
    """Whether an overlay keeps attributes of this name: those that every filesystem of Linux can have (xattr(7)).

    Others, such as `btrfs.compression`, tell how one filesystem keeps a file, and no other takes them.
    """
    named = name.startswith(_NAMESPACES) and name not in _NAMESPACES and "\0" not in name
    return named or name in _ACLS


@contextmanager
def working_in(folder: int) -> Iterator[None]:
    """Make `folder` the working folder: the attributes of a symbolic link can only be reached by its name."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    os.fchdir(folder)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def read_attributes(
    target: bytes | int,
    refused: Callable[[str, str], object] = lambda _name, _why: None,
    *,
    every: bool = False,
) -> Attributes:
    """The extended attributes of a descriptor, or of a name in the working folder, sorted by name.

    POSIX ACLs are among them in the kernel's binary form (xattr(7)). A filesystem without attributes has none. What may
    not be read is left out, and, unless `every` one is wanted, what overlays do not keep; `refused` is told the name,
    and what is the matter with it.
    """
    follow = isinstance(target, int)
    found: list[tuple[str, bytes]] = []
    try:
        for name in sorted(os.listxattr(target, follow_symlinks=follow)):
            if not (every or is_kept_attribute(name)):
                refused(name, "is its filesystem's own")
                continue
            try:
                found.append((name, os.getxattr(target, name, follow_symlinks=follow)))
            except PermissionError:
                refused(name, "may not be read")
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA):
            raise
    return tuple(found)


def write_attributes(target: bytes | int, wanted: Attributes) -> None:
    """Give a descriptor, or a name in the working folder, these attributes."""
    for name, value in wanted:
        os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))


def drop_attributes(target: bytes | int, wanted: Attributes) -> None:
    """Remove what overlays keep and is not in `wanted`: new files inherit ACLs from the folder they are made in."""
    keep = {name for name, _ in wanted}
    for name, _ in read_attributes(target):
        if name not in keep:
            os.removexattr(target, name, follow_symlinks=isinstance(target, int))


# --- changing ------------------------------------------------------------------------------------------------------


@contextmanager
def mtime_kept(folder: int) -> Iterator[None]:
    """Give the folder back its times after its list of names was changed."""
    before = os.fstat(folder)
    try:
        yield
    finally:
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def typed_errors(path: bytes) -> Iterator[None]:
    """Turn what the kernel says when `path` cannot be written into etsclone's errors.

    Raises:
        TargetFull: no space, no inodes or no quota left.
        DeviceError: an input or output error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TargetFull(
                f"no space is left for {printable(path)}",
                hint="free some space on the disk and rebuild again",
            ) from error
        if error.errno == errno.EIO:
            raise DeviceError(f"input/output error at {printable(path)}") from error
        raise


def filesystem_top(root: int, path: bytes) -> bytes:
    """The topmost folder from which things can be renamed to `path`, or could when its missing folders are made.

    That is the top of its filesystem as it is mounted there: a folder that is mounted a second time (bind) is one more.
    """
    with ExitStack() as opened:
        ways = [(b"/", root)]
        with suppress(FileNotFoundError, UnsafePath):
            ways.extend(
                (way, opened.enter_context(opened_folder(root, way))) for way in ancestors(path)[1:]
            )
        top, last = ways.pop()
        while ways and _one_mount(ways[-1][1], last):
            top, _ = ways.pop()
        return top


def _one_mount(above: int, folder: int) -> bool:
    if os.fstat(above).st_dev != os.fstat(folder).st_dev:
        return False
    nothing = STAGING + b"-none"
    try:
        # Two mounts of one filesystem cannot be told apart by it; the kernel says so before it looks for the name.
        os.rename(nothing, nothing, src_dir_fd=above, dst_dir_fd=folder)
    except OSError as error:
        return error.errno != errno.EXDEV
    return True
