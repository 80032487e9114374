"""Looking at the two disks of a clone: snapshots, maps of what is used, and the plan made of them."""

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from etsclone.commands.grow import noted
from etsclone.copying.access import read_block, single_sectors
from etsclone.disk.crypt import mapping_of
from etsclone.disk.device import flush, opened, read_bytes
from etsclone.disk.fingerprint import fingerprint
from etsclone.disk.images import attached, is_image, loops_of, window
from etsclone.disk.probe import read_content
from etsclone.errors import DeviceError, ReadFailed, SourceRefused, TargetRefused, UsageError
from etsclone.model.disk import Content, Disk, DiskIdentity, Partition, Use
from etsclone.model.extents import Extent, Extents
from etsclone.model.ids import Identify
from etsclone.model.plan import PLAIN, ClonePlan, CloneWishes, Growth, Guard, Refusal, UsedMap
from etsclone.model.view import AS_IT_IS, Kept, Place, Stretch, View
from etsclone.plan.clone import HEAD_SIZE, content_partitions, plan_clone
from etsclone.run import side_by_side
from etsclone.usedmap.content import used_map
from etsclone.usedmap.region import DiskAccess, Unlocked

_SOURCE_GUARDS = frozenset(
    {Guard.SOURCE_MOUNTED, Guard.SOURCE_EMPTY, Guard.SOURCE_DAMAGED, Guard.QUARANTINE}
)


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
    # Of a disk too: a window that a clone was killed behind may be open for a moment more.
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
    source: Disk,
    target: Disk,
    wishes: CloneWishes = PLAIN,
    *,
    swap_header_only: bool = False,
    frozen: frozenset[str] = frozenset(),
    view: View = AS_IT_IS,
) -> ClonePlan:
    """Read the used-block maps and the first bytes of the source, and plan the clone.

    Args:
        source: the source's snapshot.
        target: the target's snapshot.
        wishes: what else the user asks for.
        swap_header_only: leave out what was swapped out.
        frozen: devices of the source whose filesystems are mounted and held still.
        view: which bytes of the source are read elsewhere.

    Raises:
        FormatError: when the source's partition table is damaged.
        DeviceError: when the source cannot be read.
        GrowRefused, MissingProgram: when the last partition was to grow and cannot.
        IdsRefused, MissingProgram: when identifiers were to be changed and cannot.
    """
    with opened(source.path, writable=False) as descriptor:
        access = SourceAccess(source, descriptor, frozen, view)
        maps: Sequence[UsedMap] = _maps(access, swap_header_only=swap_header_only)
        head, unreadable = _read_head(access)
        mark = fingerprint(access.read, source, maps)
        growth = _growth_of(source, target, head, access) if wishes.grow else None
        identify = _ids_of(source, growth, access) if wishes.new_ids else None
    maps = noted(maps, source, growth, wished=wishes.grow)
    plan = plan_clone(
        source,
        target,
        maps,
        head,
        wishes=wishes,
        fingerprint=mark,
        growth=growth,
        identify=identify,
        view=view,
    )
    written = Extents.between(0, plan.copied.ranges[0].start if plan.copied.ranges else source.size)
    return replace(plan, unreadable=unreadable & written)


def _growth_of(source: Disk, target: Disk, head: bytes, access: DiskAccess) -> Growth | None:
    from etsclone.commands.growth import growth_of  # noqa: PLC0415 - only `--grow` pays for it

    return growth_of(source, target, head, access)


def _ids_of(source: Disk, growth: Growth | None, access: DiskAccess) -> Identify:
    from etsclone.commands.ids import ids_of  # noqa: PLC0415 - only `--new-ids` pays for it

    return ids_of(source, growth, access)


def _read_head(access: "SourceAccess") -> tuple[bytes, Extents]:
    """The first bytes of a disk, zeros for the sectors that cannot be read, and which those are."""
    source, descriptor = access.source, access.descriptor
    head = bytearray(min(HEAD_SIZE, source.size))
    with contextlib.suppress(DeviceError):
        return access.read(Extent(0, len(head))), Extents()
    bad = []
    with single_sectors(source.sector_size, descriptor) as buffer:
        for start in range(0, len(head), source.sector_size):
            sector = Extent(start, start + source.sector_size)
            try:
                read_block(descriptor, sector, buffer, "source")
                head[start : sector.end] = buffer
            except ReadFailed:
                bad.append(sector)
    return bytes(head), Extents.of(bad)


def used_maps(source: Disk, *, swap_header_only: bool = False) -> tuple[UsedMap, ...]:
    """Which bytes matter of each partition of a disk, or of the disk itself when it has no table.

    Raises:
        DeviceError: when the disk cannot be opened.
        MissingProgram: when the program that reads a filesystem is not installed.
    """
    with opened(source.path, writable=False) as descriptor:
        return _maps(SourceAccess(source, descriptor), swap_header_only=swap_header_only)


def _maps(access: "SourceAccess", *, swap_header_only: bool = False) -> tuple[UsedMap, ...]:
    # What the kernel caches of the whole disk may be older than what md, LVM or a partition wrote to it.
    with opened(access.source.device, writable=False) as descriptor:
        flush(descriptor)
    find = partial(used_map, disk=access, swap_header_only=swap_header_only)
    return tuple(side_by_side(find, parts_with_content(access.source)))


def lost_owners(source: Disk, lost: Extents) -> tuple[str, ...]:
    """What `lost` bytes of a disk belonged to, one line each.

    Raises:
        DeviceError: when the disk cannot be opened.
    """
    if not lost.ranges:
        return ()
    from etsclone.usedmap.owners import disk_owners  # noqa: PLC0415 - only after bad sectors

    with opened(source.path, writable=False) as descriptor:
        access = SourceAccess(source, descriptor)
        return disk_owners(source, parts_with_content(source), access, lost)


def parts_with_content(source: Disk) -> tuple[Partition, ...]:
    """What of a disk has content of its own: partitions, or where it has no table the disk in the shape of one."""
    return content_partitions(source) if source.table else (_whole_disk(source),)


@dataclass(frozen=True, slots=True)
class SourceAccess:
    """Lends the source to the readers of used maps (`DiskAccess`), with what is held still or read elsewhere of it."""

    source: Disk
    descriptor: int
    still: frozenset[str] = frozenset()
    view: View = AS_IT_IS

    def read(self, extent: Extent) -> bytes:
        if not self.view:
            return read_bytes(self.descriptor, extent)
        return b"".join(self._read_part(part, place) for part, place in self.view.parts(extent))

    def _read_part(self, part: Extent, place: Place) -> bytes:
        match place:
            case None:
                return read_bytes(self.descriptor, part)
            case Kept(offset, data):
                return data[part.start - offset : part.end - offset]
            case Stretch(extent, device, offset):
                with opened(device, writable=False) as descriptor:
                    return read_bytes(descriptor, part.shifted(offset - extent.start))

    def content(self, extent: Extent) -> Content:
        if device := self.view.shown_by(extent):
            return read_content(device, 0, extent.size)
        return read_content(self.source.device, extent.start, extent.size)

    def window(self, extent: Extent) -> AbstractContextManager[str]:
        if device := self.view.shown_by(extent):
            return nullcontext(device)
        node = self._node(extent)
        if node and node not in self.still:
            return nullcontext(node)
        if node:
            # What the kernel caches of the device may be older than what the mounted filesystem wrote to it.
            with opened(node, writable=False) as descriptor:
                flush(descriptor)
        # partclone refuses what is mounted: of a window it does not see that.
        return window(self.source.device, extent, self.source.sector_size)

    def frozen(self, extent: Extent) -> bool:
        # For a snapshot LVM froze it.
        return self._node(extent) in self.still or bool(self.view.shown_by(extent))

    def unlocked(self, extent: Extent) -> Unlocked | None:
        node = self._node(extent)
        mapping = mapping_of(node) if node else None
        if mapping is None:
            return None
        clear = ClearAccess(mapping.device, mapping.size, self.source.sector_size, self.still)
        return Unlocked(mapping.start, mapping.size, clear)

    def _node(self, extent: Extent) -> str:
        parts = (*self.source.partitions, _whole_disk(self.source))
        nodes = (
            part.device for part in parts if (part.start, part.end) == (extent.start, extent.end)
        )
        return next(nodes, "")


@dataclass(frozen=True, slots=True)
class ClearAccess:
    """Lends a device of its own, which shows something in the clear, to the readers of used maps (`DiskAccess`)."""

    device: str
    size: int
    sector_size: int
    still: frozenset[str]

    def read(self, extent: Extent) -> bytes:
        with opened(self.device, writable=False) as descriptor:
            return read_bytes(descriptor, extent)

    def content(self, extent: Extent) -> Content:
        return read_content(self.device, extent.start, extent.size)

    def frozen(self, extent: Extent) -> bool:
        return extent.size == self.size and self.device in self.still

    def window(self, extent: Extent) -> AbstractContextManager[str]:
        # As for a partition that is mounted: what is cached of it may be old.
        with opened(self.device, writable=False) as descriptor:
            flush(descriptor)
        return window(self.device, extent, self.sector_size)

    def unlocked(self, _extent: Extent) -> Unlocked | None:
        return None


def _whole_disk(source: Disk) -> Partition:
    # A disk without a table is one filesystem: it is mapped as if it were a partition of the disk's own size.
    return Partition(0, source.device, 0, source.size, "", content=source.content)


def _image_to_be(path: str, source: Disk) -> Disk:
    folder = os.path.dirname(os.path.abspath(path))
    if path.startswith("/dev/"):
        raise UsageError(f"{path} does not exist", hint="`etsclone disks` lists the disks")
    if not os.path.isdir(folder):
        raise UsageError(
            f"cannot make {path}: {folder} is no folder",
            hint="name a new image file in a folder, or a disk: `etsclone disks` lists them",
        )
    identity = DiskIdentity(path=path, size=source.size)
    return Disk(identity, sector_size=source.sector_size, transport="image file", exists=False)
