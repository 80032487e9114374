"""The hardware of a machine, out of a sysfs that is laid out as the kernel does it."""

import os
from pathlib import Path

import pytest

from etsclone.boot.hardware import devices, nics
from etsclone.model.hardware import Device, Nic, Purpose


class Sysfs:
    """A folder with devices, as under /sys."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def device(self, where: str, bus: str, module: str = "", **files: str) -> None:
        folder = self._folder(where, files)
        self._link(f"bus/{bus}/devices/{folder.name}", folder)
        if module:
            driver = self.path / "bus" / bus / "drivers" / module
            driver.mkdir(parents=True, exist_ok=True)
            self._link(f"module/{module}/x", driver)
            self._link(
                str((driver / "module").relative_to(self.path)), self.path / "module" / module
            )
            self._link(str((folder / "driver").relative_to(self.path)), driver)

    def member(self, group: str, where: str, **files: str) -> None:
        folder = self._folder(where, files)
        self._link(f"class/{group}/{folder.name}", folder)
        if len(folder.parents[1].relative_to(self.path).parts) > 2:
            self._link(str((folder / "device").relative_to(self.path)), folder.parents[1])

    def _folder(self, where: str, files: dict[str, str]) -> Path:
        folder = self.path / "devices" / where
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(f"{content}\n")
        return folder

    def _link(self, name: str, target: Path) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(os.path.relpath(target, path.parent))


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    tree = Sysfs(tmp_path)
    nvme, nic, ahci = (f"pci0000:00/0000:00:0{number}.0" for number in (1, 2, 3))
    tree.device(nvme, "pci", "nvme", **{"class": "0x010802", "modalias": "pci:nvme"})
    tree.member("block", f"{nvme}/nvme/nvme0/nvme0n1")
    tree.member("block", f"{nvme}/nvme/nvme0/nvme0n1/nvme0n1p1", partition="1")
    tree.device(nic, "pci", "e1000e", **{"class": "0x020000", "modalias": "pci:e1000e"})
    tree.member("net", f"{nic}/net/testnic0", address="52:54:00:12:34:56")
    tree.device(ahci, "pci", **{"class": "0x010601", "modalias": "pci:ahci"})
    tree.device("pci0000:00/0000:00:04.0", "pci", **{"class": "0x030000", "modalias": "pci:vga"})
    virtio = "pci0000:00/0000:00:05.0/virtio0"
    tree.device(virtio, "virtio", "virtio_blk", modalias="virtio:d00000002v00001AF4")
    tree.device("pci0000:00/0000:00:05.0/virtio1", "virtio", modalias="virtio:d00000005v00001AF4")
    tree.member("block", f"{virtio}/block/vda")
    tree.device("vbd-51712", "xen", "xen_blkfront", modalias="xen:vbd")
    tree.device("vkbd-0", "xen", modalias="xen:vkbd")
    storvsc = "LNXSYSTM:00/LNXSYBUS:00/VMBUS:00/storvsc"
    tree.device(storvsc, "vmbus", modalias="vmbus:d96361baa104294db60572e2ffb1dc7f")
    tree.member("block", f"{storvsc}/host0/target0:0:0/0:0:0:0/block/sda")
    tree.member("net", "virtual/net/lo", address="00:00:00:00:00:00")
    return tree


def test_controllers_and_what_hangs_on_them(sysfs: Sysfs) -> None:
    assert devices(str(sysfs.path)) == (
        Device(Purpose.STORAGE, "pci:nvme", "disk nvme0n1", "nvme"),
        Device(Purpose.NETWORK, "pci:e1000e", "network interface testnic0", "e1000e"),
        Device(Purpose.STORAGE, "pci:ahci", "storage controller 0000:00:03.0"),
        Device(Purpose.STORAGE, "virtio:d00000002v00001AF4", "disk vda", "virtio_blk"),
        Device(Purpose.STORAGE, "vmbus:d96361baa104294db60572e2ffb1dc7f", "disk sda"),
        Device(Purpose.STORAGE, "xen:vbd", "storage controller vbd-51712", "xen_blkfront"),
    )


def test_interfaces_that_are_hardware(sysfs: Sysfs) -> None:
    assert nics(str(sysfs.path)) == (Nic("testnic0", "52:54:00:12:34:56", "e1000e"),)


def test_a_machine_without_sysfs_has_nothing(tmp_path: Path) -> None:
    assert (nics(str(tmp_path)), devices(str(tmp_path))) == ((), ())


def test_this_machine_can_be_looked_at() -> None:
    for nic in nics():
        assert Path(f"/sys/class/net/{nic.name}/device").exists()
    for device in devices():
        assert device.modalias.startswith(("pci:", "virtio:", "vmbus:", "xen:"))
