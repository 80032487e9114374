"""Applying a plan: what it touches, what it leaves alone, and what happens when it is stopped."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from oracle import Sight, acl, links, look

from etsclone.errors import ComparisonFailed, DeviceError, TargetFull, UnsafePath
from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.kept import commit, look_kept
from etsclone.overlay.kept import settle as settle_kept
from etsclone.overlay.payload import Payload, read_payload, write_payload
from etsclone.overlay.scan import scan
from etsclone.plan.tree import TreePlan, plan_tree
from etsclone.units import MIB

SCOPE = Scope(("/etc", "/srv/role", "/new/place/for/role"), ("/etc/fstab", "/etc/grub.d"))
AS_ROOT = os.geteuid() == 0
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


Overlay = Callable[[Path], Payload]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etsclone.overlay.payload.LEVEL", 1)


def put(path: Path, content: str = "", mode: int = 0o644, mtime_ns: int = 10**18 + 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def settle(root: Path) -> None:
    """Give every folder a time of its own."""
    for number, (folder, _, _) in enumerate(sorted(os.walk(root), reverse=True)):
        os.utime(folder, ns=(number, 10**18 + number))


@pytest.fixture
def role(tmp_path: Path) -> Path:
    root = tmp_path / "role"
    put(root / "etc/hostname", "primary")
    put(root / "etc/becomes-file", "file")
    put(root / "etc/becomes-folder/x/y", "file")
    (root / "etc/becomes-link").symlink_to("/anywhere")
    os.utime(root / "etc/becomes-link", ns=(5, 5), follow_symlinks=False)
    put(root / "etc/setuid", "x", 0o4755)
    os.setxattr(put(root / "etc/acl", "x", 0o640), "system.posix_acl_access", acl(77, 4, 0o640))
    put(root / "etc/linked", "two names")
    (root / "srv").mkdir()
    os.link(root / "etc/linked", root / "srv/role")
    put(root / "etc/grub.d/role-only", "the disk's")
    put(root / "new/place/for/role/x", "x")
    os.mkfifo(root / "etc/fifo")
    with put(root / "etc/sparse").open("r+b") as file:
        file.truncate(10 * MIB)
        file.seek(5 * MIB)
        file.write(b"island")
    if AS_ROOT:
        os.chown(root / "etc/setuid", 7, 8)
        os.chmod(root / "etc/setuid", 0o4755)
        os.setxattr(root / "etc/setuid", "security.capability", CAPABILITY)
        os.setxattr(root / "etc/becomes-link", "trusted.x", b"on a link", follow_symlinks=False)
        os.mknod(root / "etc/null", 0o20666, os.makedev(1, 3))
        os.chown(root / "etc/becomes-link", 9, 9, follow_symlinks=False)
    settle(root)
    return root


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    put(root / "etc/hostname", "secondary")
    put(root / "etc/becomes-file/deep/x", "gone")
    put(root / "etc/becomes-folder", "gone")
    put(root / "etc/becomes-link", "gone")
    put(root / "etc/gone", "gone")
    put(root / "etc/fstab", "the disk's own")
    put(root / "etc/grub.d/own", "the disk's own")
    put(root / "usr/bin/true", "common")
    os.link(root / "etc/hostname", root / "usr/same-inode")
    (root / "srv").mkdir()
    # What is made in a folder inherits its default ACL: the overlay must win.
    os.setxattr(root / "etc", "system.posix_acl_default", acl(88, 7, 0o770))
    os.setxattr(root, "system.posix_acl_default", acl(99, 7, 0o770))
    settle(root)
    return root


@pytest.fixture
def overlay() -> Iterator[Overlay]:
    """What capture makes of a tree and rebuild reads, without the signed envelope."""
    with ExitStack() as payloads:

        def make(root: Path) -> Payload:
            packed = io.BytesIO()
            write_payload(packed, str(root), scan(str(root), SCOPE).scope)
            packed.seek(0)
            return payloads.enter_context(read_payload(packed, SCOPE))

        yield make


def plan(root: Path, payload: Payload) -> TreePlan:
    seen = scan(str(root), SCOPE)
    return plan_tree(seen.scope, payload.tree, SCOPE, seen.outside)


def rebuild(root: Path, payload: Payload) -> None:
    """Without anything left to undo, which test_undo.py is about."""
    made = plan(root, payload)
    apply_plan(str(root), made, payload)
    verify_scope(str(root), payload.tree, SCOPE)
    if made.changes and look_kept(str(root)):
        commit(str(root))


def scope_of(sight: Sight) -> Sight:
    return {path: seen for path, seen in sight.items() if path in SCOPE}


def outside_of(sight: Sight) -> Sight:
    return {path: seen for path, seen in sight.items() if path not in SCOPE}


def test_the_scope_becomes_the_role_and_the_rest_stays(
    clone: Path, role: Path, overlay: Overlay
) -> None:
    before = look(clone)
    rebuild(clone, overlay(role))
    after = look(clone)
    assert scope_of(after) == scope_of(look(role))
    made = {b"/new", b"/new/place", b"/new/place/for"}
    assert {
        path: seen for path, seen in outside_of(after).items() if path not in made
    } == outside_of(before)
    assert {after[path].mode for path in made} == {0o40755}
    assert frozenset({b"/etc/linked", b"/srv/role"}) in links(clone)
    assert (clone / "usr/same-inode").read_text() == "secondary"
    assert (clone / "etc/sparse").stat().st_blocks * 512 < MIB
    if AS_ROOT:
        assert os.getxattr(clone / "etc/setuid", "security.capability") == CAPABILITY


def test_a_second_plan_is_empty_and_touches_nothing(
    clone: Path, role: Path, overlay: Overlay
) -> None:
    payload = overlay(role)
    rebuild(clone, payload)
    before = {path: path.lstat() for path in [clone, *clone.rglob("*")]}
    again = plan(clone, payload)
    assert again.changes == ()
    apply_plan(str(clone), again, payload)
    assert {path: path.lstat() for path in [clone, *clone.rglob("*")]} == before


def test_there_and_back(clone: Path, role: Path, overlay: Overlay) -> None:
    before, own = look(clone), overlay(clone)
    rebuild(clone, overlay(role))
    rebuild(clone, own)
    after = look(clone)
    assert scope_of(after) == scope_of(before)


def test_what_is_shown_is_the_plan(clone: Path, role: Path, overlay: Overlay) -> None:
    lines = str(plan(clone, overlay(role))).splitlines()
    assert "remove  /etc/gone  (not in the overlay)" in lines
    assert "parent  /new/place  (missing folder outside of the scope)" in lines
    assert "remove  /etc/becomes-file  (dir becomes file)" in lines
    assert not [line for line in lines if "fstab" in line or "/usr" in line]


def test_a_difference_is_told(clone: Path, role: Path, overlay: Overlay) -> None:
    payload = overlay(role)
    rebuild(clone, payload)
    (clone / "etc/hostname").write_text("changed")
    (clone / "etc/more").write_text("more")
    with pytest.raises(
        ComparisonFailed, match=r"/etc/hostname: content.*; /etc/more: not in the overlay"
    ):
        verify_scope(str(clone), payload.tree, SCOPE)


# --- failures: kills are test_apply_kills.py's -----------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *, when: int) -> None:
    """Let the system call fail with an errno the time `when` that it is made."""
    real, calls = getattr(os, name), [0]

    def call(*arguments: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == when:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)


def test_a_full_disk_changes_nothing(
    clone: Path, role: Path, overlay: Overlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload, before = overlay(role), look(clone)
    failing(monkeypatch, "pwrite", errno.ENOSPC, when=3)
    with pytest.raises(TargetFull, match="no space is left for /etc/"):
        apply_plan(str(clone), plan(clone, payload), payload)
    assert look(clone) == before


def test_an_error_of_the_disk_is_told_as_such(
    clone: Path, role: Path, overlay: Overlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload, before = overlay(role), look(clone)
    failing(monkeypatch, "fsync", errno.EIO, when=2)
    with pytest.raises(DeviceError, match="input/output error"):
        apply_plan(str(clone), plan(clone, payload), payload)
    assert look(clone) == before


# --- a tree that changes between plan and execution ----------------------------------------------------------------


def test_a_folder_that_became_a_link_is_not_followed(
    clone: Path, role: Path, overlay: Overlay, tmp_path: Path
) -> None:
    payload = overlay(role)
    made = plan(clone, payload)
    canary = tmp_path / "canary"
    put(canary / "hostname", "canary")
    before = look(canary)
    (clone / "etc").rename(clone / "moved")
    (clone / "etc").symlink_to(canary)
    with pytest.raises(UnsafePath, match="etc on the way to /etc"):
        apply_plan(str(clone), made, payload)
    assert look(canary) == before
    assert not (clone / os.fsdecode(STAGING)).exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_whatever_took_the_name_of_the_staging_folder_goes(
    clone: Path, role: Path, overlay: Overlay, tmp_path: Path, kind: str
) -> None:
    staging = clone / os.fsdecode(STAGING)
    canary = put(tmp_path / "canary/x", "canary")
    if kind == "folder":
        put(staging / "below/x", "left")
    elif kind == "file":
        put(staging, "left")
    else:
        staging.symlink_to(canary.parent)
    rebuild(clone, overlay(role))
    assert not os.path.lexists(staging)
    assert canary.read_text() == "canary"


@pytest.mark.skipif(not AS_ROOT, reason="trusted attributes are root's")
@pytest.mark.parametrize("noted", [b"9" * 40, b"-" + b"9" * 40, b"x", b""])
def test_a_note_that_is_no_time_is_none(clone: Path, noted: bytes) -> None:
    os.setxattr(clone, "trusted.etsclone.mtime", noted)
    before = clone.stat().st_mtime_ns
    settle_kept(str(clone))
    assert clone.stat().st_mtime_ns == before
