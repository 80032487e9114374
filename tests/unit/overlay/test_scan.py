"""What a scan sees, what it leaves out, and what it says about it."""

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from oracle import acl

from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING, Entry, Kind
from etsclone.overlay import files, inventory
from etsclone.overlay.listing import list_tree
from etsclone.overlay.scan import Scan, scan

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def put(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


LONG, DEEP = "long" * 10, 110
"""A name, and how often it stands in a path that is too long for the kernel."""


def seen(root: Path, *role: str, **rest: tuple[str, ...]) -> Scan:
    return scan(str(root), Scope(role, **rest))


def listing(root: Path, scope: Scope, skip: tuple[bytes, ...] = ()) -> list[Entry]:
    lines: list[bytes] = []
    list_tree(str(root), scope, lines.append, started_ns=0, skip=skip)
    return [inventory.entry_of(line) for line in b"".join(lines).splitlines()]


def test_entry_of_a_file(tmp_path: Path) -> None:
    put(
        tmp_path / "etc/passwd",
        f"root:x:0:0::/:/bin/sh\nme:x:{os.geteuid()}:0::/:/bin/sh\nagain:x:{os.geteuid()}:\n",
    )
    put(tmp_path / "etc/group", f"crowd:x:{os.getegid()}:\nbroken\n:x:nine:\n")
    path = put(tmp_path / "etc/hostname")
    path.chmod(0o4600)
    os.setxattr(path, "user.b", b"\0\xff")
    os.setxattr(path, "user.a", b"")
    os.utime(path, ns=(0, -1))
    assert seen(tmp_path, "/etc/hostname").scope == {
        b"/etc/hostname": Entry(
            b"/etc/hostname",
            Kind.FILE,
            0o4600,
            os.geteuid(),
            os.getegid(),
            -1,
            uname="root" if os.geteuid() == 0 else "me",
            gname="crowd",
            sha256=EMPTY,
            xattrs=(("user.a", b""), ("user.b", b"\0\xff")),
        )
    }


def test_every_kind(tmp_path: Path) -> None:
    put(tmp_path / "a/file", "x")
    (tmp_path / "a/link").symlink_to("/etc")
    os.mkfifo(tmp_path / "a/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a/socket"))
    found = seen(tmp_path, "/a")
    assert {path: entry.kind for path, entry in found.scope.items()} == {
        b"/a": Kind.FOLDER,
        b"/a/fifo": Kind.FIFO,
        b"/a/file": Kind.FILE,
        b"/a/link": Kind.SYMLINK,
        b"/a/socket": Kind.SOCKET,
    }
    assert found.scope[b"/a/link"].target == b"/etc"
    assert found.warnings == ("/a/socket is a socket: not captured",)


def test_byte_order_with_folders_first(tmp_path: Path) -> None:
    names = ["a/b", "a.b", "a/b.c/d", "a-", "a0", "Z", "é", os.fsdecode(b"\xff")]
    for name in names:
        put(tmp_path / name / "x")
    everything = listing(tmp_path, Scope(()))
    paths = [entry.path for entry in everything]
    assert paths == sorted(paths)
    assert paths[:4] == [b"/", b"/Z", b"/Z/x", b"/a"]
    assert list(seen(tmp_path, "/**").scope) == paths[1:]


def test_hard_links_inside_the_scope_only(tmp_path: Path) -> None:
    first = put(tmp_path / "etc/b", "x")
    os.link(first, tmp_path / "etc/a")
    os.link(first, tmp_path / "etc/c")
    os.link(first, tmp_path / "0")
    assert {path: entry.link_to for path, entry in seen(tmp_path, "/etc").scope.items()} == {
        b"/etc": None,
        b"/etc/a": None,
        b"/etc/b": b"/etc/a",
        b"/etc/c": b"/etc/a",
    }
    assert seen(tmp_path, "/etc").warnings == (
        "/etc/a is a hard link: 1 other name is outside of the scope and will not be linked",
    )
    assert not seen(tmp_path, "/etc", "/0").warnings


@pytest.mark.parametrize("kind", ["link", "fifo", "device"])
def test_hard_links_of_what_is_no_file_are_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "etc").mkdir()
    first = tmp_path / "etc/b"
    if kind == "link":
        first.symlink_to("target")
    elif kind == "fifo":
        os.mkfifo(first)
    elif os.geteuid() == 0:
        os.mknod(first, 0o20666, os.makedev(1, 3))
    else:
        pytest.skip("only root makes devices")
    assert not seen(tmp_path, "/etc").warnings
    for other in ("etc/a", "0"):
        os.link(first, tmp_path / other, follow_symlinks=False)
    found = seen(tmp_path, "/etc")
    assert {entry.link_to for entry in found.scope.values()} == {None}
    assert found.warnings == (
        "/etc/a is a hard link, but no file: 2 other names will not be linked",
    )


def test_attributes_that_may_not_be_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a security module has it: the name is listed, and the value refused."""
    path = put(tmp_path / "etc/x", "x")
    for name in ("user.open", "user.closed"):
        os.setxattr(path, name, b"1")
    real = os.getxattr

    def getxattr(target: bytes, name: str, **options: bool) -> bytes:
        if name == "user.closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(target, name, **options)

    monkeypatch.setattr(os, "getxattr", getxattr)
    found = seen(tmp_path, "/etc")
    assert found.scope[b"/etc/x"].xattrs == (("user.open", b"1"),)
    assert found.warnings == (
        "/etc/x has an attribute that may not be read and is not captured: user.closed",
    )


def test_what_stands_around_the_scope(tmp_path: Path) -> None:
    for name in (
        "etc/dhcp/dhcpd.conf",
        "etc/dhcp/leases",
        "etc/fstab",
        "usr/bin/true",
        "var/log/x",
        "srv",
    ):
        put(tmp_path / name)
    found = seen(
        tmp_path, "/etc/dhcp", "/var/lib/x", "/srv/x", disk=("/etc/dhcp/leases", "/etc/fstab")
    )
    assert list(found.scope) == [b"/etc/dhcp", b"/etc/dhcp/dhcpd.conf"]
    assert {path: entry.kind for path, entry in found.outside.items()} == {
        b"/": Kind.FOLDER,
        b"/etc": Kind.FOLDER,
        b"/etc/dhcp/leases": Kind.FILE,
        b"/srv": Kind.FILE,
        b"/var": Kind.FOLDER,
    }


def test_looks_only_where_scope_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "usr/share/doc/x")
    put(tmp_path / "etc/x")
    entered: set[bytes] = set()
    real = files.opened_folder

    def opened_folder(top: int, path: bytes) -> AbstractContextManager[int]:
        entered.add(path)
        return real(top, path)

    monkeypatch.setattr("etsclone.overlay.scan.opened_folder", opened_folder)
    seen(tmp_path, "/etc/*.conf", "/etc/x/y")
    assert entered == {b"/", b"/etc"}


def test_lists_everything_but_the_volatile(tmp_path: Path) -> None:
    for name in ("etc/fstab", "usr/x", "var/log/secret", "proc/1", ".etsclone-staging/x", "etc/x"):
        put(tmp_path / name)
    scope = Scope(("/etc/x", "/proc"), ("/etc/fstab",), ("/var/log",))
    entries = listing(tmp_path, scope, skip=(b"/proc",))
    assert [entry.path for entry in entries] == [
        b"/",
        b"/etc",
        b"/etc/fstab",
        b"/etc/x",
        b"/proc",
        b"/usr",
        b"/usr/x",
        b"/var",
    ]
    assert all(entry.sha256 == EMPTY for entry in entries if entry.kind is Kind.FILE)


def test_mounts_that_are_skipped_are_not_scope(tmp_path: Path) -> None:
    put(tmp_path / "srv/mnt/x")
    found = scan(str(tmp_path), Scope(("/srv",)), skip=[b"/srv/mnt"])
    assert list(found.scope) == [b"/srv"]
    assert b"/srv/mnt" in found.outside
    assert b"/srv/mnt/x" not in found.outside


def test_what_an_interrupted_rebuild_left_is_outside(tmp_path: Path) -> None:
    put(tmp_path / os.fsdecode(STAGING) / "000000")
    found = seen(tmp_path, "/**")
    assert not found.scope
    assert list(found.outside) == [b"/", b"/" + STAGING]


def test_a_link_on_the_way_is_not_followed_but_told(tmp_path: Path) -> None:
    put(tmp_path / "srv/dhcp/dhcpd.conf", "x")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/dhcp").symlink_to("/srv/dhcp")
    (tmp_path / "etc/unrelated").symlink_to("/srv/dhcp")
    found = seen(tmp_path, "/etc/dhcp/dhcpd.conf", "/**/nothing")
    assert not found.scope
    assert found.outside[b"/etc/dhcp"].kind is Kind.SYMLINK
    assert found.warnings == (
        "/etc/dhcp is a symbolic link: what the scope names beneath it is not captured",
    )


def test_the_top_may_be_a_link_but_passwd_may_not(tmp_path: Path) -> None:
    put(tmp_path / "secret", f"me:x:{os.geteuid()}:\n")
    put(tmp_path / "root/etc/hostname")
    (tmp_path / "root/etc/passwd").symlink_to(tmp_path / "secret")
    (tmp_path / "link").symlink_to("root")
    assert seen(tmp_path / "link", "/etc/hostname").scope[b"/etc/hostname"].uname == ""


def changing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], times: int) -> None:
    """Let something happen each time when a file has just been read, `times` times."""
    real, left = files.chunks, [None] * times

    def chunks(descriptor: int) -> object:
        yield from real(descriptor)
        if left:
            left.pop()
            change()

    monkeypatch.setattr("etsclone.overlay.scan.chunks", chunks)


def test_reads_again_what_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "x", "old")
    changing(monkeypatch, lambda: path.write_text("newer"), times=2)
    found = seen(tmp_path, "/x")
    assert found.scope[b"/x"].size == 5
    assert not found.warnings


def test_tells_what_never_stops_changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "x", "old")
    changing(monkeypatch, lambda: path.write_text(path.read_text() + "!"), times=99)
    assert seen(tmp_path, "/x").warnings == ("/x changed while it was read",)


def test_what_becomes_a_link_or_vanishes_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, path = put(tmp_path / "secret", "secret"), put(tmp_path / "x", "old")

    def swap() -> None:
        path.unlink()
        path.symlink_to(secret)

    changing(monkeypatch, swap, times=1)
    assert seen(tmp_path, "/x").scope[b"/x"].kind is Kind.SYMLINK
    path.unlink()
    put(path)
    changing(monkeypatch, path.unlink, times=1)
    assert not seen(tmp_path, "/x").scope


@pytest.mark.parametrize("was", ["link", "file", "folder"])
@pytest.mark.parametrize("becomes", ["link", "file", "folder", "fifo", "nothing"])
def test_what_becomes_something_else_between_look_and_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str, becomes: str
) -> None:
    """The look itself is the real one; right after it, somebody replaces what was looked at."""
    put(tmp_path / "folder" / "other", "other")
    path = tmp_path / "folder" / "x"
    become(path, was)
    real, left = os.lstat, [becomes]

    def lstat(name: bytes) -> os.stat_result:
        status = real(name)
        if name == b"x" and left:
            become(path, left.pop())
        return status

    monkeypatch.setattr(os, "lstat", lstat)
    found = seen(tmp_path, "/folder")
    kinds = {"link": Kind.SYMLINK, "file": Kind.FILE, "folder": Kind.FOLDER, "fifo": Kind.FIFO}
    entry = found.scope.get(b"/folder/x")
    assert (entry and entry.kind) == kinds.get(becomes)
    assert found.scope[b"/folder/other"].sha256
    assert not found.warnings


def become(path: Path, what: str) -> None:
    """Make a path into something else."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    if what == "link":
        path.symlink_to("target")
    elif what == "file":
        path.write_text("content")
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)


def test_leaves_no_trace(tmp_path: Path) -> None:
    path = put(tmp_path / "etc/x", "x")
    os.setxattr(path, "system.posix_acl_access", acl(5, 4, 0o644))
    for each in (path, path.parent):
        os.utime(each, ns=(1, 2))
    before, here = (path.stat(), path.parent.stat()), Path.cwd()
    listing(tmp_path, Scope(("/etc",)))
    assert (path.stat(), path.parent.stat()) == before
    assert path.stat().st_atime_ns == path.parent.stat().st_atime_ns == 1
    assert Path.cwd() == here


def test_very_deep_trees(tmp_path: Path) -> None:
    """Deeper than the longest path that the kernel takes."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir(LONG, dir_fd=here)
        below = os.open(LONG, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = seen(tmp_path, f"/{LONG}")
    assert len(found.scope) == DEEP
    assert not found.warnings
    subprocess.run(["rm", "-rf", tmp_path / LONG], check=True)
