"""What unpacks large: each in a process of its own that may have little memory, and is refused or read within it.

The owner of a trusted key can sign a few KiB that hold gigabytes: of content, but also of all that a reader keeps
beside it. The limits are those of `amounts` and `inventory`; the bombs are made piece by piece: these tests stay small.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from etsclone.model.extents import Extent, Extents
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import amounts, pax
from etsclone.overlay.compression import compressed
from etsclone.overlay.inventory import MOST_PACKAGES
from etsclone.units import GIB, KIB, MIB

SMALL = 8 * MIB
"""More than any of the bombs takes."""

MEMORY = 400 * MIB
"""What their readers may have, more than the interpreter: measured, none needs more than 145 MiB."""

ETC = pax.header(Entry(b"/etc", Kind.FOLDER, 0o755, 0, 0, 0), Extents())
ROOT = b". type=dir mode=0755 uid=0 gid=0 time=0.000000000\n"

READING = """
import io, resource, sys
from etsclone.errors import HostilePayload
from etsclone.model.scope import Scope
from etsclone.overlay import inventory
from etsclone.overlay.comparing import Listing, differing
from etsclone.overlay.payload import read_payload

def payload(bomb):
    with read_payload(bomb, Scope(("/etc",))) as payload:
        return len(payload.tree)

def listing(bomb):
    return sum(1 for _ in inventory.read(bomb))

def comparison(bomb):
    return sum(1 for _ in differing(Listing(bomb), Listing(io.BytesIO(bomb.getvalue()))))

bomb = io.BytesIO(open(sys.argv[2], "rb").read())
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
most = used + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    print(globals()[sys.argv[1]](bomb))
except HostilePayload as error:
    print("refused:", error)
"""


def read_small(reader: str, bomb: Path) -> str:
    """What a reader says of a bomb, in a process that may have `MEMORY` bytes more than it begins with."""
    done = process(reader, bomb)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def process(reader: str, bomb: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", before + READING, reader, str(bomb), str(MEMORY)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def frame(path: Path, pieces: Iterator[bytes]) -> Path:
    """One frame of all the pieces."""
    with path.open("wb") as out, compressed(out, 1) as plain:
        for piece in pieces:
            plain.write(piece)
    assert path.stat().st_size < SMALL
    return path


def member(number: int, **words: object) -> bytes:
    return pax.header(Entry(b"/etc/%08d" % number, Kind.FIFO, 0, 0, 0, 0, **words), Extents())  # type: ignore[arg-type]


def content(size: int) -> Iterator[bytes]:
    """A file of zeros, none of them left out."""
    entry = Entry(b"/etc/x", Kind.FILE, 0o644, 0, 0, 0, size=size)
    yield pax.header(entry, Extents.between(0, size))
    yield from (bytes(MIB) for _ in range(size // MIB))


def large_attributes(size: int) -> Iterator[bytes]:
    """As many values as there may be in all, or one more."""
    for number in range(size // (64 * KIB)):
        yield member(number, xattrs=(("user.a", bytes(64 * KIB)),))


def small_attributes(count: int) -> Iterator[bytes]:
    """All that one inode may have, again and again."""
    names = tuple((f"user.{number:04x}", b"") for number in range(6400))
    for number in range(count // len(names) + 1):
        yield member(number, xattrs=names[: count - number * len(names)])


def one_with(*attributes: tuple[str, bytes]) -> Iterator[bytes]:
    yield member(0, xattrs=tuple(sorted(attributes)))


def pieces(*counts: int) -> Iterator[bytes]:
    """Sparse files of so many pieces of one byte."""
    for number, count in enumerate(counts):
        data = Extents(tuple(Extent(2 * at, 2 * at + 1) for at in range(count)))
        entry = Entry(b"/etc/%08d" % number, Kind.FILE, 0o644, 0, 0, 0, size=2 * count)
        yield pax.header(entry, data) + bytes(data.size) + pax.padding(data.size)


def endless_map() -> Iterator[bytes]:
    """A map whose last number does not end."""
    (sound,) = pieces(1)
    yield sound[: sound.index(b"2\n0\n1\n")] + b"2\n0\n1\n"
    yield from (b"0" * MIB for _ in range(GIB // MIB))


def members(count: int) -> Iterator[bytes]:
    yield from map(member, range(count))


def packages(count: int) -> Iterator[bytes]:
    """Of long names and versions."""
    for number in range(count):
        yield b"# package: %s %s %s\n" % (b"%08d" % number * 32, b"1" * 255, b"a" * 256)


def links(count: int) -> Iterator[bytes]:
    """Symbolic links to the farthest away."""
    target = b"t" * amounts.LONGEST_PATH
    for number in range(count):
        entry = Entry(b"/etc/%08d" % number, Kind.SYMLINK, 0o777, 0, 0, 0, target=target)
        yield pax.header(entry, Extents())


def deep(path: bytes) -> Iterator[bytes]:
    yield pax.header(Entry(path, Kind.FOLDER, 0o755, 0, 0, 0), Extents())


def line(length: int) -> Iterator[bytes]:
    yield b"./"
    yield from (b"x" * min(MIB, length - at) for at in range(0, length, MIB))
    yield b" type=dir mode=0755 uid=0 gid=0 time=0.000000000\n"


PIECES, ATTRIBUTES = amounts.MOST_PIECES, amounts.MOST_ATTRIBUTES
PAYLOADS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "content": (lambda: content(300 * MIB), "2"),
    "attributes-at-the-limit": (lambda: large_attributes(127 * MIB), "2033"),
    "attributes-above-it": (lambda: large_attributes(GIB), "bytes of names"),
    "attributes-small": (lambda: small_attributes(ATTRIBUTES), "165"),
    "attributes-small-above": (lambda: small_attributes(ATTRIBUTES + 1), "attributes"),
    "attribute-of-65537-bytes": (
        lambda: one_with(("user.a", bytes(64 * KIB + 1))),
        "attribute that is too large",
    ),
    "attribute-with-a-long-name": (
        lambda: one_with(("user." + "a" * 251, b"")),
        "attribute that is too large",
    ),
    "attributes-beyond-a-list": (
        lambda: one_with(*((f"user.{number:05x}", b"") for number in range(6000))),
        "too many attributes",
    ),
    "attributes-beyond-8-mib": (
        lambda: one_with(*((f"user.{number}", bytes(64 * KIB)) for number in range(128))),
        "too many attributes",
    ),
    "records-beyond-the-limit": (
        lambda: one_with(*((f"user.{number}", bytes(64 * KIB)) for number in range(260))),
        "records are too large",
    ),
    "map-at-the-limit": (lambda: pieces(PIECES), "2"),
    "map-above-it": (lambda: pieces(PIECES + 1), "map of a sparse file is too large"),
    "maps-above-it-together": (lambda: pieces(PIECES, 1), "pieces of sparse files"),
    "map-without-end": (endless_map, "map of a sparse file is damaged"),
    "members-above-the-limit": (
        lambda: members(amounts.MOST_MEMBERS),
        "files and folders",
    ),
    "targets-above-the-limit": (lambda: links(33_000), "bytes of names"),
    "path-of-megabytes": (lambda: deep(b"/etc" + b"/a" * MIB), "too long"),
    "path-of-4096-bytes": (lambda: deep(b"/etc" + b"/a" * 2046), "too long"),
    "name-of-256-bytes": (lambda: deep(b"/etc/" + b"a" * 256), "too long"),
}


SLOW = ("attributes-small", "attributes-small-above", "members-above-the-limit")


def archive(make: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    return chain([ETC], make(), [pax.END])


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=[pytest.mark.thorough] if what in SLOW else []) for what in PAYLOADS],
)
def test_a_payload_is_read_in_bounded_memory(what: str, tmp_path: Path) -> None:
    make, says = PAYLOADS[what]
    assert says in read_small("payload", frame(tmp_path / "bomb", archive(make)))


LISTINGS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "packages-at-the-limit": (lambda: chain(packages(MOST_PACKAGES), [ROOT]), ""),
    "packages-above-it": (
        lambda: chain(packages(600_000), [ROOT]),
        "refused: inventory names more",
    ),
    "packages-of-long-lines": (
        lambda: (b"# package: %05d %s 1\n" % (at, b"1" * 60_000) for at in range(10_000)),
        "refused",
    ),
    "line-of-a-gigabyte": (lambda: chain([ROOT], line(GIB)), "refused: line is too long"),
    "lines-above-the-limit": (
        lambda: chain([ROOT], (b"\n" * MIB for _ in range(2049))),
        "refused",
    ),
}


@pytest.mark.parametrize("reader", ["listing", "comparison"])
@pytest.mark.parametrize("what", LISTINGS)
def test_an_inventory_is_read_in_bounded_memory(what: str, reader: str, tmp_path: Path) -> None:
    make, says = LISTINGS[what]
    bomb = frame(tmp_path / "bomb", chain([b"#mtree\n"], make()))
    assert read_small(reader, bomb).startswith(says or {"listing": "1", "comparison": "0"}[reader])


@pytest.mark.parametrize("what", ["attributes-above-it", "packages-above-it"])
def test_without_its_limit_it_would_not_be(what: str, tmp_path: Path) -> None:
    """So the memory that the processes above may have is one that bombs can use up."""
    lifted = "from etsclone.overlay import amounts, inventory\n"
    lifted += "amounts.MOST_TEXT = inventory.MOST_PACKAGES = 1 << 60\n"
    if what in PAYLOADS:
        reader, bomb = "payload", frame(tmp_path / "bomb", archive(PAYLOADS[what][0]))
    else:
        listing = chain([b"#mtree\n"], LISTINGS[what][0]())
        reader, bomb = "comparison", frame(tmp_path / "bomb", listing)
    done = process(reader, bomb, lifted)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr


def test_what_is_counted_is_counted_together() -> None:
    """With the true limits, but without an archive around it."""
    for most, member, what in (
        (amounts.MOST_MEMBERS, (fifo(), Extents()), "files and folders"),
        (amounts.MOST_ATTRIBUTES // 1000, (fifo(thousand()), Extents()), "extended attributes"),
    ):
        counted = amounts.Amounts()
        for _ in range(most):
            counted.add(*member)
        with pytest.raises(ValueError, match=f"more than .* {what}"):
            counted.add(*member)


def thousand() -> tuple[tuple[str, bytes], ...]:
    return tuple((f"user.{number:03}", b"") for number in range(1000))


def fifo(xattrs: tuple[tuple[str, bytes], ...] = ()) -> Entry:
    return Entry(b"/etc/x", Kind.FIFO, 0, 0, 0, 0, xattrs=xattrs)
