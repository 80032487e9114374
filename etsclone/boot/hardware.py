"""What this machine consists of, as far as a system that is to run on it must fit: read from sysfs."""

import array
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from etsclone.model.hardware import Device, Nic, Purpose, check_mac

_SIOCETHTOOL = 0x8946
_GET_PERMANENT = 0x20
"""ETHTOOL_GPERMADDR; a request of two 32-bit numbers, itself and the room for the address, which follows."""

_PCI_CLASSES = {"0x01": Purpose.STORAGE, "0x02": Purpose.NETWORK}
_VIRTUAL = {
    "virtio:d00000001": Purpose.NETWORK,
    "virtio:d00000002": Purpose.STORAGE,
    "virtio:d00000008": Purpose.STORAGE,
    "vmbus:d96361baa104294db60572e2ffb1dc7f": Purpose.STORAGE,
    "vmbus:635161f83edfc546913ff2d2f965ed0e": Purpose.NETWORK,
    "xen:vbd": Purpose.STORAGE,
    "xen:vif": Purpose.NETWORK,
}
"""How the modaliases of virtual machines' devices begin: virtio's network card, block device and SCSI host (virtio
specification, part 5), Hyper-V's (include/linux/hyperv.h: HV_SCSI_GUID, HV_NIC_GUID) and Xen's."""


def nics(sys: str = "/sys") -> tuple[Nic, ...]:
    """The network interfaces that are hardware, in the order of their names; `sys` is where sysfs is mounted."""
    found = []
    for name in _names(f"{sys}/class/net"):
        folder = f"{sys}/class/net/{name}"
        if not os.path.exists(f"{folder}/device"):
            continue  # a bridge, a bond, loopback
        try:
            mac = check_mac(_permanent_address(name) or _text(f"{folder}/address"))
        except ValueError:
            continue  # InfiniBand
        found.append(Nic(name, mac, _link_name(f"{folder}/device/driver")))
    return tuple(found)


def devices(sys: str = "/sys") -> tuple[Device, ...]:
    """The storage controllers and network cards that need a driver each; `sys` is where sysfs is mounted."""
    return tuple(
        Device(
            purpose,
            _text(f"{folder}/modalias"),
            _name(sys, folder, purpose),
            _link_name(f"{folder}/driver/module"),
        )
        for folder, purpose in (*_of_pci(sys), *_of_virtual_machine(sys))
    )


def _of_pci(sys: str) -> Iterator[tuple[str, Purpose]]:
    for name in _names(f"{sys}/bus/pci/devices"):
        folder = f"{sys}/bus/pci/devices/{name}"
        purpose = _PCI_CLASSES.get(_text(f"{folder}/class")[:4])
        if purpose:
            yield folder, purpose


def _of_virtual_machine(sys: str) -> Iterator[tuple[str, Purpose]]:
    for bus in ("virtio", "vmbus", "xen"):
        for name in _names(f"{sys}/bus/{bus}/devices"):
            folder = f"{sys}/bus/{bus}/devices/{name}"
            modalias = _text(f"{folder}/modalias")
            for start, purpose in _VIRTUAL.items():
                if modalias.startswith(start):
                    yield folder, purpose


def _name(sys: str, folder: str, purpose: Purpose) -> str:
    """What people call a device: its disks, its interfaces, or else its address on the bus."""
    group, word = ("block", "disk") if purpose is Purpose.STORAGE else ("net", "network interface")
    top = os.path.realpath(folder)
    below = [
        name
        for name in _names(f"{sys}/class/{group}")
        if os.path.realpath(f"{sys}/class/{group}/{name}").startswith(f"{top}/")
        and not os.path.exists(f"{sys}/class/{group}/{name}/partition")
    ]
    if below:
        return f"{word} {', '.join(below)}"
    return f"{purpose.value} controller {os.path.basename(folder)}"


def _permanent_address(name: str) -> str:
    """The address that an interface came with, whatever it has now; empty when its driver does not tell."""
    room = 32
    request = array.array("B", struct.pack("=II", _GET_PERMANENT, room) + bytes(room))
    where, _ = request.buffer_info()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            fcntl.ioctl(door, _SIOCETHTOOL, struct.pack("16sP16x", os.fsencode(name), where))
    except OSError:
        return ""
    _, size = struct.unpack_from("=II", request)
    address = bytes(request[8 : 8 + size])
    return address.hex(":") if any(address) else ""


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _link_name(path: str) -> str:
    """The last component of where a link leads; empty when there is none."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
