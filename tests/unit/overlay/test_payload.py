"""The payload: what tar makes of it by hand, and what the reader refuses."""

import io
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from oracle import Seen, acl, links, look

from etsclone.errors import HostilePayload, SourceRefused
from etsclone.model.extents import Extent, Extents
from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING, Entry, Kind
from etsclone.overlay import pax
from etsclone.overlay.payload import PAYLOAD_LIMIT, Payload, read_payload, write_payload
from etsclone.overlay.scan import scan
from etsclone.units import KIB, MIB

SCOPE = Scope(role=("/etc", "/srv/x*"), disk=("/etc/fstab",))
AS_ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etsclone.overlay.payload.LEVEL", 1)


def put(path: Path, content: bytes = b"", mode: int = 0o644, mtime_ns: int = 1_700_000_000_123_456_789) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of everything that a scope can hold."""
    root = tmp_path / "root"
    etc = root / "etc"
    put(etc / "hostname", b"srv1\n")
    put(etc / "negative", b"before 1970", mtime_ns=-1_500_000_000)
    put(etc / "setuid", b"x", mode=0o4755)
    put(etc / "-rf", b"a leading dash")
    put(etc / "new\nline", b"in a name")
    put(etc / os.fsdecode(b"\xff\xfe\x80"), b"not UTF-8")
    put(etc / ("long-" * 40), b"more than a header's field")
    put(etc / os.fsdecode(b"long-\xff-" * 20), b"both")
    put(etc.joinpath(*["deep"] * 30, "file"), b"many folders")
    put(etc / "passwd", b"root:x:0:0::/root:/bin/sh\nme:x:%d:0:::\n" % os.geteuid())
    attributed = put(etc / "attributed", b"x", mtime_ns=5)
    os.setxattr(attributed, "user.binary", bytes(range(256)))
    os.setxattr(attributed, "user.odd%=key", b"")
    os.utime(attributed, ns=(5, 5))
    listed = put(etc / "acl", b"x", mode=0o640)
    os.setxattr(listed, "system.posix_acl_access", acl(1234, 4, 0o640))
    (etc / "folder").mkdir(mode=0o755)
    os.setxattr(etc / "folder", "system.posix_acl_default", acl(1234, 5, 0o755))
    for name in ("sparse", "sp\udcffrse", "sparse-" * 30):
        with put(etc / name).open("r+b") as file:
            file.truncate(3 * MIB + 5)
            file.seek(MIB)
            file.write(b"island")
    with put(etc / "hole").open("r+b") as file:
        file.truncate(10 * MIB)
    os.link(etc / "hostname", etc / "mailname")
    os.link(etc / ("long-" * 40), etc / "z-link")
    (etc / "dangling").symlink_to("/nowhere/" + "t" * 150)
    (etc / "relative").symlink_to(os.fsdecode(b"\xff../x"))
    os.mkfifo(etc / "fifo", 0o600)
    put(etc / "fstab", b"the disk's own")
    if AS_ROOT:
        os.mknod(etc / "null", 0o20666, os.makedev(1, 3))
        os.mknod(etc / "disk", 0o60660, os.makedev(259, 70000))
        os.chown(etc / "sparse", 7, 3_000_000)
        os.setxattr(attributed, "trusted.key", b"\0")
        os.setxattr(etc / "fifo", "trusted.key", b"fifo")
        # The capability cap_net_raw+ep (linux/capability.h, version 2).
        os.setxattr(etc / "setuid", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    folder_times = sorted(path for path in etc.rglob("*") if path.is_dir() and not path.is_symlink())
    for path in [etc, *folder_times]:
        os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    return root


def capture(root: Path, scope: Scope = SCOPE) -> bytes:
    packed = io.BytesIO()
    write_payload(packed, str(root), scan(str(root), scope).scope)
    return packed.getvalue()


def unpack(packed: bytes, scope: Scope = SCOPE, limit: int = PAYLOAD_LIMIT) -> Payload:
    return read_payload(io.BytesIO(packed), scope, limit=limit)


def in_scope(root: Path) -> dict[bytes, Seen]:
    return {path: seen for path, seen in look(root).items() if path in SCOPE}


def extract(packed: bytes, root: Path, argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    """What the handbook tells a person to do: zstd -dc payload.tar.zst | tar ... -C ROOT -xpf -"""
    root.mkdir()
    plain = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
    return subprocess.run(argv, input=plain, capture_output=True, check=False, cwd=root)


def test_reads_what_it_wrote(tree: Path) -> None:
    seen = scan(str(tree), SCOPE)
    with unpack(capture(tree)) as payload:
        assert payload.tree == seen.scope
        assert b"/etc/fstab" not in payload.tree
        for path, entry in payload.tree.items():
            if entry.kind is Kind.FILE and not entry.link_to:
                content = bytearray(entry.size)
                for offset, piece in payload.pieces(path):
                    content[offset : offset + len(piece)] = piece
                assert content == (tree / os.fsdecode(path[1:])).read_bytes()


def test_same_tree_gives_same_bytes(tree: Path) -> None:
    assert capture(tree) == capture(tree)


def test_holes_are_not_stored(tree: Path) -> None:
    with unpack(capture(tree)) as payload:
        assert sum(len(piece) for _, piece in payload.pieces(b"/etc/sparse")) <= 64 * KIB
        assert not list(payload.pieces(b"/etc/hole"))


GNU_TAR = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-"]


@pytest.mark.skipif(not AS_ROOT, reason="by hand it is done as root")
def test_gnu_tar_restores_everything(tree: Path, tmp_path: Path) -> None:
    done = extract(capture(tree), tmp_path / "by-hand", GNU_TAR)
    assert (done.returncode, done.stderr) == (0, b"")
    assert in_scope(tmp_path / "by-hand") == in_scope(tree)
    assert scan(str(tmp_path / "by-hand"), SCOPE).scope == scan(str(tree), SCOPE).scope
    assert (tmp_path / "by-hand/etc/hole").stat().st_blocks == 0


def test_bsdtar_restores_content(tree: Path, tmp_path: Path) -> None:
    done = extract(capture(tree), tmp_path / "by-hand", ["bsdtar", "-xpf", "-"])
    assert done.returncode in (0, 1), done.stderr
    ours, theirs = in_scope(tree), in_scope(tmp_path / "by-hand")
    assert {path: seen.content for path, seen in theirs.items()} == {path: seen.content for path, seen in ours.items()}
    assert [seen.mtime_ns for seen in theirs.values()] == [seen.mtime_ns for seen in ours.values()]
    assert {group for group in links(tmp_path / "by-hand") if len(group) > 1} == {
        frozenset({b"/etc/hostname", b"/etc/mailname"}),
        frozenset({b"/etc/" + b"long-" * 40, b"/etc/z-link"}),
    }
