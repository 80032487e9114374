"""Rounds: one private folder a rebuild, with its journal, what it prepared, and what it moved aside.

They are in the staging folder at the top of each filesystem that a rebuild changes; the journal is in that of the root.
A round without a whole journal has changed no path of the system. docs/rebuild-journal.md tells what is where.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from etsclone.errors import FormatError, KeptExposed, ScopeConflict, UnsafePath
from etsclone.model.journal import (
    LIMIT,
    TIMES,
    Journal,
    Progress,
    Steps,
    begun_line,
    half_way,
    head_line,
    parse_journal,
    progress_line,
    step_lines,
)
from etsclone.model.tree import STAGING, join, name_of
from etsclone.overlay.files import (
    chunks,
    mtime_kept,
    opened_file,
    opened_folder,
    opened_root,
)
from etsclone.overlay.flags import unlocked

NEW, OLD, MET = b"new", b"old", b"met"
"""Folders of a round: what is prepared, what was moved aside, and what stood unexpectedly in the way."""

_JOURNAL = b"journal"
_NOTE = "trusted.etsclone.mtime"
_APPEND = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOM = 1 << 20
"""Bytes of a journal that are left for its other lines."""
_CHANGED = (Progress.BEGUN, Progress.UNDOING)


@dataclass(frozen=True, slots=True)
class Round:
    """A rebuild by its number, with what its journal said when it was read; `top` is the root as a descriptor."""

    top: int
    number: int
    journal: Journal

    def folder(self, top: bytes) -> bytes:
        """The round's folder on a filesystem."""
        return join(join(top, STAGING), self._name)

    @property
    def _name(self) -> bytes:
        return b"%06d" % self.number

    def note(self, progress: Progress) -> "Round":
        """Say in the journal, for ever, that the round is this far."""
        self._append(progress_line(progress))
        return replace(self, journal=replace(self.journal, progress=progress))

    def begin(self, steps: Steps) -> "Round":
        """Write down all steps; from here on they are finished or undone, whatever happens.

        Raises:
            ScopeConflict: when they are more than a journal can hold; nothing has changed.
        """
        lines = step_lines(steps)
        if len(lines) > LIMIT - _ROOM:
            raise ScopeConflict(
                "the rebuild would change more paths than its journal can hold",
                hint="remove what is no longer needed in the role's scope on the clone by hand",
            )
        self._append(lines + begun_line(head_line(self.journal) + lines))
        return replace(self, journal=replace(self.journal, steps=steps, progress=Progress.BEGUN))

    def drop(self) -> None:
        """Remove all of the round, its journal last; it must be STAGED or DROPPING."""
        for top in reversed(self.journal.tops or (b"/",)):
            with suppress(FileNotFoundError, UnsafePath):
                self._drop_from(top)

    def _drop_from(self, top: bytes) -> None:
        with opened_folder(self.top, join(top, STAGING)) as staging:
            with suppress(FileNotFoundError), opened_folder(staging, self._name) as folder:
                for each in (NEW, OLD, MET, _JOURNAL):
                    discard(folder, each)
            discard(staging, self._name)
            os.fsync(staging)
        if _is_empty(self.top, join(top, STAGING)):
            drop_staging(self.top, top)

    def _append(self, lines: bytes) -> None:
        with opened_folder(self.top, self.folder(b"/")) as folder:
            descriptor = os.open(_JOURNAL, _APPEND, dir_fd=folder)
            try:
                # What a power cut left of a line must not become part of the next one.
                whole = os.pread(descriptor, os.fstat(descriptor).st_size, 0).rfind(b"\n") + 1
                os.ftruncate(descriptor, whole)
                _write(descriptor, lines)
            finally:
                os.close(descriptor)


def rounds(top: int) -> tuple[Round, ...]:
    """All rounds of a system, the oldest first; also those that never began.

    Raises:
        FormatError: when a journal is damaged.
        KeptExposed: when there is a journal, but not in a private folder.
    """
    try:
        with opened_folder(top, join(b"/", STAGING)) as staging:
            numbers = [int(name) for name in os.listdir(staging) if re.fullmatch(r"\d{6}", name)]
            found = tuple(
                Round(top, number, _read_journal(staging, number)) for number in sorted(numbers)
            )
            if _is_private(staging):
                return found
    except (FileNotFoundError, UnsafePath):
        return ()
    if any(each.journal.tops for each in found):
        # To take it for a leftover would be to remove the only copy of what a rebuild replaced.
        name = f"/{os.fsdecode(STAGING)}"
        raise KeptExposed(
            f"{name} holds what rebuilds keep, but is not a folder of root's that nobody else may enter",
            hint=f"if you trust what is in it: chown root:root {name} && chmod 0700 {name}, on that disk",
        )
    return ()


def newest(found: tuple[Round, ...]) -> Round | None:
    """The last one that changed, or may have changed, the system."""
    begun = [each for each in found if each.journal.progress in (*_CHANGED, Progress.APPLIED)]
    return begun[-1] if begun else None


def undoable(found: tuple[Round, ...]) -> Round | None:
    """The one that undoing undoes. None when the last of all is over: it was undone already, or changed nothing.

    A commit drops the oldest first, so one that is being dropped while older ones are kept is being undone.
    """
    last = newest(found)
    done = last is not None and last.journal.progress is Progress.APPLIED and last is not found[-1]
    return None if done else last


def unfinished_rebuild(root: str) -> str | None:
    """Where the system at `root` is half way to, or back from, in words; None when nothing was interrupted half way.

    It looks at two names and a file, follows no link, and writes nothing: it needs no chroot.

    Raises:
        FormatError, KeptExposed: as `rounds`.
    """
    with opened_root(root) as top:
        last = newest(rounds(top))
        return half_way(last.journal.label, last.journal.progress) or None if last else None


def keeps_rebuild(root: str) -> bool:
    """Whether there is something to undo in the system at `root`. Looks and raises as `unfinished_rebuild`."""
    with opened_root(root) as top:
        return newest(rounds(top)) is not None


def kept_size(found: Round) -> int:
    """How many bytes the files of a round have that were moved aside; sparse ones count with all of their size."""
    size = 0
    for top in found.journal.tops:
        with (
            suppress(FileNotFoundError, UnsafePath),
            opened_folder(found.top, found.folder(top)) as folder,
        ):
            for _, _, names, inside in os.fwalk(OLD, dir_fd=folder):
                seen = (os.lstat(name, dir_fd=inside) for name in names)
                size += sum(each.st_size for each in seen if stat.S_ISREG(each.st_mode))
    return size


def staging_in_use(top: int) -> frozenset[bytes]:
    """The staging folders that hold what a rebuild keeps; all others are leftovers."""
    return frozenset(
        join(each, STAGING)
        for found in rounds(top)
        if found.journal.progress in (*_CHANGED, Progress.APPLIED)
        for each in found.journal.tops
    )


def has_leftovers(top: int, found: tuple[Round, ...]) -> bool:
    """Whether `drop_leftovers` would find anything."""
    with opened_folder(top, b"/") as folder:
        noted = _noted(folder) is not None
    return noted or any(map(_is_over, found)) or _is_empty(top, STAGING)


def drop_leftovers(top: int) -> bool:
    """Remove the rounds that changed nothing or are being dropped, and mend what making them did to the tops.

    Returns whether there was anything.
    """
    found = rounds(top)
    any_left = has_leftovers(top, found)
    for each in filter(_is_over, found):
        each.drop()
    for path in {b"/"}.union(*(each.journal.tops for each in found)):
        with suppress(FileNotFoundError, UnsafePath), opened_folder(top, path) as folder:
            _mend(folder)
    if _is_empty(top, STAGING):
        drop_staging(top, b"/")
    return any_left


def _is_over(found: Round) -> bool:
    return found.journal.progress in (Progress.STAGED, Progress.DROPPING)


def _is_empty(top: int, path: bytes) -> bool:
    with suppress(FileNotFoundError, UnsafePath), opened_folder(top, path) as folder:
        return not os.listdir(folder)
    return False


def new_round(top: int, journal: Journal) -> Round:
    """Make the folders of a new round, with the first line of its journal first of all."""
    number = max((each.number for each in rounds(top)), default=0) + 1
    made = Round(top, number, journal)
    for each in journal.tops:
        with opened_folder(top, each) as above:
            with _mtime_noted(above), suppress(FileExistsError):
                os.mkdir(STAGING, 0o700, dir_fd=above)
            os.fsync(above)
        with _made(top, join(each, STAGING), made.folder(each)) as folder:
            if each == b"/":
                _create(folder, head_line(made.journal))
            for name in (NEW, OLD, MET):
                os.mkdir(name, 0o700, dir_fd=folder)
            os.fsync(folder)
    return made


def check_tops(found: Round) -> None:
    """Make sure that all filesystems of a round are mounted where they were.

    Raises:
        UnsafePath: when one is not.
    """
    for top in found.journal.tops:
        with suppress(FileNotFoundError, UnsafePath), opened_folder(found.top, found.folder(top)):
            continue
        raise UnsafePath(
            f"what an earlier rebuild keeps in {os.fsdecode(found.folder(top))} is not there",
            hint="mount the whole system as it was then: /, /boot, /var and what else it has",
        )


def discard(folder: int, name: bytes) -> None:
    """Remove whatever stands at a name, with all beneath it and whatever flags it has."""
    try:
        status = os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        with opened_folder(folder, name) as found, unlocked(found):
            for each in map(os.fsencode, os.listdir(found)):
                discard(found, each)
            os.rmdir(name, dir_fd=folder)
    elif stat.S_ISREG(status.st_mode):
        with opened_file(folder, name) as found, unlocked(found):
            os.unlink(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


def drop_staging(top: int, path: bytes) -> None:
    """Remove the staging folder, or whatever has its name, from the top of a filesystem."""
    with opened_folder(top, path) as folder, _mtime_noted(folder):
        discard(folder, STAGING)
        os.fsync(folder)


@contextmanager
def _made(top: int, above: bytes, path: bytes) -> Iterator[int]:
    with opened_folder(top, above) as parent:
        os.mkdir(name_of(path), 0o700, dir_fd=parent)
        os.fsync(parent)
        with opened_folder(parent, name_of(path)) as folder:
            yield folder


def _create(folder: int, content: bytes) -> None:
    descriptor = os.open(_JOURNAL, _CREATE, 0o600, dir_fd=folder)
    try:
        _write(descriptor, content)
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _read_journal(staging: int, number: int) -> Journal:
    try:
        with (
            opened_folder(staging, b"%06d" % number) as folder,
            opened_file(folder, _JOURNAL) as file,
        ):
            if os.fstat(file).st_size > LIMIT:
                raise FormatError("the journal of an earlier rebuild is too large to be one")
            return parse_journal(b"".join(bytes(piece) for piece in chunks(file)))
    except (FileNotFoundError, UnsafePath):
        return parse_journal(b"")


def _is_private(folder: int) -> bool:
    status = os.fstat(folder)
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


# --- the time of the folder that holds the staging folder ------------------------------------------------------------


@contextmanager
def _mtime_noted(folder: int) -> Iterator[None]:
    """Give a folder back its time after its list of names was changed; a kill in between is mended by the next run.

    There is no journal yet, or no longer: an attribute of the folder itself, which leaves its time alone, has to do.
    """
    _mend(folder)
    with unlocked(folder):
        try:
            with mtime_kept(folder):
                with suppress(OSError):  # vfat has no attributes, nor a time of its topmost folder
                    os.setxattr(folder, _NOTE, b"%d" % os.fstat(folder).st_mtime_ns)
                yield
        finally:
            with suppress(OSError):
                os.removexattr(folder, _NOTE)


def _mend(folder: int) -> None:
    noted = _noted(folder)
    if noted is not None:
        os.utime(folder, ns=(os.fstat(folder).st_atime_ns, noted))
        os.removexattr(folder, _NOTE)


def _noted(folder: int) -> int | None:
    try:
        noted = int(os.getxattr(folder, _NOTE))
    except (OSError, ValueError):
        return None
    return noted if noted in TIMES else None
