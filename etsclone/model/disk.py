"""Disks as they were seen at one moment.

A path such as `/dev/sdb` is a name for today; a `DiskIdentity` is what makes a disk *that* disk, and is checked again
before anything is written.
"""

from dataclasses import dataclass

from etsclone.model.extents import Extent

_NO_BLOCK_IO, _READ_ONLY, _NO_AUTO = 1 << 1, 1 << 60, 1 << 63

ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
"""The type of an EFI system partition in a GPT."""


@dataclass(frozen=True, slots=True)
class DiskIdentity:
    """What must still be true of a disk when a plan is executed.

    `device` is (major, minor) of a block device, None for an image file; `file` is (st_dev, st_ino) of an image file
    or of the file behind a loop device, and `volume` the id of the filesystem that it is on (f_fsid of statvfs(3), 0
    where there is none). `size` is in bytes. Serial and WWN are empty where the disk has none.
    """

    path: str
    size: int
    device: tuple[int, int] | None = None
    file: tuple[int, int] | None = None
    serial: str = ""
    wwn: str = ""
    volume: int = 0

    @property
    def lasting(self) -> tuple[object, ...]:
        """What stays true of this disk when the machine is started again and disks change their names.

        Virtual disks may have neither WWN nor serial number: then the name has to do. An image file is told by its
        filesystem, not by the number of the device that this is on today, where the filesystem has an id.
        """
        file = (self.volume or self.file[0], self.file[1]) if self.file else None
        mark = self.wwn or self.serial or file or self.path
        return (mark, self.size)

    def same_disk(self, other: "DiskIdentity") -> bool:
        """Whether both name one piece of storage, perhaps by two paths to it."""
        return any(
            mine is not None and mine != "" and mine == theirs
            for mine, theirs in (
                (self.device, other.device),
                (self.file, other.file),
                (self.wwn, other.wwn),
            )
        ) or bool(self.serial and (self.serial, self.size) == (other.serial, other.size))


@dataclass(frozen=True, slots=True)
class Use:
    """One way in which a disk or partition is in use now: mounted, held by another device, or active as swap."""

    device: str
    how: str
    where: str
    writable: bool = True


@dataclass(frozen=True, slots=True)
class Content:
    """What blkid finds in a disk or partition: type (`ext4`, `LVM2_member`, empty when unknown), UUID, label."""

    type: str = ""
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: its bytes on the disk, `[start, start + size)`, and what it contains.

    `type` is the GPT type GUID in upper case or the MBR type in hex, as sfdisk prints it. `device` is its node. `uuid`
    is what `PARTUUID=` calls it: on an MBR `mbr_partuuid`. `attributes` are the 64 bits of a GPT's entry; 0 in an MBR.
    """

    number: int
    device: str
    start: int
    size: int
    type: str
    uuid: str = ""
    name: str = ""
    content: Content = Content()
    attributes: int = 0

    @property
    def automatic(self) -> bool:
        """Whether it may be mounted for its type alone.

        Source: the Discoverable Partitions Specification: bit 63, "no-auto". That means nothing of an EFI system
        partition, where systemd asks for the UEFI specification's bit 1, "no block I/O protocol".
        """
        return not self.attributes & (_NO_BLOCK_IO if self.type == ESP else _NO_AUTO)

    @property
    def kept_read_only(self) -> bool:
        """Whether it is only to be read, when it is mounted for its type. Source: as above, bit 60."""
        return self.type != ESP and bool(self.attributes & _READ_ONLY)

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.size

    @property
    def extent(self) -> Extent:
        """Its bytes on the disk."""
        return Extent(self.start, self.end)


def mbr_partuuid(identifier: int, number: int) -> str:
    """What `PARTUUID=` calls a partition of an MBR: made of the disk's identifier and the partition's number, in hex.

    Empty where the disk has none (it is 0): all such disks would share these names. Source: the kernel's
    block/partitions/msdos.c; libblkid's partitions/dos.c for disks without.
    """
    return f"{identifier:08x}-{number:02x}" if identifier else ""


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """A partition table as sfdisk reads it. `label` is `gpt` or `dos`; `uuid` is the disk's GUID or MBR signature."""

    label: str
    uuid: str
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """A snapshot of a disk or disk image. Sizes in bytes; `exists` is False for an image file yet to be made.

    `device` is the block device that stands for it now: its own node, or the loop device of an attached image.
    """

    identity: DiskIdentity
    device: str = ""
    sector_size: int = 512
    model: str = ""
    transport: str = ""
    stable_path: str = ""
    rotational: bool = False
    read_only: bool = False
    table: PartitionTable | None = None
    content: Content = Content()
    uses: tuple[Use, ...] = ()
    exists: bool = True

    @property
    def path(self) -> str:
        """Its name for today."""
        return self.identity.path

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.identity.size

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Its partitions; none when it has no table."""
        return self.table.partitions if self.table else ()

    @property
    def summary(self) -> str:
        """What it holds, in a few words: `gpt: 1 (unknown), 2 ext4, 3 swap`."""
        if self.table is None:
            return self.content.type or ("no partition table" if self.exists else "to be created")
        parts = (f"{part.number} {part.content.type or '(unknown)'}" for part in self.partitions)
        return f"{self.table.label}: {', '.join(parts) or 'no partitions'}"

    def where(self, start: int, end: int) -> str:
        """The bytes `[start, end)` in words, and which partition they begin in."""
        inside = [part.number for part in self.partitions if part.start < end and start < part.end]
        place = f"partition {inside[0]}" if inside else "outside the partitions"
        return f"bytes {start} to {end} ({place})"
