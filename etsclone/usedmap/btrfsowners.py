"""What bytes of a btrfs on one device belong to: from the device to the filesystem's own addresses, and up its trees.

The chunk tree tells which address a byte of the device has, the extent tree which inode of which subvolume (or which
tree) lies there, the subvolume's tree how that inode is called. Only the blocks on the way are read, one `dump-tree -b`
each, so a large filesystem takes no longer. Nothing is mounted: the kernel would confuse a filesystem with its clone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from etsclone.model.extents import Extent, Extents
from etsclone.run import run
from etsclone.units import KIB
from etsclone.usedmap.btrfs import Chunk, read_chunks
from etsclone.usedmap.ownertext import number_of

_SUPERBLOCKS = tuple(
    Extent(start, start + 4 * KIB) for start in (64 * KIB, 64 * KIB * KIB, 256 * KIB * KIB * KIB)
)
"""Where the copies are (`btrfs_sb_offset` in fs/btrfs/disk-io.h)."""

_FS_TREE = "FS_TREE"
_TOP = "256"
"""The inode of a subvolume's own folder (`BTRFS_FIRST_FREE_OBJECTID`)."""

_DEEPEST = 200
_CHILD = re.compile(r"^\tkey \((\d+) \S+ \S+\) block (\d+) gen", re.MULTILINE)
_ITEM = re.compile(r"^\titem \d+ key \((\d+) (\S+) (\d+)\) .*\n((?:\t\t.*\n?)*)", re.MULTILINE)
_ROOT = re.compile(r"^\S.*tree key \((\S+) ROOT_ITEM \S+\) (\d+) level", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Item:
    number: int
    kind: str
    offset: int
    body: str

    def find(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.body, re.MULTILINE)


def btrfs_owners(device: str, lost: Extents) -> list[str]:
    """What `lost` bytes of the filesystem on `device` belong to.

    Raises:
        CommandFailed: when its trees cannot be read.
        FormatError, ValueError: when they make no sense.
    """
    trees = _Trees(device)
    lines = ["superblock"] if any((Extents((each,)) & lost).ranges for each in _SUPERBLOCKS) else []
    for chunk in read_chunks(device):
        for logical in _logical(chunk, lost):
            lines += trees.owners(chunk, logical) or ["free space"]
    return lines or ["free space"]


def _logical(chunk: Chunk, lost: Extents) -> Iterator[Extent]:
    for place in chunk.copies:
        for extent in lost & Extents((place,)):
            yield extent.shifted(chunk.logical - place.start)


class _Trees:
    """The trees of one filesystem, read block by block."""

    def __init__(self, device: str) -> None:
        self._device = device
        superblock = self._inspect("dump-super")
        self._node_size = number_of(r"(?m)^nodesize\s+(\d+)", superblock)
        listed = self._dump("-r")
        self._roots = {name: int(block) for name, block in _ROOT.findall(listed)}
        self._root_tree = number_of(r"(?m)^root tree: (\d+) level", listed)

    def owners(self, chunk: Chunk, logical: Extent) -> list[str]:
        """What lies in some addresses of a chunk."""
        copy = " (there is another copy)" if len(chunk.starts) > 1 else ""
        lines: list[str] = []
        low, high = logical.start - self._node_size, logical.end - 1
        for item in self._items(self._roots["EXTENT_TREE"], low, high):
            size = {"EXTENT_ITEM": item.offset, "METADATA_ITEM": self._node_size}.get(item.kind, 0)
            if item.number < logical.end and logical.start < item.number + size:
                names = [*self._names(item)] or ["data of files"]
                lines += [f"{name}{copy}" for name in names]
        return lines

    def _names(self, item: _Item) -> Iterator[str]:
        for reference in item.find(r"^\t\textent data backref root (\S+ objectid \d+)"):
            root, _, inode = reference.split(" ")
            yield f"file {self._path(root, inode)}"
        if item.find(r"^\t\tshared data backref"):
            yield "data that files of several snapshots share"
        for root in item.find(r"^\t\ttree block backref root (\S+)"):
            yield f"metadata: {self._tree_name(root)}"
        if item.find(r"^\t\tshared block backref"):
            yield "metadata that several snapshots share"

    def _tree_name(self, root: str) -> str:
        if root.isdecimal() or root == _FS_TREE:
            return f"files and folders of {self._subvolume(root)}"
        return root.replace("_", " ").lower()

    def _subvolume(self, root: str) -> str:
        if root == _FS_TREE:
            return "the top subvolume"
        items = self._items(self._root_tree, int(root), int(root))
        names = [
            name
            for item in items
            if item.kind == "ROOT_BACKREF" and item.number == int(root)
            for name in item.find(r"^\t\troot backref key dirid \d+ sequence \d+ name (.*)$")
        ]
        return f"subvolume {names[0]}" if names else f"subvolume {root}"

    def _path(self, root: str, inode: str) -> str:
        where = "" if root == _FS_TREE else f" of {self._subvolume(root)}"
        names: list[str] = []
        number = inode
        while number != _TOP and len(names) < _DEEPEST:
            found = self._name_of(root, int(number))
            if found is None:
                return f"with inode {inode}, which has no path{where}"
            number, name = found
            names.append(name)
        return "/" + "/".join(reversed(names)) + where

    def _name_of(self, root: str, inode: int) -> tuple[str, str] | None:
        if root not in self._roots:
            return None
        for item in self._items(self._roots[root], inode, inode):
            if item.number == inode and item.kind == "INODE_REF":
                names = item.find(r"^\t\tindex \d+ namelen \d+ name: (.*)$")
                if names:
                    return str(item.offset), names[0]
        return None

    def _items(self, block: int, low: int, high: int) -> Iterator[_Item]:
        """The items of the leaves below a block whose numbers may be in `[low, high]`; more may come."""
        text = self._dump("-b", str(block))
        children = [(int(number), int(child)) for number, child in _CHILD.findall(text)]
        if not children:
            for number, kind, offset, body in _ITEM.findall(text):
                yield _Item(int(number), kind, int(offset), body)
            return
        ends = [number for number, _ in children[1:]] + [high]
        for (first, child), end in zip(children, ends, strict=True):
            if first <= high and end >= low:
                yield from self._items(child, low, high)

    def _dump(self, *what: str) -> str:
        return self._inspect("dump-tree", "--noscan", *what)

    def _inspect(self, *what: str) -> str:
        return run("btrfs", ["inspect-internal", *what, self._device]).stdout
