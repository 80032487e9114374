"""Reading a source by a view of it: at its own places, but for what the view has elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from etsclone.copying.access import read_block
from etsclone.errors import ReadFailed
from etsclone.model.extents import Extent
from etsclone.model.view import Kept, Place, Stretch, View


@dataclass(frozen=True, slots=True)
class Viewed:
    """A view of a source with open descriptors of the snapshots that it names.

    `check` is asked when a snapshot cannot be read, in whichever thread: it raises when the snapshot itself was lost.
    """

    view: View
    snapshots: Mapping[str, int]
    check: Callable[[], None]

    def read(self, descriptor: int, block: Extent, buffer: memoryview) -> None:
        """Fill `buffer` with a block's bytes; `descriptor` is the source itself.

        Raises:
            ReadFailed: when some of it cannot be read.
            DeviceError: when the source ends early, or it or a snapshot is gone.
        """
        for part, place in self.view.parts(block):
            with buffer[part.start - block.start : part.end - block.start] as piece:
                self._read_part(descriptor, part, place, piece)

    def _read_part(self, descriptor: int, part: Extent, place: Place, piece: memoryview) -> None:
        match place:
            case None:
                read_block(descriptor, part, piece, "source")
            case Kept(offset, data):
                piece[:] = data[part.start - offset : part.end - offset]
            case Stretch(extent, device, offset):
                there = part.shifted(offset - extent.start)
                try:
                    read_block(self.snapshots[device], there, piece, "snapshot")
                except ReadFailed:
                    self.check()
                    raise
