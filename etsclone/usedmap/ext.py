"""Which bytes of an ext2, ext3 or ext4 are used, read from its block bitmaps.

partclone knows them as well, and is the judge of all that this reader does not know or finds odd: it then raises
FormatError, and partclone is asked. What it does tell equals what partclone tells, without starting a program.

Source: Documentation/filesystems/ext4 of the kernel (super, group_descr, bitmaps, checksums); all integers are
little-endian. A group without a bitmap (BLOCK_UNINIT) has in use what its descriptors say, as in libext2fs
(lib/ext2fs/rw_bitmaps.c, mark_uninit_bg_group_blocks).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from etsclone.errors import FormatError
from etsclone.model.extents import Extent, Extents
from etsclone.units import KIB
from etsclone.usedmap.crc import crc16, crc32c
from etsclone.usedmap.region import Finding, Region

CONTENTS = frozenset({"ext2", "ext3", "ext4"})
"""What blkid calls them."""

_SUPER = KIB
_MAGIC = 0xEF53
_STATE_CLEAN = 0x1
_SPARSE_SUPER2 = 0x200
_64BIT = 0x80
_CSUM_SEED = 0x2000
_SPARSE_SUPER = 0x1
_GDT_CSUM = 0x10
_METADATA_CSUM = 0x400
_BLOCK_UNINIT = 0x2

_KNOWN_INCOMPAT = (
    0x2 | 0x40 | _64BIT | 0x100 | 0x200 | 0x400 | _CSUM_SEED | 0x4000 | 0x8000 | 0x10000 | 0x20000
)
"""filetype, extents, 64bit, mmp, flex_bg, ea_inode, metadata_csum_seed, large_dir, inline_data, encrypt, casefold.
Not: compression, a journal to replay or elsewhere, meta_bg, and what is to come."""

_KNOWN_RO_COMPAT = (
    _SPARSE_SUPER | 0x2 | 0x8 | _GDT_CSUM | 0x20 | 0x40 | 0x100 | _METADATA_CSUM | 0x2000 | 0x8000
)
"""sparse_super, large_file, huge_file, uninit_bg, dir_nlink, extra_isize, quota, metadata_csum, project, verity.
Not: bigalloc, snapshots, replicas, shared blocks, orphans to clean up, and what is to come."""

_USED_RUN = re.compile("1+")


@dataclass(frozen=True, slots=True)
class Super:
    """What the superblock says. Sizes in bytes, counts and places in blocks."""

    block_size: int
    blocks: int
    first_block: int
    per_group: int
    inode_blocks: int
    descriptor_size: int
    reserved_descriptors: int
    compat: int
    ro_compat: int
    backups: tuple[int, int]
    uuid: bytes
    seed: int

    @property
    def groups(self) -> int:
        """How many groups of blocks there are; the last may be shorter."""
        return -(-(self.blocks - self.first_block) // self.per_group)

    @property
    def descriptor_blocks(self) -> int:
        """The size of the table of group descriptors, of which some groups have a copy."""
        return -(-self.groups * self.descriptor_size // self.block_size)

    def blocks_of(self, group: int) -> Extent:
        """The blocks of a group."""
        start = self.first_block + group * self.per_group
        return Extent(start, min(start + self.per_group, self.blocks))

    def has_copy(self, group: int) -> bool:
        """Whether a group begins with a copy of the superblock and of the descriptors."""
        if self.compat & _SPARSE_SUPER2:
            return group == 0 or group in self.backups
        return group < 2 or not self.ro_compat & _SPARSE_SUPER or _is_power_of(group, (3, 5, 7))


@dataclass(frozen=True, slots=True)
class Group:
    """What the descriptor of a group says: places in blocks of the filesystem."""

    number: int
    bitmap: int
    inode_bitmap: int
    inode_table: int
    free: int
    has_bitmap: bool
    checksum: int


def find_used(region: Region) -> Finding:
    """All but the blocks that are free, and what lies behind the last one.

    Raises:
        FormatError: when it has what this reader does not know, or anything about it does not fit together.
        DeviceError: when the disk cannot be read.
    """
    superblock = parse_super(region.read(_SUPER, KIB))
    size = superblock.block_size
    if superblock.blocks * size > region.size:
        raise FormatError("it is larger than the partition")
    table = region.read((superblock.first_block + 1) * size, superblock.descriptor_blocks * size)
    groups = list(parse_groups(table, superblock))
    used = Extents.of(_metadata(superblock, groups)) | Extents.of(
        _used_blocks(region, superblock, groups)
    )
    if used.ranges[-1].end > superblock.blocks:
        raise FormatError("it has metadata behind its end")
    inside = Extents.of(Extent(each.start * size, each.end * size) for each in used)
    behind = Extents.between(superblock.blocks * size, region.size)
    return Finding(inside | behind, "block bitmaps")


def parse_super(data: bytes) -> Super:
    """Read the superblock, 1024 bytes.

    Raises:
        FormatError: when it is none, has features that this reader does not know, or was not cleanly unmounted.
    """
    compat, incompat, ro_compat = (_integer(data, at, 4) for at in (0x5C, 0x60, 0x64))
    if _integer(data, 0x38, 2) != _MAGIC or _integer(data, 0x3A, 2) != _STATE_CLEAN:
        raise FormatError("it has no superblock of a clean filesystem")
    if incompat & ~_KNOWN_INCOMPAT or ro_compat & ~_KNOWN_RO_COMPAT:
        raise FormatError("it has unknown features")
    checked = bool(ro_compat & _METADATA_CSUM)
    if checked and crc32c(0xFFFFFFFF, data[:0x3FC]) != _integer(data, 0x3FC, 4):
        raise FormatError("its superblock has a wrong checksum")
    wide = bool(incompat & _64BIT)
    block_size = KIB << min(_integer(data, 0x18, 4), 16)
    inodes, inode_size = _integer(data, 0x28, 4), _integer(data, 0x58, 2)
    uuid = data[0x68:0x78]
    found = Super(
        block_size=block_size,
        blocks=_integer(data, 0x04, 4) | (_integer(data, 0x150, 4) << 32 if wide else 0),
        first_block=_integer(data, 0x14, 4),
        per_group=_integer(data, 0x20, 4),
        inode_blocks=-(-inodes * (inode_size if _integer(data, 0x4C, 4) else 128) // block_size),
        descriptor_size=_integer(data, 0xFE, 2) if wide else 32,
        reserved_descriptors=_integer(data, 0xCE, 2),
        compat=compat,
        ro_compat=ro_compat,
        backups=(_integer(data, 0x24C, 4), _integer(data, 0x250, 4)),
        uuid=uuid,
        seed=_seed(data, incompat, uuid) if checked else 0,
    )
    if (
        not 10 <= block_size.bit_length() - 1 <= 16
        or found.first_block != (1 if block_size == KIB else 0)
        or found.blocks <= found.first_block
        or not 0 < found.per_group <= 8 * block_size
        or found.per_group % 8
        or found.descriptor_size not in ({64} if wide else {32})
    ):
        raise FormatError("its superblock makes no sense")
    return found


def _seed(data: bytes, incompat: int, uuid: bytes) -> int:
    return _integer(data, 0x270, 4) if incompat & _CSUM_SEED else crc32c(0xFFFFFFFF, uuid)


def parse_groups(table: bytes, superblock: Super) -> Iterator[Group]:
    """Read the descriptors of all groups.

    Raises:
        FormatError: when a checksum is wrong.
    """
    size, may_lack = superblock.descriptor_size, _GDT_CSUM | _METADATA_CSUM
    for number in range(superblock.groups):
        raw = table[number * size : (number + 1) * size]
        _check_descriptor(raw, number, superblock)
        high = raw[32:] or bytes(32)
        uninitialised = superblock.ro_compat & may_lack and _integer(raw, 0x12, 2) & _BLOCK_UNINIT
        yield Group(
            number,
            bitmap=_integer(raw, 0x00, 4) | _integer(high, 0x00, 4) << 32,
            inode_bitmap=_integer(raw, 0x04, 4) | _integer(high, 0x04, 4) << 32,
            inode_table=_integer(raw, 0x08, 4) | _integer(high, 0x08, 4) << 32,
            free=_integer(raw, 0x0C, 2) | _integer(high, 0x0C, 2) << 16,
            has_bitmap=not uninitialised,
            checksum=_integer(raw, 0x18, 2) | _integer(high, 0x18, 2) << 16,
        )


def _check_descriptor(raw: bytes, number: int, superblock: Super) -> None:
    # Of the checksum's own two bytes: zeros count for the one kind of checksum, nothing for the other.
    before, after, place = raw[:0x1E], raw[0x20:], number.to_bytes(4, "little")
    if superblock.ro_compat & _METADATA_CSUM:
        found = crc32c(superblock.seed, place + before + bytes(2) + after) & 0xFFFF
    elif superblock.ro_compat & _GDT_CSUM:
        found = crc16(0xFFFF, superblock.uuid + place + before + after)
    else:
        return
    if found != _integer(raw, 0x1E, 2):
        raise FormatError(f"the descriptor of group {number} has a wrong checksum")


def _metadata(superblock: Super, groups: list[Group]) -> Iterator[Extent]:
    """The blocks that are in use whatever the bitmaps say, those in front of the first group among them."""
    yield Extent(0, superblock.first_block + 1)
    copied = 1 + superblock.descriptor_blocks + superblock.reserved_descriptors
    for group in groups:
        if superblock.has_copy(group.number):
            start = superblock.blocks_of(group.number).start
            yield Extent(start, min(start + copied, superblock.blocks))
        yield Extent(group.bitmap, group.bitmap + 1)
        yield Extent(group.inode_bitmap, group.inode_bitmap + 1)
        yield Extent(group.inode_table, group.inode_table + superblock.inode_blocks)


def _used_blocks(region: Region, superblock: Super, groups: list[Group]) -> Iterator[Extent]:
    """Runs of blocks that the bitmaps say are in use."""
    size = superblock.block_size
    for group, bitmap in _bitmaps(region, superblock, groups):
        blocks = superblock.blocks_of(group.number)
        _check_bitmap(bitmap, group, superblock)
        # The first block is the lowest bit: as text it comes last.
        bits = f"{int.from_bytes(bitmap[:size], 'little'):0{8 * size}b}"[::-1][: blocks.size]
        if bits.count("0") != group.free:
            raise FormatError(
                f"the bitmap of group {group.number} has another count of free blocks"
            )
        for run in _USED_RUN.finditer(bits):
            yield Extent(blocks.start + run.start(), blocks.start + run.end())


def _check_bitmap(bitmap: bytes, group: Group, superblock: Super) -> None:
    if not superblock.ro_compat & _METADATA_CSUM:
        return
    kept = 0xFFFFFFFF if superblock.descriptor_size >= 64 else 0xFFFF
    if crc32c(superblock.seed, bitmap[: superblock.per_group // 8]) & kept != group.checksum:
        raise FormatError(f"the bitmap of group {group.number} has a wrong checksum")


def _bitmaps(
    region: Region, superblock: Super, groups: list[Group]
) -> Iterator[tuple[Group, bytes]]:
    """The bitmaps of the groups that have one, in the order of the disk; neighbours are read at once."""
    size = superblock.block_size
    with_bitmap = [group for group in groups if group.has_bitmap]
    mapped = {group.bitmap: group for group in with_bitmap}
    if len(mapped) != len(with_bitmap):
        raise FormatError("two groups have one bitmap")
    for run in Extents.of(Extent(block, block + 1) for block in mapped):
        data = region.read(run.start * size, run.size * size)
        for block in range(run.start, run.end):
            start = (block - run.start) * size
            yield mapped[block], data[start : start + size]


def _is_power_of(number: int, bases: tuple[int, ...]) -> bool:
    for base in bases:
        power = base
        while power < number:
            power *= base
        if power == number:
            return True
    return False


def _integer(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")
