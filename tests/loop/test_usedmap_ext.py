"""The reader of ext2, ext3 and ext4 agrees with partclone on real filesystems, fragmented and full ones too."""

import contextlib
import os
from pathlib import Path

import pytest

from etsclone.disk.device import opened
from etsclone.model.extents import Extent, Extents
from etsclone.usedmap import ext
from etsclone.usedmap.partclone import parse_domain
from etsclone.usedmap.region import Region

from . import disks
from .disks import MIB, loop_device, tool
from .test_usedmap_fat import Device

pytestmark = pytest.mark.loop

BEHIND = 7 * 512


def fill_and_fragment(folder: Path, part: int) -> None:
    """Use `part` percent of the free space, and give every third file back."""
    status = os.statvfs(folder)
    budget = status.f_bavail * status.f_frsize * part // 100
    files: list[Path] = []
    with contextlib.suppress(OSError):  # no space left: so it is full
        while budget > 0:
            files.append(folder / f"file{len(files)}")
            budget -= files[-1].write_bytes(os.urandom(9973 * len(files) % 300_000)) + 4096
    os.sync()
    for file in files[::3]:
        file.unlink()


def map_of_partclone(device: Path, size: int, folder: Path) -> Extents:
    output = folder / "domain"
    tool("partclone.ext4", "-D", "-f", "0", "-s", device, "-o", output, "-L", folder / "log")
    return parse_domain(output.read_text(), size)


@pytest.mark.parametrize("filled", [0, 40, 110])
@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext2", "-b", "1024"),
        ("-t", "ext3", "-b", "4096"),
        ("-t", "ext4", "-b", "1024"),
        ("-t", "ext4", "-b", "2048", "-O", "^metadata_csum,uninit_bg"),
        ("-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg,^flex_bg,^64bit"),
        ("-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode"),
        ("-t", "ext4", "-b", "4096", "-O", "^resize_inode,large_dir", "-E", "packed_meta_blocks=1"),
        ("-t", "ext4", "-b", "1024", "-O", "^has_journal,^sparse_super,^resize_inode", "-G", "4"),
    ],
)
def test_it_is_the_map_of_partclone(
    options: tuple[str, ...], filled: int, tmp_path: Path, scratch: Path
) -> None:
    size = 150 * MIB + BEHIND
    image = disks.blank(tmp_path / "ext.img", size)
    tool("mke2fs", "-q", "-F", *options, image)
    if filled:
        with loop_device(image) as device, disks.mounted(device, scratch):
            fill_and_fragment(scratch, filled)
    with loop_device(image, read_only=True) as device:
        expected = map_of_partclone(device, size, tmp_path)
        with opened(str(device), writable=False) as descriptor:
            found = ext.find_used(Region(Device(descriptor), Extent(0, size)))
    assert (found.method, found.note) == ("block bitmaps", "")
    assert found.extents == expected
