"""Every guard, with its message and its hint."""

from dataclasses import replace

import pytest

from etsclone.commands.survey import refuse
from etsclone.errors import SourceRefused, TargetRefused
from etsclone.model.disk import Content, Disk, DiskIdentity, Partition, PartitionTable, Use
from etsclone.model.plan import Guard, Refusal
from etsclone.model.quarantine import IN_QUARANTINE
from etsclone.plan.guards import clone_refusals, quarantine_refusals, target_refusals
from etsclone.units import GIB

SOURCE = Disk(
    DiskIdentity("/dev/sda", 8 * GIB, device=(8, 0), serial="A1", wwn="0x5001"),
    table=PartitionTable("gpt", "id", ()),
)
TARGET = Disk(DiskIdentity("/dev/sdb", 8 * GIB, device=(8, 16), serial="B2", wwn="0x5002"))


def using(disk: Disk, *uses: Use) -> Disk:
    return replace(disk, uses=uses)


def only(refusals: tuple[Refusal, ...]) -> tuple[Guard, str, str]:
    (refusal,) = refusals
    return refusal.guard, refusal.message, refusal.hint


def test_two_good_disks_are_not_refused() -> None:
    assert clone_refusals(SOURCE, TARGET) == ()
    assert target_refusals(TARGET) == ()


@pytest.mark.parametrize(
    ("use", "shown"),
    [
        (Use("/dev/sdb2", "mounted", "/"), "/dev/sdb2 mounted /"),
        (Use("/dev/sdb1", "mounted", "/boot/efi"), "/dev/sdb1 mounted /boot/efi"),
        (Use("/dev/sdb2", "mounted", "/usr", writable=False), "/dev/sdb2 mounted /usr"),
        (Use("/dev/sdb3", "swap", ""), "/dev/sdb3 swap"),
    ],
)
def test_running_system(use: Use, shown: str) -> None:
    assert only(target_refusals(using(TARGET, use))) == (
        Guard.RUNNING_SYSTEM,
        f"/dev/sdb holds the running system ({shown})",
        "start a rescue system from another medium, or name another disk",
    )


@pytest.mark.parametrize("writable", [True, False])
def test_mounted(writable: bool) -> None:
    use = Use("/dev/sdb1", "mounted", "/mnt/usb", writable)
    assert only(target_refusals(using(TARGET, use))) == (
        Guard.MOUNTED,
        "/dev/sdb is mounted (/dev/sdb1 mounted /mnt/usb)",
        "umount /mnt/usb",
    )


def test_held() -> None:
    use = Use("/dev/sdb1", "held", "/dev/dm-0")
    assert only(target_refusals(using(TARGET, use))) == (
        Guard.HELD,
        "/dev/sdb is held by another device (/dev/sdb1 held by /dev/dm-0)",
        (
            "stop what uses it: losetup --detach, vgchange -an, mdadm --stop or cryptsetup close;"
            " what `etsclone mount` or a killed etsclone left, `etsclone umount /dev/sdb` closes"
        ),
    )


def test_read_only() -> None:
    assert only(target_refusals(replace(TARGET, read_only=True))) == (
        Guard.READ_ONLY,
        "/dev/sdb is read-only",
        "look for a write-protect switch, or the file's mode",
    )


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param(DiskIdentity("/dev/sdz", 8 * GIB, device=(8, 0)), id="device number"),
        pytest.param(DiskIdentity("/dev/sdz", 8 * GIB, wwn="0x5001"), id="wwn"),
        pytest.param(DiskIdentity("/dev/sdz", 8 * GIB, serial="A1"), id="serial"),
        pytest.param(DiskIdentity("x.img", 8 * GIB, file=(1, 2)), id="file"),
    ],
)
def test_same_disk(identity: DiskIdentity) -> None:
    source = replace(SOURCE, identity=replace(SOURCE.identity, file=(1, 2)))
    assert only(clone_refusals(source, replace(TARGET, identity=identity))) == (
        Guard.SAME_DISK,
        f"/dev/sda and {identity.path} are the same disk",
        "name another disk as the target",
    )


def test_disks_without_any_identity_are_not_the_same() -> None:
    bare = DiskIdentity("/dev/sdx", 8 * GIB)
    assert not bare.same_disk(DiskIdentity("/dev/sdy", 8 * GIB))


def test_a_serial_counts_only_together_with_the_size() -> None:
    # Cheap adapters give every disk behind them one serial number.
    other = DiskIdentity("/dev/sdy", 4 * GIB, device=(8, 32), serial="A1")
    assert not SOURCE.identity.same_disk(other)


def test_too_small() -> None:
    target = replace(TARGET, identity=replace(TARGET.identity, size=8 * GIB - 512))
    assert only(clone_refusals(SOURCE, target)) == (
        Guard.TOO_SMALL,
        "/dev/sdb is too small: it has 8.00 GiB, 8.00 GiB are needed (512 bytes are missing)",
        "use a disk of at least the source's size",
    )


def test_sector_size() -> None:
    assert only(clone_refusals(SOURCE, replace(TARGET, sector_size=4096))) == (
        Guard.SECTOR_SIZE,
        "/dev/sdb has sectors of 4096 bytes, /dev/sda of 512",
        "use a disk with the same logical sector size: positions in the partition table count sectors",
    )


def test_source_mounted_for_writing() -> None:
    source = using(SOURCE, Use("/dev/sda2", "mounted", "/srv"))
    assert only(clone_refusals(source, TARGET)) == (
        Guard.SOURCE_MOUNTED,
        "/dev/sda is in use and could change while it is copied (/dev/sda2 mounted /srv)",
        "start a rescue system, or unmount it; --live copies what is not the running system",
    )


def test_source_as_swap_space() -> None:
    refusals = clone_refusals(using(SOURCE, Use("/dev/sda3", "swap", "")), TARGET)
    assert only(refusals)[0] is Guard.SOURCE_MOUNTED


def test_a_source_that_is_mounted_read_only_may_be_copied() -> None:
    assert clone_refusals(using(SOURCE, Use("/dev/sda2", "mounted", "/", False)), TARGET) == ()


def test_source_empty() -> None:
    assert only(clone_refusals(replace(SOURCE, table=None), TARGET)) == (
        Guard.SOURCE_EMPTY,
        "/dev/sda has neither a partition table nor a filesystem",
        "is this the right disk? `etsclone disks` shows what each holds",
    )


@pytest.mark.parametrize(("beyond", "words"), [(1, "1 byte"), (4 * GIB, "4294967296 bytes")])
def test_source_cut_off(beyond: int, words: str) -> None:
    part = Partition(1, "/dev/sda1", GIB, 7 * GIB + beyond, "83")
    cut = replace(SOURCE, table=PartitionTable("gpt", "id", (part,)))
    assert only(clone_refusals(cut, TARGET)) == (
        Guard.SOURCE_DAMAGED,
        f"/dev/sda is cut off: its partitions reach {words} beyond its end",
        "an image must be copied whole; a disk may hide a part of itself (hdparm -N)",
    )


def test_source_with_an_unreadable_gpt() -> None:
    protective = Partition(1, "/dev/sda1", 512, GIB, "EE")
    damaged = replace(SOURCE, table=PartitionTable("dos", "0x0", (protective,)))
    assert only(clone_refusals(damaged, TARGET)) == (
        Guard.SOURCE_DAMAGED,
        "/dev/sda has a GPT that cannot be read: it is damaged or cut off, or was made for other sectors",
        "an image must be copied whole; gdisk repairs a table; some adapters change the size of sectors",
    )


def test_a_partition_may_reach_to_the_very_end() -> None:
    part = Partition(1, "/dev/sda1", GIB, 7 * GIB, "83")
    whole = replace(SOURCE, table=PartitionTable("gpt", "id", (part,)))
    assert clone_refusals(whole, TARGET) == ()


def test_a_filesystem_without_a_table_is_a_source() -> None:
    assert clone_refusals(replace(SOURCE, table=None, content=Content("ext4")), TARGET) == ()


def test_a_clone_in_quarantine_is_no_source_but_may_be_a_target() -> None:
    hidden = replace(SOURCE, table=None, content=Content(IN_QUARANTINE))
    assert only(clone_refusals(hidden, TARGET)) == (
        Guard.QUARANTINE,
        "/dev/sda is a clone in quarantine",
        "`etsclone release /dev/sda` makes it a disk like others",
    )
    assert quarantine_refusals(hidden)
    assert target_refusals(replace(TARGET, table=None, content=Content(IN_QUARANTINE))) == ()
    assert quarantine_refusals(TARGET) == ()


def test_every_guard_can_speak() -> None:
    bad = using(
        replace(
            TARGET, identity=replace(TARGET.identity, size=1), read_only=True, sector_size=4096
        ),
        Use("/dev/sdb1", "mounted", "/"),
        Use("/dev/sdb2", "mounted", "/mnt"),
        Use("/dev/sdb3", "held", "/dev/dm-0"),
    )
    source = using(replace(SOURCE, table=None), Use("/dev/sda1", "mounted", "/x"))
    part = Partition(1, "/dev/sda1", GIB, 8 * GIB, "83")
    cut = replace(SOURCE, table=PartitionTable("gpt", "id", (part,)))
    hidden = replace(SOURCE, table=None, content=Content(IN_QUARANTINE))
    pairs = ((source, bad), (cut, bad), (hidden, bad), (SOURCE, SOURCE))
    refusals = [each for pair in pairs for each in clone_refusals(*pair)]
    assert {refusal.guard for refusal in refusals} == set(Guard)
    for refusal in refusals:
        assert refusal.hint
        assert not refusal.message.endswith(".")


def test_all_refusals_are_told_at_once() -> None:
    refusals = clone_refusals(replace(SOURCE, table=None), replace(TARGET, read_only=True))
    with pytest.raises(TargetRefused, match=r"has neither .*; /dev/sdb is read-only"):
        refuse(refusals)


def test_a_fault_of_the_source_alone_is_called_that() -> None:
    with pytest.raises(SourceRefused, match="has neither"):
        refuse(clone_refusals(replace(SOURCE, table=None), TARGET))


def test_no_refusal_is_no_error() -> None:
    refuse(())
