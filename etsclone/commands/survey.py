"""Looking at the two disks of a clone: snapshots, maps of what is used, and the plan made of them."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from etsclone.disk.device import opened, read_bytes
from etsclone.disk.fingerprint import fingerprint
from etsclone.disk.images import attached, is_image, loops_of, window
from etsclone.disk.probe import read_content
from etsclone.errors import SourceRefused, TargetRefused, UsageError
from etsclone.model.disk import Content, Disk, DiskIdentity, Partition, Use
from etsclone.model.extents import Extent
from etsclone.model.plan import PLAIN, ClonePlan, CloneWishes, Guard, Refusal, UsedMap
from etsclone.plan.clone import HEAD_SIZE, content_partitions, plan_clone
from etsclone.run import side_by_side
from etsclone.usedmap.content import used_map

_SOURCE_GUARDS = frozenset({Guard.SOURCE_MOUNTED, Guard.SOURCE_EMPTY, Guard.SOURCE_DAMAGED})


def target_snapshot(path: str, source: Disk) -> Disk:
    """The disk or image file that is to be written. An image file that does not exist yet gets the source's size.

    Raises:
        UsageError: when it is neither, or cannot be created.
    """
    if not os.path.exists(path):
        return _image_to_be(path, source)
    target = existing_disk(path)
    # A file has no sectors of its own: it takes those of the source.
    return replace(target, sector_size=source.sector_size) if is_image(path) else target


def existing_disk(path: str) -> Disk:
    """A disk or image file as it is; an image is attached for the look only.

    Raises:
        UsageError: when it is neither.
    """
    with attached(path, writable=False) as disk:
        snapshot = disk
    if not is_image(path):
        return snapshot
    held = tuple(Use(path, "held", loop) for loop in loops_of(path))
    return replace(snapshot, uses=(*snapshot.uses, *held))


def refuse(refusals: tuple[Refusal, ...]) -> None:
    """Raise what the guards found, all of it at once; do nothing when they found nothing.

    Raises:
        SourceRefused: when only the source is at fault.
        TargetRefused: otherwise.
    """
    if not refusals:
        return
    error = (
        SourceRefused if all(each.guard in _SOURCE_GUARDS for each in refusals) else TargetRefused
    )
    raise error(
        "; ".join(each.message for each in refusals), hint="; ".join(each.hint for each in refusals)
    )


def make_plan(
    source: Disk, target: Disk, wishes: CloneWishes = PLAIN, *, swap_header_only: bool = False
) -> ClonePlan:
    """Read the used-block maps and the first bytes of the source, and plan the clone.

    Args:
        source: the source's snapshot.
        target: the target's snapshot.
        wishes: what else the user asks for.
        swap_header_only: leave out what was swapped out.

    Raises:
        FormatError: when the source's partition table is damaged.
        DeviceError: when the source cannot be read.
    """
    maps = used_maps(source, swap_header_only=swap_header_only)
    with opened(source.path, writable=False) as descriptor:
        head = read_bytes(descriptor, Extent(0, min(HEAD_SIZE, source.size)))
        mark = fingerprint(descriptor, source, maps)
    return plan_clone(source, target, maps, head, wishes=wishes, fingerprint=mark)


def used_maps(source: Disk, *, swap_header_only: bool = False) -> tuple[UsedMap, ...]:
    """Which bytes matter of each partition of a disk, or of the disk itself when it has no table.

    Raises:
        DeviceError: when the disk cannot be opened.
        MissingProgram: when the program that reads a filesystem is not installed.
    """
    parts = content_partitions(source) if source.table else (_whole_disk(source),)
    with opened(source.path, writable=False) as descriptor:
        access = _SourceAccess(source, descriptor)
        find = partial(used_map, disk=access, swap_header_only=swap_header_only)
        return tuple(side_by_side(find, parts))


@dataclass(frozen=True, slots=True)
class _SourceAccess:
    """Lends the source to the readers of used maps (`DiskAccess`)."""

    source: Disk
    descriptor: int

    def read(self, extent: Extent) -> bytes:
        return read_bytes(self.descriptor, extent)

    def content(self, extent: Extent) -> Content:
        return read_content(self.source.device, extent.start, extent.size)

    def window(self, extent: Extent) -> AbstractContextManager[str]:
        parts = (*self.source.partitions, _whole_disk(self.source))
        nodes = (
            part.device for part in parts if (part.start, part.end) == (extent.start, extent.end)
        )
        node = next(nodes, "")
        return (
            nullcontext(node)
            if node
            else window(self.source.device, extent, self.source.sector_size)
        )


def _whole_disk(source: Disk) -> Partition:
    # A disk without a table is one filesystem: it is mapped as if it were a partition of the disk's own size.
    return Partition(0, source.device, 0, source.size, "", content=source.content)


def _image_to_be(path: str, source: Disk) -> Disk:
    folder = os.path.dirname(os.path.abspath(path))
    if path.startswith("/dev/") or not os.path.isdir(folder):
        raise UsageError(f"{path} does not exist", hint="`etsclone disks` lists the disks")
    identity = DiskIdentity(path=path, size=source.size)
    return Disk(identity, sector_size=source.sector_size, transport="image file", exists=False)
