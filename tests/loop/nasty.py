"""A tree with everything that is easily lost when files are copied."""

import os
import socket
import stat
from pathlib import Path

from oracle import acl

from .disks import MIB, tool

NS = 1_234_567_890_123_456_789


def fill(root: Path) -> None:
    """Fill an empty filesystem."""
    for make in (_files, _names, _links, _specials, _holes, _rights, _attributes, _flags):
        folder = root / make.__name__.strip("_")
        folder.mkdir()
        make(folder)
        os.utime(folder, ns=(NS, NS + 1))
    os.utime(root, ns=(NS, NS + 2))
    os.chown(root, 7, 8)


def _files(folder: Path) -> None:
    (folder / "large").write_bytes(os.urandom(3 * MIB))
    (folder / "empty").write_bytes(b"")
    for number in range(300):
        (folder / f"file{number}").write_bytes(os.urandom(number * 37 % 9000))
    os.utime(folder / "large", ns=(NS, NS))
    os.utime(folder / "empty", ns=(NS, -5_000_000_001))


def _names(folder: Path) -> None:
    for name in (
        b"\xff\xfe not utf-8",
        b"new\nline",
        b"tab\t",
        b"-dash",
        b" ",
        b"x" * 255,
        b"\xc3\xa9",
    ):
        (folder / os.fsdecode(name)).write_bytes(name)
    deep = folder
    for _ in range(40):
        deep = deep / "deeper"
    deep.mkdir(parents=True)


def _links(folder: Path) -> None:
    (folder / "one").write_text("one inode")
    for name in ("two", "../files/three"):
        (folder / name).hardlink_to(folder / "one")
    (folder / "dangling").symlink_to("/nowhere/" + "long" * 60)
    (folder / "dangling too").hardlink_to(folder / "dangling")
    (folder / "host").symlink_to("/etc/passwd")
    (folder / "way out").symlink_to("/etc")
    os.lchown(folder / "host", 12, 13)
    os.utime(folder / "host", ns=(NS, NS), follow_symlinks=False)


def _specials(folder: Path) -> None:
    os.mknod(folder / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(folder / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
    (folder / "null too").hardlink_to(folder / "null")
    os.mkfifo(folder / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)


def _holes(folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(40 * MIB)
        file.seek(20 * MIB)
        file.write(b"middle")
    (folder / "zeros").write_bytes(bytes(MIB))


def _rights(folder: Path) -> None:
    for mode in (0o4755, 0o2755, 0o6711, 0o0000, 0o0400, 0o1666):
        path = folder / f"{mode:o}"
        path.write_text("rights")
        os.chown(path, 100_000 + mode, 4_000_000_000)
        path.chmod(mode)
    for mode in (0o1777, 0o2770, 0o0000):
        (folder / f"folder {mode:o}").mkdir()
        (folder / f"folder {mode:o}").chmod(mode)


def _attributes(folder: Path) -> None:
    for name in ("file", "acl", "capable"):
        (folder / name).write_text(name)
    os.setxattr(folder / "file", "user.colour", bytes(range(256)))
    os.setxattr(folder / "file", "user.empty", b"")
    os.setxattr(folder / "file", "trusted.secret", b"for root alone")
    os.setxattr(folder / "file", "security.mark", b"marked")
    os.setxattr(folder / "acl", "system.posix_acl_access", acl(1234, 5, 0o644))
    os.setxattr(folder, "system.posix_acl_default", acl(77, 7, 0o750))
    # VFS_CAP_REVISION_2, effective, cap_net_raw (include/uapi/linux/capability.h).
    value = (0x02000001).to_bytes(4, "little") + (1 << 13).to_bytes(4, "little") + bytes(12)
    os.setxattr(folder / "capable", "security.capability", value)
    (folder / "link").symlink_to("file")
    os.setxattr(folder / "link", "trusted.link", b"of the link itself", follow_symlinks=False)


def _flags(folder: Path) -> None:
    for flag in "iadAS":
        (folder / flag).write_text(flag)
        tool("chattr", f"+{flag}", folder / flag)
    (folder / "frozen").mkdir()
    (folder / "frozen" / "inside").write_text("in")
    tool("chattr", "+i", folder / "frozen")


def flags(root: Path) -> dict[str, str]:
    """What lsattr tells of the files with flags, without those that tell how a filesystem keeps a file."""
    kept = "iadASsu"
    lines = (
        tool("lsattr", "-R", root / "flags").splitlines()
        + tool("lsattr", "-d", root / "flags" / "frozen").splitlines()
    )
    words = [line.split() for line in lines if line.startswith(("-", *kept)) and " " in line]
    return {
        word[1].removeprefix(str(root)): "".join(c for c in word[0] if c in kept) for word in words
    }


def thaw(root: Path) -> None:
    """Let a tree be removed again."""
    tool("chattr", "-R", "-i", "-a", root / "flags")
