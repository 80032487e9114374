"""fstab(5): which of a disk's own partitions belongs where in the system's tree. Pure functions over text."""

import re
from dataclasses import dataclass

from etsclone.errors import SourceRefused
from etsclone.model.disk import Disk, Partition

_NOT_ON_DISK = frozenset(
    (
        "swap",
        "proc",
        "sysfs",
        "tmpfs",
        "devpts",
        "devtmpfs",
        "debugfs",
        "efivarfs",
        "nfs",
        "nfs4",
        "cifs",
        "9p",
    )
)


@dataclass(frozen=True, slots=True)
class FstabEntry:
    """One line: what is mounted (`UUID=...`), where, its filesystem type and mount options."""

    spec: str
    where: str
    type: str
    options: tuple[str, ...]


def parse_fstab(text: str) -> tuple[FstabEntry, ...]:
    """The lines that mount a local filesystem at boot, parents before what is mounted beneath them."""
    entries = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        options = tuple(fields[3].split(",")) if len(fields) > 3 else ("defaults",)
        where = _unescape(fields[1])
        if (
            where.startswith("/")
            and fields[2] not in _NOT_ON_DISK
            and not {"noauto", "bind", "_netdev"} & set(options)
        ):
            entries.append(
                FstabEntry(_unescape(fields[0]).replace('"', ""), where, fields[2], options)
            )
    return tuple(sorted(entries, key=lambda entry: entry.where.rstrip("/").count("/")))


def partition_for(entry: FstabEntry, disk: Disk) -> Partition | None:
    """The partition of *this* disk that an fstab line means; a twin disk with the same UUID is never looked at.

    None when there is no such partition, and the line says that the system boots without it (`nofail`).

    Raises:
        SourceRefused: when it is not on this disk, or the line names a device by a path that means nothing here.
    """
    tag, _, value = entry.spec.partition("=")
    matches = [
        part
        for part in disk.partitions
        if value and _tags(part).get(tag, "").lower() == value.lower()
    ]
    if not matches and "nofail" in entry.options:
        return None
    if len(matches) != 1:
        raise SourceRefused(
            f"the system's fstab mounts {entry.spec} at {entry.where}, and {disk.path} has"
            f" {'no' if not matches else 'more than one'} such partition",
            hint="mount the whole system by hand and use --root DIR",
        )
    return matches[0]


def _tags(partition: Partition) -> dict[str, str]:
    return {
        "UUID": partition.content.uuid,
        "LABEL": partition.content.label,
        "PARTUUID": partition.uuid,
        "PARTLABEL": partition.name,
    }


def _unescape(field: str) -> str:
    # getmntent(3): space, tab and backslash are written as octal escapes.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
