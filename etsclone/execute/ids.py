"""Gives identifiers of its own to a target that has no partition table yet, and lets its system's files follow."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from etsclone.boot.amending import amended
from etsclone.boot.confined import run_confined
from etsclone.boot.files import SystemFiles
from etsclone.boot.initramfsnames import initramfs_images, telling_files
from etsclone.chroot import in_chroot
from etsclone.disk import identifiers, resize
from etsclone.disk.device import flush, read_bytes, write_bytes
from etsclone.disk.images import loops_of, window
from etsclone.disk.luks import Keys
from etsclone.disk.origins import note_origin
from etsclone.disk.system import mounted_system
from etsclone.errors import (
    CommandFailed,
    ComparisonFailed,
    EtscloneError,
    FormatError,
    IdsFailed,
    NoSystem,
    RootNotMounted,
)
from etsclone.execute.boot import names_on
from etsclone.kernel import mount_privately
from etsclone.model.boot import Names
from etsclone.model.disk import Disk
from etsclone.model.extents import Extent
from etsclone.model.ids import ARRAY, LUKS, ContentId, Followed, Identify
from etsclone.model.plan import ClonePlan
from etsclone.overlay.edits import apply_edits
from etsclone.overlay.rounds import keeps_rebuild
from etsclone.plan.bootwork import BootCommand, initramfs_work
from etsclone.plan.origins import ORIGINS, clone_identity
from etsclone.plan.references import named_by_label, names_old, renamed, rewrite, stale
from etsclone.usedmap.md import with_uuid

_PATIENCE = 1800.0
"""Seconds to make all initramfs of a system."""

_KEPT = (
    "what it was before a rebuild is kept in it, and names the source: do not undo a rebuild on this clone"
    " (etsclone rebuild CLONE --commit)"
)
"""Said where the system could not be looked at before: in an encrypted volume."""

_WITHOUT = "--resume without --new-ids makes it a clone with the identifiers of the source"


def identify(step: Identify, plan: ClonePlan, target: int, keys: Keys | None) -> Followed:
    """Change what identifies filesystems, let the files of the system that is on them follow, and check all of it.

    Args:
        step: what changes.
        plan: whose disks these are.
        target: descriptor of the target.
        keys: what opens encrypted volumes that files are in.

    Returns:
        What became of the files.

    Raises:
        IdsFailed: when an identifier cannot be changed, a filesystem is not sound then, a file cannot be changed, or
            something else took hold of the target.
        DeviceError: when the target cannot be read or written.
    """
    # When this is killed, nobody may go on writing to the target.
    mount_privately()
    work = _Work(step, plan, target)
    inside = [each for each in step.contents if each.inner or each.id.what == LUKS]
    flush(target)
    # What a system's files are in has to be found by the names that they have for it, unless that is a partition. And a
    # btrfs cannot be mounted beside its twin, which may be mounted.
    work.change(each for each in step.contents if each not in inside)
    followed = _follow(step, plan, keys or Keys())
    flush(target)
    work.change(inside)
    work.change_containers()
    flush(target)
    work.check()
    path = plan.target.path
    if loops := loops_of(path):
        raise IdsFailed(
            f"{', '.join(loops)}, a part of {path}, is in use by somebody else",
            hint="what mounted or activated it? stop that, then --resume",
        )
    return replace(followed, notes=(*step.notes, *followed.notes))


@dataclass(frozen=True, slots=True)
class _Work:
    """Changing what a step says on a target, piece by piece."""

    step: Identify
    plan: ClonePlan
    target: int

    def change(self, contents: Iterable[ContentId]) -> None:
        for each in contents:
            with self._window(each.id.partition, each.place, writable=True) as device:
                identifiers.change(device, each.id.what, each.id.new)

    def change_containers(self) -> None:
        for group in self.step.groups:
            with self._window(group.name.partition, group.place, writable=True) as device:
                identifiers.change_group(device, group)
        for array in self.step.arrays:
            read, uuid = partial(self._read, array.place), UUID(array.id.new).bytes
            with self._failing(array.id.partition):
                for start, data in with_uuid(read, array.place.size, uuid):
                    write_bytes(self.target, array.place.start + start, data)

    def check(self) -> None:
        # Through other windows: what the first ones cached is gone.
        for each in self.step.contents:
            with self._window(each.id.partition, each.place) as device:
                identifiers.check(device, each.id.what, each.place.size, each.id.new)
                resize.forget(device, each.id.what)
        for group in self.step.groups:
            with self._window(group.name.partition, group.place) as device:
                identifiers.check_group(device, group)
        for array in self.step.arrays:
            with self._window(array.id.partition, array.place) as device:
                identifiers.check_uuid(device, ARRAY, array.place.size, array.id.new)

    @contextlib.contextmanager
    def _window(self, partition: int, place: Extent, *, writable: bool = False) -> Iterator[str]:
        sector_size = self.plan.source.sector_size
        with (
            self._failing(partition),
            window(self.plan.target.path, place, sector_size, writable=writable) as device,
        ):
            yield device

    @contextlib.contextmanager
    def _failing(self, partition: int) -> Iterator[None]:
        try:
            yield
        except (CommandFailed, ComparisonFailed, FormatError) as error:
            raise IdsFailed(
                f"partition {partition} of {self.plan.target.path} could not be given other identifiers:"
                f" {error.message}",
                hint=_WITHOUT,
            ) from error

    def _read(self, place: Extent, start: int, size: int) -> bytes:
        return read_bytes(self.target, Extent(start, start + size).shifted(place.start))


def _follow(step: Identify, plan: ClonePlan, keys: Keys) -> Followed:
    """Let the files of the target's system name the new identifiers."""
    with contextlib.ExitStack() as stack:
        disk = _windows(step, plan, stack)
        try:
            folder = stack.enter_context(mounted_system(disk, writable=True, keys=keys))
        except NoSystem as error:
            return Followed(notes=(f"no file follows: {error.message} ({error.hint})",))
        except EtscloneError as error:
            # Which of two systems is meant cannot be said here, as it can elsewhere with --root.
            hint = "" if isinstance(error, RootNotMounted) else error.hint
            raise IdsFailed(
                f"the system on {plan.target.path} cannot be mounted, so that its files could follow: {error.message}",
                hint=hint or _WITHOUT,
            ) from error
        called = names_on(disk, folder)
        work = in_chroot(folder, lambda: _rewrite(step, called))
        notes = (
            *_note_origin(folder, plan.source),
            *work.notes,
            *_make_initramfs(folder, work, disk, step),
            *((_KEPT,) if keeps_rebuild(folder) else ()),
        )
        return Followed(work.changed, notes)


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """What was changed in a system, what a person has to do, and which initramfs name old identifiers; `commands` make
    them anew."""

    changed: tuple[str, ...]
    notes: tuple[str, ...]
    images: tuple[bytes, ...]
    commands: tuple[BootCommand, ...]


def _windows(step: Identify, plan: ClonePlan, stack: contextlib.ExitStack) -> Disk:
    """The target as a disk with partitions, which it is not yet; it goes by the old identifiers, as its fstab does."""
    source, path = plan.source, plan.target.path
    uuids = {each.partition: each.old for each in step.table}  # sfdisk tells none of an MBR's
    partitions = []
    for part in source.partitions:
        if part.number in step.places and part.content.type:
            place = step.places[part.number]
            shown = window(path, place, source.sector_size, writable=True)
            device = stack.enter_context(shown)
            # After it was unmounted: the kernel must not look for a btrfs on what is gone in a moment.
            stack.callback(resize.forget, device, part.content.type)
            uuid = uuids.get(part.number, "")
            there = replace(part, start=place.start, size=place.size, uuid=uuid, device=device)
            partitions.append(there)
    if source.table is None:
        return source
    table = replace(source.table, partitions=tuple(partitions))
    return replace(source, identity=plan.target.identity, device="", table=table)


def _rewrite(step: Identify, called: Names) -> _Rewritten:
    """In the clone: change its files, read them again, and look for what else names the old identifiers.

    `called` says what the parts of its disk are called.
    """
    files = SystemFiles()
    edits = rewrite(files, step.mapping, step.names)
    apply_edits("/", edits)
    # What opens a root on LVM, LUKS or md is not seen where programs of the clone run: it would be left out.
    commands = initramfs_work(files, ()) if called.whole and called.root else ()
    images, notes = ((), ()) if commands else _amend_images(step)
    if rewrite(files, step.mapping, step.names):
        raise ComparisonFailed("files do not hold what was written to them")
    return _Rewritten(
        tuple(path.decode(errors="replace") for path in (*(each.path for each in edits), *images)),
        (*stale(files, step.mapping), *named_by_label(files), *notes),
        _stale_images(step),
        commands,
    )


def _amend_images(step: Identify) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """In the clone: let its initramfs name the new identifiers; returns which do now, and what stood in the way."""
    done: list[bytes] = []
    notes = []
    for path in initramfs_images(SystemFiles().names(b"/boot")):
        try:
            edit = amended(path, lambda content: renamed(content, step.mapping, step.names))
            if edit:
                apply_edits("/", [edit])
                done.append(path)
        except (EtscloneError, OSError) as error:
            why = error.message if isinstance(error, EtscloneError) else error.strerror
            notes.append(f"{path.decode(errors='replace')} cannot be changed: {why}")
    return tuple(done), tuple(notes)


def _note_origin(folder: str, source: Disk) -> tuple[str, ...]:
    """Let the clone know its source, whose overlays no other identifier of it would fit."""
    label = source.table.label if source.table else ""
    problem = note_origin(folder, clone_identity(source), label)
    if not problem:
        return ()
    return (f"{ORIGINS} cannot be written ({problem}): rebuild and check need --other-clone",)


def _stale_images(step: Identify) -> tuple[bytes, ...]:
    """In the clone: the initramfs that name old identifiers, and those that cannot be read."""
    return tuple(
        path for path in initramfs_images(SystemFiles().names(b"/boot")) if _is_stale(path, step)
    )


def _is_stale(image: bytes, step: Identify) -> bool:
    try:
        return names_old(telling_files(image), step.mapping, step.names)
    except FormatError:
        return True


def _make_initramfs(folder: str, work: _Rewritten, disk: Disk, step: Identify) -> tuple[str, ...]:
    """Have the clone's own programs make its initramfs anew, if one is stale; returns what is left to do by hand."""
    if not work.images:
        return ()
    devices = {part.device: part.device for part in disk.partitions}
    links = {
        f"disk/by-uuid/{step.mapping[part.content.uuid]}": f"../../{part.device.removeprefix('/dev/')}"
        for part in disk.partitions
        if part.content.uuid in step.mapping
    }
    said: list[str] = []
    for command in work.commands:
        try:
            ended = run_confined(
                folder, command.argv, devices=devices, links=links, seconds=_PATIENCE
            )
        except EtscloneError as error:
            said.append(error.message)
            continue
        if ended.status != 0:
            said += [f"{command.argv[0]} failed", *ended.said.strip().splitlines()[-2:]]
    why = f" ({'; '.join(said)})" if said else ""
    again = "names old identifiers, make it again on the machine itself or in the mounted clone"
    return tuple(
        f"{path.decode(errors='replace')} {again}{why}"
        for path in in_chroot(folder, lambda: _stale_images(step))
    )
