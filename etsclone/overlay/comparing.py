"""Inventories side by side: what is equal in both is passed over as bytes, and only what differs is parsed.

Two servers of a pair have nearly all lines in common. Comparing a MiB of bytes takes less time than parsing one line.
All is done piece by piece, as it is unpacked, while it is in the processor's cache: to unpack ahead in threads takes
longer, for each piece then goes by way of memory, and each step of a thread waits for Python's lock.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

from etsclone.errors import HostilePayload
from etsclone.model.packages import Package
from etsclone.model.tree import Entry
from etsclone.overlay.compression import Unpacked
from etsclone.overlay.inventory import (
    FIRST_LINE,
    INVENTORY_LIMIT,
    LONGEST_LINE,
    PACKAGE,
    check_order,
    check_packages,
    check_root,
    entry_of,
    package_of,
)
from etsclone.units import KIB

_AHEAD = 128 * KIB
"""What is unpacked at a time, into a buffer that is used again and again: new memory for each takes twice as long."""

_FIRST_STEP = KIB
_LONGEST_PACKAGE = KIB
"""More than a line takes that names a package: its words have at most 255 or 256 bytes."""

_UNREAD = re.compile(rb" (?:sha256digest=[0-9a-f]{64}|flags=[a-z,]+)")
"""The words that a quick listing lacks. A space within a name is written in octal: none of them is part of one."""

Pair = tuple[Entry | None, Entry | None]
Window = tuple[bytes | bytearray, int]
"""Whole lines: a buffer, and where in it they end. It holds until the next one is asked for."""


class Listing:
    """An inventory that is read from its beginning; `packages` are known at once, the paths follow.

    With `quick` it is as if it had been listed without opening a file (`list_tree` with `quick`).

    Raises (each method too):
        HostilePayload: when what is looked at is damaged, cut off, or not as `inventory.write` writes it.
    """

    def __init__(
        self, stream: BinaryIO, *, limit: int = INVENTORY_LIMIT, quick: bool = False
    ) -> None:
        windows = _whole_lines(Unpacked(stream, limit))
        self._windows = map(_quickly, windows) if quick else windows
        self._buffer: bytes | bytearray = b""
        self._at = self._end = 0
        self._last = b""
        self._entry: Entry | None = None
        self.packages = self._head()

    def at_end(self) -> bool:
        """Whether no line is left."""
        while self._at == self._end:
            window = next(self._windows, None)
            if window is None:
                return True
            (self._buffer, self._end), self._at = window, 0
        return False

    def entry(self) -> Entry:
        """The path that the next line lists; it stays the next until it is taken."""
        if self._entry is None:
            self._entry = entry = entry_of(self._line())
            check_order(entry.path, self._last)
            self._last = entry.path
        return self._entry

    def take(self) -> Entry:
        """The same, and go on behind it."""
        entry = self.entry()
        self.skip(len(self._line()) + 1)
        return entry

    def ahead(self) -> tuple[bytes | bytearray, int, int]:
        """A buffer, and where in it whole lines begin, of which the first is the next one, and end."""
        return self._buffer, self._at, self._end

    def skip(self, length: int) -> None:
        """Go on behind `length` bytes, which must be whole lines of what is ahead."""
        self._at += length
        self._entry = None

    def _line(self) -> bytes:
        end = self._buffer.index(b"\n", self._at)
        if end - self._at > LONGEST_LINE:
            raise HostilePayload("line is too long")
        return bytes(self._buffer[self._at : end])

    def _head(self) -> tuple[Package, ...]:
        if self.at_end() or self._line() != FIRST_LINE:
            raise HostilePayload("inventory does not begin as mtree files do")
        self.skip(len(FIRST_LINE) + 1)
        lines: list[bytes] = []
        while not self.at_end() and (line := self._line()).startswith(PACKAGE):
            if len(line) > _LONGEST_PACKAGE:  # all are held before the first is parsed
                raise HostilePayload("line of a package is too long")
            lines.append(line)
            check_packages(len(lines))
            self.skip(len(line) + 1)
        check_root(b"" if self.at_end() else self._line())
        return _packages(tuple(lines))


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


@lru_cache(maxsize=1)
def _packages(lines: tuple[bytes, ...]) -> tuple[Package, ...]:
    """What the lines name; they are the same on the second side, unless packages came or went."""
    packages: list[Package] = []
    for line in lines:
        packages.append(package_of(line, packages[-1] if packages else None))
    return tuple(packages)


def _skip_equal(left: Listing, right: Listing) -> bool:
    """Go on, on both sides, behind the whole lines that are the same in what both have ahead; False for none."""
    same = _equal(left, right)
    buffer, start, _ = left.ahead()
    length = buffer.rfind(b"\n", start, start + same) + 1 - start
    if length <= 0:
        return False
    left.skip(length)
    right.skip(length)
    return True


def _equal(left: Listing, right: Listing) -> int:
    """How many bytes of what both have ahead are the same, but for those of the line in which they differ.

    That is found in growing steps, then by halving.
    """
    (buffer, start, left_end), (other, begun, right_end) = left.ahead(), right.ahead()
    longest = min(left_end - start, right_end - begun)
    twin = memoryview(other)[begun:]

    def equal(begin: int, end: int) -> bool:
        return buffer.startswith(twin[begin:end], start + begin)  # nothing is copied

    same, step = 0, _FIRST_STEP
    while same < longest and equal(same, min(same + step, longest)):
        same = min(same + step, longest)
        step *= 4
    end = min(same + step, longest)  # where there is a difference before it, unless all is the same
    while end - same > 1 and buffer.find(b"\n", start + same, start + end) >= 0:
        middle = (same + end) // 2
        same, end = (middle, end) if equal(same, middle) else (same, middle)
    return same


def _quickly(window: Window) -> Window:
    buffer, end = window
    lines = _UNREAD.sub(b"", memoryview(buffer)[:end])
    return lines, len(lines)


def _whole_lines(content: Unpacked) -> Iterator[Window]:
    """The same bytes in windows that end with a line."""
    buffer = bytearray(LONGEST_LINE + _AHEAD)
    space, rest = memoryview(buffer), 0
    while count := content.readinto(space[rest:]):
        filled = rest + count
        end = buffer.rfind(b"\n", 0, filled) + 1
        rest = filled - end
        if rest > LONGEST_LINE:
            raise HostilePayload("line is too long")
        yield buffer, end
        space[:rest] = space[end:filled]
    if rest:
        raise HostilePayload("last line is cut off")
