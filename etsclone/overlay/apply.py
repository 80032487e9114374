"""Make the scope of a tree what an overlay holds, by executing a `TreePlan` and nothing else.

New files are written in full, with all their metadata, into a private staging folder at the top of the filesystem
where they belong, and are safe on the disk before the first path of the scope changes. Then each takes its place by
one rename. Flags come last of all, since what is immutable cannot be moved; those that are in the way are taken off
and, where the thing stays, put back. What is interrupted is mended by planning and applying again: every step leads
from what is there to what the overlay holds, and none depends on one before it having happened.
"""

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress

from etsclone.errors import ComparisonFailed, EtscloneError, ScopeConflict, UnsafePath
from etsclone.model.scope import Scope
from etsclone.model.tree import (
    STAGING,
    Entry,
    Kind,
    Tree,
    ancestors,
    join,
    name_of,
    parent_of,
    printable,
    twins,
)
from etsclone.overlay.files import (
    drop_attributes,
    filesystem_top,
    mtime_kept,
    opened_file,
    opened_folder,
    opened_root,
    typed_errors,
    working_in,
    write_attributes,
)
from etsclone.overlay.flags import folds_case, unlocked, write_flags
from etsclone.overlay.payload import Payload
from etsclone.overlay.scan import scan
from etsclone.plan.tree import Action, TreeChange, TreePlan, differences

_SHOWN = 5
"""How many differences a failed comparison names."""

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def apply_plan(root: str, plan: TreePlan, payload: Payload) -> None:
    """Execute a plan that was made for this root and this payload.

    Folders outside of the scope keep their times. An empty plan touches nothing.

    Args:
        root: the top of the tree; `/` inside `chroot.in_chroot`.
        plan: from `plan_tree`.
        payload: where the content of its files comes from.

    Raises:
        ScopeConflict: when two paths would be one on the filesystem that they are to be on; nothing has changed.
        TargetFull: no space is left; unless a folder could not be made, no path of the scope has changed.
        UnsafePath: when what was a folder is none any more since the plan was made; it is not followed.
        DeviceError: an input or output error.
        OSError: when the system refuses anything else.
    """
    with typed_errors(b"/"), opened_root(root) as top, _staging(top) as staging:
        for one, other in twins(payload.tree):
            with typed_errors(one):
                staging.check_tells_apart(one, other)
        for change in plan.changes:
            with typed_errors(change.path):
                _prepare(top, change, staging, payload)
        staging.sync()
        for change in plan.changes:
            with typed_errors(change.path):
                _execute(top, change, staging)
        _finish_folders(top, plan)
        _set_flags(top, plan)
        _sync_folders(top, plan)


def verify_scope(root: str, wanted: Tree, scope: Scope, *, skip: Collection[bytes] = ()) -> None:
    """Read the scope of a tree again and compare it with an overlay's; `skip` as in `scan`.

    Raises:
        ComparisonFailed: when they differ; it names the first few paths.
    """
    found = differences(scan(root, scope, skip=skip).scope, wanted)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ComparisonFailed(
            f"the scope is not what the overlay holds: {'; '.join(found[:_SHOWN])}{more}",
            hint="see that nothing else writes to the disk, and rebuild again",
        )


# --- staging -------------------------------------------------------------------------------------------------------


class _Staging:
    """New files on their way: one folder a filesystem, and in it one name for each path of the scope."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._folders: dict[bytes, int] = {}
        self._names: dict[bytes, tuple[int, bytes]] = {}

    def put(self, entry: Entry, payload: Payload) -> None:
        """Make what will stand at the entry's path."""
        folder, name = self._folder_for(entry.path), b"%06d" % len(self._names)
        self._names[entry.path] = folder, name
        if entry.link_to:
            source, leader = self._names[entry.link_to]
            self._link(source, leader, folder, name, entry)
        elif entry.kind is Kind.FILE:
            _write_file(folder, name, entry, payload)
        else:
            _make_special(folder, name, entry)

    def check_tells_apart(self, one: bytes, other: bytes) -> None:
        """Raise `ScopeConflict` when the filesystem that is to hold two paths folds their names.

        The staging folder is asked, and the flag of the folder that they will be in, or that it will inherit.
        """
        folder, path = self._folder_for(one), parent_of(one)
        folds = _folds(folder, one, other)
        for above in (path, *reversed(ancestors(path))):
            with suppress(FileNotFoundError, UnsafePath), opened_folder(self._top, above) as found:
                folds = folds or folds_case(found)
                break
        if folds:
            raise ScopeConflict(
                f"{printable(one)} and {printable(other)} would be one on this filesystem",
                hint="rename one of them on the captured server, and capture again",
            )

    def place(self, path: bytes, parent: int) -> None:
        """Rename what was made for `path` into its folder."""
        folder, name = self._names[path]
        os.rename(name, name_of(path), src_dir_fd=folder, dst_dir_fd=parent)

    def sync(self) -> None:
        """Make the names of the staging folders durable; the files in them are already."""
        for folder in self._folders.values():
            os.fsync(folder)

    def discard(self) -> None:
        """Remove the staging folders with whatever is left in them."""
        for path, folder in self._folders.items():
            os.close(folder)
            _discard(self._top, path)

    def _folder_for(self, path: bytes) -> int:
        staging = join(filesystem_top(self._top, path), STAGING)
        if staging not in self._folders:
            _discard(self._top, staging)
            with _changed_folder(self._top, parent_of(staging)) as parent:
                os.mkdir(STAGING, 0o700, dir_fd=parent)
                flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                self._folders[staging] = os.open(STAGING, flags, dir_fd=parent)
        return self._folders[staging]

    def _link(self, source: int, leader: bytes, folder: int, name: bytes, entry: Entry) -> None:
        if source != folder:
            raise EtscloneError(
                f"{printable(entry.path)} and {printable(entry.link_to or b'')} are one file in the overlay, "
                "but are on two filesystems here",
                hint="make them separate files on the captured server, and capture again",
            )
        os.link(leader, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)


def _folds(folder: int, one: bytes, other: bytes) -> bool:
    """Whether two paths are one to a folder's filesystem; each component that differs is tried as a name."""
    for left, right in zip(one.split(b"/"), other.split(b"/"), strict=True):
        if left == right:
            continue
        os.close(os.open(left, _NEW_FILE, 0o600, dir_fd=folder))
        try:
            os.lstat(right, dir_fd=folder)
        except FileNotFoundError:
            return False
        finally:
            os.unlink(left, dir_fd=folder)
    return True


@contextmanager
def _staging(top: int) -> Iterator[_Staging]:
    staging = _Staging(top)
    try:
        yield staging
    finally:
        staging.discard()


def _discard(top: int, path: bytes) -> None:
    """Remove a staging folder, ours or an older one, or whatever took its name."""
    name = name_of(path)
    with _changed_folder(top, parent_of(path)) as parent:
        try:
            status = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(os.fsdecode(name), dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)


def _write_file(folder: int, name: bytes, entry: Entry, payload: Payload) -> None:
    descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        for offset, piece in payload.pieces(entry.path):
            _write_at(descriptor, piece, offset)
        os.ftruncate(descriptor, entry.size)
        _set_metadata(descriptor, entry)
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


def _set_metadata(descriptor: int, entry: Entry) -> None:
    """The order matters: a change of owner clears setuid and capabilities, and an ACL is part of the mode."""
    os.fchown(descriptor, entry.uid, entry.gid)
    drop_attributes(descriptor, entry.xattrs)
    os.fchmod(descriptor, entry.mode)
    write_attributes(descriptor, entry.xattrs)
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


# --- executing -----------------------------------------------------------------------------------------------------


def _execute(top: int, change: TreeChange, staging: _Staging) -> None:
    if change.action in (Action.CLEAR, Action.RETOUCH):
        return  # before and after everything else
    with _changed_folder(top, parent_of(change.path)) as parent:
        name = name_of(change.path)
        with _unlocked_at(parent, name):
            if change.action is Action.REMOVE:
                _remove(parent, name)
            elif change.action is Action.PARENT:
                _make_parent(parent, name)
            elif change.entry and change.entry.kind is Kind.FOLDER:
                os.mkdir(name, 0o700, dir_fd=parent)
            else:
                staging.place(change.path, parent)


@contextmanager
def _changed_folder(top: int, path: bytes) -> Iterator[int]:
    """A folder whose list of names is to change, and nothing else of it."""
    with opened_folder(top, path) as folder, unlocked(folder), mtime_kept(folder):
        yield folder


@contextmanager
def _unlocked_at(parent: int, name: bytes) -> Iterator[None]:
    """Let what stands at a name, if anything, be removed or replaced; its inode may have other names, which stay."""
    with ExitStack() as opened:
        with suppress(FileNotFoundError, UnsafePath):
            mode = os.lstat(name, dir_fd=parent).st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                how = opened_file if stat.S_ISREG(mode) else opened_folder
                opened.enter_context(unlocked(opened.enter_context(how(parent, name))))
        yield


def _prepare(top: int, change: TreeChange, staging: _Staging, payload: Payload) -> None:
    if change.action is Action.CLEAR:
        _discard(top, change.path)
    elif change.entry and change.entry.kind is not Kind.FOLDER:
        staging.put(change.entry, payload)


def _remove(parent: int, name: bytes) -> None:
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=parent)


def _make_parent(parent: int, name: bytes) -> None:
    os.mkdir(name, 0o755, dir_fd=parent)
    with opened_folder(parent, name) as folder:
        os.fchown(folder, os.geteuid(), os.getegid())
        os.fchmod(folder, 0o755)


def _finish_folders(top: int, plan: TreePlan) -> None:
    """Folders get their metadata when all that they hold is there."""
    made = [
        change.entry for change in plan.changes if change.entry and change.entry.kind is Kind.FOLDER
    ]
    for entry in sorted(made, key=lambda entry: entry.path, reverse=True):
        with typed_errors(entry.path), opened_folder(top, entry.path) as folder, unlocked(folder):
            _set_metadata(folder, entry)
            os.fsync(folder)


def _set_flags(top: int, plan: TreePlan) -> None:
    """Flags of all that is new or retouched; a hard link has those of its first name."""
    for change in plan.changes:
        entry = change.entry
        if not entry or entry.link_to or entry.kind not in (Kind.FILE, Kind.FOLDER):
            continue
        with typed_errors(entry.path), ExitStack() as opened:
            if entry.kind is Kind.FOLDER:
                descriptor = opened.enter_context(opened_folder(top, entry.path))
            else:
                folder = opened.enter_context(opened_folder(top, parent_of(entry.path)))
                descriptor = opened.enter_context(opened_file(folder, name_of(entry.path)))
            if write_flags(descriptor, entry.flags):
                os.fsync(descriptor)


def _sync_folders(top: int, plan: TreePlan) -> None:
    """Make all renames and removals durable."""
    for path in sorted({parent_of(change.path) for change in plan.changes}):
        # A folder that was removed, or became a file, is seen through to the disk with its own parent.
        with suppress(FileNotFoundError, UnsafePath), opened_folder(top, path) as folder:
            os.fsync(folder)
