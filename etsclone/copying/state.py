"""How far a copy is: which bytes are done, which could not be read, which were not tried."""

import threading
from collections.abc import Iterable

from etsclone.model.extents import Extent, Extents
from etsclone.model.mapfile import BlockStatus, Mapfile

_TRIED: tuple[BlockStatus, ...] = (
    BlockStatus.NOT_TRIMMED,
    BlockStatus.NOT_SCRAPED,
    BlockStatus.BAD_SECTOR,
    BlockStatus.FINISHED,
)


class CopyState:
    """The state of every byte of a copy. `mark` may be called by any thread; reading merges what was marked.

    Args:
        size: of the disk, in bytes.
        earlier: where an earlier run stopped; None to begin.
    """

    def __init__(self, size: int, earlier: Mapfile | None = None) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._marked: list[tuple[Extent, BlockStatus]] = []
        self._areas: dict[BlockStatus, Extents] = {
            status: earlier.with_status(status) if earlier else Extents() for status in _TRIED
        }

    @property
    def size(self) -> int:
        """Of the disk, in bytes."""
        return self._size

    def mark(self, block: Extent, status: BlockStatus) -> None:
        """Say what became of a block."""
        with self._lock:
            self._marked.append((block, status))

    def mark_all(self, blocks: Iterable[Extent], status: BlockStatus) -> None:
        """Say what became of several blocks."""
        for block in blocks:
            self.mark(block, status)

    def area(self, status: BlockStatus) -> Extents:
        """All bytes that are in a state other than `NOT_TRIED`."""
        self._merge()
        return self._areas[status]

    def not_tried(self, wanted: Extents) -> Extents:
        """What of `wanted` was not tried yet."""
        self._merge()
        for extents in self._areas.values():
            wanted = wanted - extents
        return wanted

    def mapfile(self) -> Mapfile:
        """The state as a mapfile of the whole disk."""
        self._merge()
        return Mapfile.of(self._areas, self._size)

    def _merge(self) -> None:
        with self._lock:
            marked, self._marked = self._marked, []
        # Bytes only ever move down this list of states: in its order, a later word on a part of a block beats the
        # earlier one on the whole.
        for status in self._areas:
            fresh = Extents.of(extent for extent, found in marked if found is status)
            if fresh.ranges:
                self._areas = {
                    each: (extents | fresh) if each is status else (extents - fresh)
                    for each, extents in self._areas.items()
                }
