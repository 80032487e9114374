"""Whether a disk is the one that fstab calls `/dev/sda`, or by an id. Pure functions over what is known of both.

Such a name with a partition's number, called a *stem* without it, says nothing by itself: the system may mount other
disks too, and `/dev/sdb1` of one of those is not partition 1 of this one. So a stem is this disk's only where there is
a proof:

- it is an id that holds the disk's own serial number or WWN;
- `/` is mounted, or its encrypted volume opened, by that stem, and by the number of the partition that the root is on;
- where `/` is not named by a stem of its kind: the system boots with what it finds under that stem, and the partition
  of that number is of the right kind, unclaimed, and holds what belongs there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from etsclone.disk.fstab import CryptEntry, FstabEntry
from etsclone.disk.specs import (
    INSIDE,
    TYPE,
    Volume,
    Words,
    is_firm,
    matching,
    name_of,
    stem_of,
)
from etsclone.model.disk import ESP, DiskIdentity

_ESP = frozenset({f"{TYPE}{ESP}", f"{TYPE}EF"})
"""What says that a partition is an EFI system partition, of a GPT and of an MBR."""

_XBOOTLDR = f"{TYPE}BC13C2FF-59E6-4262-A352-B275FD6F7172"
"""The same of a /boot, as the Discoverable Partitions Specification calls it."""

_BOOT = re.compile(r"(vmlinu[xz]|.{0,2}Image|kernel|initr(d|amfs)).*|grub2?|loader|EFI", re.DOTALL)
"""What stands in a /boot, if only one of them."""

_USR = frozenset({"bin", "lib", "share"})

_ESP_PLACES, _PLACES = ("/boot/efi", "/efi"), ("/boot", "/usr")
_BY_LINK = re.compile(r"/dev/disk/(by-[a-z]+)/.+", re.DOTALL)
_BY_ID = re.compile(r"/dev/disk/by-id/((?:ata-|nvme-|wwn-|scsi-[^0])(?!.*QEMU).+)", re.DOTALL)

Listing = Callable[[Volume], frozenset[str]]
"""The names in the topmost folder of a filesystem; none where it cannot be looked at."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What a system's files say: all lines of fstab (`/` as well) and crypttab, and the volume that its root is on."""

    entries: Sequence[FstabEntry]
    encrypted: Sequence[CryptEntry]
    root: Volume

    @property
    def specs(self) -> tuple[str, ...]:
        """All specifications."""
        return (*(each.spec for each in self.entries), *(each.spec for each in self.encrypted))

    @property
    def root_entry(self) -> FstabEntry | None:
        """The line of `/`."""
        return next((each for each in self.entries if each.where == "/"), None)


def own_stems(
    lines: Lines,
    volumes: Sequence[Volume],
    aliases: Mapping[str, str],
    identity: DiskIdentity,
    listing: Listing,
) -> frozenset[str]:
    """The stems in a system's files that are proved to be its own disk.

    Args:
        lines: what its files say.
        volumes: the volumes of the disk.
        aliases: what its files add to their names.
        identity: the disk's serial number and WWN.
        listing: looks into a volume.
    """
    stems = {stem for stem in map(stem_of, lines.specs) if stem}
    own = {stem for stem in stems if is_id_of(stem, identity)}
    spec, prefix = _spec_of_root(lines)
    if stem_of(spec) and f"{prefix}{name_of(spec)}" in lines.root.names:
        own.add(stem_of(spec))
    for kind in {_kind(stem) for stem in stems} - {_kind(stem) for stem in (*own, stem_of(spec))}:
        booted = [
            each
            for each in lines.entries
            if each.where in (*_ESP_PLACES, *_PLACES) and _kind(stem_of(each.spec)) == kind
        ]
        found = {stem_of(each.spec) for each in booted}
        words = Words(aliases, frozenset(found))
        proved = (_is_proved(each, lines, volumes, words, listing) for each in booted)
        if len(found) == 1 and all(proved):
            own |= found
    return frozenset(own)


def is_id_of(stem: str, identity: DiskIdentity) -> bool:
    """Whether a link of /dev/disk/by-id is made of a disk's own serial number or WWN.

    Source: udev's 60-persistent-storage.rules: `BUS-MODEL_SERIAL`, perhaps with the number of a namespace, `wwn-WWN`,
    `nvme-WWID`. Serial numbers that many disks share prove nothing: those of docks for USB, and of virtual machines,
    where disks are numbered (`QM00001`, `drive-scsi0`).
    """
    link = _BY_ID.fullmatch(stem)
    if link is None:
        return False
    serial, wwn = (re.sub(r"\s+", "_", each.strip()) for each in (identity.serial, identity.wwn))
    if wwn and link[1] in {f"wwn-{wwn}", f"nvme-{wwn}", f"scsi-3{wwn.removeprefix('0x')}"}:
        return True
    return bool(serial and re.fullmatch(f".+[-_]{re.escape(serial)}(_[0-9]{{1,4}})?", link[1]))


def is_claimed(entry: FstabEntry, volume: Volume, lines: Lines, words: Words) -> bool:
    """Whether a volume that a line does not name firmly is the root, or what another line firmly names.

    Subvolumes of one btrfs are mounted by lines of their own.
    """
    if volume == lines.root and not _may_share(entry, lines.root_entry):
        return True
    return any(
        matching(each.spec, [volume], words) and not _may_share(entry, each)
        for each in lines.entries
        if is_firm(each.spec)
    )


def fits(wanted: str, kind: str) -> bool:
    """Whether what fstab calls a filesystem's type may be what blkid calls so."""
    families = ({"ext2", "ext3", "ext4"}, {"vfat", "msdos"})
    return wanted in {"auto", kind} or any({wanted, kind} <= family for family in families)


def _spec_of_root(lines: Lines) -> tuple[str, str]:
    """What `/`, or what it is encrypted in, is called, and what stands before its names."""
    entry = lines.root_entry
    spec = entry.spec if entry else ""
    opened = (each.spec for each in lines.encrypted if f"/dev/mapper/{each.name}" == name_of(spec))
    inside = next(opened, "")
    return (inside, INSIDE) if inside else (spec, "")


def _kind(stem: str) -> str:
    """Disks have one name of the kernel, one id, one path each, so that two stems of a kind are two disks."""
    link = _BY_LINK.fullmatch(stem)
    return link[1] if link else stem and "kernel"


def _is_proved(
    entry: FstabEntry, lines: Lines, volumes: Sequence[Volume], words: Words, listing: Listing
) -> bool:
    found = [
        each
        for each in matching(entry.spec, volumes, words)
        if fits(entry.type, each.content.type) and not is_claimed(entry, each, lines, words)
    ]
    return len(found) == 1 and _belongs(entry.where, found[0], listing)


def _belongs(where: str, volume: Volume, listing: Listing) -> bool:
    """Whether a volume holds what is to be seen at /boot, /usr, or where an EFI system partition is mounted."""
    if where in _ESP_PLACES:
        return bool(_ESP & volume.names)
    if where == "/usr":
        return listing(volume) >= _USR
    return bool((_ESP | {_XBOOTLDR}) & volume.names) or any(map(_BOOT.fullmatch, listing(volume)))


def _may_share(one: FstabEntry, other: FstabEntry | None) -> bool:
    if other is None:
        return False
    return one.spec == other.spec or bool(
        one.type == other.type == "btrfs" and one.subvolume != other.subvolume
    )
