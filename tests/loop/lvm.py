"""LVM2 without device-mapper: its own tools write and read the metadata of volumes that are never active."""

from pathlib import Path

from .disks import tool


def lvm(command: str, *words: str | Path, devices: list[Path]) -> str:
    """Run a command of LVM2 that sees only these devices, and leaves nothing in /etc or /run."""
    seen = ", ".join(f'"a|^{device}$|"' for device in devices)
    config = (
        f'devices {{ filter = [ {seen}, "r|.*|" ] use_devicesfile = 0 obtain_device_list_from_udev = 0 }}'
        " activation { udev_sync = 0 udev_rules = 0 monitoring = 0 } backup { backup = 0 archive = 0 }"
        " global { use_lvmpolld = 0 event_activation = 0 }"
    )
    quiet = ("env", "LVM_SUPPRESS_FD_WARNINGS=1", "lvm", command, "--driverloaded", "n")
    return tool(*quiet, "--config", config, *words)


def linear(name: str, group: str, *words: str, devices: list[Path]) -> None:
    """Make a logical volume that nobody activates or clears."""
    passive = ("--activate", "n", "--zero", "n", "--wipesignatures", "n")
    lvm("lvcreate", *passive, "--name", name, *words, group, devices=devices)


def segments(device: Path, devices: list[Path]) -> dict[tuple[int, int], str]:
    """Stretches of extents (first, number) of a physical volume, and whose they are: empty for nobody's."""
    fields = ("pvseg_start", "pvseg_size", "lv_name")
    show = ("--segments", "--noheadings", "--separator", ",", "--options", ",".join(fields))
    rows = [
        line.strip().split(",") for line in lvm("pvs", *show, device, devices=devices).splitlines()
    ]
    return {
        (int(row[0]), int(row[1])): row[2].strip("[]") for row in rows if len(row) == len(fields)
    }
