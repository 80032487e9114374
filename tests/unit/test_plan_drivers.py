"""Drivers that a kernel or its initramfs has for a machine, or has not."""

import pytest

from etsclone.model.hardware import Device, Purpose
from etsclone.plan.drivers import Lack, kernel_of, lacking, module_of

ALIAS = b"""\
# Aliases extracted from modules themselves.
alias pci:v*d*sv*sd*bc01sc08i02* nvme
alias pci:v*d*sv*sd*bc01sc06i01* ahci
alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e
alias pci:v00008086d0000[12]100sv*sd*bc*sc*i* ata-piix
alias pci:v00008086d00001100sv*sd*bc*sc*i* ata_generic
alias fs-xfs xfs
"""
DEP = b"""\
kernel/drivers/nvme/host/nvme.ko.xz: kernel/drivers/nvme/host/nvme-core.ko.xz kernel/drivers/nvme/nvme-common.ko.xz
kernel/drivers/ata/ahci.ko: kernel/drivers/ata/libahci.ko kernel/drivers/ata/libata.ko
kernel/drivers/net/e1000e.ko:
kernel/drivers/ata/ata-piix.ko:
"""
BUILTIN = b"kernel/drivers/ata/libata.ko\nkernel/drivers/virtio/virtio_pci.ko\n"
MODINFO = b"virtio_pci.license=GPL\0virtio_pci.alias=pci:v00001AF4d*sv*sd*bc*sc*i*\0"
KERNEL = kernel_of("6.1.0-28-amd64", ALIAS, DEP, BUILTIN, MODINFO)

NVME = Device(
    Purpose.STORAGE, "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02", "disk nvme0n1", "nvme"
)
AHCI = Device(Purpose.STORAGE, "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", "disk sda")
IDE = Device(Purpose.STORAGE, "pci:v00008086d00001100sv00001AF4sd00001100bc01sc01i80", "disk hda")
E1000E = Device(
    Purpose.NETWORK,
    "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00",
    "network interface eth0",
)
VIRTIO = Device(
    Purpose.STORAGE, "pci:v00001AF4d00001042sv00001AF4sd00001042bc01sc80i00", "disk vda"
)
BLOCK = Device(Purpose.STORAGE, "virtio:d00000002v00001AF4", "disk vda")


@pytest.mark.parametrize(
    ("device", "held", "modules"),
    [
        (NVME, {"nvme", "nvme_core", "nvme_common"}, None),
        (NVME, {"nvme", "nvme_core"}, ("nvme_common",)),
        (NVME, set(), ("nvme", "nvme_core", "nvme_common")),
        (NVME, None, None),
        (AHCI, {"ahci", "libahci"}, None),
        (AHCI, {"nvme"}, ("ahci", "libahci")),
        (IDE, {"ata_generic"}, None),
        (IDE, {"ata_piix"}, None),
        (IDE, set(), ("ata_piix",)),
        (E1000E, set(), ("e1000e",)),
        (VIRTIO, set(), None),
        (BLOCK, set(), ()),
        (BLOCK, None, ()),
    ],
)
def test_what_is_lacking(device: Device, held: set[str] | None, modules: tuple[str, ...]) -> None:
    found = lacking(KERNEL, held if held is None else frozenset(held), [device])
    assert [lack.modules for lack in found] == ([] if modules is None else [modules])


def test_the_driver_that_a_device_has_here_is_the_one_that_counts() -> None:
    device = Device(IDE.purpose, IDE.modalias, IDE.name, "ata_piix")
    (lack,) = lacking(KERNEL, frozenset({"ata_generic"}), [device])
    assert lack.modules == ("ata_piix",)


def test_one_line_for_each_disk() -> None:
    twice = [NVME, Device(Purpose.STORAGE, AHCI.modalias, NVME.name), E1000E]
    (storage, network) = lacking(KERNEL, frozenset({"nvme", "nvme_core"}), twice)
    assert str(storage) == (
        "the initramfs of 6.1.0-28-amd64 lacks nvme_common, ahci, libahci, which drive this machine's disk nvme0n1"
    )
    assert str(network) == (
        "the initramfs of 6.1.0-28-amd64 lacks e1000e, which drives this machine's network interface eth0"
    )
    assert lacking(KERNEL, frozenset(), [VIRTIO, BLOCK]) == lacking(
        KERNEL, frozenset(), [BLOCK, VIRTIO]
    )
    assert str(Lack(Purpose.STORAGE, "disk vda", "6.1", ())) == (
        "kernel 6.1 has no driver for this machine's disk vda"
    )


@pytest.mark.parametrize(
    ("path", "module"),
    [
        (b"kernel/drivers/nvme/host/nvme-core.ko", "nvme_core"),
        (b"usr/lib/modules/6.1/kernel/x.ko.zst", "x"),
        (b"modules.dep", ""),
        (b"x.ko.txt", ""),
        (b"", ""),
    ],
)
def test_modules_by_their_files(path: bytes, module: str) -> None:
    assert module_of(path) == module


def test_garbage_is_no_kernel() -> None:
    kernel = kernel_of("x", b"\xff\nalias a\n", b"::\n\xff", b"\xff", b"\0.alias=\0\xff")
    assert lacking(kernel, frozenset(), [NVME])[0].modules == ()
