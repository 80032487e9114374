"""What is run in a clone so that it boots, and which boot entry a machine gets."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from trees import Tree

from etsclone.errors import BootLoaderRefused
from etsclone.model.boot import BootSector, EfiProgram, Esp, Names
from etsclone.model.disk import Disk, DiskIdentity, Partition, PartitionTable
from etsclone.plan.bootentries import BootEntry, boot_entry
from etsclone.plan.bootwork import (
    DISK,
    code_places,
    has_hooks,
    initramfs_work,
    loader_work,
    menu_stays,
)
from etsclone.units import MIB

SAMPLES = Path(__file__).parent / "samples"
BIOS_BOOT = Partition(1, "", MIB, MIB, "21686148-6449-6E6F-744E-656564454649")
ESP = Partition(
    2,
    "",
    2 * MIB,
    MIB,
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "ABCD1234-0000-4000-8000-000000000000",
)
ROOT = Partition(3, "", 3 * MIB, MIB, "0FC63DAF-8483-4772-8E79-3D69D8477DE4")
NAMES = Names((BIOS_BOOT, ESP, ROOT), root=ROOT)
NO_CODE, CODE = BootSector(code=False), BootSector(code=True)
DEBIAN = ("/usr/sbin/grub-install", "/usr/sbin/update-grub", "/usr/sbin/update-initramfs")
X64 = 0x8664

BIOS = ("grub-install", "--target=i386-pc", DISK)
UEFI = ("grub-install", "--target=x86_64-efi", "--efi-directory=/boot/efi", "--no-nvram")
MENU = ("update-grub",)


def disk(*parts: Partition, label: str = "gpt") -> Disk:
    return Disk(
        DiskIdentity("/dev/sdx", 8 * MIB), "/dev/sdx", table=PartitionTable(label, "", parts)
    )


def system(*paths: str) -> Tree:
    return Tree({path.encode(): b"" for path in paths})


def grub(*kinds: str) -> tuple[str, ...]:
    return (*DEBIAN, *(f"/usr/lib/grub/{kind}/normal.mod" for kind in kinds))


def work(
    files: Tree, target: Disk, sector: BootSector = NO_CODE, esp_folder: str | None = None
) -> list[tuple[str, ...]]:
    names = Names(target.partitions, root=ROOT)
    return [each.argv for each in loader_work(files, target, sector, names, esp_folder)]


def test_a_bios_disk_gets_grub_and_its_menu() -> None:
    assert work(system(*grub("i386-pc")), disk(BIOS_BOOT, ROOT)) == [BIOS, MENU]
    assert work(system(*grub("i386-pc")), disk(ROOT, label="dos"), CODE) == [BIOS, MENU]


def test_a_uefi_disk_gets_a_fallback_loader_too() -> None:
    made = work(system(*grub("x86_64-efi")), disk(ESP, ROOT), esp_folder="/boot/efi")
    assert made == [UEFI, (*UEFI, "--removable"), MENU]


def test_a_disk_for_both_gets_both() -> None:
    files = system(*grub("i386-pc", "x86_64-efi"))
    made = work(files, disk(BIOS_BOOT, ESP, ROOT), CODE, "/boot/efi")
    assert made == [BIOS, UEFI, (*UEFI, "--removable"), MENU]
    # An MBR disk with an ESP and without boot code was never for BIOS machines.
    esp = replace(ESP, type="EF")
    assert BIOS not in work(files, disk(esp, ROOT, label="dos"), NO_CODE, "/boot/efi")


def test_other_distributions_have_other_names() -> None:
    files = system("/usr/sbin/grub2-install", "/usr/sbin/grub2-mkconfig", "/usr/lib/grub/i386-pc/x")
    assert work(files, disk(BIOS_BOOT, ROOT)) == [
        ("grub2-install", "--target=i386-pc", DISK),
        ("grub2-mkconfig", "-o", "/boot/grub2/grub.cfg"),
    ]


@pytest.mark.parametrize(
    ("files", "target", "esp_folder"),
    [
        (system(*DEBIAN), disk(BIOS_BOOT, ROOT), None),
        (system("/usr/lib/grub/i386-pc/x"), disk(BIOS_BOOT, ROOT), None),
        (system(*grub("i386-pc")), disk(ROOT), None),
        (system(*grub("x86_64-efi")), disk(ESP, ROOT), None),
        (system(*grub("i386-pc")), replace(disk(), table=None), None),
    ],
)
def test_where_no_grub_can_go_it_is_refused(
    files: Tree, target: Disk, esp_folder: str | None
) -> None:
    with pytest.raises(BootLoaderRefused, match="no GRUB") as refused:
        work(files, target, esp_folder=esp_folder)
    assert refused.value.hint


def test_what_programs_change_is_known() -> None:
    files = system(*grub("i386-pc", "x86_64-efi"), "/var/lib/initramfs-tools/6.1")
    target = disk(BIOS_BOOT, ESP, ROOT)
    made = loader_work(files, target, CODE, Names(target.partitions, root=ROOT), "/boot/efi")
    both = b"/boot/grub", b"/boot/efi/EFI"
    assert [(each.changes, each.code) for each in made] == [
        (both[:1], True),
        (both, False),
        (both, False),
        (both[:1], False),
    ]
    (command,) = initramfs_work(files, [b"/boot/initrd.img-6.1"])
    assert command.changes == (b"/boot/initrd.img-6.1", b"/var/lib/initramfs-tools")
    assert not has_hooks(files)
    assert has_hooks(system("/etc/initramfs/post-update.d/mine"))


@pytest.mark.parametrize(("listed", "kept"), [("efi", "efi"), ("Efi", "Efi"), ("other", "EFI")])
def test_the_folder_of_loaders_is_called_as_it_is_listed(listed: str, kept: str) -> None:
    files = system(*grub("x86_64-efi"), f"/boot/efi/{listed}/debian/grubx64.efi")
    made = loader_work(files, disk(ESP, ROOT), NO_CODE, NAMES, "/boot/efi")
    assert made[0].changes == (b"/boot/grub", f"/boot/efi/{kept}".encode())


def test_boot_code_lies_outside_of_all_filesystems() -> None:
    large = replace(BIOS_BOOT, size=100 * MIB)
    assert code_places(disk(BIOS_BOOT, ROOT)) == ((0, 440), (MIB, MIB))
    assert code_places(disk(large, ROOT)) == ((0, 440), (MIB, MIB))
    assert code_places(disk(ESP, ROOT)) == ((0, 440),)
    old = replace(ROOT, start=63 * 512)
    assert code_places(disk(ESP, old, label="dos")) == ((0, 440), (512, 62 * 512))
    assert code_places(disk(ROOT, label="dos")) == ((0, 440), (512, MIB))


@pytest.mark.parametrize(
    ("program", "argv"),
    [
        ("/usr/sbin/update-initramfs", ("update-initramfs", "-u", "-k", "all")),
        ("/usr/bin/dracut", ("dracut", "--force", "--no-hostonly", "--regenerate-all")),
    ],
)
def test_an_initramfs_is_made_by_what_the_system_has(program: str, argv: tuple[str, ...]) -> None:
    (command,) = initramfs_work(system(program), [])
    assert command.argv == argv
    assert str(command).startswith(f"run     {argv[0]} ")


def test_without_such_a_program_none_is_made() -> None:
    assert initramfs_work(system("/usr/bin/true", "/usr/bin/mkinitcpio"), []) == ()


@pytest.mark.parametrize("path", ["initramfs.conf", "conf.d/driver-policy"])
@pytest.mark.parametrize(
    ("text", "runs"), [("MODULES=dep", 0), ("#MODULES=dep", 1), ("MODULES=most", 1)]
)
def test_none_is_made_for_the_machine_at_hand(path: str, text: str, runs: int) -> None:
    files = system("/usr/sbin/update-initramfs")
    files.files[b"/etc/initramfs-tools/" + path.encode()] = f"# x\n{text}\n".encode()
    assert len(initramfs_work(files, [])) == runs


ON_VOLUMES = (*grub("i386-pc"), "/boot/grub/grub.cfg", "/usr/sbin/mdadm")


def work_on(
    layers: set[str], files: Tree, target: Disk, esp_folder: str | None = None
) -> list[tuple[str, ...]]:
    """The work where the root lies on layers above partitions of the disk."""
    names = Names(target.partitions)
    made = loader_work(files, target, CODE, names, esp_folder, frozenset(layers))
    return [each.argv for each in made]


def test_a_root_on_volumes_keeps_its_menu() -> None:
    files, target = system(*ON_VOLUMES), disk(BIOS_BOOT, ROOT)
    assert work_on(set(), files, target) == [BIOS]
    assert menu_stays(Names(target.partitions), ())
    assert menu_stays(NAMES, {"linear"})
    assert not menu_stays(NAMES, ())


@pytest.mark.parametrize(
    ("layers", "label", "modules"),
    [
        ({"linear"}, "gpt", ("--modules=part_gpt lvm",)),
        ({"striped"}, "dos", ("--modules=part_msdos lvm",)),
        ({"linear", "md"}, "gpt", ("--modules=part_gpt mdraid09 mdraid1x lvm",)),
        ({"md"}, "gpt", ()),
    ],
)
def test_what_is_not_shown_to_grub_is_named_to_it(
    layers: set[str], label: str, modules: tuple[str, ...]
) -> None:
    target = disk(BIOS_BOOT, ROOT, label=label)
    (made,) = work_on(layers, system(*ON_VOLUMES), target)
    assert made == ("grub-install", "--target=i386-pc", *modules, DISK)
    files = system(*grub("x86_64-efi"), *ON_VOLUMES[-2:])
    made, removable = work_on(layers, files, disk(ESP, ROOT, label=label), "/boot/efi")
    assert made == ("grub-install", "--target=x86_64-efi", *modules, *UEFI[2:])
    assert removable == (*made, "--removable")


@pytest.mark.parametrize(
    ("layers", "lacking", "words"),
    [
        ({"linear", "crypt"}, "", "shown to GRUB here: crypt"),
        ({"thin", "thin-pool"}, "", "shown to GRUB here: thin, thin-pool"),
        ({"md"}, "/usr/sbin/mdadm", "the system has no mdadm"),
        (set(), "/boot/grub/grub.cfg", "there is no /boot/grub/grub.cfg"),
    ],
)
def test_what_cannot_be_shown_to_grub_is_refused(
    layers: set[str], lacking: str, words: str
) -> None:
    files = system(*(path for path in ON_VOLUMES if path != lacking))
    with pytest.raises(BootLoaderRefused, match=words) as refused:
        work_on(layers, files, disk(BIOS_BOOT, ROOT))
    assert "grub-install" in (refused.value.hint or "")


def test_a_command_names_the_disk_of_the_moment() -> None:
    (first, _) = loader_work(system(*grub("i386-pc")), disk(BIOS_BOOT), NO_CODE, NAMES, None)
    assert first.on("/dev/loop7") == ("grub-install", "--target=i386-pc", "/dev/loop7")


# --- boot entries ----------------------------------------------------------------------------------------------------


def program(path: str, kind: str = "", machine: int = X64) -> EfiProgram:
    return EfiProgram(path, machine, kind)


FALLBACK = program("/EFI/BOOT/BOOTX64.EFI", "shim")
SHIM, GRUB = program("/EFI/debian/shimx64.efi", "shim"), program("/EFI/debian/grubx64.efi", "GRUB")
ARM64 = program("/EFI/BOOT/BOOTAA64.EFI", "GRUB", 0xAA64)


@pytest.mark.parametrize(
    ("programs", "loader"),
    [
        ((FALLBACK, GRUB, SHIM), SHIM),
        ((FALLBACK, GRUB), GRUB),
        ((ARM64, FALLBACK), FALLBACK),
    ],
)
def test_the_entry_is_for_the_systems_own_loader(
    programs: tuple[EfiProgram, ...], loader: EfiProgram
) -> None:
    target = disk(ESP, ROOT)
    entry = boot_entry(
        target, (Esp(2, programs),), Names(target.partitions), "etsclone primary", X64
    )
    assert entry == BootEntry("etsclone primary", "/dev/sdx", 2, ESP.uuid, loader.path)


def test_without_a_loader_for_this_machine_it_is_refused() -> None:
    target = disk(ESP)
    with pytest.raises(BootLoaderRefused, match="no boot loader"):
        boot_entry(target, (Esp(2, (ARM64,)),), Names(target.partitions), "x", X64)


ENTRY = BootEntry("etsclone primary", "/dev/sdx", 2, ESP.uuid, "/EFI/debian/shimx64.efi")
LISTED = f"""BootCurrent: 0001
Timeout: 0 seconds
BootOrder: 0001,0000
Boot0000* UiApp\tFvVol(7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1)/FvFile(462caa21-7614-4503-836e-8ab6f4662331)
Boot0001* debian\tHD({{number}},GPT,{ESP.uuid.lower()},0x800,0x100000)/File(\\EFI\\{{folder}}\\SHIMX64.EFI)
      dp: 04 01 2a 00 01 00 00 00
"""


def creation(entry: BootEntry) -> tuple[str, ...]:
    """What efibootmgr is told where there is no such entry."""
    path = entry.loader.replace("/", "\\")
    return (
        *("--create", "--disk", "/dev/sdx", "--part", str(entry.number)),
        *("--label", "etsclone primary", "--loader", path),
    )


# What the versions of Debian 12 and 13 print of the same variables.
PRINTED = [(SAMPLES / f"efibootmgr-{version}.txt").read_text() for version in (17, 18)]
# As version 18 prints it with efivar 39.
PRINTED += [re.sub(r"/File\((.*?\.efi)\)", r"/\1", PRINTED[1], flags=re.IGNORECASE)]
PRINTED_GUID = "12345678-ABCD-4EF0-8123-456789ABCDEF"
PRINTED_ENTRY = replace(ENTRY, guid=PRINTED_GUID)


@pytest.mark.parametrize("listed", PRINTED)
@pytest.mark.parametrize(
    ("number", "guid", "loader", "there"),
    [
        pytest.param(2, PRINTED_GUID, "/EFI/debian/shimx64.efi", True, id="plain"),
        pytest.param(2, PRINTED_GUID, "/EFI/debian/SHIMX64.EFI", True, id="FAT has no case"),
        pytest.param(2, PRINTED_GUID, "/EFI/BOOT/BOOTX64.EFI", True, id="with a mark"),
        pytest.param(1, "abcdef12-01", "/EFI/BOOT/BOOTX64.EFI", True, id="MBR"),
        pytest.param(1, "abcdef13-01", "/EFI/BOOT/BOOTX64.EFI", False, id="another MBR"),
        pytest.param(2, PRINTED_GUID, "/EFI/a (b)/x.efi", True, id="brackets"),
        pytest.param(2, PRINTED_GUID, "/EFI/debian/shim", False, id="half a name"),
        pytest.param(1, PRINTED_GUID, "/EFI/fedora/shimx64.efi", False, id="not active"),
        pytest.param(2, PRINTED_GUID, "/EFI/debian/grubx64.efi", False, id="of one port alone"),
        pytest.param(2, PRINTED_GUID, "/EFI/update/shimx64.efi", False, id="an update"),
        pytest.param(2, PRINTED_GUID, "/EFI/update/grubx64.efi", False, id="something else"),
        pytest.param(2, "", "/EFI/debian/shimx64.efi", False, id="no name"),
    ],
)
def test_entries_as_they_are_printed(
    listed: str, number: int, guid: str, loader: str, there: bool
) -> None:
    entry = replace(ENTRY, number=number, guid=guid, loader=loader)
    assert entry.due(listed) == (() if there else creation(entry))


@pytest.mark.parametrize("listed", PRINTED)
@pytest.mark.parametrize(
    ("printed", "order"),
    [
        pytest.param("BootOrder: 0002,0004", "0001,0002,0004", id="in front of all"),
        pytest.param("BootOrder: 0002,2001,0003,000A", "0001,0002,0003", id="others that are gone"),
        # As version 17 prints it of a machine without that variable.
        pytest.param("No BootOrder is set; firmware will attempt recovery", "0001", id="no order"),
    ],
)
def test_an_entry_out_of_the_boot_order_is_put_in_front(
    listed: str, printed: str, order: str
) -> None:
    listed = re.sub(r"(?m)^BootOrder: .*$", printed, listed)
    assert PRINTED_ENTRY.due(listed) == ("--bootorder", order)


@pytest.mark.parametrize("listed", PRINTED)
def test_of_two_entries_for_a_loader_one_in_the_order_is_enough(listed: str) -> None:
    (line,) = re.findall("(?m)^Boot0001.*$", listed)
    twice = listed.replace(line, f"{line.replace('0001', '0000')}\n{line}")
    assert PRINTED_ENTRY.due(twice) == ()
    neither = twice.replace("BootOrder: 0001,", "BootOrder: ")
    assert PRINTED_ENTRY.due(neither) == ("--bootorder", "0000,0002,0003,0004,0005,0006,0007,0008")


def test_an_entry_that_is_there_is_known() -> None:
    assert ENTRY.due(LISTED.format(number=2, folder="debian")) == ()
    newer = LISTED.replace("/File(", "/").replace("EFI)", "EFI")  # as version 18 prints it
    assert ENTRY.due(newer.format(number=2, folder="debian")) == ()
    for listed in (
        LISTED.format(number=1, folder="debian"),
        LISTED.format(number=2, folder="fedora"),
        "BootOrder: 0000\n",
    ):
        assert ENTRY.due(listed) == creation(ENTRY)
    other = replace(ENTRY, guid=ESP.uuid.replace("ABCD", "ABCE"))
    assert other.due(LISTED.format(number=2, folder="debian")) == creation(other)
