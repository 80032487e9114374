"""`--new-ids`: which identifiers of a clone are to differ from its source's, and its head with them."""

import string
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from uuid import UUID

from etsclone.errors import IdsRefused
from etsclone.model.disk import Disk, mbr_partuuid
from etsclone.model.extents import Extents
from etsclone.model.ids import (
    ARRAY,
    DISK,
    GROUP,
    GROUP_NAME,
    PARTITION,
    VOLUME,
    ContentId,
    GroupIds,
    Identify,
    InnerContent,
    Inside,
    NewId,
)
from etsclone.model.plan import Grow
from etsclone.plan.clone import content_partitions, place_on_target
from etsclone.units import KIB, MIB

CHANGEABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "swap", "crypto_LUKS")
"""The contents whose identifiers can be changed, as blkid calls them."""

_LVM_LETTERS = string.digits + string.ascii_letters
_LONGEST_NAME = 100

_FAT = "vfat"
_FIRST_SECTOR = frozenset({"xfs", _FAT, "crypto_LUKS"})
"""What is told by its very first sector."""

Fresh = Callable[[int], bytes]
"""Gives that many random bytes."""


def plan_ids(source: Disk, grow: Grow | None, inside: Inside, fresh: Fresh) -> Identify:
    """Choose identifiers for all that has one.

    Args:
        source: the source's snapshot.
        grow: what lies elsewhere on the target, or is larger.
        inside: what was found in partitions that are containers.
        fresh: where new ones come from.

    Raises:
        IdsRefused: when something has an identifier that cannot be changed.
    """
    if source.table is None:
        raise IdsRefused(
            f"{source.path} has no partition table, by which an unfinished clone is told from a finished one",
            hint="clone without --new-ids, and change the identifier of its filesystem afterwards",
        )
    new = _Chosen(fresh)
    places = {part.number: place_on_target(part, grow) for part in content_partitions(source)}
    contents = [
        _content(InnerContent(part.number, part.content.type, part.content.uuid, part.extent), new)
        for part in content_partitions(source)
        if part.content.uuid and part.content.type not in {VOLUME, ARRAY}
    ]
    inner = [replace(_content(each, new), inner=True) for each in inside.contents]
    # All partitions with a content: a system's files may be in any of them. And what the backup table may share a block
    # with.
    spoiled = Extents.of(places[p.number] for p in content_partitions(source) if p.content.type)
    spoiled |= Extents.between(max((p.end for p in source.partitions), default=0), source.size)
    return Identify(
        tuple(replace(each, place=places[each.id.partition]) for each in contents) + tuple(inner),
        _table_ids(source, new),
        places,
        spoiled,
        tuple(
            GroupIds(
                each.place if each.inner else places[each.partition],
                NewId(VOLUME, each.partition, each.volume, new.of_lvm(each.volume)),
                NewId(GROUP, each.partition, each.uuid, new.of_lvm(each.uuid)),
                NewId(GROUP_NAME, each.partition, each.name, new.name(each.name)),
            )
            for each in inside.groups
        ),
        tuple(
            ContentId(
                each.place, NewId(ARRAY, each.partition, each.uuid, new.instead_of(each.uuid))
            )
            for each in inside.arrays
        ),
    )


def _content(found: InnerContent, new: "_Chosen") -> ContentId:
    if found.content not in CHANGEABLE:
        raise IdsRefused(
            f"partition {found.partition} holds {found.content}, whose identifiers cannot be changed",
            hint=f"clone without --new-ids; it knows {', '.join(CHANGEABLE)}, and LVM and mirrors of md",
        )
    if found.content in _FIRST_SECTOR and found.place.start < MIB and found.place.start % (4 * KIB):
        raise IdsRefused(
            f"partition {found.partition} begins beside the boot loader, in the middle of a block",
            hint="clone without --new-ids",
        )
    other = new.instead_of(found.uuid, fat=found.content == _FAT)
    return ContentId(found.place, NewId(found.content, found.partition, found.uuid, other))


def have_own_ids(source: Disk, clone: Disk) -> bool:
    """Whether two disks have the same layout, and no identifier in common: as source and clone after `--new-ids`."""
    if source.table is None or clone.table is None or source.table.label != clone.table.label:
        return False

    def layout(disk: Disk) -> list[tuple[object, ...]]:
        return [(part.number, part.start, part.type, part.content.type) for part in disk.partitions]

    def named(disk: Disk) -> set[str]:
        ids = {name for part in disk.partitions for name in (part.uuid, part.content.uuid)}
        return ids | {disk.table.uuid if disk.table else ""}

    return layout(source) == layout(clone) and named(source) & named(clone) <= {""}


class _Chosen:
    """New identifiers, one for each old one: what has the same on the source has the same on the clone."""

    def __init__(self, fresh: Fresh) -> None:
        self._fresh = fresh
        self._known: dict[str, str] = {}

    def instead_of(self, old: str, *, fat: bool = False) -> str:
        if old not in self._known:
            self._known[old] = self._serial(old) if fat else self._uuid(old)
        return self._known[old]

    def number(self, old: int) -> int:
        """32 bits that are not zero, which would be none, and not the old ones."""
        while (number := int.from_bytes(self._fresh(4), "little")) in {0, old}:
            pass
        return number

    def of_lvm(self, old: str) -> str:
        """A UUID as LVM makes them: 32 letters and digits, in groups."""
        text = "".join(_LVM_LETTERS[byte % len(_LVM_LETTERS)] for byte in self._fresh(32))
        cuts = (0, 6, 10, 14, 18, 22, 26, 32)
        self._known[old] = "-".join(text[start:end] for start, end in pairwise(cuts))
        return self._known[old]

    def name(self, old: str) -> str:
        """Another name for a volume group."""
        return f"{old[:_LONGEST_NAME]}_{self._fresh(2).hex()}"

    def _uuid(self, old: str) -> str:
        text = str(UUID(bytes=self._fresh(16), version=4))
        return text.upper() if old.isupper() else text  # of digits alone: as most write it

    def _serial(self, old: str) -> str:
        digits = f"{self.number(int(old.replace('-', ''), 16)):08X}"
        return f"{digits[:4]}-{digits[4:]}"


def _table_ids(source: Disk, new: _Chosen) -> tuple[NewId, ...]:
    if source.table is None:
        return ()
    old, parts = source.table.uuid, source.partitions
    if source.table.label == "gpt":
        return (
            NewId(DISK, 0, old, new.instead_of(old)),
            *(NewId(PARTITION, p.number, p.uuid, new.instead_of(p.uuid)) for p in parts if p.uuid),
        )
    number = new.number(int(old, 16))
    return (
        NewId(DISK, 0, old, f"0x{number:08x}"),
        *(
            NewId(PARTITION, p.number, p.uuid, mbr_partuuid(number, p.number))
            for p in parts
            if p.uuid
        ),
    )
