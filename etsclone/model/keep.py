"""What programs of a clone may change to make its disk boot, and an undo brings back: no step of etsclone's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BootCode:
    """Bytes of a disk that lie in no filesystem, as they were before; `start` is where on the disk, in bytes."""

    start: int
    before: bytes

    @property
    def place(self) -> tuple[int, int]:
        """Where it is: start and size."""
        return self.start, len(self.before)


class WriteCode(Protocol):
    """Writes boot code to the disk that it is of, and has it safe there when it returns."""

    def __call__(self, code: Sequence[BootCode], /) -> None:
        """Raises `DeviceError` when that fails."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What is kept of before those programs run.

    Attributes:
        paths: files and whole folders of the system; what is not there yet is to be a folder.
        code: of the disk.
        lost: what else they may change, and why it is not kept: for people, one a line.
    """

    paths: tuple[bytes, ...] = ()
    code: tuple[BootCode, ...] = ()
    lost: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to be written down."""
        return bool(self.paths or self.code or self.lost)


NOTHING = Keep()
