"""What the partitions of one disk hold, opened layer by layer: mirrors of md, logical volumes, encrypted volumes.

Each layer gets devices under names of its own, made of this disk's partitions alone. Nothing is looked up by UUID in
what the machine has: the disk's twin may be attached, with the same UUIDs throughout.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from etsclone.disk import luks, lvm, md
from etsclone.disk.luks import Keys
from etsclone.disk.mapper import holders_of, size_of
from etsclone.disk.probe import read_content
from etsclone.disk.specs import (
    AUTO,
    INSIDE,
    TYPE,
    Volume,
    array_names,
    content_names,
    logical_names,
    partition_names,
)
from etsclone.errors import CommandFailed, EtscloneError, FormatError, MissingProgram, SourceRefused
from etsclone.model.disk import Content, Disk, Partition

LAYERS = frozenset({md.CONTENT, lvm.CONTENT, luks.CONTENT})
"""What blkid calls what is no filesystem, but holds volumes."""


class Stack:
    """The open volumes of a disk. Made by `opened`.

    `volumes` hold something that is no layer, `locked` are encrypted, `missing` says why others cannot be opened.
    """

    def __init__(
        self, stack: contextlib.ExitStack, disk: Disk, keys: Keys, *, read_only: bool
    ) -> None:
        self.volumes: list[Volume] = []
        self.locked: list[Volume] = []
        self._stack = stack
        self._keys = keys
        self._read_only = read_only
        self._groups = lvm.Groups(stack, read_only)
        self._missing: list[str] = []
        # Who only looks is to see the rest.
        self._passed_over: tuple[type[EtscloneError], ...] = (
            (FormatError, CommandFailed, MissingProgram) if read_only else (FormatError,)
        )
        self._take(_partitions(disk))

    @property
    def missing(self) -> tuple[str, ...]:
        """Why volumes cannot be opened, one line each."""
        return (*self._missing, *self._groups.missing)

    def unlock(self, volume: Volume, of_clone: bytes = b"") -> None:
        """Open one of `locked`, and what is in it. `of_clone` is a key for it from the clone itself, if it has one.

        Raises:
            KeyRefused: when nothing opens it.
            SourceRefused: when somebody else has opened it.
        """
        opened = luks.unlocked(
            volume.device, self._keys, read_only=self._read_only, of_clone=of_clone
        )
        device = self._stack.enter_context(opened)
        self.locked.remove(volume)
        names = {f"{INSIDE}{name}" for name in volume.names}
        types = {name for name in volume.names if name.startswith((TYPE, AUTO))}
        inner = _volume(device, names | types, f"{volume.where}, decrypted")
        self._take([replace(inner, read_only=volume.read_only)])

    def _take(self, found: Iterable[Volume]) -> None:
        while found := list(found):
            kinds: dict[str, list[Volume]] = {}
            for volume in found:
                kinds.setdefault(volume.content.type, []).append(volume)
            members = self._free(kinds.pop(md.CONTENT, []))
            physical = self._free(kinds.pop(lvm.CONTENT, []))
            self.locked += kinds.pop(luks.CONTENT, [])
            self.volumes += (volume for volumes in kinds.values() for volume in volumes)
            found = [*self._arrays(members), *self._logical(physical)]

    def _free(self, volumes: list[Volume]) -> list[Volume]:
        """Check that nobody else has opened these: a second mount, by another device, would replay the journal of
        what is mounted already."""
        for volume in volumes:
            holders = holders_of(volume.device)
            if holders and not self._read_only:
                raise SourceRefused(
                    f"{volume.where} is in use, by {', '.join(holders)}",
                    hint="unmount what is on it, stop it (vgchange -an, mdadm --stop, etsclone umount); or --root DIR",
                )
        return volumes

    def _arrays(self, volumes: Sequence[Volume]) -> Iterator[Volume]:
        arrays: dict[tuple[str, str], list[Volume]] = {}
        for volume in volumes:
            arrays.setdefault(md.identity(volume.content), []).append(volume)
        for (uuid, name), members in arrays.items():
            array = md.started([each.device for each in members], read_only=self._read_only)
            try:
                device = self._stack.enter_context(array)
            except self._passed_over as error:
                self._missing.append(f"{members[0].where}: {error.message}")
                continue
            yield _volume(device, array_names(uuid, name), f"the array {name}".rstrip())

    def _logical(self, volumes: Sequence[Volume]) -> Iterator[Volume]:
        for volume in volumes:
            try:
                for each in self._groups.add(volume.device):
                    names = logical_names(each.group, each.volume)
                    yield _volume(each.device, names, f"{each.group}/{each.volume}")
            except self._passed_over as error:
                self._missing.append(f"{volume.where}: {error.message}")


@contextlib.contextmanager
def opened(disk: Disk, keys: Keys, *, read_only: bool) -> Iterator[Stack]:
    """Open what the partitions of a disk hold, but for encrypted volumes; with the context all is closed again.

    Args:
        disk: a snapshot with partition nodes.
        keys: what opens encrypted volumes, when they are to be (`Stack.unlock`).
        read_only: write nothing, whatever is done with the volumes.

    Raises:
        MissingProgram: when the program that opens a layer is not installed, and something may be written.
        SourceRefused: when somebody else has opened a layer, and something may be written.
        CommandFailed: when a layer cannot be opened, and something may be written.
    """
    with contextlib.ExitStack() as stack:
        yield Stack(stack, disk, keys, read_only=read_only)


def _partitions(disk: Disk) -> Iterator[Volume]:
    whole = Partition(0, disk.device, 0, disk.size, "", content=disk.content)
    for part in disk.partitions or (whole,):
        if part.device and part.content.type:
            names = {*partition_names(part, disk), *content_names(part.content)}
            where = f"partition {part.number}" if part.number else "the disk"
            yield Volume(part.device, part.content, frozenset(names), where, part.kept_read_only)


def _volume(device: str, names: Iterable[str], where: str) -> Volume:
    content: Content = read_content(device, 0, size_of(device))
    return Volume(device, content, frozenset((*names, *content_names(content))), where)
