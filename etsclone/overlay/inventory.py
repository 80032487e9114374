"""The inventory: a listing of a whole tree in mtree(5), compressed with zstd.

One line a path, relative to the root (`./etc/hostname`), as `bsdtar` and NetBSD's `mtree -C` write and read it.
Attributes and hard links have no words in mtree(5) and are not listed. Packages have none either: their names and
versions are comments before the first path, and `tags` of a path names the package that brought it.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
_NANO = 10**9
# Everything that means something to a reader of mtree files, vis(3) or a shell is written in octal.
_UNSAFE = re.compile(rb"[^A-Za-z0-9/._,:+@%~^-]")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_DIGITS = re.compile(rb"[0-9]{1,20}")
_SHA256 = re.compile(rb"[0-9a-f]{64}")
_TIME = re.compile(rb"(-?[0-9]{1,12})\.([0-9]{9})")
_KINDS = {kind.value.encode(): kind for kind in Kind}


@contextmanager
def writing(out: BinaryIO, installed: Installed = NO_PACKAGES) -> Iterator[Callable[[Entry], None]]:
    """Write an inventory to `out` entry by entry, in the order in which the yielded function gets them."""
    with writing_lines(out, installed.packages) as write_lines:
        owner = installed.owners.get

        def add(entry: Entry) -> None:
            write_lines(_line(entry, owner(entry.path, entry.package)))

        yield add


@contextmanager
def writing_lines(
    out: BinaryIO, packages: Iterable[Package] = ()
) -> Iterator[Callable[[bytes], object]]:
    """Write an inventory to `out`; the yielded function takes any number of lines, made of the words that are below."""
    with compressed(out, LEVEL) as plain:
        plain.write(head(packages))
        yield plain.write


def write(entries: Iterable[Entry], out: BinaryIO) -> None:
    """Write the inventory of `entries` to `out`, in their order."""
    with writing(out) as add:
        for entry in entries:
            add(entry)


def read(stream: BinaryIO, *, limit: int = INVENTORY_LIMIT) -> Iterator[Entry]:
    """The entries of an inventory that `write` wrote, in its order, one at a time.

    Raises:
        HostilePayload: when it is damaged, cut off, not as `write` writes it, or holds more than `limit` bytes.
    """
    text = lines(decompressed(stream, limit), LONGEST_LINE)
    if next(text, None) != FIRST_LINE:
        raise HostilePayload("inventory does not begin as mtree files do")
    package: Package | None = None
    for line in text:
        if not line.startswith(PACKAGE):
            yield entry_of(line)
            break
        package = package_of(line, package)
    yield from map(entry_of, text)


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
    """The lines before those of the paths."""
    return FIRST_LINE + b"\n" + b"".join(map(_package_line, packages))


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


def _line(entry: Entry, package: str) -> bytes:
    return (
        quoted(b"." + entry.path.rstrip(b"/"))
        + owner_words(entry.kind, entry.mode, entry.uid, entry.gid, entry.uname, entry.gname)
        + package_word(package)
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
    path, *rest = line.split(b" ")
    words = dict(_word(word) for word in rest)
    if len(words) != len(rest):
        raise ValueError("a word stands twice")
    kind = _KINDS[words.pop(b"type")]
    if kind is not Kind.FILE and words.keys() & {b"size", b"sha256digest"}:
        raise ValueError("content of what is no file")
    if (kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)) != (b"device" in words):
        raise ValueError("a device without numbers, or numbers without a device")
    entry = Entry(
        path=_path(path),
        kind=kind,
        mode=_number(words.pop(b"mode"), 8),
        uid=_number(words.pop(b"uid")),
        gid=_number(words.pop(b"gid")),
        mtime_ns=_time(words.pop(b"time")),
        uname=os.fsdecode(_plain(words.pop(b"uname", b""))),
        gname=os.fsdecode(_plain(words.pop(b"gname", b""))),
        size=_number(words.pop(b"size", b"0")),
        sha256=_digest(words.pop(b"sha256digest")) if b"sha256digest" in words else None,
        target=_plain(words.pop(b"link")) if b"link" in words else None,
        device=_device(words.pop(b"device")) if b"device" in words else None,
        flags=tuple(words.pop(b"flags").decode().split(",")) if b"flags" in words else (),
        package=_plain(words.pop(b"tags", b"")).decode(),
    )
    if words:
        raise ValueError(f"unknown words {sorted(words)}")
    return entry


def _path(text: bytes) -> bytes:
    top, *components = _plain(text).split(b"/")
    if top != b"." or any(component in {b"", b".", b".."} for component in components):
        raise ValueError(f"not a plain path: {text!r}")
    return b"/" + b"/".join(components)


def _word(word: bytes) -> tuple[bytes, bytes]:
    key, equals, value = word.partition(b"=")
    if not equals:
        raise ValueError(f"no word of mtree(5): {word!r}")
    return key, value


def _time(text: bytes) -> int:
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"not a time: {text!r}")
    return int(match[1]) * _NANO + int(match[2])


def _device(text: bytes) -> tuple[int, int]:
    system, major, minor = text.split(b",")
    if system != b"linux":
        raise ValueError(f"not a device of Linux: {text!r}")
    return _number(major), _number(minor)


def _number(digits: bytes, base: int = 10) -> int:
    """int() alone takes signs, blanks, underlines and the digits of every script too."""
    if not _DIGITS.fullmatch(digits):
        raise ValueError(f"not a number: {digits!r}")
    return int(digits, base)


def _digest(text: bytes) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError(f"not a sha256: {text!r}")
    return text.decode()


def quoted(text: bytes) -> bytes:
    """Text as mtree files have it: all that could mean something else stands as a backslash and three octal digits."""
    return _UNSAFE.sub(lambda match: b"\\%03o" % match[0][0], text)


def _plain(text: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), text)
