"""Filesystems, swap space and LUKS volumes that get another identifier, each by its own tools.

The device is a window on a clone; the twin, which has the same identifiers still, may be in use on the same machine.
"""

import os
import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from etsclone.disk import resize
from etsclone.disk.device import opened, read_bytes, write_bytes
from etsclone.disk.probe import read_content
from etsclone.errors import ComparisonFailed
from etsclone.model.extents import Extent
from etsclone.model.ids import GroupIds
from etsclone.run import require_program, run

_BOOT_SECTOR = 512
_FAT32_SERIAL, _FAT_SERIAL = 67, 39
"""Source: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03, BS_VolID."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a content gets another identifier, and how it is checked without writing."""

    programs: tuple[str, ...]
    change: Callable[[str, str], object]
    check: Callable[[str], object] = lambda _: None


def check_programs(content: str) -> None:
    """Make sure that the programs which a content needs are here.

    Raises:
        MissingProgram: naming the first that is not.
    """
    for name in _KINDS[content].programs:
        require_program(name)


def obstacle(device: str, content: str) -> str:
    """Why the content of a device (the source's, only looked at) cannot get another identifier; empty when it can.

    Raises:
        CommandFailed: when its tools cannot read it.
    """
    if content == "btrfs":
        devices = resize.btrfs_facts(device)["num_devices"]
        return f"its btrfs has {devices} devices" if devices != "1" else ""
    return ""


def change(device: str, content: str, new: str) -> None:
    """Give the content of a device another identifier.

    Raises:
        CommandFailed: when its tools cannot do it.
        DeviceError: when the device cannot be read or written.
    """
    _KINDS[content].change(device, new)


def check(device: str, content: str, size: int, new: str) -> None:
    """Make sure that a content is sound and has an identifier; nothing is written. `size` is the device's in bytes.

    Raises:
        CommandFailed: when its own tool finds it unsound.
        ComparisonFailed: when it has another identifier.
    """
    _KINDS[content].check(device)
    check_uuid(device, content, size, new)


def check_uuid(device: str, content: str, size: int, uuid: str) -> None:
    """Make sure that a device of `size` bytes has a content with this identifier.

    Raises:
        ComparisonFailed: when it has another.
    """
    found = read_content(device, 0, size)
    if (found.type, found.uuid) != (content, uuid):
        raise ComparisonFailed(f"{found.type} {found.uuid} is there in place of {content} {uuid}")


def change_group(device: str, ids: GroupIds) -> None:
    """Give the volume group on a device, and its physical volume, other UUIDs, and the group another name.

    Written anew are label and metadata; where volumes lie stays.

    Raises:
        CommandFailed: when LVM cannot do it.
    """
    with tempfile.TemporaryDirectory(prefix="etsclone-") as folder:
        path = os.path.join(folder, "metadata")
        resize.lvm(device, "vgcfgbackup", "--file", path, ids.name.old)
        with open(path, encoding="ascii") as file:
            text = file.read()
        for each in (ids.volume, ids.group):
            text = text.replace(each.old, each.new)
        text = re.sub(rf"(?m)^{re.escape(ids.name.old)} {{", f"{ids.name.new} {{", text)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        forced = ("-ff", "--yes", "--uuid", ids.volume.new, "--restorefile", path)
        resize.lvm(device, "pvcreate", *forced, device)
        resize.lvm(device, "vgcfgrestore", "--file", path, ids.name.new)


def check_group(device: str, ids: GroupIds) -> None:
    """Have LVM check a physical volume, and make sure that it and its group have their new identifiers.

    Raises:
        CommandFailed: when it is not sound.
        ComparisonFailed: when it has others.
    """
    resize.lvm(device, "pvck", device)
    fields = "pv_uuid,vg_uuid,vg_name"
    shown = resize.lvm(device, "pvs", "--readonly", "--noheadings", "--options", fields, device)
    if shown.split() != [each.new for each in ids.ids]:
        raise ComparisonFailed(f"LVM finds {shown.strip()}")


def _change_ext(device: str, new: str) -> None:
    # Without metadata_csum_seed all checksums change with the UUID; it must have been checked a moment before.
    run("e2fsck", ["-f", "-p", device], accept=(0, 1))
    run("tune2fs", ["-U", new, device])


def _change_xfs(device: str, new: str) -> None:
    # What its log holds has to be done first; `nouuid` also takes no notice of a twin that is mounted.
    resize.run_mounted(device, "xfs", "rw,nouuid,nodev,nosuid,noexec", ["test", "-d"])
    run("xfs_admin", ["-U", new, device])


def _change_btrfs(device: str, new: str) -> None:
    # The superblocks alone: all other blocks keep the old one, as "metadata UUID". Linux 5.0 or later knows that.
    run("btrfstune", ["-f", "-M", new, device])


def _change_fat(device: str, new: str) -> None:
    serial = struct.pack("<I", int(new.replace("-", ""), 16))
    with opened(device, writable=True) as descriptor:
        sector = read_bytes(descriptor, Extent(0, _BOOT_SECTOR))
        (sector_size,), (size_16,) = (
            struct.unpack_from("<H", sector, 11),
            struct.unpack_from("<H", sector, 22),
        )
        if size_16:
            write_bytes(descriptor, _FAT_SERIAL, serial)
            return
        (backup,) = struct.unpack_from("<H", sector, 50)
        # 0 and 0xFFFF: there is none.
        for number in (backup, 0) if 0 < backup < 32 else (0,):
            write_bytes(descriptor, number * sector_size + _FAT32_SERIAL, serial)


def _change_luks(device: str, new: str) -> None:
    run("cryptsetup", ["--batch-mode", "--uuid", new, "luksUUID", device])


_EXT = _Kind(("e2fsck", "tune2fs"), _change_ext, lambda device: run("e2fsck", ["-f", "-n", device]))
_KINDS = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": _EXT,
    "xfs": _Kind(
        ("xfs_admin", "xfs_repair", "unshare", "findmnt"),
        _change_xfs,
        lambda device: run("xfs_repair", ["-n", device]),
    ),
    "btrfs": _Kind(
        ("btrfs", "btrfstune"),
        _change_btrfs,
        lambda device: run("btrfs", ["check", "--readonly", device]),
    ),
    "vfat": _Kind((), _change_fat),
    "swap": _Kind(("swaplabel",), lambda device, new: run("swaplabel", ["--uuid", new, device])),
    "crypto_LUKS": _Kind(("cryptsetup",), _change_luks),
}
