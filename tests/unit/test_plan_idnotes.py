"""What of boot loader and initramfs does not follow new identifiers, told before anything is copied."""

import itertools

import pytest

from etsclone.model.boot import BootSector, Core
from etsclone.model.disk import Content, Disk, DiskIdentity, Partition, PartitionTable
from etsclone.model.extents import Extent
from etsclone.model.ids import ARRAY, VOLUME, Identify, InnerContent, InnerGroup, Inside
from etsclone.plan.idnotes import container_notes, loader_notes
from etsclone.plan.ids import plan_ids
from etsclone.units import MIB

BOOT = "11111111-2222-3333-4444-555555555555"
CRYPT = "22222222-2222-3333-4444-555555555555"
MIRROR = "33333333-2222-3333-4444-555555555555"
GROUP = "abcdef-1234-5678-90ab-cdef-1234-GROUPX"
PV = "abcdef-1234-5678-90ab-cdef-1234-VOLUME"
LV = "abcdef-1234-5678-90ab-cdef-1234-567890"


def step_of() -> Identify:
    contents = (("ext4", BOOT), ("crypto_LUKS", CRYPT), (VOLUME, PV), (ARRAY, MIRROR))
    parts = tuple(
        Partition(number, "", number * MIB, MIB, "L", content=Content(kind, uuid))
        for number, (kind, uuid) in enumerate(contents, 1)
    )
    identity = DiskIdentity("/dev/sda", 64 * MIB)
    disk = Disk(identity, table=PartitionTable("gpt", "9" + BOOT[1:], parts))
    inside = Inside(
        groups=(InnerGroup(3, Extent(3 * MIB, 4 * MIB), PV, GROUP, "vg0"),),
        arrays=(InnerContent(4, ARRAY, MIRROR, Extent(4 * MIB, 5 * MIB)),),
    )
    numbers = itertools.count(1)
    return plan_ids(disk, None, inside, lambda size: next(numbers).to_bytes(size, "big"))


def grub(prefix: str, config: str = "") -> BootSector:
    return BootSector(code=True, grub=True, core=Core(prefix, config))


@pytest.mark.parametrize(
    "sector",
    [
        grub(f"(lvmid/{GROUP}/{LV})/boot/grub"),
        grub(f"(mduuid/{MIRROR.replace('-', '')})/grub"),
        grub(f"(cryptouuid/{CRYPT.replace('-', '')})/boot/grub"),
        grub("(lvm/vg0-boot)/grub"),
        grub("/boot/grub", f"search.fs_uuid {BOOT} root hd0,gpt1 \nset prefix=($root)/boot/grub\n"),
    ],
    ids=["lvmid", "mduuid", "cryptouuid", "lvm", "search"],
)
def test_a_core_that_names_an_old_identifier_is_told(sector: BootSector) -> None:
    (note,) = loader_notes(step_of(), sector)
    assert "does not boot, or boots its source" in note
    assert "--bootloader" in note
    assert note.isprintable()


def test_what_cannot_be_read_is_told() -> None:
    (note,) = loader_notes(step_of(), BootSector(code=True, grub=True))
    assert "cannot be told" in note


@pytest.mark.parametrize(
    "sector",
    [
        grub("(,gpt2)/boot/grub"),
        grub("(lvm/vg00-boot)/grub"),
        grub("/grub", f"search.fs_uuid {BOOT[:-1]}6 root\n"),
        BootSector(code=True),
        BootSector(code=False),
    ],
)
def test_of_other_boot_code_nothing_is_told(sector: BootSector) -> None:
    assert loader_notes(step_of(), sector) == ()


def test_each_container_that_is_called_otherwise_is_told() -> None:
    mirror, crypt, group = container_notes(step_of())
    assert f"partition 4: {ARRAY} {MIRROR} is " in mirror
    assert f"partition 2: crypto_LUKS {CRYPT} is " in crypt
    assert "partition 3: name of the volume group vg0 is vg0_" in group
    for note in (mirror, crypt):
        assert "Those of initramfs-tools will; with another the clone will not boot until" in note
    assert "the clone may not boot until" in group
