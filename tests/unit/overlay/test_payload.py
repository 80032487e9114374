"""The payload: what tar makes of it by hand, and what the reader refuses."""

import io
import os
import subprocess
from contextlib import suppress
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


def test_archives_what_it_finds_and_says_so(tree: Path) -> None:
    seen = scan(str(tree), SCOPE)
    put(tree / "etc/hostname", b"another name\n")
    packed = io.BytesIO()
    archived = write_payload(packed, str(tree), seen.scope)
    assert archived.warnings == ("/etc/hostname changed while it was captured",)
    with unpack(packed.getvalue()) as payload:
        assert payload.tree == archived.tree
        assert payload.tree[b"/etc/hostname"].size == payload.tree[b"/etc/mailname"].size == 13


def test_refuses_what_vanished(tree: Path) -> None:
    seen = scan(str(tree), SCOPE)
    (tree / "etc/setuid").unlink()
    (tree / "etc/setuid").symlink_to("/etc/passwd")
    with pytest.raises(SourceRefused, match="/etc/setuid vanished"):
        write_payload(io.BytesIO(), str(tree), seen.scope)


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


# --- hostile payloads ----------------------------------------------------------------------------------------------


def file(path: bytes, content: bytes = b"x", **changes: object) -> bytes:
    entry = Entry(path, Kind.FILE, 0o644, 0, 0, 0, size=len(content))
    entry = replace(entry, **changes)  # type: ignore[arg-type]
    return pax.header(entry, Extents.between(0, len(content))) + content + pax.padding(len(content))


def other(path: bytes, kind: Kind, **changes: object) -> bytes:
    return pax.header(Entry(path, kind, 0o755, 0, 0, 0, **changes), Extents())  # type: ignore[arg-type]


def packed(*members: bytes, end: bytes = pax.END) -> bytes:
    return zstandard.compress(b"".join(members) + end)


ETC = other(b"/etc", Kind.FOLDER)
HOST = file(b"/etc/hostname")


def patched(member: bytes, old: bytes, new: bytes) -> bytes:
    """A member with other bytes in its last header, whose checksum is made to fit."""
    assert len(old) == len(new)
    start = member.index(b"ustar\x0000", pax.BLOCK) - 257
    block = member[start : start + pax.BLOCK].replace(old, new, 1)
    blank = block[:148] + b" " * 8 + block[156:]
    return (
        member[:start]
        + blank[:148]
        + b"%06o\0 " % sum(blank)
        + blank[156:]
        + member[start + pax.BLOCK :]
    )


def sparse(size: int, *extents: Extent) -> bytes:
    data = Extents(extents)
    member = pax.header(Entry(b"/etc/sparse", Kind.FILE, 0o644, 0, 0, 0, size=size), data)
    return member + bytes(data.size) + pax.padding(data.size)


HOSTILE = {
    ("parent folder", "is not plain"): [ETC, file(b"/etc/../shadow")],
    ("dot", "is not plain"): [ETC, file(b"/etc/./shadow")],
    ("absolute", "is not plain"): [ETC, file(b"//etc/shadow")],
    ("empty component", "is not plain"): [ETC, file(b"/etc//shadow")],
    ("trailing slash", "is not plain"): [other(b"/etc/", Kind.FOLDER)],
    ("the root", "is not plain"): [other(b"/", Kind.FOLDER)],
    ("outside of the scope", "outside of its scope"): [file(b"/usr")],
    ("left to the disk", "outside of its scope"): [ETC, file(b"/etc/fstab")],
    ("staging", "outside of its scope"): [ETC, other(b"/etc/" + STAGING, Kind.FOLDER)],
    ("twice", "twice or out of order"): [ETC, HOST, HOST],
    ("out of order", "twice or out of order"): [ETC, HOST, file(b"/etc/group")],
    ("folder after its content", "without its folder"): [HOST, ETC],
    ("folder missing", "without its folder"): [HOST],
    ("below a file", "without its folder"): [ETC, file(b"/etc/a"), file(b"/etc/a/b")],
    ("below a symbolic link", "without its folder"): [
        ETC,
        other(b"/etc/a", Kind.SYMLINK, target=b"/usr"),
        file(b"/etc/a/b"),
    ],
    ("below a symbolic link outside", "outside of its scope"): [
        other(b"/srv", Kind.SYMLINK, target=b"/usr"),
        file(b"/srv/x"),
    ],
    ("hard link to nothing", "no file before it"): [
        ETC,
        other(b"/etc/b", Kind.FILE, link_to=b"/etc/a"),
    ],
    ("hard link out of the scope", "no file before it"): [
        ETC,
        other(b"/etc/b", Kind.FILE, link_to=b"/root/secret"),
    ],
    ("hard link upwards", "is not plain"): [
        ETC,
        HOST,
        other(b"/etc/z", Kind.FILE, link_to=b"/etc/../etc/hostname"),
    ],
    ("hard link forwards", "no file before it"): [
        ETC,
        other(b"/etc/b", Kind.FILE, link_to=b"/etc/c"),
        file(b"/etc/c"),
    ],
    ("hard link to a folder", "no file before it"): [
        ETC,
        other(b"/etc/b", Kind.FILE, link_to=b"/etc"),
    ],
    ("hard link to a hard link", "no file before it"): [
        ETC,
        HOST,
        other(b"/etc/i", Kind.FILE, link_to=b"/etc/hostname"),
        other(b"/etc/j", Kind.FILE, link_to=b"/etc/i"),
    ],
    ("hard link with content", "content where none"): [
        ETC,
        HOST,
        patched(
            other(b"/etc/z", Kind.FILE, link_to=b"/etc/hostname"),
            b"0" * 11 + b"\0",
            b"0" * 10 + b"1\0",
        ),
    ],
    ("symbolic link to nothing", "link to nothing"): [
        ETC,
        other(b"/etc/b", Kind.SYMLINK, target=b""),
    ],
    ("unknown type", "unknown type"): [patched(ETC, b"5" + b"\0" * 100, b"7" + b"\0" * 100)],
    ("checksum", "checksum"): [ETC[:-512] + b"x" + ETC[-511:]],
    ("second prefix", "not a pax header"): [patched(ETC, ETC[-167:], b"usr" + ETC[-164:])],
    ("other magic", "not a pax header"): [patched(ETC, b"ustar\x0000", b"ustar  \0")],
    ("mode bits", "not permission bits"): [
        other(b"/etc", Kind.FOLDER)[:-512] + patched(ETC, b"0000755", b"0100755")[-512:]
    ],
    ("no time", "no exact time"): [ETC[-512:]],
    ("unknown record", "unknown extended record"): [ETC.replace(b"mtime=", b"atime=")],
    ("NUL in a name", "NUL in path"): [
        ETC,
        file(b"/etc/" + b"a" * 200).replace(b"a" * 150, b"a" * 149 + b"\0"),
    ],
    ("sparse: holes too large", "holds too much"): [ETC, sparse(1 << 50)],
    ("sparse: behind its end", "does not fit"): [
        ETC,
        sparse(1024, Extent(0, 512), Extent(1024, 2048)),
    ],
    ("sparse: map cut", "cut off"): [
        ETC,
        sparse(1 << 20, Extent(0, 512)).replace(b"2\n0\n512\n", b"9\n0\n512\n"),
    ],
    ("sparse: bytes behind the map", "map of a sparse file is damaged"): [
        ETC,
        sparse(1 << 20, Extent(0, 512)).replace(b"1048576\n0\n\0", b"1048576\n0\nx"),
    ],
    ("bytes behind a file", "hides bytes"): [ETC, HOST[:-1] + b"x"],
}


@pytest.mark.parametrize(("what", "why"), HOSTILE, ids=[what for what, _ in HOSTILE])
def test_refuses_hostile_members(what: str, why: str) -> None:
    with pytest.raises(HostilePayload, match=why):
        unpack(packed(*HOSTILE[what, why]))


def test_accepts_the_same_when_sound() -> None:
    with unpack(
        packed(ETC, HOST, other(b"/etc/z", Kind.FILE, link_to=b"/etc/hostname"), file(b"/srv/x"))
    ) as payload:
        assert list(payload.tree) == [b"/etc", b"/etc/hostname", b"/etc/z", b"/srv/x"]


@pytest.mark.parametrize("behind", [b"\0", b"x", bytes(512), HOST, zstandard.compress(b"")])
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
            unpack(zstandard.compress(plain[:size]))


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
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(200 * MIB))
    assert len(bomb) < 64 * KIB
    with pytest.raises(HostilePayload, match=r"more than 1\.00 MiB"):
        unpack(bomb, limit=MIB)


def test_refuses_a_window_of_a_gigabyte() -> None:
    greedy = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    # Only a frame of unknown size keeps the window that it was told.
    compressor = zstandard.ZstdCompressor(compression_params=greedy).compressobj()
    with pytest.raises(HostilePayload, match="damaged"):
        unpack(compressor.compress(ETC + HOST + pax.END) + compressor.flush())
