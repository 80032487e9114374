"""The inventory: a listing of a whole tree in mtree(5), compressed with zstd.

One line a path, relative to the root (`./etc/hostname`), as `bsdtar` and NetBSD's `mtree -C` write and read it.
Attributes and hard links have no words in mtree(5) and are not listed. Packages have none either: their names and
versions are comments before the first path, and `tags` of a path names the package that brought it.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import BinaryIO

from etsclone.errors import HostilePayload
from etsclone.model.packages import NO_PACKAGES, Installed, Package
from etsclone.model.tree import Entry, Kind
from etsclone.overlay.compression import compressed, decompressed, lines
from etsclone.units import GIB, KIB

LEVEL = 1
"""zstd's level. Most of an inventory is digests, which no level makes smaller; the first is the smallest here too."""

INVENTORY_LIMIT = 2 * GIB
"""The most bytes that are unpacked; a million files take about 0.25 GiB."""

FIRST_LINE = b"#mtree"
PACKAGE = b"# package: "
LONGEST_LINE = 64 * KIB
MOST_PACKAGES = 2**16
"""Debian has hardly more in all. A system with more is listed without any."""

_NANO = 10**9
# Everything that means something to a reader of mtree files, vis(3) or a shell is written in octal.
_UNSAFE = re.compile(rb"[^A-Za-z0-9/._,:+@%~^-]")
_SAFE = bytes(byte for byte in range(256) if not _UNSAFE.match(bytes((byte,))))
_OCTAL = re.compile(rb"\\([0-7]{3})")
_LINE = re.compile(
    rb"([^ ]+) type=([a-z]+) mode=([0-7]{4}) uid=N gid=N(?: uname=([^ ]+))?(?: gname=([^ ]+))?"
    rb"(?: tags=([^ ]+))? time=(0|-?[1-9][0-9]{0,18})\.([0-9]{9})(?: size=N)?"
    rb"(?: sha256digest=([0-9a-f]{64}))?(?: link=([^ ]+))?(?: device=linux,N,N)?"
    rb"(?: flags=([a-z,]+))?".replace(b"N", rb"(0|[1-9][0-9]{0,19})")
)
"""All words in the one order that they have. They are written in one way only: what is read says the same again."""

_KINDS = {kind.value.encode(): kind for kind in Kind}


@contextmanager
def writing(out: BinaryIO, installed: Installed = NO_PACKAGES) -> Iterator[Callable[[Entry], None]]:
    """Write an inventory to `out` entry by entry, in the order in which the yielded function gets them."""
    with writing_lines(out, head(installed.packages)) as write_lines:
        owner = installed.owners.get

        def add(entry: Entry) -> None:
            write_lines(line_of(entry, package_word(owner(entry.path, entry.package))))

        yield add


@contextmanager
def writing_lines(
    out: BinaryIO, first: bytes = FIRST_LINE + b"\n"
) -> Iterator[Callable[[bytes], object]]:
    """Write an inventory to `out`, beginning with what `head` gives.

    The yielded function takes any number of lines, made of the words that are below.
    """
    with compressed(out, LEVEL) as plain:
        plain.write(first)
        yield plain.write


def write(entries: Iterable[Entry], out: BinaryIO) -> None:
    """Write the inventory of `entries` to `out`, in their order."""
    with writing(out) as add:
        for entry in entries:
            add(entry)


def read(stream: BinaryIO, *, limit: int = INVENTORY_LIMIT) -> Iterator[Entry]:
    """The entries of an inventory that `write` wrote, in its order, one at a time.

    Raises:
        HostilePayload: when it is damaged, cut off, not as `write` writes it, does not begin with the root, lists a
            path twice or out of order, or holds more than `limit` bytes or `MOST_PACKAGES`.
    """
    text = lines(decompressed(stream, limit), LONGEST_LINE)
    if next(text, None) != FIRST_LINE:
        raise HostilePayload("inventory does not begin as mtree files do")
    package: Package | None = None
    packages = 0
    first = next(text, b"")
    while first.startswith(PACKAGE):
        package = package_of(first, package)
        packages += 1
        check_packages(packages)
        first = next(text, b"")
    check_root(first)
    last = b""
    for entry in map(entry_of, chain((first,), text)):
        check_order(entry.path, last)
        last = entry.path
        yield entry


def check_packages(count: int) -> None:
    """Raises `HostilePayload` when there are more packages than any system has: whoever compares holds them all."""
    if count > MOST_PACKAGES:
        raise HostilePayload(f"inventory names more than {MOST_PACKAGES} packages")


def check_root(line: bytes) -> None:
    """Raises `HostilePayload` when the first line of a path is not that of the root."""
    if not line.startswith(b". "):
        raise HostilePayload("inventory does not begin with the root of the tree")


def check_order(path: bytes, last: bytes) -> None:
    """Raises `HostilePayload` when a path does not come behind the one before."""
    if path <= last:
        raise HostilePayload("inventory lists a path twice or out of order")


def listed(
    stream: BinaryIO, wanted: Iterable[bytes], *, limit: int = INVENTORY_LIMIT
) -> dict[bytes, Entry]:
    """Those of the wanted paths that an inventory lists; it is read as far as that takes, and no other line is parsed.

    Raises:
        HostilePayload: when what is looked at is damaged, or cut off.
    """
    missing = {quoted(b"." + path.rstrip(b"/")) for path in wanted}
    found: dict[bytes, Entry] = {}
    text = lines(decompressed(stream, limit), LONGEST_LINE)
    while missing and (line := next(text, None)) is not None:
        name = line[: line.find(b" ")]
        if name in missing:
            missing.remove(name)
            entry = entry_of(line)
            found[entry.path] = entry
    return found


def entry_of(line: bytes) -> Entry:
    """The path that a line (without its end) lists.

    Raises:
        HostilePayload: when it is not as `write` writes it.
    """
    try:
        return _entry(line)
    except (KeyError, ValueError) as error:
        raise HostilePayload(f"inventory is damaged at {line[:80]!r}") from error


def package_of(line: bytes, before: Package | None) -> Package:
    """The package that a line names which begins with `PACKAGE`; `before` is that of the line before, if any.

    Raises:
        HostilePayload: when it is not as `write` writes it, or not in order.
    """
    try:
        name, version, arch = (_plain(word).decode() for word in line[len(PACKAGE) :].split(b" "))
        package = Package(name, arch, version)
    except ValueError as error:
        raise HostilePayload(f"inventory is damaged at {line[:80]!r}") from error
    if before is not None and package <= before:
        raise HostilePayload(f"inventory names a package twice or out of order: {name}")
    return package


def head(packages: Iterable[Package]) -> bytes:
    """The lines before those of the paths; without packages when there are more than `MOST_PACKAGES`."""
    found = tuple(packages)
    return (
        FIRST_LINE
        + b"\n"
        + b"".join(map(_package_line, found if len(found) <= MOST_PACKAGES else ()))
    )


def _package_line(package: Package) -> bytes:
    words = (package.name, package.version, package.arch)
    return PACKAGE + b" ".join(quoted(word.encode()) for word in words) + b"\n"


def owner_words(kind: Kind, mode: int, uid: int, gid: int, uname: str, gname: str) -> bytes:
    """The words of a line from `type` to the names of the owners; what many paths have in common."""
    words = b" type=%s mode=%04o uid=%d gid=%d" % (kind.value.encode(), mode, uid, gid)
    for key, owner in ((b"uname", uname), (b"gname", gname)):
        if owner:
            words += b" %s=%s" % (key, quoted(os.fsencode(owner)))
    return words


def package_word(package: str) -> bytes:
    """The word that follows the owner's where a package brought the path."""
    return b" tags=" + quoted(package.encode()) if package else b""


def tags_of(line: bytes) -> bytes:
    """The `package_word` of a line."""
    return b"".join(line.partition(b" time=")[0].partition(b" tags=")[1:])


def state_words(
    mtime_ns: int,
    *,
    size: int | None = None,
    sha256: str | None = None,
    target: bytes | None = None,
    device: tuple[int, int] | None = None,
    flags: tuple[str, ...] = (),
) -> bytes:
    """The words of a line that follow those, with the end of the line; `size` is only a file's."""
    words = b" time=%d.%09d" % divmod(mtime_ns, _NANO)
    if size is not None:
        words += b" size=%d" % size
    if sha256:
        words += b" sha256digest=" + sha256.encode()
    if target is not None:
        words += b" link=" + quoted(target)
    if device:
        words += b" device=linux,%d,%d" % device
    if flags:
        words += b" flags=" + ",".join(flags).encode()
    return words + b"\n"


def file_words(mtime_ns: int, size: int, sha256: str, flags: tuple[str, ...]) -> bytes:
    """As `state_words` of a file that was read, which most paths are; quicker."""
    if flags:
        return state_words(mtime_ns, size=size, sha256=sha256, flags=flags)
    seconds, rest = divmod(mtime_ns, _NANO)
    return b" time=%d.%09d size=%d sha256digest=%s\n" % (seconds, rest, size, sha256.encode())


def line_of(entry: Entry, package: bytes) -> bytes:
    """The line of a path, with its end; `package` is its `package_word`."""
    return (
        quoted(b"." + entry.path.rstrip(b"/"))
        + owner_words(entry.kind, entry.mode, entry.uid, entry.gid, entry.uname, entry.gname)
        + package
        + state_words(
            entry.mtime_ns,
            size=entry.size if entry.kind is Kind.FILE else None,
            sha256=entry.sha256,
            target=entry.target,
            device=entry.device,
            flags=entry.flags,
        )
    )


def _entry(line: bytes) -> Entry:
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError("not the words of a line, or not in their order")
    # fmt: off
    (path, word, mode, uid, gid, uname, gname, package, seconds, nanoseconds,
     size, sha256, target, major, minor, flags) = match.groups()
    # fmt: on
    kind = _KINDS[word]
    if (kind is Kind.FILE) != (size is not None) or (sha256 and kind is not Kind.FILE):
        raise ValueError("a file without a size, or content of what is no file")
    if (kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)) != (major is not None):
        raise ValueError("a device without numbers, or numbers without a device")
    return Entry(
        path=_path(path),
        kind=kind,
        mode=int(mode, 8),
        uid=int(uid),
        gid=int(gid),
        mtime_ns=int(seconds) * _NANO + int(nanoseconds),
        uname=os.fsdecode(_plain(uname)) if uname else "",
        gname=os.fsdecode(_plain(gname)) if gname else "",
        size=int(size) if size else 0,
        sha256=sha256.decode() if sha256 else None,
        target=_plain(target) if target else None,
        device=(int(major), int(minor)) if major else None,
        flags=tuple(flags.decode().split(",")) if flags else (),
        package=_plain(package).decode() if package else "",
    )


def _path(text: bytes) -> bytes:
    top, *components = _plain(text).split(b"/")
    if top != b"." or any(component in {b"", b".", b".."} for component in components):
        raise ValueError(f"not a plain path: {text!r}")
    return b"/" + b"/".join(components)


def quoted(text: bytes) -> bytes:
    """Text as mtree files have it: all that could mean something else stands as a backslash and three octal digits."""
    if not text.translate(None, _SAFE):  # nearly every name: quicker than the expression
        return text
    return _UNSAFE.sub(lambda match: b"\\%03o" % match[0][0], text)


def _plain(text: bytes) -> bytes:
    """What was quoted; raises `ValueError` unless it was quoted as `quoted` does."""
    if not text.translate(None, _SAFE):
        return text
    plain = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 255]), text)
    if quoted(plain) != text:
        raise ValueError(f"not quoted as it must be: {text[:80]!r}")
    return plain
