"""Let paths change hands, forwards or backwards, as a journal says. Each step sees by itself whether it was done.

A kill, or a loss of power, may come at any moment: what is interrupted is done again from the start, in either
direction. Things move by rename and link only, so that what was there before comes back as it was, with all its names.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from etsclone.errors import TargetChanged
from etsclone.model.journal import Standing, Stay, Swap
from etsclone.model.tree import join, name_of, parent_of, printable
from etsclone.overlay.files import (
    drop_attributes,
    opened_any,
    opened_folder,
    typed_errors,
    write_attributes,
)
from etsclone.overlay.flags import unlock, write_flags
from etsclone.overlay.rounds import MET, NEW, OLD, Round, check_tops, discard

_EMPTY_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What filesystems say that have no hard links (vfat), or no more of them for this file."""


def forwards(found: Round) -> None:
    """Let all that is prepared take its place, and move aside what was there; safe on the disk when this returns.

    Raises:
        UnsafePath: when a filesystem of the round is not mounted, or what was a folder is none.
        TargetChanged: when a folder is gone since the round began.
        TargetFull, DeviceError: it can be called again, or `backwards`.
    """
    steps = found.journal.steps
    with _at_hand(found) as shelves:
        for number, swap in enumerate(steps.swaps):
            with _folder(found.top, parent_of(swap.path)) as parent:
                _take_over(swap, b"%06d" % number, parent, shelves[swap.top])
        for lock in steps.locks:
            with _folder(found.top, parent_of(lock.path)) as parent:
                _write_flags_at(parent, name_of(lock.path), lock.flags)
        for stay in steps.stays:
            with _folder(found.top, stay.path) as folder:
                _stand(folder, stay, stay.after)


def backwards(found: Round) -> None:
    """Let all that was moved aside take its place again. Raises as `forwards`."""
    steps = found.journal.steps
    with _at_hand(found) as shelves:
        for number, swap in reversed(list(enumerate(steps.swaps))):
            with _folder(found.top, parent_of(swap.path)) as parent:
                _give_back(swap, b"%06d" % number, parent, shelves[swap.top])
        for stay in steps.stays:
            with _folder(found.top, stay.path) as folder:
                _stand(folder, stay, stay.before)


# --- one path ------------------------------------------------------------------------------------------------------


class _Shelf:
    """The folders of a round on one filesystem, opened."""

    def __init__(self, new: int, old: int, met: int) -> None:
        self.new = new
        self.old = old
        self.met = met

    def sync(self) -> None:
        for folder in (self.new, self.old, self.met):
            os.fsync(folder)


def _take_over(swap: Swap, number: bytes, parent: int, shelf: _Shelf) -> None:
    name = name_of(swap.path)
    waits = swap.new and _exists(shelf.new, number)
    replaced = waits and not _is_folder(shelf.new, number)
    if swap.old and not _exists(shelf.old, number) and (waits or not swap.new):
        _put_aside(parent, name, shelf.old, number, replaced=replaced)
    if waits:
        if not _are_one(parent, name, shelf.old, number):
            # After a kill the disk may have been booted, and something else been made here.
            _put_aside(parent, name, shelf.met, number, replaced=replaced)
        _move(shelf.new, number, parent, name)
    if swap.flags:
        _write_flags_at(shelf.old, number, swap.flags)


def _give_back(swap: Swap, number: bytes, parent: int, shelf: _Shelf) -> None:
    name = name_of(swap.path)
    waits = swap.old and _exists(shelf.old, number)
    replaced = waits and not _is_folder(shelf.old, number)
    if waits and _are_one(parent, name, shelf.old, number):
        # It was about to be replaced and still is here. A rename between two names of one file does nothing.
        discard(shelf.old, number)
        waits = False
    elif (
        swap.new
        and not _exists(shelf.new, number)
        and not _put_aside(parent, name, shelf.new, number, replaced=replaced)
    ):
        # Somebody removed it since. That it is not there to be moved must be seen after a kill, too.
        os.close(os.open(number, _EMPTY_FILE, 0o600, dir_fd=shelf.new))
    if waits:
        if not _are_one(parent, name, shelf.new, number):
            _put_aside(parent, name, shelf.met, number + b"-undone", replaced=replaced)
        _move(shelf.old, number, parent, name)
    if swap.flags:
        _write_flags_at(parent, name, swap.flags)


def _put_aside(source: int, name: bytes, target: int, new_name: bytes, *, replaced: bool) -> bool:
    """Move something aside; returns whether there was anything.

    What is going to be `replaced` by a rename keeps its name until then where it can have a second one, so that there
    is no moment without a file of that name: without its fstab, a system is not even seen to be one.
    """
    return (replaced and _link(source, name, target, new_name)) or _move(
        source, name, target, new_name
    )


def _link(source: int, name: bytes, target: int, new_name: bytes) -> bool:
    """Give what is no folder a second name; False where there is none, or none can be given."""
    try:
        with opened_any(source, name) as found:
            if found is not None:
                if stat.S_ISDIR(os.fstat(found).st_mode):
                    return False
                unlock(found)
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EEXIST:
            return _are_one(source, name, target, new_name)
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def _move(source: int, name: bytes, target: int, new_name: bytes) -> bool:
    """Rename something, whatever its flags; it loses those that forbid it. Returns whether there was anything."""
    with suppress(FileNotFoundError):
        with opened_any(source, name) as found:
            if found is not None:
                unlock(found)
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        return True
    return False


def _write_flags_at(folder: int, name: bytes, flags: tuple[str, ...]) -> None:
    with suppress(FileNotFoundError), opened_any(folder, name) as found:
        if found is not None and write_flags(found, flags):
            os.fsync(found)


def _exists(folder: int, name: bytes) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _is_folder(folder: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)


def _are_one(folder: int, name: bytes, other: int, other_name: bytes) -> bool:
    """Whether two names are of one file."""
    try:
        one, two = os.lstat(name, dir_fd=folder), os.lstat(other_name, dir_fd=other)
    except FileNotFoundError:
        return False
    return os.path.samestat(one, two)


# --- folders -------------------------------------------------------------------------------------------------------


@contextmanager
def _at_hand(found: Round) -> Iterator[dict[bytes, _Shelf]]:
    """Let the folders be changed, and in the end make all that changed durable."""
    check_tops(found)
    with ExitStack() as opened:
        shelves = {}
        for top in found.journal.tops:
            names = (join(found.folder(top), name) for name in (NEW, OLD, MET))
            shelves[top] = _Shelf(
                *(opened.enter_context(opened_folder(found.top, name)) for name in names)
            )
        for stay in found.journal.steps.stays:
            with _folder(found.top, stay.path) as folder:
                unlock(folder)
        yield shelves
        for shelf in shelves.values():
            shelf.sync()


@contextmanager
def _folder(top: int, path: bytes) -> Iterator[int]:
    with typed_errors(path):
        try:
            with opened_folder(top, path) as folder:
                yield folder
        except FileNotFoundError as error:
            raise TargetChanged(
                f"{printable(path)} is not what it was when the rebuild of this disk began",
                hint="make it a folder again, and run the same command again",
            ) from error


def _stand(folder: int, stay: Stay, wanted: Standing) -> None:
    """Make a folder what it was or is to be; its flags last, since they may forbid the rest."""
    if stay.is_changed:
        os.fchown(folder, wanted.uid, wanted.gid)
        drop_attributes(folder, wanted.xattrs)
        os.fchmod(folder, wanted.mode)
        write_attributes(folder, wanted.xattrs)
    os.utime(folder, ns=(os.fstat(folder).st_atime_ns, wanted.mtime_ns))
    write_flags(folder, wanted.flags)
    os.fsync(folder)
