"""Byte counts and sector counts, told apart by the type checker, and how people read them and other counts."""

import re
from datetime import timedelta
from typing import NewType

Bytes = NewType("Bytes", int)
Sectors = NewType("Sectors", int)

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

SECTOR = 512
"""The unit in which the kernel counts sectors in /sys and in loop offsets, whatever the device's own sector size."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def align_down(value: int, step: int) -> int:
    """The largest multiple of `step` that is not above `value`."""
    return value - value % step


def align_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def counted(number: int, noun: str, verb: str = "", verbs: str = "") -> str:
    """A count for people, whose verb fits: `1 path`, `25 paths`; with `is` and `are`: `1 path is`, `25 paths are`."""
    one = number == 1
    return f"{number} {noun}{'' if one else 's'} {verb if one else verbs}".rstrip()


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


def parse_age(text: str) -> timedelta:
    """A length of time as people write it: `90s`, `30m`, `36h`, `2d`, `1w`.

    Raises:
        ValueError: when it is none.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if match is None:
        raise ValueError(f"not a length of time: {text!r}")
    return int(match[1]) * timedelta(seconds=_SECONDS[match[2]])


def human_age(age: timedelta) -> str:
    """A length of time for people, in the largest unit of which it is two or more: `45 m`, `36 h`, `12 d`."""
    seconds = int(age.total_seconds())
    for unit in reversed(_SECONDS):
        if abs(seconds) >= 2 * _SECONDS[unit]:
            break
    return f"{int(seconds / _SECONDS[unit])} {unit}"


def parse_size(text: str) -> int:
    """A byte count as people write it: `4096`, `64K`, `1.5M`, `2GiB`; units are binary.

    Raises:
        ValueError: when it is none.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGTP]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    whole, _, part = match.group(1).partition(".")
    unit = 1 << (10 * " KMGTP".index(match.group(2).upper() or " "))
    return int(whole + part) * unit // int("1" + "0" * len(part))
