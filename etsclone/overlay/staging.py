"""Prepare what a rebuild puts in place: new files, links and whole new folders, complete with all their metadata.

Each lies in the private folder of its filesystem, and is safe on the disk before the first path of the system changes.
Only flags that would forbid to move it are left for later.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from etsclone.errors import EtscloneError
from etsclone.model.edit import Edit
from etsclone.model.tree import Entry, Kind, join, name_of, parent_of, printable
from etsclone.overlay.edits import write_edited
from etsclone.overlay.files import (
    drop_attributes,
    opened_file,
    opened_folder,
    typed_errors,
    working_in,
    write_attributes,
)
from etsclone.overlay.flags import LOCKS, write_flags
from etsclone.overlay.folding import check_names, check_possible, twin_conflict
from etsclone.overlay.rounds import NEW, Round, discard
from etsclone.plan.steps import Handover, below

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PROBE = b"probe"


class Content(Protocol):
    """Where the content of files comes from: a `Payload`, for one."""

    def pieces(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The stored bytes of a file that is no hard link: (offset in the file, bytes). The rest is holes."""


class Staging:
    """What is prepared in a round. Paths are those of the system; where each is prepared is this class's matter.

    Args:
        found: the round, its folders made.
        tops: for each path that changes hands the topmost folder of its filesystem, in the order of the journal.
    """

    def __init__(self, found: Round, tops: Mapping[bytes, bytes]) -> None:
        self._round = found
        self._top = found.top
        self._tops = tops
        self._numbers = {path: b"%06d" % number for number, path in enumerate(tops)}

    def put(self, entry: Entry, payload: Content) -> None:
        """Make what will stand at the entry's path. Of a folder the metadata is set by `finish`."""
        with self._prepared(entry.path) as (folder, name):
            if entry.link_to:
                self._link(folder, name, entry)
            elif entry.kind is Kind.FILE:
                _write_file(folder, name, entry, payload)
            elif entry.kind is Kind.FOLDER:
                os.mkdir(name, 0o700, dir_fd=folder)
            else:
                _make_special(folder, name, entry)

    def put_parent(self, path: bytes) -> None:
        """Make a folder that is nobody's: with mode 0755 and root as its owner."""
        with self._prepared(path) as (folder, name):
            os.mkdir(name, 0o755, dir_fd=folder)
            with opened_folder(folder, name) as made:
                os.fchown(made, os.geteuid(), os.getegid())
                drop_attributes(made, ())
                os.fchmod(made, 0o755)

    def put_edited(self, edit: Edit) -> None:
        """Make a file of the system anew, with other content."""
        place = self._place(edit.path)
        with (
            opened_folder(self._top, parent_of(edit.path)) as folder,
            opened_file(folder, name_of(edit.path)) as old,
            opened_folder(self._top, parent_of(place)) as prepared,
        ):
            new = os.open(name_of(place), _NEW_FILE, 0o600, dir_fd=prepared)
            try:
                flags = write_edited(old, new, edit)
                _try_flags(new, flags)
                os.fsync(new)
            finally:
                os.close(new)

    def finish(self, folders: Sequence[Entry], parents: Collection[bytes]) -> None:
        """Give new folders their metadata, now that they hold all they will; and make all names durable."""
        own = {entry.path: entry for entry in folders}
        for path in sorted(own.keys() | set(parents), reverse=True):
            with opened_folder(self._top, self._place(path)) as folder:
                if path in own:
                    set_metadata(folder, own[path])
                    _try_flags(folder, own[path].flags)
                os.fsync(folder)
        for top in set(self._tops.values()):
            with opened_folder(self._top, join(self._round.folder(top), NEW)) as folder:
                os.fsync(folder)

    def try_out(self, entry: Entry, top: bytes) -> None:
        """See that a filesystem can hold the metadata of a folder, before anything depends on it."""
        with opened_folder(self._top, join(self._round.folder(top), NEW)) as folder:
            os.mkdir(_PROBE, 0o700, dir_fd=folder)
            try:
                with opened_folder(folder, _PROBE) as probe:
                    set_metadata(probe, entry)
                    _try_flags(probe, entry.flags)
            finally:
                discard(folder, _PROBE)

    def check_names(self, handovers: Collection[Handover]) -> None:
        """Raise `ScopeConflict` where a filesystem would take what comes new for something else that is there then."""
        folders: dict[bytes, list[Handover]] = {}
        for each in handovers:
            folders.setdefault(parent_of(each.path), []).append(each)
        for path, changes in folders.items():
            coming = [name_of(each.path) for each in changes if not each.old]
            leaving = {name_of(each.path) for each in changes if not each.new}
            if coming:
                private = join(self._round.folder(self._tops[changes[0].path]), NEW)
                with (
                    typed_errors(path),
                    opened_folder(self._top, path) as folder,
                    opened_folder(self._top, private) as trials,
                ):
                    check_names(path, folder, trials, coming, leaving)

    @contextmanager
    def _prepared(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Where to prepare what will be at a path: a folder, and the name in it.

        Raises:
            ScopeConflict: when the filesystem takes that for the name of something prepared before, or cannot hold it.
        """
        place = self._place(path)
        with opened_folder(self._top, parent_of(place)) as folder:
            try:
                yield folder, name_of(place)
            except FileExistsError as error:
                raise twin_conflict(parent_of(path), folder, name_of(place)) from error
            except OSError as error:
                check_possible(parent_of(path), folder, name_of(place), error)
                raise

    def _place(self, path: bytes) -> bytes:
        """Where what will be at a path is prepared: itself, or within the new folder that it is part of."""
        top = below(path, self._tops)
        folder = join(self._round.folder(self._tops[top]), NEW)
        return join(folder, self._numbers[top]) + path[len(top) :]

    def _link(self, folder: int, name: bytes, entry: Entry) -> None:
        leader = entry.link_to or b""
        if self._tops[below(leader, self._tops)] != self._tops[below(entry.path, self._tops)]:
            raise EtscloneError(
                f"{printable(entry.path)} and {printable(leader)} are one file in the overlay, "
                "but are on two filesystems here",
                hint="make them separate files on the captured server, and capture again",
            )
        place = self._place(leader)
        with opened_folder(self._top, parent_of(place)) as source:
            os.link(
                name_of(place), name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False
            )


def set_metadata(descriptor: int, entry: Entry) -> None:
    """Give a file or folder what an entry says, but for its flags.

    The order matters: a change of owner clears setuid and capabilities, and an ACL is part of the mode.
    """
    os.fchown(descriptor, entry.uid, entry.gid)
    drop_attributes(descriptor, entry.xattrs)
    os.fchmod(descriptor, entry.mode)
    write_attributes(descriptor, entry.xattrs)
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def _try_flags(descriptor: int, flags: tuple[str, ...]) -> None:
    """Set flags, and take those off again that would forbid to move it."""
    write_flags(descriptor, flags)
    write_flags(descriptor, tuple(flag for flag in flags if flag not in LOCKS))


def _write_file(folder: int, name: bytes, entry: Entry, payload: Content) -> None:
    descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        for offset, piece in payload.pieces(entry.path):
            _write_at(descriptor, piece, offset)
        os.ftruncate(descriptor, entry.size)
        set_metadata(descriptor, entry)
        _try_flags(descriptor, entry.flags)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, piece: bytes, offset: int) -> None:
    rest = memoryview(piece)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def _make_special(folder: int, name: bytes, entry: Entry) -> None:
    """Symbolic links, fifos, devices: what must not be opened is reached by its name in the working folder."""
    with working_in(folder):
        if entry.target is not None:
            os.symlink(entry.target, name)
        elif entry.device:
            kind = stat.S_IFCHR if entry.kind is Kind.CHAR_DEVICE else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(*entry.device))
        else:
            os.mkfifo(name, 0o600)
        os.chown(name, entry.uid, entry.gid, follow_symlinks=False)
        drop_attributes(name, entry.xattrs)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(name, entry.mode)
        write_attributes(name, entry.xattrs)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
