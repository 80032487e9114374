"""Execute edits: each file is written aside in full, made durable, and takes its place by one rename."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from etsclone.errors import ComparisonFailed, TargetChanged
from etsclone.model.edit import Edit
from etsclone.model.tree import STAGING, name_of, parent_of, printable
from etsclone.overlay.files import (
    chunks,
    drop_attributes,
    mtime_kept,
    opened_file,
    opened_folder,
    opened_root,
    read_attributes,
    typed_errors,
    write_attributes,
)
from etsclone.overlay.flags import read_flags, unlocked, write_flags

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def apply_edits(root: str, edits: Iterable[Edit]) -> None:
    """Give files their new content; what has it already is left as it is, so this can be repeated after a crash.

    Raises:
        TargetChanged: when a file is neither as it was when the edit was made, nor as it is to be.
        UnsafePath, FileNotFoundError: when there is no such file, or a link leads to it.
        TargetFull, DeviceError: the file at hand is as it was.
    """
    with opened_root(root) as top:
        for edit in edits:
            with typed_errors(edit.path), opened_folder(top, parent_of(edit.path)) as folder:
                if _needed(folder, edit):
                    with unlocked(folder), mtime_kept(folder):
                        _rewrite(folder, edit)
                    os.fsync(folder)


def verify_edits(root: str, edits: Iterable[Edit]) -> None:
    """Read edited files again.

    Raises:
        ComparisonFailed: when one is not as it is to be.
    """
    with opened_root(root) as top:
        for edit in edits:
            with typed_errors(edit.path), opened_folder(top, parent_of(edit.path)) as folder:
                if _content(folder, edit) != edit.after:
                    raise ComparisonFailed(
                        f"{printable(edit.path)} is not as it was edited",
                        hint="see that nothing else writes to the disk, and rebuild again",
                    )


def needed_edits(top: int, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Those that files do not have yet. Raises as `apply_edits`, before anything is written."""
    needed = []
    for edit in edits:
        with opened_folder(top, parent_of(edit.path)) as folder:
            if _needed(folder, edit):
                needed.append(edit)
    return tuple(needed)


def _needed(folder: int, edit: Edit) -> bool:
    content = _content(folder, edit)
    if content not in (edit.before, edit.after):
        raise TargetChanged(
            f"{printable(edit.path)} changed since the plan was shown", hint="start again"
        )
    return content == edit.before


def _content(folder: int, edit: Edit) -> bytes:
    with opened_file(folder, name_of(edit.path)) as descriptor:
        return b"".join(bytes(piece) for piece in chunks(descriptor))


def _rewrite(folder: int, edit: Edit) -> None:
    name, aside = name_of(edit.path), STAGING + b"-" + name_of(edit.path)
    with opened_file(folder, name) as old, _new_file(folder, aside) as new:
        flags = write_edited(old, new, edit)
        os.fsync(new)
        with unlocked(old):
            os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
        write_flags(new, flags)  # what is immutable could not have been moved


def write_edited(old: int, new: int, edit: Edit) -> tuple[str, ...]:
    """Write the content of an edit and the metadata of the old file into a new one; returns the flags it is to get."""
    status = os.fstat(old)
    _write(new, edit.after)
    os.fchown(new, status.st_uid, status.st_gid)
    attributes = read_attributes(old, every=True)  # it stays on its filesystem
    drop_attributes(new, attributes)
    os.fchmod(new, status.st_mode & 0o7777)
    write_attributes(new, attributes)
    return read_flags(old)


@contextmanager
def _new_file(folder: int, name: bytes) -> Iterator[int]:
    """A file to be renamed; what of it is left, by this run or one that was killed, is removed."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
