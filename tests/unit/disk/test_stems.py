"""Which disks that fstab names by device are the disk that it lies on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.disk.fstab import FstabEntry, parse_crypttab, parse_fstab
from etsclone.disk.specs import (
    AUTO,
    INSIDE,
    TYPE,
    Volume,
    Words,
    array_names,
    is_firm,
    logical_names,
    matching,
)
from etsclone.disk.stems import Lines, is_claimed, is_id_of, own_stems
from etsclone.model.disk import ESP, Content, DiskIdentity

IMAGE = DiskIdentity("/dev/x", 1)
WD = DiskIdentity("/dev/x", 1, serial="WD-WCC4E1234567", wwn="0x50014ee2b1234567")
BY_ID = "/dev/disk/by-id/"


def part(number: int, kind: str = "ext4", *more: str) -> Volume:
    names = {f"PART={number}", f"UUID={number}", *more}
    return Volume(f"/dev/x{number}", Content(kind), frozenset(names), f"partition {number}")


EFI = part(1, "vfat", f"{TYPE}{ESP}")
BOOT, ROOT, HOME = part(2), part(3), part(4, "xfs")
VOLUMES = (EFI, BOOT, ROOT, HOME)
HOLDS = {BOOT: {"vmlinuz-6.1.0-18-amd64", "grub"}, ROOT: {"bin", "lib", "share"}, HOME: {"alice"}}


def holds(volume: Volume) -> frozenset[str]:
    return frozenset(HOLDS.get(volume, ()))


def lines_of(fstab: str, crypttab: str = "", root: Volume = ROOT) -> Lines:
    return Lines(parse_fstab(fstab), parse_crypttab(crypttab), root)


def own(
    fstab: str,
    crypttab: str = "",
    root: Volume = ROOT,
    identity: DiskIdentity = IMAGE,
    volumes: tuple[Volume, ...] = VOLUMES,
) -> set[str]:
    return set(own_stems(lines_of(fstab, crypttab, root), volumes, {}, identity, holds))


SDA = """
/dev/sda3 / ext4 defaults 0 1
/dev/sda2 /boot ext4 defaults 0 2
/dev/sda1 /boot/efi vfat defaults 0 2
/dev/sda4 /home xfs defaults 0 2
"""


@pytest.mark.parametrize(
    "stem",
    [
        "/dev/sda",
        "/dev/vda",
        "/dev/nvme0n1p",
        "/dev/mmcblk0p",
        f"{BY_ID}ata-X_Y-part",
        f"{BY_ID}nvme-SAMSUNG_S64GNX0R123456-part",
        "/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part",
    ],
)
def test_all_by_one_device_with_a_foreign_disk_beside_it(stem: str) -> None:
    foreign = f"{BY_ID}ata-DATA-part1 /data ext4\n/dev/sdz1 /srv ext4\n"
    assert own(SDA.replace("/dev/sda", stem) + foreign) == {
        stem.removesuffix("-part").removesuffix("p")
    }


@pytest.mark.parametrize(
    "lines",
    [
        "/dev/sdb1 /var ext4",
        "/dev/sdb2 /var ext4",
        "/dev/sdb4 /home xfs",
        "/dev/sdb3 /srv ext4",
        "/dev/sdb2 /data ext4 nofail",
        f"{BY_ID}ata-DATA-part2 /var ext4",
        "ID=ata-DATA-part2 /var ext4",
        "/dev/disk/by-path/pci-1-part2 /var ext4",
        "/dev/sdb1 /srv ext4\n/dev/sdb4 /home xfs",
    ],
)
def test_a_disk_that_only_data_is_mounted_from_is_another(lines: str) -> None:
    assert own(f"UUID=3 / ext4\n{lines}\n") == set()


@pytest.mark.parametrize(
    ("lines", "proved"),
    [
        ("/dev/sda1 /boot/efi vfat", True),
        ("/dev/sda1 /efi vfat", True),
        ("/dev/sda2 /boot ext4", True),
        ("/dev/sda2 /boot ext4\n/dev/sda1 /boot/efi vfat", True),
        (f"{BY_ID}wwn-0x5-part2 /boot ext4\n{BY_ID}wwn-0x5-part1 /boot/efi vfat", True),
        ("/dev/sda2 /boot/efi vfat", False),  # not of that kind
        ("/dev/sda2 /boot xfs", False),
        ("/dev/sda4 /boot xfs", False),  # nothing to boot with
        ("/dev/sda4 /usr xfs", False),
        ("/dev/sda9 /boot ext4", False),  # not there
        ("/dev/sda3 /boot ext4", False),  # the root
        ("/dev/sda3 /usr ext4", False),
        ("/dev/sda2 /boot ext4\nUUID=2 /srv ext4", False),  # of another line
        ("/dev/sda2 /boot ext4\n/dev/sdb1 /boot/efi vfat", False),  # two disks
        ("/dev/sda2 /boot ext4\n/dev/sda4 /usr xfs", False),
    ],
)
def test_a_disk_that_the_system_boots_from(lines: str, proved: bool) -> None:
    assert bool(own(f"UUID=3 / ext4\n{lines}\n/dev/sdc4 /home xfs\n")) == proved


def test_root_by_id_and_efi_by_device_are_both_proved() -> None:
    fstab = f"{BY_ID}ata-X-part3 / ext4\n/dev/sda1 /boot/efi vfat\n/dev/sdb2 /data ext4\n"
    assert own(fstab) == {f"{BY_ID}ata-X", "/dev/sda"}


def test_a_separate_usr() -> None:
    assert own("UUID=2 / ext4\n/dev/sda3 /usr ext4\n", root=BOOT) == {"/dev/sda"}


def test_the_root_by_another_number_than_it_is_found_at_proves_nothing() -> None:
    assert own("/dev/sda4 / ext4\n/dev/sda2 /boot ext4\n") == set()


def test_what_the_root_is_called_goes_before_what_boots() -> None:
    assert own("/dev/sda3 / ext4\n/dev/sdb2 /boot ext4\n") == {"/dev/sda"}


def test_the_root_in_an_encrypted_partition() -> None:
    root = Volume("/dev/y", Content("ext4"), frozenset({f"{INSIDE}PART=5"}), "decrypted")
    fstab = "/dev/mapper/sda5_crypt / ext4\n"
    assert own(fstab, "sda5_crypt /dev/sda5 none luks\n", root) == {"/dev/sda"}
    assert own(fstab, "sda5_crypt /dev/sda6 none luks\n", root) == set()
    assert own(fstab, "sda5_crypt UUID=5 none luks\ndata /dev/sdb5 /key luks\n", root) == set()


@pytest.mark.parametrize("spec", ["/dev/mapper/vg-root", "/dev/vg/root", "/dev/md0", "LABEL=root"])
def test_a_root_in_layers_or_by_label(spec: str) -> None:
    names = {*logical_names("vg", "root"), *array_names("aa", "0"), "LABEL=root"}
    root = Volume("/dev/y", Content("ext4"), frozenset(names), "vg/root")
    boot = "/dev/sda2 /boot ext4\n"
    assert own(f"{spec} / ext4\n{boot}/dev/sdb1 /data ext4\n", root=root) == {"/dev/sda"}
    assert own(f"{spec} / ext4\n/dev/sdb2 /data ext4\n", root=root) == set()


@pytest.mark.parametrize(
    ("link", "identity", "is_own"),
    [
        ("ata-WDC_WD40EFRX-68N_WD-WCC4E1234567", WD, True),
        ("wwn-0x50014ee2b1234567", WD, True),
        ("scsi-350014ee2b1234567", WD, True),
        ("ata-WDC_WD40EFRX-68N_WD-WCC4E1234568", WD, False),
        ("ata-WDC_WD40EFRX-68N_WD-WCC4E12345678", WD, False),
        ("wwn-0x50014ee2b1234568", WD, False),
        ("nvme-SAMSUNG_S64G_1", DiskIdentity("", 1, serial="S64G"), True),
        ("nvme-eui.0025385", DiskIdentity("", 1, wwn="eui.0025385"), True),
        ("ata-X", IMAGE, False),
        # Serial numbers that another disk may have too.
        ("ata-QEMU_HARDDISK_QM00001", DiskIdentity("", 1, serial="QM00001"), False),
        ("scsi-0QEMU_QEMU_HARDDISK_drive-scsi0", DiskIdentity("", 1, serial="drive-scsi0"), False),
        ("virtio-data", DiskIdentity("", 1, serial="data"), False),
        ("usb-JMicron_0123456789-0:0", DiskIdentity("", 1, serial="0123456789"), False),
    ],
)
def test_an_id_with_the_disks_own_serial_number(
    link: str, identity: DiskIdentity, is_own: bool
) -> None:
    assert is_id_of(f"{BY_ID}{link}", identity) == is_own
    assert not is_id_of(f"/dev/disk/by-path/{link}", identity)
    fstab = f"UUID=3 / ext4\n{BY_ID}{link}-part4 /home xfs\n"
    assert own(fstab, identity=identity) == ({f"{BY_ID}{link}"} if is_own else set())


def claimed(entry: str, fstab: str, volume: Volume, root: Volume = ROOT) -> bool:
    lines = lines_of(f"{fstab}\n{entry}\n", root=root)
    (mine,) = parse_fstab(entry)
    return is_claimed(mine, volume, lines, Words())


def test_the_root_and_what_other_lines_mean_is_claimed() -> None:
    assert claimed("/dev/sda3 /srv ext4", "UUID=3 / ext4", ROOT)
    assert claimed("/dev/sda3 /srv ext4", "", ROOT)
    assert claimed("/dev/sda4 /srv xfs", "UUID=3 / ext4\nUUID=4 /home xfs", HOME)
    assert not claimed("/dev/sda4 /srv xfs", "UUID=3 / ext4\nUUID=4 none swap", HOME)
    assert not claimed("/dev/sda4 /srv xfs", "/dev/sda3 / ext4", HOME)


def test_subvolumes_of_one_btrfs() -> None:
    root = part(3, "btrfs")
    home = "/dev/sda3 /home btrfs subvol=@home"
    for line in ("/dev/sda3 / btrfs subvol=@", "UUID=3 / btrfs subvol=@", "/dev/sda3 / btrfs"):
        assert not claimed(home, line, root, root)
    assert claimed(home, "UUID=3 / btrfs subvol=@home", root, root)
    assert claimed("/dev/sda3 /home btrfs", "UUID=3 / btrfs", root, root)


def test_what_is_mounted_for_its_type_is_never_the_root() -> None:
    root = part(3, "ext4", f"{AUTO}HOME")
    home = FstabEntry(f"{AUTO}HOME", "/home", "auto", ("nofail",))
    assert is_claimed(home, root, lines_of("", root=root), Words())


SPELLED = st.sampled_from(
    ["ID=ata-A-part{}", '"ID=ata-A-part{}"', BY_ID + "ata-A-part{}", "/dev/sdb{}"]
)


@given(SPELLED, st.integers(1, 5))
def test_no_spelling_of_a_number_is_firm(spelled: str, number: int) -> None:
    (entry,) = parse_fstab(f"{spelled.format(number)} /data auto\n")
    assert not is_firm(entry.spec)
    assert matching(entry.spec, VOLUMES, Words()) == ()


@pytest.mark.parametrize("spec", ["PART=2", "TYPE=X", "PARTTYPE=X", "MD=0", "MDUUID=1"])
def test_names_of_our_own_are_no_specifications(spec: str) -> None:
    assert parse_fstab(f"{spec} /data auto\n") == ()


PLACES = st.sampled_from(["/home", "/var", "/srv", "/data", "/opt", "/boot/grub", "/usr/local"])
STEMS = st.sampled_from(["/dev/sda", "/dev/sdb", "/dev/nvme0n1p", f"{BY_ID}ata-A-part"])


@given(st.lists(st.tuples(STEMS, st.integers(1, 5), PLACES, st.sampled_from(["ext4", "auto"]))))
def test_no_set_of_lines_for_data_proves_anything(
    lines: list[tuple[str, int, str, str]],
) -> None:
    fstab = "".join(f"{stem}{number} {where} {kind}\n" for stem, number, where, kind in lines)
    assert own(f"UUID=3 / ext4\n{fstab}") == set()
    assert own(f"/dev/sdx3 / ext4\n{fstab}") == {"/dev/sdx"}


EVERYWHERE = st.sampled_from(["/", "/boot", "/boot/efi", "/usr", "/home", "/srv"])


@given(st.lists(st.tuples(STEMS, st.integers(1, 5), EVERYWHERE), unique_by=lambda line: line[2]))
def test_of_the_kernels_names_never_two_are_this_disk(lines: list[tuple[str, int, str]]) -> None:
    fstab = "".join(f"{stem}{number} {where} auto\n" for stem, number, where in lines)
    proved = own(fstab)
    assert len({stem for stem in proved if "/by-id/" not in stem}) <= 1
    assert len({stem for stem in proved if "/by-id/" in stem}) <= 1
