"""What blocks of ext2, ext3 and ext4 belong to, as debugfs and dumpe2fs tell."""

import re
from collections.abc import Iterator, Sequence

from etsclone.model.extents import Extent, Extents
from etsclone.run import run
from etsclone.usedmap.ownertext import MOST, blocks_of, number_of, rest_of

_GROUPS = re.compile(r"^\d+:\d+:(-?\d+):(-?\d+(?:-\d+)?):(\d+):(\d+):(\d+)$", re.MULTILINE)
"""What `dumpe2fs -g` prints of a group: superblock and descriptors (-1 for none), bitmaps, and the inode table."""

_WITHOUT_PATH = {
    7: "reserved group descriptors",
    8: "journal",
}
"""Inodes that no folder names (Documentation/filesystems/ext4/special_inodes.rst)."""


def ext_owners(device: str, lost: Extents) -> list[str]:
    """What `lost` bytes of the filesystem on `device` belong to.

    Raises:
        CommandFailed: when its tools give up.
        ValueError: when they tell nothing.
    """
    # Of a journal whose inode cannot be read, dumpe2fs complains behind what is asked for here.
    header = run("dumpe2fs", ["-h", device], accept=(0, 1)).stdout
    blocks = blocks_of(lost, number_of(r"Block size:\s+(\d+)", header))
    groups = run("dumpe2fs", ["-g", device]).stdout
    table = number_of(r"Inode blocks per group:\s+(\d+)", header)
    metadata = [place for group in _GROUPS.findall(groups) for place in _places(group, table)]
    names = {block: _name_in(metadata, block) for block in blocks[:MOST]}
    names |= _in_files(device, [block for block, name in names.items() if not name])
    return [*names.values(), *rest_of(blocks)]


def _places(group: tuple[str, ...], table: int) -> Iterator[tuple[str, Extent]]:
    superblock, descriptors, blocks, inodes, first = group
    if int(superblock) >= 0:
        yield "superblock", _block(int(superblock))
    if descriptors != "-1":
        start, _, end = descriptors.partition("-")
        yield "group descriptors", Extent(int(start), int(end or start) + 1)
    yield "block bitmap", _block(int(blocks))
    yield "inode bitmap", _block(int(inodes))
    yield "inode table", Extent(int(first), int(first) + table)


def _block(number: int) -> Extent:
    return Extent(number, number + 1)


def _name_in(metadata: list[tuple[str, Extent]], block: int) -> str:
    return next((name for name, place in metadata if place.start <= block < place.end), "")


def _in_files(device: str, blocks: list[int]) -> dict[int, str]:
    if not blocks:
        return {}
    # debugfs(8): icheck gives the inode of each block, ncheck the paths of inodes.
    shown = _debugfs(device, "icheck", blocks)
    found = re.findall(r"^(\d+)\t(\d+|<block not found>)$", shown, re.MULTILINE)
    if not found:
        raise ValueError("debugfs told nothing")
    inodes = {int(block): int(inode) for block, inode in found if inode.isdecimal()}
    known = sorted(set(inodes.values()))
    listed = _debugfs(device, "ncheck", known)
    paths = {int(inode): path for inode, path in re.findall(r"^(\d+)\t(.*)$", listed, re.MULTILINE)}
    names = {inode: _inode_name(device, inode, paths.get(inode)) for inode in known}
    return {
        block: names[inodes[block]] if block in inodes else _unowned(device, block)
        for block in blocks
    }


def _inode_name(device: str, inode: int, path: str | None) -> str:
    if path is None:
        return _WITHOUT_PATH.get(inode, f"inode {inode}, which has no path")
    kind = "folder" if "Type: directory" in _debugfs(device, f"stat <{inode}>") else "file"
    return f"{kind} /{path.lstrip('/')}"


def _unowned(device: str, block: int) -> str:
    told = _debugfs(device, "testb", [block])
    if "not in use" in told:
        return "free space"
    return "filesystem metadata" if "marked in use" in told else f"block {block}"


def _debugfs(device: str, request: str, numbers: Sequence[int] = ()) -> str:
    return run("debugfs", ["-R", " ".join((request, *map(str, numbers))), device]).stdout
