"""What disks there are and what they hold. The only importer of pyudev.

pyudev lists the devices and reads the kernel's attributes of them; serial numbers and WWNs come from udev's database,
or from sysfs where no udev runs (a minimal rescue system). Partition tables and contents are read from the device
itself, since a database may be older than the disk.
"""

import errno
import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace

import pyudev

from etsclone.disk.damaged import (
    KINDS,
    can_be_opened,
    can_be_read,
    has_mark,
    may_have_table,
    read_head,
    table_alone,
)
from etsclone.disk.gpttable import parse_gpt
from etsclone.disk.mounts import Mount, mounts_of_system, swaps_of_system
from etsclone.disk.signatures import find_content
from etsclone.errors import FormatError, UsageError
from etsclone.model.disk import (
    Content,
    Disk,
    DiskIdentity,
    Partition,
    PartitionTable,
    Use,
    mbr_partuuid,
)
from etsclone.model.quarantine import IN_QUARANTINE
from etsclone.run import run
from etsclone.units import SECTOR

_ATTRIBUTES = {"RequiredPartition": "0", "NoBlockIOProtocol": "1", "LegacyBIOSBootable": "2"}
_IGNORED = re.compile(r"(ram|zram|sr|fd|nbd)\d+")


@functools.cache
def _context() -> pyudev.Context:
    # One for all: making one means to look for the library with a program, ldconfig.
    return pyudev.Context()


def list_disks() -> tuple[Disk, ...]:
    """Every disk of this machine that has a medium, in the order of their names."""
    found = _context().list_devices(subsystem="block", DEVTYPE="disk")
    devices = [
        device for device in found if not _IGNORED.fullmatch(device.sys_name) and _size(device) > 0
    ]
    return tuple(
        _disk(device) for device in sorted(devices, key=lambda device: _natural(device.sys_name))
    )


def probe(path: str) -> Disk:
    """The disk that `path` (a block device, or a link to one) names now.

    Raises:
        UsageError: when it is no block device, or a partition.
    """
    device = _block_device(path)
    if device.device_type != "disk":
        parent = device.find_parent("block", "disk")
        whole = parent.device_node if parent is not None else "the whole disk"
        raise UsageError(f"{path} is a partition, not a disk", hint=f"name the whole disk: {whole}")
    return _disk(device)


def identity_of(path: str) -> DiskIdentity:
    """What makes the block device that `path` names now that device; nothing is read of what it holds.

    Raises:
        UsageError: when it is no block device.
    """
    return _identity(_block_device(path))


def disk_below(folder: str) -> Disk | None:
    """The disk that is mounted at `folder`, or whose partition is; None where that is no plain disk (LVM, tmpfs)."""
    mounts = [mount for mount in mounts_of_system() if mount.where == os.path.realpath(folder)]
    if not mounts:
        return None
    try:
        device = pyudev.Devices.from_device_number(_context(), "block", mounts[-1].device)
    except pyudev.DeviceNotFoundError:
        return None
    return _disk(device if device.device_type == "disk" else device.find_parent("block", "disk"))


def read_content(path: str, start: int, size: int) -> Content:
    """What libblkid finds in `size` bytes of a device from `start` on; empty when unknown."""
    if not size or not can_be_opened(path):
        return Content()
    content = find_content(path, start, size)
    if content.type or can_be_read(path, start, size):
        return content
    found = [each for kind in KINDS if (each := find_content(path, start, size, kind)).type]
    return found[0] if len(found) == 1 else Content()


def parse_table(text: str, nodes: dict[int, str]) -> PartitionTable:
    """Read the output of `sfdisk --json`; `nodes` gives the device node of the partition that starts at a byte.

    Raises:
        FormatError: when it is not such an output.
    """
    try:
        table = json.loads(text)["partitiontable"]
        sector = int(table.get("sectorsize", SECTOR))
        mark = int(table["id"], 16) if table["label"] == "dos" else 0
        partitions = tuple(
            Partition(
                number=(number := _partition_number(entry["node"])),
                device=nodes.get(entry["start"] * sector, ""),
                start=entry["start"] * sector,
                size=entry["size"] * sector,
                type=entry["type"].upper(),
                uuid=entry.get("uuid", "") or mbr_partuuid(mark, number),
                name=entry.get("name", ""),
                attributes=_attributes(entry.get("attrs", "")),
            )
            for entry in table.get("partitions", [])
        )
        return PartitionTable(
            table["label"], table["id"], tuple(sorted(partitions, key=lambda part: part.start))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"cannot read what sfdisk printed: {error}") from error


def _attributes(words: str) -> int:
    """The bits that sfdisk names: `RequiredPartition LegacyBIOSBootable GUID:60,63`."""
    bits = 0
    for word in words.replace(",", " ").split():
        number = _ATTRIBUTES.get(word, word.removeprefix("GUID:"))
        bits |= 1 << int(number) if number.isdecimal() and int(number) < 64 else 0
    return bits


def _block_device(path: str) -> pyudev.Device:
    try:
        device = pyudev.Devices.from_device_file(_context(), os.path.realpath(path))
    except (pyudev.DeviceNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"{path} is no block device", hint="`etsclone disks` lists the disks"
        ) from error
    if device.subsystem != "block":
        raise UsageError(f"{path} is no block device", hint="`etsclone disks` lists the disks")
    return device


def _disk(device: pyudev.Device) -> Disk:
    path = device.device_node
    nodes = {_integer(part, "start") * SECTOR: part.device_node for part in _partitions(device)}
    sector_size = _integer(device, "queue/logical_block_size") or SECTOR
    table = _read_table(path, nodes, _size(device), sector_size)
    content = Content() if table and table.partitions else read_content(path, 0, _size(device))
    if table is None and not content.type and has_mark(path):
        content = Content(IN_QUARANTINE)
    if content.type:
        table = None  # the boot sector of FAT, exFAT or NTFS passes for an MBR without partitions
    return Disk(
        identity=_identity(device),
        device=path,
        sector_size=sector_size,
        model=_text(device, "device/model") or device.properties.get("DM_NAME", ""),
        transport=_transport(device),
        stable_path=_stable_path(device),
        rotational=_text(device, "queue/rotational") == "1",
        read_only=_text(device, "ro") == "1",
        table=table,
        content=content,
        uses=tuple(_uses(device)),
    )


def _identity(device: pyudev.Device) -> DiskIdentity:
    number, backing = device.device_number, _backing_file(device)
    properties = device.properties
    return DiskIdentity(
        path=device.device_node,
        size=_size(device),
        device=(os.major(number), os.minor(number)),
        file=(backing.st_dev, backing.st_ino) if backing else None,
        volume=os.statvfs(_text(device, "loop/backing_file")).f_fsid if backing else 0,
        serial=properties.get("ID_SERIAL_SHORT", "")
        or _text(device, "device/serial")
        or _text(device, "serial"),
        wwn=properties.get("ID_WWN", "") or _text(device, "wwid") or _text(device, "device/wwid"),
    )


def _backing_file(device: pyudev.Device) -> os.stat_result | None:
    backing = _text(device, "loop/backing_file")
    try:
        return os.stat(backing) if backing else None
    except OSError:  # deleted, or of another mount namespace
        return None


def _read_table(
    path: str, nodes: dict[int, str], size: int, sector_size: int
) -> PartitionTable | None:
    if not can_be_opened(path):
        return None
    if not may_have_table(path):
        return None
    table = parse_gpt(read_head(path), sector_size, size, nodes) or _ask_sfdisk(
        path, nodes, size, sector_size
    )
    if table is None or table.label not in {"gpt", "dos"}:
        return None
    partitions = tuple(
        replace(part, content=read_content(path, part.start, part.size))
        for part in table.partitions
    )
    return PartitionTable(table.label, table.uuid, partitions)


def _ask_sfdisk(
    path: str, nodes: dict[int, str], size: int, sector_size: int
) -> PartitionTable | None:
    text = run("sfdisk", ["--json", path], accept=(0, 1)).stdout
    if not text.strip():
        with table_alone(path, size, sector_size) as stand_in:
            text = run("sfdisk", ["--json", stand_in], accept=(0, 1)).stdout
    return parse_table(text, nodes) if text.strip() else None


def _uses(device: pyudev.Device) -> Iterator[Use]:
    mounts, swaps = mounts_of_system(), swaps_of_system()
    found = [
        use for member in (device, *_partitions(device)) for use in _uses_of(member, mounts, swaps)
    ]
    yield from found
    if not found and _is_claimed(device.device_node):
        yield Use(device.device_node, "held", "a mount that cannot be seen from here")


def _is_claimed(path: str) -> bool:
    # In a chroot or a mount namespace, the list of mounts is not the whole truth; the kernel's claims are (open(2)).
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _uses_of(
    device: pyudev.Device, mounts: tuple[Mount, ...], swaps: frozenset[int]
) -> Iterator[Use]:
    mine = [mount for mount in mounts if mount.device == device.device_number]
    for mount in mine:
        yield Use(device.device_node, "mounted", mount.where, mount.writable)
    # In a chroot, what its root lies on is not in the list of mounts.
    if not mine and os.stat("/").st_dev == device.device_number:
        yield Use(device.device_node, "mounted", "/")
    if device.device_number in swaps:
        yield Use(device.device_node, "swap", "")
    for holder in sorted(_children(device.sys_path, "holders")):
        yield Use(device.device_node, "held", f"/dev/{holder}")
        # A volume on the disk may be what is mounted: LVM, md and LUKS devices stand between.
        yield from _uses_of(pyudev.Devices.from_name(_context(), "block", holder), mounts, swaps)


def _partitions(device: pyudev.Device) -> list[pyudev.Device]:
    return [child for child in device.children if child.device_type == "partition"]


def _children(sys_path: str, folder: str) -> list[str]:
    try:
        return os.listdir(os.path.join(sys_path, folder))
    except FileNotFoundError:
        return []


def _transport(device: pyudev.Device) -> str:
    bus: str = device.properties.get("ID_BUS", "")
    if bus:
        return bus
    path = device.sys_path
    known = (
        ("/usb", "usb"),
        ("/nvme", "nvme"),
        ("/ata", "ata"),
        ("/virtio", "virtio"),
        ("/virtual/", "virtual"),
    )
    return next((name for part, name in known if part in path), "")


def _stable_path(device: pyudev.Device) -> str:
    links = sorted(
        link for link in device.device_links if "/disk/by-id/" in link or "/disk/by-path/" in link
    )
    return links[0] if links else ""


def _partition_number(node: str) -> int:
    match = re.search(r"(\d+)$", node)
    if match is None:
        raise ValueError(f"partition without a number: {node}")
    return int(match.group(1))


def _size(device: pyudev.Device) -> int:
    return _integer(device, "size") * SECTOR


def _integer(device: pyudev.Device, attribute: str) -> int:
    text = _text(device, attribute)
    return int(text) if text.isdecimal() else 0


def _text(device: pyudev.Device, attribute: str) -> str:
    value: bytes | None = device.attributes.get(attribute)
    return value.decode("utf-8", "replace").strip() if value is not None else ""


def _natural(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", name)
    return (match.group(1), int(match.group(2) or 0)) if match else (name, 0)
