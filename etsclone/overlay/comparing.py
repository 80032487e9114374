"""Inventories side by side: what is equal in both is passed over as bytes, and only what differs is parsed.

Two servers of a pair have nearly all lines in common. Comparing a MiB of bytes takes less time than parsing one line.
"""

from collections.abc import Iterator
from typing import BinaryIO

from etsclone.errors import HostilePayload
from etsclone.model.packages import Package
from etsclone.model.tree import Entry
from etsclone.overlay.compression import decompressed
from etsclone.overlay.inventory import (
    FIRST_LINE,
    INVENTORY_LIMIT,
    LONGEST_LINE,
    PACKAGE,
    entry_of,
    package_of,
)
from etsclone.units import KIB

WINDOW = 256 * KIB
"""How much of an inventory is looked at in one go; beyond what a processor's cache holds it gets slower."""

_FIRST_STEP = KIB

Pair = tuple[Entry | None, Entry | None]


class Listing:
    """An inventory that is read from its beginning; `packages` are known at once, the paths follow.

    Raises (each method too):
        HostilePayload: when what is looked at is damaged, cut off, or not as `inventory.write` writes it.
    """

    def __init__(self, stream: BinaryIO, *, limit: int = INVENTORY_LIMIT) -> None:
        self._windows = _whole_lines(decompressed(stream, limit))
        self._window = b""
        self._at = 0
        self._last = b""
        self._entry: Entry | None = None
        self.packages = self._head()

    def at_end(self) -> bool:
        """Whether no line is left."""
        while self._at == len(self._window):
            window = next(self._windows, None)
            if window is None:
                return True
            self._window, self._at = window, 0
        return False

    def entry(self) -> Entry:
        """The path that the next line lists; it stays the next until it is taken."""
        if self._entry is None:
            self._entry = entry = entry_of(self._line())
            if entry.path <= self._last:
                raise HostilePayload("inventory lists a path twice or out of order")
            self._last = entry.path
        return self._entry

    def take(self) -> Entry:
        """The same, and go on behind it."""
        entry = self.entry()
        self.skip(len(self._line()) + 1)
        return entry

    def ahead(self) -> tuple[bytes, int]:
        """Whole lines, and the position among them of the next one."""
        return self._window, self._at

    def skip(self, length: int) -> None:
        """Go on behind `length` bytes, which must be whole lines of what is ahead."""
        self._at += length
        self._entry = None

    def _line(self) -> bytes:
        end = self._window.index(b"\n", self._at)
        if end - self._at > LONGEST_LINE:
            raise HostilePayload("line is too long")
        return self._window[self._at : end]

    def _head(self) -> tuple[Package, ...]:
        if self.at_end() or self._line() != FIRST_LINE:
            raise HostilePayload("inventory does not begin as mtree files do")
        self.skip(len(FIRST_LINE) + 1)
        packages: list[Package] = []
        while not self.at_end() and (line := self._line()).startswith(PACKAGE):
            packages.append(package_of(line, packages[-1] if packages else None))
            self.skip(len(line) + 1)
        return tuple(packages)


def differing(left: Listing, right: Listing) -> Iterator[Pair]:
    """The paths whose lines are not the same on both sides, in byte order; None where a side does not have one.

    Neither inventory is ever held in memory.

    Raises:
        HostilePayload: when a line that differs is not as it must be.
    """
    while not (left.at_end() or right.at_end()):
        if _skip_equal(left, right):
            continue
        before, after = left.entry(), right.entry()
        if before.path == after.path:
            yield left.take(), right.take()
        elif before.path < after.path:
            yield left.take(), None
        else:
            yield None, right.take()
    while not left.at_end():
        yield left.take(), None
    while not right.at_end():
        yield None, right.take()


def _skip_equal(left: Listing, right: Listing) -> bool:
    """Go on, on both sides, behind the whole lines that are the same in what both have ahead; False for none."""
    (window, start), (twin, other) = left.ahead(), right.ahead()
    same = _equal(window, start, twin, other)
    length = window.rfind(b"\n", start, start + same) + 1 - start
    if length <= 0:
        return False
    left.skip(length)
    right.skip(length)
    return True


def _equal(left: bytes, start: int, right: bytes, other: int) -> int:
    """How many bytes from `start` and from `other` are the same: first in growing steps, then by halving."""
    longest = min(len(left) - start, len(right) - other)

    def equal(begin: int, end: int) -> bool:
        return left[start + begin : start + end] == right[other + begin : other + end]

    same, step = 0, _FIRST_STEP
    while same < longest and equal(same, min(same + step, longest)):
        same = min(same + step, longest)
        step *= 2
    end = min(same + step, longest)  # where there is a difference before it, unless all is the same
    while end - same > 1:
        middle = (same + end) // 2
        same, end = (middle, end) if equal(same, middle) else (same, middle)
    return same


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in windows that end with a line."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= WINDOW:
            text = b"".join(held)
            end = text.rfind(b"\n") + 1
            if len(text) - end > LONGEST_LINE:
                raise HostilePayload("line is too long")
            held, size = [text[end:]], len(text) - end
            yield text[:end]
    text = b"".join(held)
    if text and not text.endswith(b"\n"):
        raise HostilePayload("last line is cut off")
    yield text
