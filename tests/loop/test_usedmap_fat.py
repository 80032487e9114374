"""The reader of FAT agrees with partclone on real filesystems, but for FAT12, of which partclone 0.3.23 loses files.

That one is tested with the other filesystems, by what a clone of its used blocks holds.
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from etsclone.disk.device import opened, read_bytes
from etsclone.model.disk import Content
from etsclone.model.extents import Extent, Extents
from etsclone.usedmap import fat
from etsclone.usedmap.partclone import parse_domain
from etsclone.usedmap.region import Region, Unlocked

from . import disks
from .disks import MIB, loop_device, tool

pytestmark = pytest.mark.loop


class Device:
    """A block device, as the readers of used maps see it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, extent: Extent) -> bytes:
        return read_bytes(self._descriptor, extent)

    def content(self, extent: Extent) -> Content:
        raise NotImplementedError(extent)

    def frozen(self, extent: Extent) -> bool:
        raise NotImplementedError(extent)

    def unlocked(self, extent: Extent) -> Unlocked | None:
        raise NotImplementedError(extent)

    def window(self, extent: Extent) -> AbstractContextManager[str]:
        raise NotImplementedError(extent)


def fill_and_fragment(image: Path, folder: Path) -> None:
    tree = folder / "tree"
    tree.mkdir()
    for number in range(150):
        (tree / f"file{number}").write_bytes(os.urandom(997 * number % 40_000 + 1))
    tool("mcopy", "-s", "-i", image, tree, "::/tree")
    tool("mdel", "-i", image, *(f"::/tree/file{number}" for number in range(0, 150, 3)))
    (folder / "long").write_bytes(os.urandom(MIB))
    tool("mcopy", "-i", image, folder / "long", "::/long")


def map_of_partclone(device: Path, size: int, folder: Path) -> Extents:
    output = folder / "domain"
    tool("partclone.vfat", "-D", "-f", "0", "-s", device, "-o", output, "-L", folder / "log")
    return parse_domain(output.read_text(), size)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (("-F", "16", "-s", "2"), 24 * MIB),
        (("-F", "16", "-s", "16", "-R", "7"), 100 * MIB + 3 * 512),
        (("-F", "32", "-s", "1"), 64 * MIB),
        (("-F", "32", "-s", "8", "-h", "2048"), 300 * MIB + 9 * 512),
        (("-F", "32", "-s", "2", "-f", "1"), 80 * MIB),
    ],
)
def test_it_is_the_map_of_partclone(options: tuple[str, ...], size: int, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "fat.img", size)
    tool("mkfs.vfat", *options, image)
    fill_and_fragment(image, tmp_path)
    with loop_device(image, read_only=True) as device:
        expected = map_of_partclone(device, size, tmp_path)
        with opened(str(device), writable=False) as descriptor:
            found = fat.find_used(Region(Device(descriptor), Extent(0, size)))
    assert (found.method, found.note) == (f"FAT{options[1]}", "")
    assert found.extents == expected
