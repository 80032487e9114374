"""What a disk holds to boot by, read from image files that hold real FAT filesystems."""

import os
import subprocess
from pathlib import Path

import pytest
from grubs import efi_program, installed, kernel

from etsclone.boot import loaders
from etsclone.boot.loaders import read_boot_sector, read_esps
from etsclone.errors import DeviceError
from etsclone.model.boot import BootSector, Core, EfiProgram, Esp
from etsclone.model.disk import Disk, DiskIdentity, Partition, PartitionTable
from etsclone.units import MIB, SECTOR

ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
MENU = "search.fs_uuid 11111111-2222-4333-8444-555555555555 root hd0,gpt2\n"
X64 = 0x8664


def disk(path: Path, *, kind: str = ESP_TYPE) -> Disk:
    esp = Partition(1, "", MIB, 8 * MIB, kind)
    table = PartitionTable("gpt", "", (esp,))
    return Disk(DiskIdentity(str(path), 9 * MIB), table=table)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(9 * MIB)
    return path


def fill_esp(image: Path, files: dict[str, bytes]) -> None:
    """Make a FAT filesystem at 1 MiB with the files in their folders."""
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

    def tool(*argv: str | Path) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment)

    tool("mkfs.vfat", "--offset", "2048", image, str(8 * 1024))
    folders = {str(parent) for path in files for parent in Path(path).parents if parent.name}
    for folder in sorted(folders):
        tool("mmd", "-i", f"{image}@@1M", f"::{folder}")
    for path, content in files.items():
        scratch = image.with_suffix(".scratch")
        scratch.write_bytes(content)
        tool("mcopy", "-i", f"{image}@@1M", scratch, f"::{path}")


def test_an_empty_first_sector_is_no_boot_code(image: Path) -> None:
    assert read_boot_sector(disk(image)) == BootSector(code=False)
    with image.open("r+b") as file:
        file.seek(440)
        file.write(b"signature and partitions")
    assert read_boot_sector(disk(image)) == BootSector(code=False)


def test_other_boot_code_is_not_looked_into(image: Path) -> None:
    with image.open("r+b") as file:
        file.write(b"\xeb\x63\x90 syslinux")
    assert read_boot_sector(disk(image)) == BootSector(code=True)


def test_grubs_core_is_found_where_its_boot_code_says(image: Path) -> None:
    with image.open("r+b") as file:
        for lba, sector in installed("(,gpt2)/boot/grub", MENU, start=34).items():
            file.seek(lba * SECTOR)
            file.write(sector)
    found = read_boot_sector(disk(image))
    place = "bytes 17408 to 17920 (outside the partitions)"
    core = Core("(,gpt2)/boot/grub", MENU)
    assert found == BootSector(code=True, grub=True, core=core, place=place)
    with image.open("r+b") as file:
        file.seek(34 * SECTOR)
        file.write(bytes(SECTOR))
    assert read_boot_sector(disk(image)).core is None


def test_programs_and_menus_of_an_esp_are_read(image: Path) -> None:
    grub = efi_program(X64, kernel("/EFI/debian", wide=True))
    fill_esp(
        image,
        {
            "/EFI/BOOT/BOOTX64.EFI": efi_program(X64, b"UEFI SHIM\n$Version: 15.7 $"),
            "/EFI/BOOT/fbx64.efi": efi_program(X64, b""),
            "/EFI/debian/grubx64.efi": grub,
            "/EFI/debian/grub.cfg": MENU.encode(),
            "/EFI/systemd/systemd-bootaa64.efi": efi_program(0xAA64, b"#### LoaderInfo: systemd-boot 252"),
            "/EFI/odd/odd.efi": b"",
        },
    )  # fmt: skip
    (esp,) = read_esps(disk(image))
    assert {program.path: program for program in esp.programs} == {
        program.path: program
        for program in (
            EfiProgram("/EFI/BOOT/BOOTX64.EFI", X64, "shim"),
            EfiProgram("/EFI/debian/grubx64.efi", X64, "GRUB", Core("/EFI/debian", "")),
            EfiProgram("/EFI/systemd/systemd-bootaa64.efi", 0xAA64, "systemd-boot"),
            EfiProgram("/EFI/odd/odd.efi", 0),
        )
    }
    assert esp.entry_makers == (EfiProgram("/EFI/BOOT/fbx64.efi", X64),)
    assert esp.menus == {"/EFI/debian": MENU}
    assert esp.trouble == ""


def test_an_esp_without_a_filesystem_is_troubled(image: Path) -> None:
    assert read_esps(disk(image)) == (Esp(1, trouble="its boot sector makes no sense"),)
    os.truncate(image, MIB)
    assert read_esps(disk(image)) == (Esp(1, trouble="the disk ends before it"),)


def test_other_partitions_are_not_read(image: Path) -> None:
    assert read_esps(disk(image, kind="0FC63DAF-8483-4772-8E79-3D69D8477DE4")) == ()


def test_a_disk_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be read"):
        read_boot_sector(disk(tmp_path / "gone"))


def test_an_esp_with_more_to_read_than_any_has_is_troubled(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_esp(image, {f"/EFI/debian/{number}.efi": bytes(MIB) for number in range(3)})
    monkeypatch.setattr(loaders, "_MOST_READ", 4 * MIB)
    assert not read_esps(disk(image))[0].trouble
    monkeypatch.setattr(loaders, "_MOST_READ", 2 * MIB)
    assert read_esps(disk(image)) == (
        Esp(1, trouble="more than 2.00 MiB would have to be looked through"),
    )


def test_an_esp_with_more_folders_than_any_has_is_troubled(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_esp(image, {f"/EFI/{number}/grub.cfg": b"" for number in range(4)})
    monkeypatch.setattr(loaders, "_MOST_ENTRIES", 4)
    assert not read_esps(disk(image))[0].trouble
    monkeypatch.setattr(loaders, "_MOST_ENTRIES", 3)
    assert read_esps(disk(image)) == (Esp(1, trouble="a folder of it has more than 3 entries"),)
