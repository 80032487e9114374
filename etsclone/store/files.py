"""Files on media that may be full, read-only, pulled out or cut from power: locked, written aside, synced, renamed.

Works on vfat and exfat too, which have no owners and no hard links: nothing is ever linked, and that no file is
replaced is checked under the lock.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etsclone.errors import (
    DigestMismatch,
    EtscloneError,
    StoreFull,
    StoreRefused,
    TargetChanged,
    medium_error,
)
from etsclone.regular import UnfitFileError, check_amount, open_regular
from etsclone.units import MIB

LOCK_NAME = ".lock"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_CHUNK = MIB


@contextlib.contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about writing to `path`, or reading it, into what etsclone says.

    Raises:
        StoreFull: for no space (or quota, or a file too large for the filesystem).
        StoreRefused: for read-only media, missing rights, and what is no regular file, or too large a one.
        DeviceError: for media that fail or are gone.
        OSError: anything else, as it is.
    """
    try:
        yield
    except OSError as error:
        typed = _typed(error, path)
        if typed is None:
            raise
        raise typed from error


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder's lock, so that no other process writes there. It ends with the process, however that ends.

    Raises:
        StoreRefused: when another process holds it (unless `wait`), or the folder cannot be written to.
    """
    with typed_errors(folder):
        descriptor = open_regular(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    try:
        _lock(descriptor, folder, wait=wait)
        yield
    finally:
        os.close(descriptor)


def aside_name(name: str) -> str:
    """What a file is called while it is written.

    Always the same, so that what a killed writer left is found, and removed, by the next one of that name; and for no
    two files the same, so that writers of different files in one folder need no lock.
    """
    return f".{name}.new"


class NewFile:
    """A file (mode 0600) that is written aside and gets its name only when it is complete. See `aside`."""

    __slots__ = ("_made", "_replace", "committed", "file", "target")

    def __init__(self, target: Path, *, replace: bool) -> None:
        self.target = target
        self.committed = False
        self._replace = replace
        with typed_errors(target):
            self._temporary.unlink(missing_ok=True)
            self.file = io.BufferedWriter(_TypedFile(self._temporary, target))
            self._made = os.fstat(self.file.fileno())

    @property
    def _temporary(self) -> Path:
        return self.target.with_name(aside_name(self.target.name))

    def commit(self) -> None:
        """Give the file its name, once it is safe on the medium.

        Raises:
            StoreRefused: when the name is taken and must not be, or somebody took the file away meanwhile.
            StoreFull, DeviceError: as `typed_errors`; the name then still means what it meant before.
        """
        with typed_errors(self.target):
            self._sync()
            self.file.close()
            if not self._replace and os.path.lexists(self.target):
                raise StoreRefused(
                    f"{self.target} exists already",
                    hint="it is never overwritten: remove it yourself",
                )
            self._temporary.rename(self.target)
            sync_folder(self.target.parent)
        self.committed = True

    def read_back(self) -> str:
        """The sha256 (hex) of what was written so far, as the medium gives it back once it was made durable.

        Raises:
            StoreRefused: when somebody took the file away meanwhile.
            StoreFull, DeviceError: as `typed_errors`.
        """
        with typed_errors(self.target):
            self._sync()
            with self._temporary.open("rb", buffering=0) as file:
                # What is safe on the medium need not stay in memory: it is to be read from where it will be kept.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                return hashlib.file_digest(file, "sha256").hexdigest()

    def _is_there(self) -> bool:
        """Whether the file still has the name that it was made with, and no other writer's does."""
        try:
            return os.path.samestat(self._temporary.lstat(), self._made)
        except FileNotFoundError:
            return False

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        if not self._is_there():
            raise StoreRefused(
                f"{self.target} was taken away while it was written",
                hint="another computer wrote there too, whom the lock of this filesystem does not keep out:"
                " let them write one after the other",
            )

    def discard(self) -> None:
        """Remove what was written, if the medium still lets us."""
        # The raw file: closing the buffered one would try to write its rest, and fail as the write before did.
        self.file.raw.close()
        with contextlib.suppress(OSError):
            if self._is_there():
                self._temporary.unlink()


@contextlib.contextmanager
def aside(target: Path, *, replace: bool = False) -> Iterator[NewFile]:
    """A new file for `target`; unless it is committed in the context, nothing of it stays. Hold the folder's lock.

    Raises:
        StoreFull, StoreRefused, DeviceError: as `typed_errors`, also from writing to its `file`.
    """
    new = NewFile(target, replace=replace)
    try:
        yield new
    finally:
        if not new.committed:
            new.discard()


def replace_text(path: Path, text: str) -> None:
    """Replace a small UTF-8 file in one step: after a power cut it is the old one or the new one. Hold the lock.

    Raises:
        StoreFull, StoreRefused, DeviceError: as `typed_errors`; the old file is untouched.
    """
    with aside(path, replace=True) as new:
        new.file.write(text.encode("utf-8"))
        new.commit()


def copy_file(
    source: Path,
    target: Path,
    *,
    size: int | None = None,
    most: int | None = None,
    replace: bool = False,
) -> int:
    """Copy a file in one step, read it back from the medium, and return its size (bytes). Hold the target's lock.

    Args:
        source: the file.
        target: what it becomes.
        size: how many bytes it must have.
        most: how many bytes it may have; of one with more, no more are read.
        replace: whether there may be such a file already.

    Raises:
        TargetChanged: when the source has not, or no longer, the `size` given; nothing of the target stays.
        DigestMismatch: when the medium gives back other bytes; nothing of the target stays.
        StoreFull, StoreRefused, DeviceError: as `typed_errors`.
    """
    digest, copied = hashlib.sha256(), 0
    with (
        typed_errors(source),
        open(open_regular(source), "rb") as file,
        aside(target, replace=replace) as new,
    ):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            copied += len(chunk)
            if most is not None:
                check_amount(copied, most, source)
            new.file.write(chunk)
        if size not in (None, copied):
            raise TargetChanged(
                f"{source} was pruned or removed meanwhile", hint="run the command again"
            )
        if new.read_back() != digest.hexdigest():
            raise DigestMismatch(
                f"{target} cannot be read back as it was written", hint="take another medium"
            )
        new.commit()
    return copied


def cut_off(path: Path, name: str, size: int) -> Path:
    """Give a file another name in its folder, then keep only its first `size` bytes. Hold the folder's lock.

    Nothing is written: it works on a full medium. After a power cut the file may have its new name and all its bytes.

    Raises:
        StoreRefused, DeviceError: as `typed_errors`.
    """
    target = path.with_name(name)
    with typed_errors(path):
        if path != target:
            path.rename(target)
            sync_folder(path.parent)
        descriptor = os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return target


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder. Hold its lock: then nobody else is writing.

    Raises:
        StoreRefused, DeviceError: as `typed_errors`.
    """
    with typed_errors(folder):
        for left in folder.glob(aside_name("*")):
            left.unlink()


class _TypedFile(io.FileIO):
    """A new file, opened to write, whose errors are those of `typed_errors`."""

    def __init__(self, temporary: Path, target: Path) -> None:
        super().__init__(temporary, "x", opener=_open_private)
        self._target = target

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer; Python 3.11 has no name for that
        with typed_errors(self._target):
            return super().write(data)


def _lock(descriptor: int, folder: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise StoreRefused(
            f"another process is writing to {folder}",
            hint="run the same command again when it has finished;"
            f" lslocks(8) tells which one holds {folder / LOCK_NAME}",
        ) from error
    except OSError as error:
        raise StoreRefused(
            f"{folder} cannot be locked: {error.strerror}", hint="take a medium that can"
        ) from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some FUSE filesystems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _typed(error: OSError, path: Path) -> EtscloneError | None:
    if isinstance(error, UnfitFileError | IsADirectoryError):
        return StoreRefused(
            f"{error.filename}: {error.strerror}",
            hint="no etsclone put it there: find out who did, and remove it",
        )
    if error.errno in _FULL:
        return StoreFull(
            f"no space left for {path}", hint="remove old generations, or take a larger medium"
        )
    if error.errno == errno.EROFS:
        return StoreRefused(
            f"{path} lies on a read-only medium",
            hint="look for a write-protect switch, or remount it",
        )
    if error.errno in _FORBIDDEN:
        return StoreRefused(
            f"no right to use {path}", hint="run the command again with sudo, or as root"
        )
    return medium_error(error, path)
