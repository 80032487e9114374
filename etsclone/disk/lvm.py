"""The logical volumes that lie on physical volumes of one disk, opened without LVM: see `plan.lvmtables`."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from etsclone.disk.mapper import mapping, new_name, node_of
from etsclone.errors import FormatError
from etsclone.plan.lvmdisk import LABEL_SCAN_SIZE, Label, parse_label, read_text
from etsclone.plan.lvmgroup import VolumeGroup, members_of, parse_group
from etsclone.plan.lvmtables import plan_tables
from etsclone.plan.lvmtext import Section, parse_config

CONTENT = "LVM2_member"
"""What blkid calls a physical volume."""

_MOST_VOLUMES = 1000
"""Logical volumes of all groups of a disk, with their parts: each that is open is a device of this machine."""


@dataclass(frozen=True, slots=True)
class LogicalDevice:
    """A logical volume that is open: its device node, its group, its name."""

    device: str
    group: str
    volume: str


@dataclass(frozen=True, slots=True)
class _Physical:
    """A physical volume: its device, its label, and the texts of its metadata areas."""

    device: str
    label: Label
    configs: tuple[Section, ...]


@dataclass(slots=True)
class Groups:
    """The volume groups of one disk: physical volumes are added as they are found, and volumes opened as they can be.

    What is opened is closed with `stack`. `missing` says why the others are not, as `group/volume: why`.
    """

    stack: contextlib.ExitStack
    read_only: bool
    missing: list[str] = field(default_factory=list, init=False)
    _physical: list[_Physical] = field(default_factory=list, init=False)
    _names: dict[tuple[str, str], str] = field(default_factory=dict, init=False)

    def add(self, device: str) -> Iterator[LogicalDevice]:
        """Open what lies on a physical volume, and on those before it, and is not open yet.

        Raises:
            FormatError: when it is none.
            CommandFailed: when device-mapper cannot.
        """
        self._physical.append(_read(device))
        self.missing = []
        for group, config in _newest(self._physical).items():
            try:
                views = _views(config, self._physical)
                yield from self._open(group, views)
            except FormatError as error:
                self.missing.append(f"a volume group on {device}: {error.message}")

    def _open(self, group: str, views: dict[str, VolumeGroup]) -> Iterator[LogicalDevice]:
        view = next(iter(views.values()))
        name, others = view.name, sum(each != group for each, _ in self._names)
        if others + len(view.volumes) > _MOST_VOLUMES:
            raise FormatError(f"there are more than {_MOST_VOLUMES} logical volumes")
        fresh: dict[str, str] = {}

        def name_of(volume: str) -> str:
            return self._names.get((group, volume)) or fresh.setdefault(
                volume, new_name(f"{name}-{volume}")
            )

        planned = plan_tables(
            views, lambda volume: node_of(name_of(volume)), read_only=self.read_only
        )
        self.missing += [f"{name}/{volume}: {why}" for volume, why in planned.missing.items()]
        for table in planned.tables:
            if (group, table.volume) in self._names:
                continue
            read_only = self.read_only and not table.pool
            opened = mapping(name_of(table.volume), table.text, read_only=read_only)
            device = self.stack.enter_context(opened)
            self._names[group, table.volume] = name_of(table.volume)
            if table.shown:
                yield LogicalDevice(device, name, table.volume)


def _read(device: str) -> _Physical:
    with open(device, "rb", buffering=0) as file:

        def read(start: int, size: int) -> bytes:
            return os.pread(file.fileno(), size, start)

        label = parse_label(read(0, LABEL_SCAN_SIZE))
        return _Physical(device, label, tuple(_configs(read, label)))


def _configs(read: Callable[[int, int], bytes], label: Label) -> Iterator[Section]:
    for start, size in label.metadata_areas:
        # Of two areas, one may be damaged; without any that is whole the group is not known.
        with contextlib.suppress(FormatError):
            text = read_text(read, start, size)
            if text:
                yield parse_config(text)


def _newest(physical: Sequence[_Physical]) -> dict[str, Section]:
    """The newest metadata of each volume group, by the group's UUID."""
    newest: dict[str, tuple[int, Section]] = {}
    for config in (config for each in physical for config in each.configs):
        for entry in config.values():
            uuid, change = _identity(entry) if isinstance(entry, dict) else ("", 0)
            if uuid and newest.get(uuid, (-1, {}))[0] < change:
                newest[uuid] = (change, config)
    return {uuid: config for uuid, (_, config) in newest.items()}


def _identity(group: Section) -> tuple[str, int]:
    """The UUID of a volume group, and the number of its last change."""
    uuid, change = group.get("id"), group.get("seqno")
    return (uuid, change) if isinstance(uuid, str) and isinstance(change, int) else ("", 0)


def _views(config: Section, physical: Sequence[_Physical]) -> dict[str, VolumeGroup]:
    """A volume group as each of its physical volumes sees it, by device."""
    members = members_of(config)
    return {
        each.device: parse_group(config, each.label.uuid)
        for each in physical
        if each.label.uuid in members
    }
