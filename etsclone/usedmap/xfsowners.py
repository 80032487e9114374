"""What blocks of xfs belong to, as xfs_db tells."""

import re
from dataclasses import dataclass

from etsclone.model.extents import Extents
from etsclone.run import run
from etsclone.usedmap.ownertext import MOST, blocks_of, number_of, rest_of

_HEADER = "header of an allocation group"
_JOURNAL = "journal"
_KINDS = {
    "sb": _HEADER,
    "freelist": "free list of an allocation group",
    "btbno": "tree of free space",
    "btcnt": "tree of free space",
    "btino": "tree of inodes",
    "btfino": "tree of inodes",
    "btrmap": "tree of owners",
    "btrefcnt": "tree of shared blocks",
    "inode": "inodes",
    "free1": "free space",
    "free2": "free space",
}
"""What xfs_db calls what no file owns (db/check.c of xfsprogs)."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Of a filesystem: bytes in a block, blocks in an allocation group, how many low bits of a block's number count
    within its group, and the numbers of the journal's blocks.
    """

    block_size: int
    group_blocks: int
    low_bits: int
    log: range

    def number(self, block: int) -> int:
        """The number that xfs gives to a block, counted from the beginning of the device."""
        group, inside = divmod(block, self.group_blocks)
        return (group << self.low_bits) + inside


def xfs_owners(device: str, lost: Extents) -> list[str]:
    """What `lost` bytes of the filesystem on `device` belong to.

    Raises:
        CommandFailed: when xfs_db gives up.
        ValueError: when it tells nothing.
    """
    shape = _shape(device)
    blocks = blocks_of(lost, shape.block_size)
    names = {block: _fixed(shape, block) for block in blocks[:MOST]}
    # Where the journal cannot be read, xfs_db tells nothing of the rest: what needs no telling comes first.
    names |= _told(device, shape, [block for block, name in names.items() if not name])
    return [*names.values(), *rest_of(blocks)]


def _shape(device: str) -> _Shape:
    fields = "blocksize agblocks agblklog logstart logblocks"
    shown = run("xfs_db", ["-r", "-c", "sb 0", "-c", f"p {fields}", device]).stdout
    size, group, bits, start, count = (
        number_of(rf"(?m)^{field} = (\d+)$", shown) for field in fields.split()
    )
    return _Shape(size, group, bits, range(start, start + count if start else 0))


def _fixed(shape: _Shape, block: int) -> str:
    if shape.number(block) in shape.log:
        return _JOURNAL
    return _HEADER if block % shape.group_blocks == 0 else ""


def _told(device: str, shape: _Shape, blocks: list[int]) -> dict[int, str]:
    # xfs_db(8): blockget -n collects owners and names, and with -b says what it finds of a block without reading it;
    # ncheck then knows the names.
    if not blocks:
        return {}
    asked = " ".join(f"-b {shape.number(block)}" for block in blocks)
    shown = _xfs_db(device, f"blockget -n {asked}")
    kinds = dict(re.findall(r"^setting block (\d+/\d+) to (\S+)$", shown, re.MULTILINE))
    pairs = re.findall(r"^setting inode to (\d+) for block (\d+/\d+)$", shown, re.MULTILINE)
    inodes = {place: int(inode) for inode, place in pairs}
    if not kinds:
        raise ValueError("xfs_db told nothing")
    paths = _paths(device, sorted(set(inodes.values())))
    names = {}
    for block in blocks:
        group, inside = divmod(block, shape.group_blocks)
        place = f"{group}/{inside}"
        kind = kinds.get(place, "free1")
        names[block] = _owner(kind, inodes.get(place), paths)
    return names


def _owner(kind: str, inode: int | None, paths: dict[int, str]) -> str:
    if inode is None:
        return _KINDS.get(kind, f"filesystem metadata ({kind})")
    if inode not in paths:
        return f"inode {inode}, which has no path"
    # A folder's own path ends in a dot.
    path = paths[inode]
    what = "folder" if path.endswith("/.") or path == "." else "file"
    return f"{what} /{path.removesuffix('.').rstrip('/') if what == 'folder' else path}"


def _paths(device: str, inodes: list[int]) -> dict[int, str]:
    if not inodes:
        return {}
    asked = " ".join(f"-i {inode}" for inode in inodes)
    shown = _xfs_db(device, "blockget -n", f"ncheck {asked}")
    return {int(inode): path for inode, path in re.findall(r"^ *(\d+) (.+)$", shown, re.MULTILINE)}


def _xfs_db(device: str, *commands: str) -> str:
    options = [part for command in commands for part in ("-c", command)]
    return run("xfs_db", ["-r", *options, device], accept=(0, 1)).stdout
