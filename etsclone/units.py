"""Byte counts and sector counts, told apart by the type checker, and how people read them."""

from typing import NewType

Bytes = NewType("Bytes", int)
Sectors = NewType("Sectors", int)

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

SECTOR = 512
"""The unit in which the kernel counts sectors in /sys and in loop offsets, whatever the device's own sector size."""


def align_down(value: int, step: int) -> int:
    """The largest multiple of `step` that is not above `value`."""
    return value - value % step


def align_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def human(size: int) -> str:
    """A byte count for people, in binary units with three digits: `512 B`, `1.44 MiB`, `233 GiB`."""
    if size < KIB:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= KIB
        if value < 999.5 or unit == "PiB":
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"
