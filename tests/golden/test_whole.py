"""An overlay of format 1 that holds all that the format knows, made once by v1/make_whole.py: every fact of it."""

import hashlib
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from documents import FORMAT, commands, needs, section, typed
from oracle import Seen, links, look

from etsclone.model.brd import CloneIdentity, Filesystem, Header, Member
from etsclone.model.packages import Package
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import inventory
from etsclone.overlay.comparing import Listing
from etsclone.overlay.container import VerifiedOverlay, open_verified
from etsclone.overlay.payload import read_payload
from etsclone.overlay.trust import Trust

FOLDER = Path(__file__).parent / "v1"
OVERLAY = FOLDER / "whole-primary-000006.brd"
TIME = 1_782_000_000_123_456_789
SCOPE = Scope(("/etc", "/srv/**/*.conf"), ("/etc/fstab",), ("/etc/cache", "/var/l[ab]bb"))
HEADER = Header(
    pair="ets",
    role="primary",
    host="sërver-1.example",
    profile="ltsp-isc-dhcp",
    profile_sha256="1900eab6c028483d7126599ee6f50de0d27907b5c65fa90524580b4b0f9852b0",
    scope=SCOPE,
    generation=6,
    created=datetime(2026, 11, 25, 3, 4, 5, tzinfo=UTC),
    previous="fbcf646a2eb96e64ae6030028aa3da67325efdfe278621cb44f2705b66b9f093",
    clone=CloneIdentity(
        "8f3b2f2e-6a0e-4f6e-9c0b-1d2e3f405162",
        (
            Filesystem("vfat", "6A1B-22C3"),
            Filesystem("ext4", "3c9d2a4e-1f0b-4b58-8a53-0d6a0a4b7c11"),
            Filesystem("gpt", "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"),
            Filesystem("dos", "1a2b3c4d"),
        ),
    ),
    members=(
        Member(
            "payload.tar.zst",
            2635,
            "d4c2ef3fadc2ce248f3d5ad342b6eb7b127099502950a7b85dbbe9d6dc9bfd0b",
        ),
        Member(
            "inventory.mtree.zst",
            2171,
            "72d274742d1e1a4fba9dac2e68b3b5fce8cf7b33b79f2665256b50dee056c223",
        ),
    ),
)
OVERLAY_DIGEST = "f7633a85d354be297082c547eb050e787c1dd869c0dbb9b392603dbff0a7c975"
PACKAGES = (
    Package("demo", "all", "1:2.0~rc1+b2-1^x_y"),
    Package("libdemo", "amd64", "2"),
    Package("libdemo", "i386", "2"),
)

# --- what it holds --------------------------------------------------------------------------------------------------

LONG = b"/".join([b"long \xff=" * 20] * 3)
NAME = b"n" * 100
ACCESS = (
    bytes.fromhex(  # version 2; user:: rw-, user:1234: r--, group:: r--, mask:: r--, other:: ---
        "0200000001000600ffffffff02000400d204000004000400ffffffff10000400ffffffff20000000ffffffff"
    )
)
ACCESS_OF_FOLDER = (
    bytes.fromhex(  # user:: rwx, user:4000000000: r-x, group:: ---, mask:: r-x, other:: r-x
        "0200000001000700ffffffff0200050000286bee04000000ffffffff10000500ffffffff20000500ffffffff"
    )
)
DEFAULT = bytes.fromhex(  # user:: rwx, user:1234: rwx, group:: r-x, mask:: rwx, other:: ---
    "0200000001000700ffffffff02000700d204000004000500ffffffff10000700ffffffff20000000ffffffff"
)
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
PASSWD = f"root:x:0:0:::\n{'u' * 40}:x:1001:1001:::\nü ser:x:1002:1002:::\n".encode()
GROUP = f"root:x:0:\n{'g' * 40}:x:1001:\nğ=p:x:1002:\n".encode()
STATUS_SHA256 = "d750ca16bc8b69253d6f6a4b663d8b95fcbf4db38aa9f05d475429b6f79b7b72"

CONTENTS = {
    b"/etc/sparse/ends": {1 << 18: b"land", 1 << 19: b"land"},
    b"/etc/sparse/hole": {},
    b"/etc/sparse/" + b"s" * 120: {0: b"land", 1 << 20: b"lan"},
}
"""What is not zero of the files with holes."""

node = partial(Entry, uid=0, gid=0, mtime_ns=TIME, uname="root", gname="root")
folder = partial(node, kind=Kind.FOLDER, mode=0o755)


def file(path: bytes, content: bytes = b"x", **facts: Any) -> Entry:  # noqa: ANN401 - of the entry
    plain = node(path, Kind.FILE, 0o644)
    digest = hashlib.sha256(content).hexdigest()
    return replace(plain, size=len(content), sha256=digest, **facts)


def sparse(path: bytes, size: int) -> Entry:
    content = bytearray(size)
    for offset, data in CONTENTS[path].items():
        content[offset : offset + len(data)] = data
    return file(path, bytes(content))


three_names = partial(file, content=b"three names\n", xattrs=(("user.of", b"all names"),))

PAYLOAD = [
    folder(b"/etc"),
    folder(b"/etc/acl"),
    file(b"/etc/acl/access", mode=0o640, xattrs=(("system.posix_acl_access", ACCESS),)),
    folder(
        b"/etc/acl/default",
        xattrs=(
            ("system.posix_acl_access", ACCESS_OF_FOLDER),
            ("system.posix_acl_default", DEFAULT),
        ),
    ),
    folder(b"/etc/attributes"),
    file(b"/etc/attributes/capability", xattrs=(("security.capability", CAPABILITY),)),
    node(b"/etc/attributes/fifo", Kind.FIFO, 0o666, xattrs=(("trusted.etsclone", b"fifo"),)),
    file(
        b"/etc/attributes/file",
        xattrs=(
            ("security.selinux", b"system_u:object_r:etc_t:s0\0"),
            ("trusted.md5sum", b"0"),
            ("user.%=\n", b"odd name"),
            ("user.all", bytes(range(256))),
            ("user.empty", b""),
        ),
    ),
    folder(
        b"/etc/attributes/folder",
        xattrs=(("trusted.overlay.opaque", b"y"), ("user.x", b"=\n")),
    ),
    node(
        b"/etc/attributes/link",
        Kind.SYMLINK,
        0o777,
        target=b"file",
        xattrs=(("security.etsclone", b"\xff"), ("trusted.etsclone", b"link")),
    ),
    node(
        b"/etc/attributes/null",
        Kind.CHAR_DEVICE,
        0o666,
        device=(1, 3),
        xattrs=(("trusted.etsclone", b"device"),),
    ),
    file(b"/etc/demo.conf", b"changed\n"),
    folder(b"/etc/devices"),
    node(b"/etc/devices/disk", Kind.BLOCK_DEVICE, 0o660, device=(259, 70000)),
    node(b"/etc/devices/tty", Kind.CHAR_DEVICE, 0o620, device=(4, 64)),
    file(b"/etc/empty", b""),
    folder(b"/etc/flags"),
    file(b"/etc/flags/a", flags=("sappnd",)),
    file(b"/etc/flags/all", flags=("sappnd", "schg", "nodump", "noatime", "sync")),
    folder(b"/etc/flags/folder", flags=("schg", "nodump", "noatime", "dirsync", "sync")),
    file(b"/etc/flags/folder/in"),
    file(b"/etc/flags/i", flags=("schg",)),
    file(b"/etc/group", GROUP),
    file(b"/etc/hostname", b"srv1\n"),
    folder(b"/etc/links"),
    node(b"/etc/links/dangling", Kind.SYMLINK, 0o777, target=b"/nowhere/" + b"t" * 150),
    three_names(b"/etc/links/first"),
    three_names(b"/etc/links/" + NAME * 2, link_to=b"/etc/links/first"),
    node(b"/etc/links/odd", Kind.SYMLINK, 0o777, target=b"\xff ../x\n"),
    three_names(b"/etc/links/second", link_to=b"/etc/links/first"),
    folder(b"/etc/modes"),
    file(b"/etc/modes/none", mode=0),
    folder(b"/etc/modes/setgid", mode=0o2755),
    file(b"/etc/modes/setuid", mode=0o4711),
    folder(b"/etc/modes/sticky", mode=0o1777),
    folder(b"/etc/names"),
    file(b"/etc/names/ #*?[\\]'\"$"),
    file(b"/etc/names/-rf"),
    folder(b"/etc/names/" + LONG[:140]),
    folder(b"/etc/names/" + LONG[:281]),
    file(b"/etc/names/" + LONG, b"longer\n"),
    file(b"/etc/names/new\nline"),
    file(b"/etc/names/" + NAME[:90], b"just fits\n"),
    file(b"/etc/names/" + NAME, b"too long\n"),
    file(b"/etc/names/to long", b"longer\n", link_to=b"/etc/names/" + LONG),
    file(b"/etc/names/\xc3\xa9"),
    folder(b"/etc/owners"),
    file(b"/etc/owners/big", uid=3_000_000, gid=4_294_967_294, uname="", gname=""),
    file(b"/etc/owners/long", uid=1001, gid=1001, uname="u" * 40, gname="g" * 40),
    file(b"/etc/owners/nameless", uid=2_097_151, gid=2_097_152, uname="", gname=""),
    file(b"/etc/owners/odd", uid=1002, gid=1002, uname="ü ser", gname="ğ=p"),
    file(b"/etc/passwd", PASSWD),
    folder(b"/etc/sparse"),
    sparse(b"/etc/sparse/ends", 1 << 20),
    sparse(b"/etc/sparse/hole", 1 << 24),
    sparse(b"/etc/sparse/" + b"s" * 120, (1 << 20) + 3),
    folder(b"/etc/times"),
    file(b"/etc/times/0", mtime_ns=0),
    file(b"/etc/times/1906", mtime_ns=-2_000_000_000_000_000_005),
    file(b"/etc/times/2350", mtime_ns=12_000_000_000_000_000_005),
    file(b"/etc/times/before", mtime_ns=-1),
    file(b"/etc/times/earlier", mtime_ns=-1_500_000_000),
    file(b"/etc/times/half", mtime_ns=-500_000_000),
    file(b"/srv/a/b/x.conf", b"deep\n"),
    file(b"/srv/top.conf", b"not so deep\n"),
]
BESIDE = [
    folder(b"/"),
    node(b"/etc/devices/log", Kind.SOCKET, 0o666),
    file(b"/etc/fstab", b"the disk's\n"),
    folder(b"/srv"),
    folder(b"/srv/a"),
    folder(b"/srv/a/b"),
    file(b"/srv/a/b/x", b"not the role's\n"),
    folder(b"/usr"),
    folder(b"/usr/bin"),
    file(b"/usr/bin/demo", mode=0o755, package="demo"),
    folder(b"/usr/share"),
    file(b"/usr/share/both"),
    folder(b"/usr/share/demo", flags=("nodump",), package="demo"),
    file(b"/usr/share/lib demo", package="libdemo"),
    folder(b"/var"),
    folder(b"/var/lib"),
    folder(b"/var/lib/dpkg"),
    folder(b"/var/lib/dpkg/info"),
    file(
        b"/var/lib/dpkg/info/demo.list",
        b"/.\n/etc/demo.conf\n/usr/bin/demo\n/usr/share/demo\n/usr/share/both\n",
    ),
    file(
        b"/var/lib/dpkg/info/libdemo:amd64.list",
        b"/.\n/usr/share/lib demo\n/usr/share/both\n",
    ),
    node(b"/var/lib/dpkg/status", Kind.FILE, 0o644, size=369, sha256=STATUS_SHA256),
]


def opened() -> VerifiedOverlay:
    trust = Trust.parse((FOLDER / "allowed_signers").read_text())
    return open_verified(OVERLAY, trust, role="primary", pair="ets", generation=6)


def test_the_header() -> None:
    with opened() as overlay:
        assert overlay.header == HEADER
        assert overlay.digest == OVERLAY_DIGEST


def test_the_payload() -> None:
    with opened() as overlay, read_payload(overlay.payload(), SCOPE) as payload:
        assert list(payload.tree.values()) == PAYLOAD
        for path, islands in CONTENTS.items():
            pieces = [(offset, piece.strip(b"\0")) for offset, piece in payload.pieces(path)]
            assert pieces == list(islands.items())
        for path, content in ((b"/etc/passwd", PASSWD), (b"/etc/names/" + LONG, b"longer\n")):
            assert list(payload.pieces(path)) == [(0, content)]


def test_the_inventory() -> None:
    # mtree(5) has no words for attributes and hard links.
    scope = [replace(entry, xattrs=(), link_to=None) for entry in PAYLOAD]
    everything = sorted([*scope, *BESIDE], key=lambda entry: entry.path)
    with opened() as overlay:
        assert list(inventory.read(overlay.inventory())) == everything
        assert Listing(overlay.inventory()).packages == PACKAGES


# --- by hand --------------------------------------------------------------------------------------------------------

MODES = {
    Kind.FILE: stat.S_IFREG,
    Kind.FOLDER: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.CHAR_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
}


def facts(entry: Entry) -> tuple[Any, ...]:
    device = os.makedev(*entry.device) if entry.device else None
    return (
        MODES[entry.kind] | entry.mode,
        (entry.uid, entry.gid),
        entry.mtime_ns,
        entry.sha256 or entry.target or device,
        entry.xattrs,
    )


def seen_facts(seen: Seen) -> tuple[Any, ...]:
    content: object = seen.content or None  # nothing of folders and fifos
    if stat.S_ISREG(seen.mode):
        assert isinstance(seen.content, bytes)
        content = hashlib.sha256(seen.content).hexdigest()
    return (seen.mode, (seen.uid, seen.gid), seen.mtime_ns, content, seen.attributes)


@needs("tar", "zstd")
@pytest.mark.skipif(os.geteuid() != 0, reason="by hand it is done as root")
def test_gnu_tar_restores_all_but_the_flags(tmp_path: Path) -> None:
    with opened() as overlay:
        (tmp_path / "payload.tar.zst").write_bytes(overlay.payload().read())
    (tmp_path / "mnt").mkdir()
    [unpack] = [
        block for block in commands(section(FORMAT, "By hand")) if block.startswith("zstd -dc")
    ]
    typed(unpack.replace("/mnt", "mnt"), tmp_path)
    restored = look(tmp_path / "mnt")
    for entry in PAYLOAD:
        assert seen_facts(restored[entry.path]) == facts(entry), entry.path
    assert restored.keys() - {entry.path for entry in PAYLOAD} == {
        b"/",
        b"/srv",
        b"/srv/a",
        b"/srv/a/b",
    }
    names: dict[bytes, set[bytes]] = {}
    for entry in PAYLOAD:
        if entry.kind is Kind.FILE:
            names.setdefault(entry.link_to or entry.path, set()).add(entry.path)
    assert links(tmp_path / "mnt") == {frozenset(group) for group in names.values()}
