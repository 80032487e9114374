"""Filesystems and physical volumes that fill a larger device, each by its own tools.

The device is a window on the target. The source is its twin, with the same UUIDs, and may be seen by the same kernel:
nothing here may touch a device that it was not given.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from etsclone.errors import CommandFailed
from etsclone.run import require_program, run, uninterrupted
from etsclone.units import MIB, human

_MOUNT_AND_RUN = """
folder=$(mktemp --directory /run/etsclone-XXXXXXXX)
trap 'umount --quiet "$folder" || true; rmdir "$folder"' EXIT
mount --types "$1" --options "$2" --source "$3" --target "$folder"
mounted=$(findmnt --noheadings --nofsroot --first-only --output SOURCE --mountpoint "$folder")
test "$mounted" = "$3" || { echo "$mounted was mounted for $3" >&2; exit 1; }
shift 3
"$@" "$folder"
umount "$folder"
"""
"""In a mount namespace of its own nobody else ever sees the mount. It outlives a kill of etsclone, and cleans up."""

_LVM_CONFIG = (
    'devices {{ filter = [ "a|^{device}$|", "r|.*|" ] use_devicesfile = 0 obtain_device_list_from_udev = 0 }}'
    " activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }} backup {{ backup = 0 archive = 0 }}"
    " global {{ use_lvmpolld = 0 event_activation = 0 }}"
)
"""Only this one device exists for the command: its twin has the same UUID."""


_MIN_BTRFS = 256 * MIB
"""Source: btrfs_ioctl_resize in the kernel's fs/btrfs/ioctl.c."""

_TWIN_MOUNTED = "a btrfs with its UUID is mounted: the kernel would take one for the other"


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a content is enlarged to fill its device, and how that is checked without writing."""

    programs: tuple[str, ...]
    enlarge: Callable[[str], object]
    check: Callable[[str], object]
    obstacle: Callable[[str, str, int], str] = lambda *_: ""


def check_programs(content: str) -> None:
    """Make sure that the programs which enlarge a content are here.

    Raises:
        MissingProgram: naming the first that is not.
    """
    for name in _KINDS[content].programs:
        require_program(name)


def obstacle(device: str, content: str, uuid: str, size: int) -> str:
    """Why the content of a device (the source's, only looked at) cannot be enlarged on its clone; empty when it can.

    Args:
        device: the source's partition.
        content: what blkid calls it.
        uuid: the filesystem's.
        size: what it is to have, in bytes.

    Raises:
        CommandFailed: when its tools cannot read it.
    """
    return _KINDS[content].obstacle(device, uuid, size)


def enlarge(device: str, content: str) -> None:
    """Let a filesystem, or a physical volume, fill its device.

    Raises:
        CommandFailed: when its tools cannot do it.
    """
    _KINDS[content].enlarge(device)


def check(device: str, content: str) -> None:
    """Have the content's own tool check it; nothing is written.

    Raises:
        CommandFailed: when it is not sound.
    """
    _KINDS[content].check(device)


def forget(device: str, content: str) -> None:
    """Have the kernel forget that it ever saw a btrfs on a device, or it could take its twin for it.

    One that is mounted it does not forget.
    """
    if content == "btrfs":
        run("btrfs", ["device", "scan", "--forget", device], accept=(0, 1))


def _ext_obstacle(device: str, _uuid: str, size: int) -> str:
    wanted = ("Filesystem state", "Filesystem features", "Block size")
    facts = _facts(run("dumpe2fs", ["-h", device]).stdout, ":", wanted)
    if "errors" in facts["Filesystem state"]:
        return "it is marked as having errors: repair the source with e2fsck -f first"
    blocks = size // int(facts["Block size"])
    # Block numbers have 32 bits without it (ext4(5)); resize2fs -b, which changes that, moves half of the filesystem.
    too_many = blocks >= 1 << 32 and "64bit" not in facts["Filesystem features"].split()
    return f"without the feature 64bit it cannot have {human(size)}" if too_many else ""


def _enlarge_ext(device: str) -> None:
    run("e2fsck", ["-f", "-p", device], accept=(0, 1))
    # Forced: where the clock is wrong, it would not believe that the check was a moment ago.
    run("resize2fs", ["-f", device])


def _enlarge_xfs(device: str) -> None:
    run_mounted(device, "xfs", "rw,nouuid,nodev,nosuid,noexec", ["xfs_growfs", "-d"])


def _enlarge_btrfs(device: str) -> None:
    facts = btrfs_facts(device)
    if is_mounted_btrfs(facts["fsid"]):
        raise CommandFailed(_TWIN_MOUNTED)
    try:
        words = ["btrfs", "filesystem", "resize", f"{facts['dev_item.devid']}:max"]
        # A balance that was going on when the source went down has no business here.
        run_mounted(device, "btrfs", "rw,nodev,nosuid,noexec,skip_balance", words)
    finally:
        forget(device, "btrfs")


def run_mounted(device: str, kind: str, options: str, words: list[str]) -> None:
    """Run a command, with the folder as its last word, while a device is mounted where nobody else sees it.

    Raises:
        CommandFailed: when it cannot be mounted, or the command fails.
    """
    with uninterrupted():
        script = ["sh", "-e", "-c", _MOUNT_AND_RUN, "sh", kind, options, device]
        run("unshare", ["--mount", "--", *script, *words])


def _btrfs_obstacle(device: str, uuid: str, size: int) -> str:
    if is_mounted_btrfs(uuid):
        return _TWIN_MOUNTED
    devices = btrfs_facts(device)["num_devices"]
    if devices != "1":
        return f"its btrfs has {devices} devices"
    too_small = size < _MIN_BTRFS
    return f"btrfs can only be enlarged to {human(_MIN_BTRFS)} or more" if too_small else ""


def is_mounted_btrfs(uuid: str) -> bool:
    """Whether the kernel uses a btrfs with this UUID."""
    return os.path.exists(f"/sys/fs/btrfs/{uuid}")


def btrfs_facts(device: str) -> dict[str, str]:
    """`fsid`, `num_devices` and `dev_item.devid` of a btrfs.

    Raises:
        CommandFailed: when its tools do not tell them.
    """
    shown = run("btrfs", ["inspect-internal", "dump-super", device]).stdout
    return _facts(shown, None, ("fsid", "num_devices", "dev_item.devid"))


def _facts(text: str, separator: str | None, wanted: tuple[str, ...]) -> dict[str, str]:
    """Names and values, one pair a line; None separates by space."""
    pairs = (line.split(separator, 1) for line in text.splitlines())
    facts = {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}
    if missing := [name for name in wanted if name not in facts]:
        raise CommandFailed(f"the filesystem's tools do not tell its {', '.join(missing)}")
    return facts


def _lvm_obstacle(device: str, _uuid: str, _size: int) -> str:
    fields = ["--noheadings", "--options", "vg_name,pv_count"]
    words = lvm(device, "pvs", "--readonly", *fields, device).split()
    if len(words) < 2:  # a physical volume without a group
        return ""
    if words[-1] != "1":
        return f"its volume group {words[0]} has {words[-1]} physical volumes"
    return ""


def lvm(device: str, command: str, *words: str) -> str:
    """Run a command of LVM that sees no other physical volume than `device`; returns what it printed.

    Raises:
        CommandFailed: when it fails.
    """
    config = _LVM_CONFIG.format(device=device)
    # Without the driver no volume can be active: nothing but metadata is read and written.
    return run("lvm", [command, "--driverloaded", "n", "--config", config, *words]).stdout


_EXT = _Kind(
    ("e2fsck", "resize2fs", "dumpe2fs"),
    _enlarge_ext,
    lambda device: run("e2fsck", ["-f", "-n", device]),
    _ext_obstacle,
)
_KINDS = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": _EXT,
    "xfs": _Kind(
        ("xfs_growfs", "xfs_repair", "unshare", "findmnt"),
        _enlarge_xfs,
        lambda device: run("xfs_repair", ["-n", device]),
    ),
    "btrfs": _Kind(
        ("btrfs", "unshare", "findmnt"),
        _enlarge_btrfs,
        lambda device: run("btrfs", ["check", "--readonly", device]),
        _btrfs_obstacle,
    ),
    "LVM2_member": _Kind(
        ("lvm",),
        lambda device: lvm(device, "pvresize", device),
        lambda device: lvm(device, "pvck", device),
        _lvm_obstacle,
    ),
}
