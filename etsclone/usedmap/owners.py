"""What lost bytes belonged to: which file, or metadata, or free space, as the filesystem's own tools tell."""

import re
from collections.abc import Callable, Sequence

from etsclone.errors import CommandFailed, MissingProgram
from etsclone.model.disk import Partition
from etsclone.model.extents import Extents
from etsclone.run import run

_MOST = 1000
"""Of how many blocks the owner is asked; behind that many, what is left is told as a number of blocks."""


def owners(partition: Partition, lost: Extents) -> tuple[str, ...]:
    """Name what `lost` bytes (of the disk) inside a partition belonged to, one line each, without repetition.

    Where the filesystem has no tool that tells, or it fails, the bytes themselves are named.
    """
    inside = (lost & Extents.between(partition.start, partition.end)).shifted(-partition.start)
    ask = _TELLERS.get(partition.content.type)
    if not inside.ranges:
        return ()
    try:
        if ask is not None:
            return tuple(dict.fromkeys(ask(partition.device, inside)))
    except (CommandFailed, MissingProgram, ValueError):
        pass
    kind = partition.content.type or "unknown content"
    return tuple(f"bytes {extent.start} to {extent.end} of {kind}" for extent in inside)


def _blocks(extents: Extents, size: int) -> list[int]:
    return [
        number
        for extent in extents.aligned(size, extents.ranges[-1].end)
        for number in range(extent.start // size, -(-extent.end // size))
    ]


def _ext_owners(device: str, lost: Extents) -> list[str]:
    # debugfs(8): icheck gives the inode of each block, ncheck the paths of inodes, testb whether a block is in use.
    size = _number(r"Block size:\s+(\d+)", run("dumpe2fs", ["-h", device]).stdout)
    blocks = _blocks(lost, size)
    shown = _debugfs(device, "icheck", blocks[:_MOST])
    inodes = {
        int(block): inode for block, inode in re.findall(r"^(\d+)\t(\S.*)$", shown, re.MULTILINE)
    }
    known = sorted({int(inode) for inode in inodes.values() if inode.isdecimal()})
    listed = _debugfs(device, "ncheck", known) if known else ""
    paths = {int(inode): path for inode, path in re.findall(r"^(\d+)\t(.*)$", listed, re.MULTILINE)}
    return [
        _ext_owner(device, block, inodes.get(block, ""), paths) for block in blocks[:_MOST]
    ] + _rest(blocks)


def _ext_owner(device: str, block: int, inode: str, paths: dict[int, str]) -> str:
    if inode.isdecimal():
        # Inode 8 is the journal, 7 holds reserved descriptors: they have no path.
        return (
            f"file /{paths[int(inode)].lstrip('/')}"
            if int(inode) in paths
            else f"inode {inode} (no path: journal or orphan)"
        )
    return (
        "free space"
        if "not in use" in _debugfs(device, "testb", [block])
        else "filesystem metadata"
    )


def _debugfs(device: str, request: str, numbers: Sequence[int]) -> str:
    return run("debugfs", ["-R", " ".join((request, *map(str, numbers))), device]).stdout


def _xfs_owners(device: str, lost: Extents) -> list[str]:
    # xfs_db(8): blockget -n collects owners and names, daddr (512 bytes) sets the place, blockuse -n tells of it.
    sectors = _blocks(lost, 512)
    places = [
        part
        for sector in sectors[:_MOST]
        for part in ("-c", f"daddr {sector}", "-c", "blockuse -n")
    ]
    shown = run("xfs_db", ["-r", "-c", "blockget -n", *places, device], accept=(0, 1)).stdout
    found = re.findall(
        r"^block \S+ \(\S+\) type (\S+)(?: inode (\d+))?(?: (.*))?$", shown, re.MULTILINE
    )
    if not found:
        raise ValueError("xfs_db told nothing")
    return [_xfs_owner(kind, inode, path) for kind, inode, path in found] + _rest(sectors)


def _xfs_owner(kind: str, inode: str, path: str) -> str:
    if inode:
        return f"file /{path}" if path else f"inode {inode} (no path)"
    return "free space" if kind.startswith("free") else f"filesystem metadata ({kind})"


def _rest(blocks: Sequence[int]) -> list[str]:
    return [f"and {len(blocks) - _MOST} blocks more"] if len(blocks) > _MOST else []


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"nothing like {pattern} was told")
    return int(match.group(1))


_TELLERS: dict[str, Callable[[str, Extents], list[str]]] = {
    "ext2": _ext_owners,
    "ext3": _ext_owners,
    "ext4": _ext_owners,
    "xfs": _xfs_owners,
}
