"""Two small trees that differ in every way that a rebuild can change things, and what becomes of one by the other."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from oracle import STATE_FLAGS, Sight, acl, inode_flags, links, look

from etsclone.model.edit import Edit
from etsclone.model.scope import Scope
from etsclone.overlay.apply import apply_plan
from etsclone.overlay.kept import kept_folders
from etsclone.overlay.payload import Payload, read_payload, write_payload
from etsclone.overlay.scan import scan
from etsclone.plan.tree import plan_tree

SCOPE = Scope(("/etc", "/srv/role", "/new/place"), ("/etc/fstab", "/etc/disk"))
EDITS = (
    Edit(b"/etc/fstab", b"UUID=old\n", b"UUID=new\n", ("the root's UUID",)),
    Edit(b"/boot/grub.cfg", b"root=old\n", b"root=new\n", ("the root's UUID",)),
)
LABEL = "primary, generation 3"
NOW = 1_700_000_000_000_000_000
AS_ROOT = os.geteuid() == 0

Picture = tuple[Sight, set[frozenset[bytes]]]


def put(path: Path, content: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def settle_times(root: Path) -> None:
    """Give everything a time of its own, to the nanosecond."""
    for number, (folder, _, files) in enumerate(sorted(os.walk(root), reverse=True)):
        for name in files:
            time = 10**18 + 1000 * number + len(name)
            os.utime(Path(folder, name), ns=(time, time), follow_symlinks=False)
        os.utime(folder, ns=(number, 10**18 + number))


def make_clone(root: Path) -> None:
    put(root / "etc/hostname", "secondary", 0o600)
    put(root / "etc/becomes-file/deep/x", "gone")
    put(root / "etc/becomes-folder", "gone")
    put(root / "etc/becomes-link", "gone")
    put(root / "etc/gone", "gone")
    put(root / "etc/gone.d/a", "gone")
    put(root / "etc/stays/other-mode", "x")
    put(root / "etc/fstab", "UUID=old\n", 0o640)
    put(root / "etc/disk/own", "the disk's own")
    put(root / "boot/grub.cfg", "root=old\n")
    put(root / "usr/bin/true", "common")
    os.link(root / "etc/hostname", root / "usr/same-inode")
    os.link(root / "etc/gone", root / "etc/gone.d/linked")
    (root / "srv").mkdir()
    os.setxattr(root / "etc", "system.posix_acl_default", acl(88, 7, 0o770))
    os.setxattr(root, "system.posix_acl_default", acl(99, 7, 0o770))
    settle_times(root)
    if AS_ROOT:
        os.setxattr(root / "etc/gone", "trusted.x", b"\0\xff")
        os.chown(root / "etc/gone.d/a", 3, 4)
        inode_flags(root / "etc/gone", STATE_FLAGS["i"])
        inode_flags(root / "etc/becomes-file/deep/x", STATE_FLAGS["a"])
        inode_flags(root / "etc/becomes-file/deep", STATE_FLAGS["i"])
        inode_flags(root / "etc/stays", STATE_FLAGS["i"])
        inode_flags(root / "boot/grub.cfg", STATE_FLAGS["i"] | STATE_FLAGS["d"])


def make_role(root: Path) -> None:
    put(root / "etc/hostname", "primary")
    put(root / "etc/becomes-file", "file")
    put(root / "etc/becomes-folder/x/y", "file")
    (root / "etc/becomes-link").symlink_to("/anywhere")
    put(root / "etc/stays/other-mode", "x", 0o4755)
    put(root / "etc/linked", "two names")
    (root / "srv").mkdir()
    os.link(root / "etc/linked", root / "srv/role")
    put(root / "new/place/for/role", "x")
    os.mkfifo(root / "etc/fifo")
    (root / "etc/stays").chmod(0o750)
    os.setxattr(root / "etc/linked", "system.posix_acl_access", acl(77, 4, 0o640))
    settle_times(root)
    if AS_ROOT:
        os.chown(root / "etc/stays", 5, 6)
        inode_flags(root / "etc/linked", STATE_FLAGS["i"])
        inode_flags(root / "etc/becomes-folder/x", STATE_FLAGS["i"])


@contextmanager
def payload_of(root: Path) -> Iterator[Payload]:
    packed = io.BytesIO()
    write_payload(packed, str(root), scan(str(root), SCOPE).scope)
    packed.seek(0)
    with read_payload(packed, SCOPE) as payload:
        yield payload


def apply(root: Path, payload: Payload) -> None:
    """As a rebuild does it: plan, then execute."""
    seen = scan(str(root), SCOPE)
    plan = plan_tree(seen.scope, payload.tree, SCOPE, seen.outside, kept_folders(str(root)))
    apply_plan(str(root), plan, payload, EDITS, label=LABEL, began="2026-11-28T12:00:00+00:00")


def picture(root: Path) -> Picture:
    """All that a tree is, with nothing of etsclone to look at it; of what is made now, any time will do."""
    sight = look(root)
    new = {path: replace(seen, mtime_ns=NOW) for path, seen in sight.items() if seen.mtime_ns > NOW}
    assert new.keys() <= {b"/new", b"/etc/fstab", b"/boot/grub.cfg"}, new
    return sight | new, links(root)


def unlock(top: Path) -> None:
    """Let everything be removed again."""
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder, name)
            if (path.is_dir() or path.is_file()) and not path.is_symlink() and inode_flags(path):
                inode_flags(path, 0)
