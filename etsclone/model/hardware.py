"""The hardware of the machine that a clone is to run on, as far as the clone's files must fit it."""

import re
from dataclasses import dataclass
from enum import Enum

from etsclone.model.tree import printable

_PLAIN = re.compile(
    r"[0-9a-f]{2}(?:(?::[0-9a-f]{2}){5}|(?:-[0-9a-f]{2}){5}|[0-9a-f]{2}(?:\.[0-9a-f]{4}){2})"
)


def check_mac(text: str) -> str:
    """The address of one network interface as everything here keeps it: `52:54:00:12:34:56`.

    Args:
        text: in upper or lower case, in pairs with colons or dashes, or in three groups with dots.

    Raises:
        ValueError: when it is none, or stands for many interfaces or none.
    """
    low = text.lower()
    if not _PLAIN.fullmatch(low):
        raise ValueError(f"not a MAC address: {text!r}")
    digits = re.sub("[:.-]", "", low)
    if int(digits[:2], 16) & 1 or not int(digits, 16):
        raise ValueError(f"not the MAC address of one interface: {text!r}")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def check_digits(digits: str) -> str:
    """As `check_mac`, of an address that is written as twelve digits and nothing between; errors as there."""
    return check_mac(":".join(digits[at : at + 2] for at in range(0, len(digits), 2)))


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface: its name here, the address that it came with, its driver (empty when it has none)."""

    name: str
    mac: str
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """A place where a file of a system names a MAC address.

    `name` is the interface's, as far as the file tells, or empty. `matches`: it is that interface, and no other, which
    the file is about; otherwise the file gives an interface this address, whatever it came with.
    """

    path: bytes
    line: int
    mac: str
    name: str
    matches: bool


@dataclass(frozen=True, slots=True)
class Mention:
    """A place where a file names a MAC address, and nobody knows what for. Line 0 is the file's own name."""

    path: bytes
    line: int
    mac: str

    def __str__(self) -> str:
        return f"{printable(self.path)}{f':{self.line}' if self.line else ''}"


@dataclass(frozen=True, slots=True)
class Mentions:
    """Such places; `whole` tells whether all were looked at."""

    found: tuple[Mention, ...] = ()
    whole: bool = True


class Purpose(Enum):
    """What a device is for. The values are what programs are told."""

    STORAGE = "storage"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a system needs a driver for.

    `modalias` is by what the kernel finds one, `name` what people call it (`disk nvme0n1`), `module` the one that
    drives it on this machine, or empty.
    """

    purpose: Purpose
    modalias: str
    name: str
    module: str = ""
