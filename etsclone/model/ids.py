"""Identifiers of a clone that are to differ from its source's, so that both can be attached to one machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from etsclone.model.extents import Extent, Extents

DISK = "disk"
PARTITION = "partition"
"""What has an identifier in the partition table; most else is a content, as blkid calls it."""

GROUP = "volume group"
GROUP_NAME = "name of the volume group"
ARRAY = "linux_raid_member"
VOLUME = "LVM2_member"
LUKS = "crypto_LUKS"


@dataclass(frozen=True, slots=True)
class NewId:
    """One identifier, as blkid or sfdisk prints it: of what, in which partition (0: the disk), old and new."""

    what: str
    partition: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class ContentId:
    """A filesystem or the like that gets another identifier.

    `place` is in bytes of the target. `inner` says that it lies in a logical volume, or an array, of its partition.
    """

    place: Extent
    id: NewId
    inner: bool = False


@dataclass(frozen=True, slots=True)
class GroupIds:
    """A volume group of LVM, whole on one partition, that gets other identifiers and another name.

    `place` is that of its physical volume, in bytes of the target.
    """

    place: Extent
    volume: NewId
    group: NewId
    name: NewId

    @property
    def ids(self) -> tuple[NewId, ...]:
        """All three."""
        return (self.volume, self.group, self.name)


@dataclass(frozen=True, slots=True)
class InnerContent:
    """What lies in one piece in a volume or an array: content as blkid calls it, `place` in bytes of the disk."""

    partition: int
    content: str
    uuid: str
    place: Extent


@dataclass(frozen=True, slots=True)
class InnerGroup:
    """A volume group: its physical volume's place (in bytes of the disk) and UUID, its own UUID, its name.

    `inner` says that the physical volume is in an array, and not a partition.
    """

    partition: int
    place: Extent
    volume: str
    uuid: str
    name: str
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Inside:
    """What was found in containers of a disk: volume groups and mirrors of md."""

    contents: tuple[InnerContent, ...] = ()
    groups: tuple[InnerGroup, ...] = ()
    arrays: tuple[InnerContent, ...] = ()


@dataclass(frozen=True, slots=True)
class Identify:
    """Give a target that has no partition table yet identifiers of its own, and let the files of its system follow.

    `table` are those that the seal writes. `places` tells where on the target each partition is (in bytes). `spoiled`
    are the bytes of the target that no longer equal the source's when it begins, as those of `Grow`. `notes` say which
    boot code does not follow, and has to be installed by hand.
    """

    contents: tuple[ContentId, ...]
    table: tuple[NewId, ...]
    places: Mapping[int, Extent]
    spoiled: Extents
    groups: tuple[GroupIds, ...] = ()
    arrays: tuple[ContentId, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def containers(self) -> tuple[NewId, ...]:
        """What an initramfs knows the containers by that a root may be in: LUKS volumes, arrays, volume groups."""
        found = [
            each.id for each in (*self.arrays, *self.contents) if each.id.what in {ARRAY, LUKS}
        ]
        return (*found, *(group.name for group in self.groups))

    @property
    def ids(self) -> tuple[NewId, ...]:
        """All identifiers that change: the disk's, then those of each partition."""
        found = [*self.table, *(each.id for each in (*self.arrays, *self.contents))]
        found += [each for group in self.groups for each in group.ids]
        return tuple(sorted(found, key=lambda each: each.partition))

    @property
    def mapping(self) -> dict[str, str]:
        """New identifiers by old ones; names are none."""
        return {each.old: each.new for each in self.ids if each.what != GROUP_NAME}

    @property
    def names(self) -> dict[str, str]:
        """New names of volume groups by old ones."""
        return {each.old: each.new for each in self.ids if each.what == GROUP_NAME}


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of the files that name identifiers: the paths that were changed, and what a person has to do."""

    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
