"""The guards: every reason not to write to a disk, decided from snapshots alone."""

from collections.abc import Iterator

from etsclone.model.disk import Disk, PartitionTable, Use
from etsclone.model.plan import Guard, Refusal
from etsclone.model.quarantine import IN_QUARANTINE
from etsclone.units import counted, human

_SYSTEM_MOUNTS = frozenset(
    {"/", "/boot", "/boot/efi", "/usr", "/var", "/etc", "/home", "/run/live/medium"}
)

FITTABLE = frozenset({"ext2", "ext3", "ext4", "xfs"})
"""The filesystems that `--fit` makes anew, as blkid calls them."""


def target_refusals(target: Disk) -> tuple[Refusal, ...]:
    """Why `target` may not be written at all, whatever the source; empty when it may."""
    return tuple(_target_refusals(target))


def clone_refusals(
    source: Disk, target: Disk, *, fit: bool = False, live: bool = False
) -> tuple[Refusal, ...]:
    """Why `source` may not be cloned to `target`; empty when it may.

    With `fit` the target may be smaller, with `live` the source may be in use.
    """
    if source.identity.same_disk(target.identity):
        # No other reason counts, and some would be our own doing: an image is held while it is looked at.
        return (
            Refusal(
                Guard.SAME_DISK,
                f"{source.path} and {target.path} are the same disk",
                "name another disk as the target",
            ),
        )
    return (
        *(() if live else _in_use_refusals(source)),
        *_source_refusals(source),
        *damage_refusals(source),
        *_target_refusals(target),
        *(
            each
            for each in _pair_refusals(source, target)
            if not fit or each.guard is not Guard.TOO_SMALL
        ),
    )


def damage_refusals(source: Disk) -> tuple[Refusal, ...]:
    """Why `source` can be no whole and sound disk, or is none yet; empty when it may be one."""
    return tuple(_damage_refusals(source))


def quarantine_refusals(disk: Disk) -> tuple[Refusal, ...]:
    """Why a disk cannot be used yet: it is a clone in quarantine."""
    if disk.content.type != IN_QUARANTINE:
        return ()
    return (
        Refusal(
            Guard.QUARANTINE,
            f"{disk.path} is a clone in quarantine",
            f"`etsclone release {disk.path}` makes it a disk like others",
        ),
    )


def _target_refusals(target: Disk) -> Iterator[Refusal]:
    system = [use for use in target.uses if use.how == "swap" or use.where in _SYSTEM_MOUNTS]
    if system:
        yield Refusal(
            Guard.RUNNING_SYSTEM,
            f"{target.path} holds the running system ({_list(system)})",
            "start a rescue system from another medium, or name another disk",
        )
    mounted = [use for use in target.uses if use.how == "mounted" and use not in system]
    if mounted:
        yield Refusal(
            Guard.MOUNTED,
            f"{target.path} is mounted ({_list(mounted)})",
            f"umount {mounted[0].where}",
        )
    held = [use for use in target.uses if use.how == "held"]
    if held:
        yield Refusal(
            Guard.HELD,
            f"{target.path} is held by another device ({_list(held)})",
            "stop what uses it: losetup --detach, vgchange -an, mdadm --stop or cryptsetup close;"
            f" what `etsclone mount` or a killed etsclone left, `etsclone umount {target.path}` closes",
        )
    if target.read_only:
        yield Refusal(
            Guard.READ_ONLY,
            f"{target.path} is read-only",
            "look for a write-protect switch, or the file's mode",
        )


def _in_use_refusals(source: Disk) -> Iterator[Refusal]:
    writable = [
        use for use in source.uses if use.how == "swap" or (use.how == "mounted" and use.writable)
    ]
    if writable:
        yield Refusal(
            Guard.SOURCE_MOUNTED,
            f"{source.path} is in use and could change while it is copied ({_list(writable)})",
            "start a rescue system, or unmount it; --live copies what is not the running system",
        )


def _source_refusals(source: Disk) -> Iterator[Refusal]:
    if source.table is None and not source.content.type:
        yield Refusal(
            Guard.SOURCE_EMPTY,
            f"{source.path} has neither a partition table nor a filesystem",
            "is this the right disk? `etsclone disks` shows what each holds",
        )


def _damage_refusals(source: Disk) -> Iterator[Refusal]:
    yield from quarantine_refusals(source)
    missing = max((part.end - source.size for part in source.partitions), default=0)
    if missing > 0:
        yield Refusal(
            Guard.SOURCE_DAMAGED,
            f"{source.path} is cut off: its partitions reach {counted(missing, 'byte')} beyond its end",
            "an image must be copied whole; a disk may hide a part of itself (hdparm -N)",
        )
    elif source.table and source.table.label == "dos" and _is_protective(source.table):
        yield Refusal(
            Guard.SOURCE_DAMAGED,
            f"{source.path} has a GPT that cannot be read: it is damaged or cut off, or was made for other sectors",
            "an image must be copied whole; gdisk repairs a table; some adapters change the size of sectors",
        )


def _is_protective(table: PartitionTable) -> bool:
    # The MBR of a GPT disk is seen only where the GPT behind it is not.
    return any(part.type == "EE" for part in table.partitions)


def _pair_refusals(source: Disk, target: Disk) -> Iterator[Refusal]:
    if target.size < source.size:
        yield Refusal(
            Guard.TOO_SMALL,
            f"{target.path} is too small: it has {human(target.size)}, {human(source.size)} are needed"
            f" ({counted(source.size - target.size, 'byte', 'is', 'are')} missing)",
            "use a disk of at least the source's size" + _or_fit(source, target),
        )
    if target.exists and source.sector_size != target.sector_size:
        yield Refusal(
            Guard.SECTOR_SIZE,
            f"{target.path} has sectors of {target.sector_size} bytes, {source.path} of {source.sector_size}",
            "use a disk with the same logical sector size: positions in the partition table count sectors",
        )


def _or_fit(source: Disk, target: Disk) -> str:
    """Whether what cannot be made smaller leaves room for the rest; how much that is, only `--fit` finds out."""
    shrinking = [part for part in source.partitions if part.content.type in FITTABLE]
    others = sum(part.size for part in source.partitions if part not in shrinking)
    return (
        ", or try --fit, which makes filesystems smaller"
        if shrinking and others < target.size
        else ""
    )


def _list(uses: list[Use]) -> str:
    words = {"held": "held by"}
    return ", ".join(
        f"{use.device} {words.get(use.how, use.how)} {use.where}".rstrip() for use in uses
    )
