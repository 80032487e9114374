"""What a file tree holds, entry by entry."""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum


class Kind(Enum):
    """What stands at a path. The values are the type words of mtree(5)."""

    FILE = "file"
    FOLDER = "dir"
    SYMLINK = "link"
    FIFO = "fifo"
    CHAR_DEVICE = "char"
    BLOCK_DEVICE = "block"
    SOCKET = "socket"


FLAGS = ("sappnd", "schg", "nodump", "noatime", "dirsync", "sync")
"""The flags of chattr(1) that are state of a file (a, i, d, A, D, S), as libarchive names and orders them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a system with all that an overlay keeps of it.

    `path` is absolute as seen inside the system (`b"/etc/hostname"`, the root is `b"/"`). `mode` has the permission
    bits with setuid, setgid and sticky (0o7777). `mtime_ns` is nanoseconds since the epoch. `size` (bytes) and
    `sha256` (lower-case hex) are set for files, `target` for symbolic links, `device` (major, minor) for devices.
    `xattrs` are sorted by name and hold POSIX ACLs in the kernel's binary form. `flags` are some of `FLAGS` in their
    order, of files and folders. `link_to` names the first path (in byte order) of the same hard-linked file inside the
    same tree; the first path itself has None. `package` is the name of the package that brought the path, where an
    inventory tells it.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    uname: str = ""
    gname: str = ""
    size: int = 0
    sha256: str | None = None
    target: bytes | None = None
    device: tuple[int, int] | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()
    flags: tuple[str, ...] = ()
    link_to: bytes | None = None
    package: str = ""

    def __post_init__(self) -> None:
        if not self.path.startswith(b"/") or b"\0" in self.path:
            raise ValueError(f"not an absolute path: {self.path!r}")
        if not 0 <= self.mode <= 0o7777:
            raise ValueError(f"not permission bits: {self.mode:o}")
        if (self.kind is Kind.SYMLINK) != (self.target is not None):
            raise ValueError(f"only a symbolic link has a target: {self.path!r}")
        if self.flags:
            self._check_flags()

    def _check_flags(self) -> None:
        if self.flags != tuple(flag for flag in FLAGS if flag in self.flags):
            raise ValueError(f"not flags, or not in order: {self.flags}")
        if self.kind not in (Kind.FILE, Kind.FOLDER):
            raise ValueError(f"only files and folders have flags: {self.path!r}")

    @property
    def state(self) -> "Entry":
        """The entry without the names of owner and package: what two systems are compared by (the ids count)."""
        return replace(self, uname="", gname="", package="")


Tree = Mapping[bytes, Entry]
"""Entries by path."""

STAGING = b".etsclone-staging"
"""The folder at the top of a filesystem where a rebuild prepares new files. Never part of any overlay."""


def parent_of(path: bytes) -> bytes:
    """The folder that holds `path`; the root's is the root."""
    return path.rpartition(b"/")[0] or b"/"


def name_of(path: bytes) -> bytes:
    """The last component of `path`."""
    return path.rpartition(b"/")[2]


def join(folder: bytes, name: bytes) -> bytes:
    """The path of `name` inside `folder`."""
    return folder.rstrip(b"/") + b"/" + name


def ancestors(path: bytes) -> list[bytes]:
    """The folders on the way to `path`, the root first, `path` itself not among them."""
    slashes = [position for position, byte in enumerate(path) if byte == ord("/")]
    return [path[:position] or b"/" for position in slashes] if path != b"/" else []


def twins(paths: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Pairs of paths that are one to filesystems that fold names: by case, or by Unicode's composed characters.

    Such are vfat, exFAT, NTFS, and folders of ext4 and f2fs that were told to.
    """
    first: dict[str, bytes] = {}
    found = []
    for path in paths:
        text = path.decode("utf-8", "surrogateescape")
        folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
        if first.setdefault(folded, path) != path:
            found.append((first[folded], path))
    return found


def printable(words: bytes | str) -> str:
    r"""A name or text as people may see it: one line, no control characters that could write to a terminal.

    In a name (bytes) a backslash is escaped too: `x\n` with a backslash is no name with a line break. A text (str) may
    hold names that were made printable already, or commands that are typed again: its backslashes stay.
    """
    text = words if isinstance(words, str) else _named(words)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _named(name: bytes) -> str:
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
