"""What lies between a block device and the disks that hold its bytes, as the kernel tells it."""

import os
from dataclasses import dataclass

from etsclone.run import run

_DEVICES = "/sys/dev/block"
ARRAY = "md"


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers below a device: `kinds` are the targets of device-mapper (`linear`, `crypt`, ...), and `md`.

    `bases` are the device numbers of the partitions and disks that all of it lies on.
    """

    kinds: frozenset[str] = frozenset()
    bases: frozenset[int] = frozenset()


def layers_of(number: int) -> Layers:
    """The layers of the device with this number; a partition has none, and is its own base.

    Raises:
        CommandFailed: when device-mapper does not tell.
    """
    folder = f"{_DEVICES}/{os.major(number)}:{os.minor(number)}"
    if os.path.isdir(f"{folder}/dm"):
        kinds = _targets(number)
    elif os.path.isdir(f"{folder}/{ARRAY}"):
        kinds = frozenset({ARRAY})
    else:
        return Layers(bases=frozenset({number}))
    below = [
        layers_of(_number(f"{folder}/slaves/{name}")) for name in os.listdir(f"{folder}/slaves")
    ]
    return Layers(
        kinds.union(*(each.kinds for each in below)),
        frozenset().union(*(each.bases for each in below)),
    )


def _targets(number: int) -> frozenset[str]:
    """Source: dmsetup(8), table: `start length target ...` in each line."""
    words = ["table", "--major", str(os.major(number)), "--minor", str(os.minor(number))]
    return frozenset(line.split()[2] for line in run("dmsetup", words).stdout.splitlines())


def _number(folder: str) -> int:
    with open(f"{folder}/dev", encoding="ascii") as file:
        major, minor = file.read().split(":")
    return os.makedev(int(major), int(minor))
