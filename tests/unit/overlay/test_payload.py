"""The payload: what tar makes of it by hand, and what the reader refuses."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from oracle import STATE_FLAGS, Seen, acl, inode_flags, links, look
from payloads import (
    ATTRIBUTED,
    EARLY,
    ETC,
    HOST,
    HOSTILE,
    LARGE,
    LAST_DEVICE,
    LONG,
    OTHER_FORMS,
    attributed,
    file,
    frame,
    other,
    packed,
)

from etsclone.errors import HostilePayload, SourceChanged, SourceRefused
from etsclone.model.scope import Scope
from etsclone.model.tree import Kind
from etsclone.overlay import amounts, pax
from etsclone.overlay.payload import (
    PAYLOAD_LIMIT,
    Archived,
    Payload,
    read_payload,
    write_payload,
)
from etsclone.overlay.scan import Scan, scan
from etsclone.overlay.status import ATTEMPTS
from etsclone.units import KIB, MIB

SCOPE = Scope(role=("/etc", "/srv/x*"), disk=("/etc/fstab",))
AS_ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etsclone.overlay.payload.LEVEL", 1)


def put(
    path: Path, content: bytes = b"", mode: int = 0o644, mtime_ns: int = 1_700_000_000_123_456_789
) -> Path:
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
        os.setxattr(
            etc / "setuid",
            "security.capability",
            bytes.fromhex("0100000200200000000000000000000000000000"),
        )
    folder_times = sorted(
        path for path in etc.rglob("*") if path.is_dir() and not path.is_symlink()
    )
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
    complaints = [
        line for line in done.stderr.splitlines() if b"implausibly old time stamp" not in line
    ]
    assert (done.returncode, complaints) == (0, [])
    assert in_scope(tmp_path / "by-hand") == in_scope(tree)
    assert scan(str(tmp_path / "by-hand"), SCOPE).scope == scan(str(tree), SCOPE).scope
    assert (tmp_path / "by-hand/etc/hole").stat().st_blocks == 0


def test_bsdtar_restores_content(tree: Path, tmp_path: Path) -> None:
    done = extract(capture(tree), tmp_path / "by-hand", ["bsdtar", "-xpf", "-"])
    assert done.returncode in (0, 1), done.stderr
    ours, theirs = in_scope(tree), in_scope(tmp_path / "by-hand")
    assert {path: seen.content for path, seen in theirs.items()} == {
        path: seen.content for path, seen in ours.items()
    }
    # libarchive 3.6 takes -1.5 for -0.5; GNU tar, POSIX and we do not.
    later = {path: seen.mtime_ns for path, seen in ours.items() if seen.mtime_ns >= 0}
    assert {path: seen.mtime_ns for path, seen in theirs.items() if path in later} == later
    assert {group for group in links(tmp_path / "by-hand") if len(group) > 1} == {
        frozenset({b"/etc/hostname", b"/etc/mailname"}),
        frozenset({b"/etc/" + b"long-" * 40, b"/etc/z-link"}),
    }


# --- what changes while it is captured -----------------------------------------------------------------------------


def test_archives_what_it_finds(tree: Path) -> None:
    """What changed since the scan is read as it is now, and holds still: there is nothing to report."""
    seen = scan(str(tree), SCOPE)
    put(tree / "etc/hostname", b"another name\n")
    packed = io.BytesIO()
    archived = write_payload(packed, str(tree), seen.scope)
    assert not archived.warnings
    with unpack(packed.getvalue()) as payload:
        assert payload.tree == archived.tree
        assert payload.tree[b"/etc/hostname"].size == payload.tree[b"/etc/mailname"].size == 13


def test_archives_file_and_metadata_of_one_moment(tree: Path) -> None:
    """What was replaced after the scan is not the old one's owner, mode, time and attributes over new content."""
    seen = scan(str(tree), SCOPE)
    path = tree / "etc/hostname"
    path.unlink()
    put(path, b"new\n", mode=0o600, mtime_ns=10**18 + 3)
    os.setxattr(path, "user.new", b"1")
    acl_only = tree / "etc/acl"
    os.setxattr(acl_only, "system.posix_acl_access", acl(99, 6, 0o640))
    mode_only = tree / "etc/-rf"
    mode_only.chmod(0o700)
    if AS_ROOT:
        os.chown(path, 7, 8)
        inode_flags(tree / "etc/negative", STATE_FLAGS["d"])
    packed = io.BytesIO()
    archived = write_payload(packed, str(tree), seen.scope)
    now = scan(str(tree), SCOPE).scope
    changed = [b"/etc/-rf", b"/etc/acl", b"/etc/hostname"] + [b"/etc/negative"] * AS_ROOT
    with unpack(packed.getvalue()) as payload:
        assert {path: payload.tree[path].state for path in changed} == {
            path: now[path].state for path in changed
        }
        assert payload.tree == archived.tree
    assert not archived.warnings


def changing(
    monkeypatch: pytest.MonkeyPatch, path: Path, change: Callable[[Path], object], times: int
) -> list[int]:
    """Change a file each time that its first piece has been read, so many times; a list of these reads."""
    reads: list[int] = []
    real = os.pread

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        piece = real(descriptor, count, offset)
        if offset == 0 and path.exists() and os.path.samestat(os.fstat(descriptor), path.lstat()):
            reads.append(count)
            if len(reads) <= times:
                change(path)
        return piece

    monkeypatch.setattr(os, "pread", pread)
    return reads


def captured_now(root: Path, seen: Scan) -> tuple[Archived, dict[bytes, bytes]]:
    """What is archived now of what was seen, and the content of its files."""
    packed = io.BytesIO()
    archived = write_payload(packed, str(root), seen.scope)
    with unpack(packed.getvalue()) as payload:
        assert payload.tree == archived.tree
        contents = {}
        for path, entry in payload.tree.items():
            if entry.kind is Kind.FILE and not entry.link_to:
                content = bytearray(entry.size)
                for offset, piece in payload.pieces(path):
                    content[offset : offset + len(piece)] = piece
                contents[path] = bytes(content)
        return archived, contents


def next_letter(path: Path) -> bytes:
    return bytes([path.read_bytes()[0] + 1])


def rewrite(path: Path) -> None:
    """Another content of the same size, and the same time of it: only the inode's own time tells."""
    before = path.stat()
    path.write_bytes(next_letter(path) * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_renaming(path: Path) -> None:
    put(path.parent.parent / "aside", next_letter(path) * 100, 0o600).rename(path)


def become_a_hole(path: Path) -> None:
    os.truncate(path, 64 * KIB)
    os.truncate(path, 3 * MIB)


def count_up(path: Path) -> None:
    os.setxattr(path, "user.count", str(path.stat().st_ctime_ns).encode())


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": rewrite,
    "by renaming": replace_by_renaming,
    "growing": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "shrinking": lambda path: os.truncate(path, path.stat().st_size // 2),
    "becoming mostly a hole": become_a_hole,
    "mode": lambda path: path.chmod(path.stat().st_mode ^ 0o020),
    "attribute": count_up,
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("times", [1, 2])
def test_reads_again_what_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, times: int
) -> None:
    """It is of two pieces, and the change comes between them: what is kept is no mixture of before and after."""
    path = put(tmp_path / "etc/busy", b"a" * 2 * MIB)
    put(tmp_path / "etc/calm", b"calm")
    seen = scan(str(tmp_path), SCOPE)
    reads = changing(monkeypatch, path, CHANGES[what], times)
    archived, contents = captured_now(tmp_path, seen)
    assert len(reads) == times + 1
    assert not archived.warnings
    monkeypatch.undo()
    now = scan(str(tmp_path), SCOPE).scope
    assert {path: archived.tree[path] for path in contents} == {
        path: now[path] for path in contents
    }
    assert contents == {b"/etc/busy": path.read_bytes(), b"/etc/calm": b"calm"}


@pytest.mark.parametrize("what", CHANGES)
def test_tells_what_never_stops_changing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = put(tmp_path / "etc/busy", b"a" * 2 * MIB)
    put(tmp_path / "etc/calm", b"calm")
    seen = scan(str(tmp_path), SCOPE)
    reads = changing(monkeypatch, path, CHANGES[what], times=99)
    archived, contents = captured_now(tmp_path, seen)
    assert len(reads) == ATTEMPTS
    assert archived.warnings == ("/etc/busy changed while it was read",)
    # It is a sound member all the same, of the bytes that were there.
    entry, content = archived.tree[b"/etc/busy"], contents[b"/etc/busy"]
    assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert content.rstrip(b"\0")


COUNTING = """
import itertools, sys
with open(sys.argv[1], "r+b", buffering=0) as file:
    for number in itertools.count(1):
        file.seek(0)
        file.write(number.to_bytes(8, "big") * 131072)
        if number == 1:
            print("begun", flush=True)
"""


def test_beside_another_process_nothing_is_mixed_that_is_not_told(tmp_path: Path) -> None:
    """It counts up from the file's beginning to its end: at any moment there are two numbers, the greater one first."""
    path = put(tmp_path / "etc/busy", bytes(MIB))
    seen = scan(str(tmp_path), SCOPE)
    with subprocess.Popen([sys.executable, "-c", COUNTING, path], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == b"begun\n"
            beside = [captured_now(tmp_path, seen) for _ in range(10)]
        finally:
            writer.kill()
    for archived, contents in beside:
        numbers = struct.unpack(">131072Q", contents[b"/etc/busy"])
        told = archived.warnings == ("/etc/busy changed while it was read",)
        assert told or (numbers[0] - numbers[-1] <= 1 and list(numbers) == sorted(numbers)[::-1])
    # When it has ended, there is nothing left to tell.
    archived, contents = captured_now(tmp_path, seen)
    assert not archived.warnings
    assert contents[b"/etc/busy"] == path.read_bytes()


@pytest.mark.parametrize("becomes", ["nothing", "link", "fifo", "folder"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_refuses_what_vanished(
    tree: Path, monkeypatch: pytest.MonkeyPatch, becomes: str, when: str
) -> None:
    seen = scan(str(tree), SCOPE)
    path = tree / "etc/setuid"

    def change(path: Path) -> None:
        path.unlink()
        if becomes == "link":
            path.symlink_to("/etc/passwd")
        elif becomes == "fifo":
            os.mkfifo(path)
        elif becomes == "folder":
            path.mkdir()

    if when == "before":
        change(path)
    else:
        changing(monkeypatch, path, change, times=1)
    with pytest.raises(SourceChanged, match="/etc/setuid vanished"):
        write_payload(io.BytesIO(), str(tree), seen.scope)


def test_what_is_made_anew_is_not_gone(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the old file and the new one there is none for a moment; what comes is looked at after the pause."""
    seen = scan(str(tree), SCOPE)
    path = tree / "etc/setuid"
    changing(monkeypatch, path, Path.unlink, times=1)
    real = time.sleep

    def sleep(seconds: float) -> None:
        if not path.exists():
            put(path, b"new")
        real(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    archived, contents = captured_now(tree, seen)
    assert not archived.warnings
    assert contents[b"/etc/setuid"] == b"new"


def test_large_files_are_kept_in_the_spool_on_their_way(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, the smaller one last; and what is small never gets there: it may be a host key."""
    put(tree / "etc/large", large := os.urandom(5 * MIB))
    put(tree / "etc/less", less := os.urandom(4 * MIB))
    monkeypatch.setattr("etsclone.overlay.payload._IN_MEMORY", 3 * MIB)
    seen = scan(str(tree), SCOPE)
    packed = io.BytesIO()
    with tempfile.TemporaryFile() as spool:
        archived = write_payload(packed, str(tree), seen.scope, spool=spool)
        spool.seek(0)
        assert spool.read() == less
    assert archived.tree == seen.scope
    with unpack(packed.getvalue()) as payload:
        assert b"".join(piece for _, piece in payload.pieces(b"/etc/large")) == large


def test_refuses_too_much(tree: Path) -> None:
    seen = scan(str(tree), SCOPE)
    with pytest.raises(SourceRefused, match="more than the"):
        write_payload(io.BytesIO(), str(tree), seen.scope, limit=MIB)
    small = scan(str(tree), Scope(("/etc/hostname",)))
    for limit in range(5, 2048, 512):
        with pytest.raises(SourceRefused, match="more than the"):
            write_payload(io.BytesIO(), str(tree), small.scope, limit=limit)
    exact = io.BytesIO()
    write_payload(exact, str(tree), small.scope, limit=3072)
    unpack(exact.getvalue(), Scope(("/etc/hostname",)), limit=3072).__exit__(None, None, None)


@pytest.mark.parametrize(
    ("most", "what"),
    [
        ("MOST_MEMBERS", "files and folders"),
        ("MOST_PIECES", "pieces of sparse files"),
        ("MOST_ATTRIBUTES", "extended attributes"),
        ("MOST_TEXT", "bytes of names"),
        ("LONGEST_PATH", "too long"),
        ("LARGEST_VALUE", "an attribute that is too large"),
        ("LARGEST_ATTRIBUTES", "too many attributes"),
    ],
)
def test_writes_nothing_that_could_not_be_read(
    most: str, what: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = capture(tree)
    monkeypatch.setattr(amounts, most, 1)
    with pytest.raises(SourceRefused, match=what):
        capture(tree)
    with pytest.raises(HostilePayload, match=what):
        unpack(sound)


# --- hostile payloads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "why"), HOSTILE, ids=[what for what, _ in HOSTILE])
def test_refuses_hostile_members(what: str, why: str) -> None:
    with pytest.raises(HostilePayload, match=why):
        unpack(packed(*HOSTILE[what, why]))


KEPT = attributed("system.posix_acl_access"), attributed("user.user."), attributed("trusted.\udcff")


@pytest.mark.parametrize("name", ["btrfs.compression", "system.nfs4_acl", "users.name"])
def test_attributes_of_one_filesystem_are_passed_over(name: str) -> None:
    """Overlays of before have them."""
    with unpack(packed(attributed(name))) as payload:
        assert payload.tree[b"/etc"].xattrs == ()


@pytest.mark.parametrize("member", [ETC, ATTRIBUTED, *KEPT, LONG, LAST_DEVICE, LARGE, EARLY])
def test_the_one_form_is_accepted(member: bytes) -> None:
    with unpack(packed(*([ETC] if member in (LONG, LAST_DEVICE) else []), member)) as payload:
        assert payload.tree


@pytest.mark.parametrize("what", OTHER_FORMS)
def test_a_member_has_one_form(what: str) -> None:
    """Each of these means to other programs what some member that is accepted means; but two forms are one too many."""
    member = OTHER_FORMS[what]
    with pytest.raises(HostilePayload, match=r"another form|not an octal|not flags"):
        unpack(packed(*([] if member[-512:-508] == b"etc\0" else [ETC]), member))


def test_accepts_the_same_when_sound() -> None:
    with unpack(
        packed(ETC, HOST, other(b"/etc/z", Kind.FILE, link_to=b"/etc/hostname"), file(b"/srv/x"))
    ) as payload:
        assert list(payload.tree) == [b"/etc", b"/etc/hostname", b"/etc/z", b"/srv/x"]


@pytest.mark.parametrize("behind", [b"\0", b"x", bytes(512), HOST, frame(b"")])
def test_refuses_what_follows_the_end(behind: bytes) -> None:
    with pytest.raises(HostilePayload):
        unpack(packed(ETC, end=pax.END + behind))
    with pytest.raises(HostilePayload):
        unpack(packed(ETC) + behind)


def test_refuses_any_truncation() -> None:
    sound = packed(ETC, HOST)
    plain = zstandard.decompress(sound, max_output_size=MIB)
    for size in range(len(sound)):
        with pytest.raises(HostilePayload):
            unpack(sound[:size])
    for size in range(0, len(plain), 64):
        with pytest.raises(HostilePayload):
            unpack(frame(plain[:size]))


def test_a_flipped_bit_is_refused_or_means_nothing() -> None:
    sound = packed(ETC, HOST)
    with unpack(sound) as payload:
        tree = payload.tree
    for position in range(8 * len(sound)):
        broken = bytearray(sound)
        broken[position // 8] ^= 1 << position % 8
        with suppress(HostilePayload), unpack(bytes(broken)) as payload:
            assert payload.tree == tree


def test_a_bomb_is_bounded() -> None:
    bomb = packed(ETC, file(b"/etc/hostname", bytes(200 * MIB)))
    assert len(bomb) < 64 * KIB
    with pytest.raises(HostilePayload, match="holds too much"):
        unpack(bomb, limit=MIB)


def test_refuses_a_window_of_a_gigabyte() -> None:
    greedy = zstandard.ZstdCompressionParameters(
        window_log=30, compression_level=1, write_checksum=True
    )
    # Only a frame of unknown size keeps the window that it was told.
    compressor = zstandard.ZstdCompressor(compression_params=greedy).compressobj()
    with pytest.raises(HostilePayload, match="damaged"):
        unpack(compressor.compress(ETC + HOST + pax.END) + compressor.flush())
