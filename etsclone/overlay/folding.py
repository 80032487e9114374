"""Names that are two to an overlay, or to an overlay and the disk, and one to the filesystem of the disk.

vfat, exFAT, NTFS, and folders of ext4, f2fs and tmpfs that were told to (chattr's F), fold case, composed characters or
both, each by tables of its own. So nothing is computed here: the filesystem is asked, in a folder that folds alike.
"""

import errno
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from etsclone.errors import ScopeConflict
from etsclone.model.tree import STAGING, join, printable, twins
from etsclone.overlay.files import opened_folder
from etsclone.overlay.flags import folds_case, set_folding
from etsclone.overlay.rounds import discard

_EMPTY_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IMPOSSIBLE = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.ENOENT}
"""What filesystems say to a name that they cannot hold: not UTF-8, with a colon (exfat-fuse finds none), too long."""


def check_names(
    path: bytes, folder: int, private: int, coming: Collection[bytes], leaving: Collection[bytes]
) -> None:
    """See that what comes new into a folder will stand there beside all else, under names of its own.

    Args:
        path: what the folder is called.
        folder: where the names will be; nothing is written to it.
        private: a folder of the same filesystem, where they are tried.
        coming: names that the folder does not list.
        leaving: names that it lists, and that are gone before others come: `hosts` may become `Hosts`.

    Raises:
        ScopeConflict: when one of them would take the place of another, or of what stays; or cannot be at all.
    """
    there = listed(folder)
    staying = [name for name in there if name not in leaving]
    # vfat with iocharset=utf8 finds no `fstab` under `FSTAB`, and has no room for both.
    doubtful = {one for one, other in twins([*staying, *coming]) if other in coming} - {*coming}
    with _trial(private, folds=folds_case(folder)) as trial:
        for name in (*doubtful, *coming):
            _try(trial, path, name)
        for name in coming:
            # What has the very name came after the plan was made. A swap knows what to do with it.
            if _exists(folder, name) and name not in there:
                twin = _twin(trial, name, there)
                if twin not in leaving:
                    raise conflict(path, name, twin)


def check_possible(path: bytes, folder: int, name: bytes, error: OSError) -> None:
    """See whether what a private folder could not take, for what `path` will hold, failed because of its name.

    Raises:
        ScopeConflict: when it did.
    """
    if error.errno in _IMPOSSIBLE:
        with _trial(folder, folds=folds_case(folder)) as trial:
            _try(trial, path, name)


def twin_conflict(path: bytes, folder: int, name: bytes) -> ScopeConflict:
    """The refusal of a name that a private folder, for what `path` will hold, has already."""
    return conflict(path, name, _twin(folder, name, listed(folder)))


@contextmanager
def _trial(private: int, *, folds: bool) -> Iterator[int]:
    """An empty folder that folds names as another one of its filesystem does; no overlay has its name."""
    os.mkdir(STAGING, 0o700, dir_fd=private)
    try:
        with opened_folder(private, STAGING) as trial:
            set_folding(trial, folds=folds)
            yield trial
    finally:
        discard(private, STAGING)


def _try(trial: int, path: bytes, name: bytes) -> None:
    try:
        _create(trial, name)
    except FileExistsError as error:
        raise twin_conflict(path, trial, name) from error
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        raise impossible(path, name) from error


def _exists(folder: int, name: bytes) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def listed(folder: int) -> list[bytes]:
    """The names in a folder as it lists them."""
    return [os.fsencode(name) for name in os.listdir(folder)]


def _twin(folder: int, name: bytes, among: Iterable[bytes]) -> bytes | None:
    """Which other name is the same where a private folder is; None where none is (vfat has short names, too).

    By names alone: FUSE gives each its own number of an inode.
    """
    with _trial(folder, folds=folds_case(folder)) as trial:
        _create(trial, name)
        for each in among:
            try:
                _create(trial, each)
            except FileExistsError:
                if each != name:
                    return each
            else:
                os.unlink(each, dir_fd=trial)
    return None


def _create(folder: int, name: bytes) -> None:
    os.close(os.open(name, _EMPTY_FILE, 0o600, dir_fd=folder))


def impossible(path: bytes, name: bytes) -> ScopeConflict:
    """The refusal of a name that the filesystem of the folder `path` cannot hold."""
    return ScopeConflict(
        f"this filesystem cannot hold the name {printable(join(path, name))}",
        hint="rename it on the captured server and capture again, or take another filesystem",
    )


def conflict(path: bytes, name: bytes, twin: bytes | None) -> ScopeConflict:
    """The refusal of a name in the folder `path` that its filesystem takes for `twin`; None where that is not known."""
    other = "what is there" if twin is None else printable(join(path, twin))
    return ScopeConflict(
        f"{other} and {printable(join(path, name))} would be one on this filesystem",
        hint="rename one of them, here or on the captured server, and capture again",
    )
