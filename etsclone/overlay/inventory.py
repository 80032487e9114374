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

LEVEL = 9
"""zstd's level: most of an inventory is digests, which no level makes smaller."""

INVENTORY_LIMIT = 2 * GIB
"""The most bytes that are unpacked; a million files take about 0.25 GiB."""

FIRST_LINE = b"#mtree"
PACKAGE = b"# package: "
LONGEST_LINE = 64 * KIB
_NANO = 10**9
# Everything that means something to a reader of mtree files, vis(3) or a shell is written in octal.
_UNSAFE = re.compile(rb"[^A-Za-z0-9/._,:+@%~^-]")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_TIME = re.compile(rb"(-?[0-9]{1,12})\.([0-9]{9})")
_KINDS = {kind.value.encode(): kind for kind in Kind}


@contextmanager
def writing(out: BinaryIO, installed: Installed = NO_PACKAGES) -> Iterator[Callable[[Entry], None]]:
    """Write an inventory to `out` entry by entry, in the order in which the yielded function gets them."""
    with compressed(out, LEVEL) as plain:
        plain.write(FIRST_LINE + b"\n" + b"".join(map(_package_line, installed.packages)))
        owner = installed.owners.get

        def add(entry: Entry) -> None:
            plain.write(_line(entry, owner(entry.path, entry.package)))

        yield add


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


def _package_line(package: Package) -> bytes:
    words = (package.name, package.version, package.arch)
    return PACKAGE + b" ".join(_quoted(word.encode()) for word in words) + b"\n"


def _line(entry: Entry, package: str) -> bytes:
    words = (b"%s=%s" % word for word in _words(entry, package))
    return b" ".join((_quoted(b"." + entry.path.rstrip(b"/")), *words)) + b"\n"


def _words(entry: Entry, package: str) -> Iterator[tuple[bytes, bytes]]:
    yield b"type", entry.kind.value.encode()
    yield b"mode", b"%04o" % entry.mode
    yield b"uid", b"%d" % entry.uid
    yield b"gid", b"%d" % entry.gid
    if entry.uname:
        yield b"uname", _quoted(os.fsencode(entry.uname))
    if entry.gname:
        yield b"gname", _quoted(os.fsencode(entry.gname))
    yield b"time", b"%d.%09d" % divmod(entry.mtime_ns, _NANO)
    if entry.kind is Kind.FILE:
        yield b"size", b"%d" % entry.size
    if entry.sha256:
        yield b"sha256digest", entry.sha256.encode()
    if entry.target is not None:
        yield b"link", _quoted(entry.target)
    if entry.device:
        yield b"device", b"linux,%d,%d" % entry.device
    if package:
        yield b"tags", _quoted(package.encode())


def _entry(line: bytes) -> Entry:
    path, *rest = line.split(b" ")
    words = dict(_word(word) for word in rest)
    entry = Entry(
        path=_plain(path).removeprefix(b".") or b"/",
        kind=_KINDS[words.pop(b"type")],
        mode=int(words.pop(b"mode"), 8),
        uid=int(words.pop(b"uid")),
        gid=int(words.pop(b"gid")),
        mtime_ns=_time(words.pop(b"time")),
        uname=os.fsdecode(_plain(words.pop(b"uname", b""))),
        gname=os.fsdecode(_plain(words.pop(b"gname", b""))),
        size=int(words.pop(b"size", b"0")),
        sha256=words.pop(b"sha256digest").decode() if b"sha256digest" in words else None,
        target=_plain(words.pop(b"link")) if b"link" in words else None,
        device=_device(words.pop(b"device")) if b"device" in words else None,
        package=_plain(words.pop(b"tags", b"")).decode(),
    )
    if words:
        raise ValueError(f"unknown words {sorted(words)}")
    return entry


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
    return int(major), int(minor)


def _quoted(text: bytes) -> bytes:
    return _UNSAFE.sub(lambda match: b"\\%03o" % match[0][0], text)


def _plain(text: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), text)
