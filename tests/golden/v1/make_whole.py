"""How `whole-primary-000006.brd` was made: a tree with all that format 1 knows, captured and signed.

    python make_whole.py OVERLAY    # as root, with TMPDIR on ext4 and test_key of mode 0600

It is kept to tell, and is not run again: what the overlay holds is told by `../test_whole.py`.
"""

import io
import os
import socket
import struct
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from etsclone.model.brd import CloneIdentity, Filesystem, Header
from etsclone.model.scope import Scope
from etsclone.overlay.brought import brought_by_dpkg
from etsclone.overlay.container import measure, read_envelope, write_overlay
from etsclone.overlay.flags import unlock, write_flags
from etsclone.overlay.header import INVENTORY, PAYLOAD, digest
from etsclone.overlay.inventory import writing_lines
from etsclone.overlay.listing import list_tree
from etsclone.overlay.payload import write_payload
from etsclone.overlay.scan import scan
from etsclone.overlay.signing import load_private_key, sign

FOLDER = Path(__file__).parent
SECOND = 10**9
TIME = 1_782_000_000 * SECOND + 123_456_789
TIMES = {
    "etc/times/0": 0,
    "etc/times/before": -1,
    "etc/times/half": -SECOND // 2,
    "etc/times/earlier": -1_500_000_000,
    "etc/times/1906": -2_000_000_000 * SECOND - 5,
    "etc/times/2350": 12_000_000_000 * SECOND + 5,
}
FLAGS = {
    "etc/flags/a": ("sappnd",),
    "etc/flags/all": ("sappnd", "schg", "nodump", "noatime", "sync"),
    "etc/flags/folder": ("schg", "nodump", "noatime", "dirsync", "sync"),
    "etc/flags/i": ("schg",),
    "usr/share/demo": ("nodump",),
}
OWNERS = {
    "etc/owners/big": (3_000_000, 4_294_967_294),
    "etc/owners/long": (1001, 1001),
    "etc/owners/nameless": (2_097_151, 2_097_152),
    "etc/owners/odd": (1002, 1002),
}
MODES = {
    "etc/modes/setgid": 0o2755,
    "etc/modes/setuid": 0o4711,
    "etc/modes/sticky": 0o1777,
    "etc/modes/none": 0,
    "etc/acl/access": 0o640,
    "usr/bin/demo": 0o755,
}
LONG = os.fsdecode(b"/".join([b"long \xff=" * 20] * 3))
NAME = "n" * 100
STATUS = """\
Package: demo
Status: install ok installed
Architecture: all
Version: 1:2.0~rc1+b2-1^x_y
Conffiles:
 /etc/demo.conf 0123456789abcdef

Package: libdemo
Status: install ok installed
Architecture: amd64
Version: 2

Package: libdemo
Status: hold ok half-configured
Architecture: i386
Version: 2

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 3
"""
LISTS = {
    "demo": "/.\n/etc/demo.conf\n/usr/bin/demo\n/usr/share/demo\n/usr/share/both\n",
    "libdemo:amd64": "/.\n/usr/share/lib demo\n/usr/share/both\n",
}
SMALL_FILES = {
    "etc/passwd": f"root:x:0:0:::\n{'u' * 40}:x:1001:1001:::\n\u00fc ser:x:1002:1002:::\n",
    "etc/group": f"root:x:0:\n{'g' * 40}:x:1001:\n\u011f=p:x:1002:\n",
    "etc/hostname": "srv1\n",
    "etc/empty": "",
    "etc/demo.conf": "changed\n",
    "etc/fstab": "the disk's\n",
    "etc/cache/volatile": "left out\n",
    "etc/attributes/file": "x",
    "etc/attributes/capability": "x",
    "etc/acl/access": "x",
    "etc/names/new\nline": "x",
    "etc/names/-rf": "x",
    "etc/names/ #*?[\\]'\"$": "x",
    "etc/names/\u00e9": "x",
    f"etc/names/{NAME[:90]}": "just fits\n",
    f"etc/names/{NAME}": "too long\n",
    f"etc/names/{LONG}": "longer\n",
    "etc/modes/setuid": "x",
    "etc/modes/none": "x",
    "etc/flags/a": "x",
    "etc/flags/all": "x",
    "etc/flags/i": "x",
    "etc/flags/folder/in": "x",
    "etc/links/first": "three names\n",
    "srv/a/b/x.conf": "deep\n",
    "srv/a/b/x": "not the role's\n",
    "srv/top.conf": "not so deep\n",
    "usr/bin/demo": "x",
    "usr/share/both": "x",
    "usr/share/lib demo": "x",
    "var/lib/dpkg/status": STATUS,
    "var/labb/volatile": "not listed\n",
    **{f"var/lib/dpkg/info/{name}.list": text for name, text in LISTS.items()},
    **dict.fromkeys([*TIMES, *OWNERS], "x"),
}
FOLDERS = [
    "etc/modes/setgid",
    "etc/modes/sticky",
    "etc/acl/default",
    "etc/attributes/folder",
    "usr/share/demo",
    "etc/devices",
    "etc/sparse",
]


def acl(user: int, *permissions: int) -> bytes:
    """Owner, one more user, group, mask and others in the kernel's form (linux/posix_acl_xattr.h)."""
    ids = (2**32 - 1, user, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    entries = zip((0x01, 0x02, 0x04, 0x10, 0x20), permissions, ids, strict=True)
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ATTRIBUTES = {
    "etc/attributes/file": {
        "security.selinux": b"system_u:object_r:etc_t:s0\0",
        "trusted.md5sum": b"0",
        "user.%=\n": b"odd name",
        "user.all": bytes(range(256)),
        "user.empty": b"",
    },
    "etc/attributes/folder": {"trusted.overlay.opaque": b"y", "user.x": b"=\n"},
    "etc/attributes/link": {"security.etsclone": b"\xff", "trusted.etsclone": b"link"},
    "etc/attributes/fifo": {"trusted.etsclone": b"fifo"},
    "etc/attributes/null": {"trusted.etsclone": b"device"},
    # cap_net_raw+ep of linux/capability.h, version 2
    "etc/attributes/capability": {
        "security.capability": bytes.fromhex("0100000200200000000000000000000000000000")
    },
    "etc/links/first": {"user.of": b"all names"},
    "etc/acl/access": {"system.posix_acl_access": acl(1234, 6, 4, 4, 4, 0)},
    "etc/acl/default": {
        "system.posix_acl_access": acl(4_000_000_000, 7, 5, 0, 5, 5),
        "system.posix_acl_default": acl(1234, 7, 7, 5, 7, 0),
    },
}


def make(root: Path) -> None:
    """The tree."""
    os.umask(0)
    for path in FOLDERS:
        (root / path).mkdir(parents=True, exist_ok=True)
    for path, text in SMALL_FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    make_sparse(root / "etc/sparse")
    os.mkfifo(root / "etc/attributes/fifo")
    os.mknod(root / "etc/attributes/null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "etc/devices/disk", 0o60660, os.makedev(259, 70000))
    os.mknod(root / "etc/devices/tty", 0o20620, os.makedev(4, 64))
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "etc/devices/log"))
    (root / "etc/attributes/link").symlink_to("file")
    (root / "etc/links/dangling").symlink_to("/nowhere/" + "t" * 150)
    (root / "etc/links/odd").symlink_to(os.fsdecode(b"\xff ../x\n"))
    for name in ("second", NAME * 2):
        os.link(root / "etc/links/first", root / "etc/links" / name)
    os.link(root / f"etc/names/{LONG}", root / "etc/names/to long")
    finish(root)


def make_sparse(folder: Path) -> None:
    """Holes at either end and between, nothing but a hole, and a name that does not fit."""
    for name, size, islands in (
        ("ends", 1 << 20, [1 << 18, 1 << 19]),
        ("hole", 1 << 24, []),
        ("s" * 120, (1 << 20) + 3, [0, 1 << 20]),
    ):
        with (folder / name).open("xb") as file:
            file.truncate(size)
            for offset in islands:
                file.seek(offset)
                file.write(b"land")
            file.truncate(size)


def finish(root: Path) -> None:
    """Owners first, for they take capabilities away; flags last, for they forbid all else."""
    everything = sorted(root.rglob("*"), reverse=True)
    for path in everything:
        name = str(path.relative_to(root))
        os.chown(path, *OWNERS.get(name, (0, 0)), follow_symlinks=False)
        if path.is_file() and not path.is_symlink():
            path.chmod(MODES.get(name, 0o644))
        elif path.is_dir() and not path.is_symlink():
            path.chmod(MODES.get(name, 0o755))
        for key, value in ATTRIBUTES.get(name, {}).items():
            os.setxattr(path, key, value, follow_symlinks=False)
    os.chmod(root / "etc/devices/log", 0o666)
    for path in (*everything, root):
        time = TIMES.get(str(path.relative_to(root)), TIME)
        os.utime(path, ns=(time, time), follow_symlinks=False)
    root.chmod(0o755)
    for name, flags in FLAGS.items():
        with_descriptor(root / name, partial(write_flags, wanted=flags))


def with_descriptor(path: Path, work: partial[bool] | partial[None]) -> None:
    """Do something to an opened file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        work(descriptor)
    finally:
        os.close(descriptor)


def capture(root: str) -> bytes:
    """As `brd capture` does it, of a tree that nobody changes."""
    scope = Scope(("/etc", "/srv/**/*.conf"), ("/etc/fstab",), ("/etc/cache", "/var/l[ab]bb"))
    key = load_private_key(FOLDER / "test_key", bytes)
    payload, listing, overlay = io.BytesIO(), io.BytesIO(), io.BytesIO()
    write_payload(payload, root, scan(root, scope).scope)
    brought = brought_by_dpkg(root)
    with writing_lines(listing, brought.head) as write:
        list_tree(root, scope, write, started_ns=0, brought=brought)
    members = []
    for name, stream in ((PAYLOAD, payload), (INVENTORY, listing)):
        stream.seek(0)
        members.append(measure(name, stream))
        stream.seek(0)
    header = Header(
        pair="ets",
        role="primary",
        host="sërver-1.example",
        profile="ltsp-isc-dhcp",
        profile_sha256="1900eab6c028483d7126599ee6f50de0d27907b5c65fa90524580b4b0f9852b0",
        scope=scope,
        generation=6,
        created=datetime(2026, 11, 25, 3, 4, 5, tzinfo=UTC),
        previous=digest(read_envelope(FOLDER / "token-primary-000005.brd").header),
        clone=CloneIdentity(
            "8f3b2f2e-6a0e-4f6e-9c0b-1d2e3f405162",
            (
                Filesystem("vfat", "6A1B-22C3"),
                Filesystem("ext4", "3c9d2a4e-1f0b-4b58-8a53-0d6a0a4b7c11"),
                Filesystem("gpt", "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"),
                Filesystem("dos", "1a2b3c4d"),
            ),
        ),
        members=tuple(members),
    )
    write_overlay(overlay, header, partial(sign, key=key), payload, listing)
    return overlay.getvalue()


def main() -> None:
    """Make the tree, capture it, and remove it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root)
        try:
            Path(sys.argv[1]).write_bytes(capture(folder))
        finally:
            for name in FLAGS:
                with_descriptor(root / name, partial(unlock))


if __name__ == "__main__":
    main()
