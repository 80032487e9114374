"""Whether a disk boots, judged from what was found on it."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from trees import Tree

from etsclone.model.boot import BootSector, Core, EfiProgram, Esp, Firmware, Names, Way
from etsclone.model.disk import Content, Partition
from etsclone.model.edit import Edit
from etsclone.plan.bootcheck import check_boot, check_menu, with_edits
from etsclone.units import KIB, MIB

MENU = (Path(__file__).parent / "samples" / "debian12-grub.cfg").read_text()
ROOT = "11111111-2222-4333-8444-555555555555"
ARRAY = "8da31b10-50bb-4a5c-9d93-5b5f1d4e7c21"
LOST = "99999999-2222-4333-8444-555555555555"
PARTS = (
    Partition(1, "", MIB, MIB, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", content=Content("vfat", "ABCD-1234")),
    Partition(2, "", 2 * MIB, MIB, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", content=Content("ext4", ROOT)),
    Partition(3, "", 3 * MIB, MIB, "A19D880F-05FC-4D3B-A006-743F0F84911E", content=Content("linux_raid_member", ARRAY)),
)  # fmt: skip
NAMES = Names(PARTS)
NO_CODE = BootSector(code=False)

BIOS = Way(Firmware.BIOS, "GRUB")
X64, ARM64 = 0x8664, 0xAA64


def grub(core: Core | None) -> BootSector:
    return BootSector(code=True, grub=True, core=core, place="bytes 1048576 to 1049088")


def menu(uuid: str) -> str:
    return f"search.fs_uuid {uuid} root hd0,gpt2 \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"


def program(path: str, kind: str = "", machine: int = X64, core: Core | None = None) -> EfiProgram:
    return EfiProgram(path, machine, kind, core)


DEBIAN = program("/EFI/debian/grubx64.efi", "GRUB", core=Core("/EFI/debian", ""))
FALLBACK = program("/EFI/BOOT/BOOTX64.EFI", "GRUB", core=Core("(,gpt2)/boot/grub", menu(ROOT)))
SHIM = program("/EFI/BOOT/bootx64.efi", "shim")


@pytest.mark.parametrize(
    "core",
    [
        Core("(,gpt2)/boot/grub", ""),
        Core("(hd0,msdos1)/boot/grub", ""),
        Core("(lvmid/abc/def)/boot/grub", ""),
        Core(f"(mduuid/{ARRAY.replace('-', '')})/boot/grub", ""),
        Core("($root)/boot/grub", menu(ROOT)),
        Core("($root)/boot/grub", f"search --no-floppy --fs-uuid --set=root {ROOT.upper()}\n"),
    ],
)
def test_a_core_that_looks_on_this_disk_boots_by_bios(core: Core) -> None:
    report = check_boot(grub(core), (), NAMES)
    assert report.ways == (BIOS,)
    assert report.findings == ()
    assert str(report.ways[0]) == "boots by BIOS (GRUB)"


@pytest.mark.parametrize(
    ("sector", "words"),
    [
        (NO_CODE, "neither boot code in the first sector nor an EFI system partition"),
        (grub(None), "looks for its core in bytes 1048576 to 1049088, where there is none"),
        (grub(Core("(,gpt7)/boot/grub", "")), "partition 7, which is not there"),
        (
            grub(Core(f"(mduuid/{'9' * 32})/boot/grub", "")),
            f"the array {'9' * 32}, which is not on",
        ),
        (grub(Core("($root)/boot/grub", menu(LOST))), f"the filesystem {LOST}, which is not on"),
        (
            grub(Core("x", f"search --fs-uuid --set=root --hint='hd0,gpt2'  {LOST}\n")),
            f"the filesystem {LOST}, which is not on",
        ),
    ],
)
def test_what_keeps_a_bios_machine_from_booting_is_said(sector: BootSector, words: str) -> None:
    report = check_boot(sector, (), NAMES)
    assert report.ways == ()
    assert len(report.findings) == 1
    assert words in report.findings[0].message
    assert "--bootloader" in report.findings[0].hint


def test_other_boot_code_is_trusted() -> None:
    assert check_boot(BootSector(code=True), (), NAMES).ways[0].firmware is Firmware.BIOS


def test_a_search_is_no_trouble_where_not_all_volumes_are_known() -> None:
    core = Core("($root)/boot/grub", menu(LOST))
    assert check_boot(grub(core), (), Names(PARTS, whole=False)).ways == (BIOS,)


def test_the_fallback_loader_boots_by_uefi() -> None:
    report = check_boot(NO_CODE, (Esp(1, (DEBIAN, FALLBACK)),), NAMES)
    assert [str(way) for way in report.ways] == ["boots by UEFI (fallback loader, GRUB)"]
    assert report.findings == ()


def test_the_fallback_of_another_machine_is_one_too() -> None:
    fallback = program("/EFI/BOOT/BOOTAA64.EFI", "systemd-boot", machine=ARM64)
    assert check_boot(NO_CODE, (Esp(1, (fallback,)),), NAMES).ways == (
        Way(Firmware.UEFI, "fallback loader, systemd-boot"),
    )
    wrong = program("/EFI/BOOT/BOOTX64.EFI", machine=ARM64)
    assert (
        check_boot(NO_CODE, (Esp(1, (wrong,)),), NAMES)
        .findings[0]
        .message.startswith("there is no /EFI/BOOT/BOOTAA64")
    )


def test_without_a_fallback_the_machine_needs_a_boot_entry() -> None:
    report = check_boot(NO_CODE, (Esp(1, (DEBIAN,), {"/EFI/debian": menu(ROOT)}),), NAMES)
    assert report.ways == (Way(Firmware.UEFI, "by a boot entry for /EFI/debian/grubx64.efi"),)
    assert "there is no /EFI/BOOT/BOOTX64.EFI" in report.findings[0].message
    assert "--boot-entry" in report.findings[0].hint


@pytest.mark.parametrize(
    ("esp", "words"),
    [
        (Esp(1, trouble="its boot sector makes no sense"), "cannot be read: its boot sector"),
        (Esp(1), "holds no boot loader"),
        (Esp(1, (DEBIAN,), {"/EFI/debian": menu(LOST)}), f"/EFI/debian/grub.cfg looks for the filesystem {LOST}"),
        (Esp(1, (SHIM,)), "a shim without a sound GRUB to start"),
        (Esp(1, (program("/EFI/BOOT/BOOTX64.EFI", machine=0),)), "is no program for"),
        (Esp(1, (program("/EFI/BOOT/BOOTX64.EFI", "GRUB", core=Core("(,gpt9)/grub", "")),)), "partition 9, which is"),
    ],
)  # fmt: skip
def test_what_keeps_a_uefi_machine_from_booting_is_said(esp: Esp, words: str) -> None:
    report = check_boot(NO_CODE, (esp,), NAMES)
    assert report.ways == ()
    assert words in report.findings[0].message


def test_a_shim_with_its_grub_is_a_fallback_loader() -> None:
    beside = program("/EFI/BOOT/grubx64.efi", "GRUB", core=Core("/EFI/debian", ""))
    report = check_boot(NO_CODE, (Esp(1, (SHIM, beside)),), NAMES)
    assert report.ways == (Way(Firmware.UEFI, "fallback loader, shim"),)


@pytest.mark.parametrize(
    ("beside", "menus", "words"),
    [
        (
            program("/EFI/BOOT/grubx64.efi", machine=0),
            {},
            "/EFI/BOOT/grubx64.efi is no program for",
        ),
        (program("/EFI/BOOT/grubx64.efi", machine=ARM64), {}, "a shim without a sound GRUB"),
        (program("/EFI/BOOT/grubx64.efi", "shim"), {}, "a shim without a sound GRUB"),
        (
            program("/EFI/BOOT/grubx64.efi", "GRUB", core=Core("(,gpt9)/grub", "")),
            {},
            "partition 9",
        ),
        (
            program("/EFI/BOOT/grubx64.efi", "GRUB", core=Core("/EFI/debian", "")),
            {"/EFI/debian": menu(LOST), "/EFI/BOOT": menu(ROOT)},
            f"/EFI/debian/grub.cfg looks for the filesystem {LOST}",
        ),
    ],
)
def test_a_shim_is_no_better_than_its_grub(
    beside: EfiProgram, menus: dict[str, str], words: str
) -> None:
    report = check_boot(NO_CODE, (Esp(1, (SHIM, beside), menus),), NAMES)
    assert SHIM.path not in " ".join(map(str, report.ways))
    assert not [way for way in report.ways if "fallback" in way.loader]
    assert words in " ".join(map(str, report.findings))


def test_what_lies_in_grubs_own_folder_is_no_matter_where_it_looks_elsewhere() -> None:
    beside = program("/EFI/BOOT/grubx64.efi", "GRUB", core=Core("/EFI/Debian", ""))
    menus = {"/EFI/debian": menu(ROOT), "/EFI/BOOT": menu(LOST)}
    report = check_boot(NO_CODE, (Esp(1, (SHIM, beside), menus),), NAMES)
    assert report.ways == (Way(Firmware.UEFI, "fallback loader, shim"),)
    assert report.findings == ()


def test_a_shim_may_lead_to_another_folder_by_its_companion() -> None:
    elsewhere = program("/EFI/ubuntu/grubx64.efi", "GRUB", core=Core("/EFI/ubuntu", ""))
    makers = (program("/EFI/BOOT/fbx64.efi"),)
    usual = Esp(1, (SHIM, elsewhere), {"/EFI/ubuntu": menu(ROOT)}, entry_makers=makers)
    report = check_boot(NO_CODE, (usual,), NAMES)
    assert report.ways == (Way(Firmware.UEFI, "fallback loader, shim"),)
    assert report.findings == ()
    lost = replace(usual, menus={"/EFI/ubuntu": menu(LOST)})
    damaged = replace(usual, entry_makers=(program("/EFI/BOOT/fbx64.efi", machine=0),))
    for esp in (lost, damaged, replace(usual, entry_makers=())):
        found = [str(finding) for finding in check_boot(NO_CODE, (esp,), NAMES).findings]
        assert f"{SHIM.path} is a shim without a sound GRUB to start" in found


def test_both_firmwares_are_judged_on_their_own() -> None:
    report = check_boot(grub(None), (Esp(1, (FALLBACK,)),), NAMES)
    assert [way.firmware for way in report.ways] == [Firmware.UEFI]
    assert len(report.findings) == 1


def test_a_menu_on_the_esp_that_is_edited_counts_as_it_will_be() -> None:
    esp = Esp(1, (DEBIAN,), {"/EFI/debian": menu(LOST)})
    path = b"/boot/efi/EFI/debian/grub.cfg"
    edited = with_edits(esp, (Edit(path, menu(LOST).encode(), menu(ROOT).encode(), ()),))
    assert check_boot(NO_CODE, (edited,), NAMES).ways
    other = Edit(b"/boot/grub/grub.cfg", b"a", b"b", ())
    assert with_edits(esp, (other,)) == esp


def test_kernels_that_a_menu_names_must_be_there() -> None:
    grub_cfg = (
        b"\tlinux\t/boot/vmlinuz-6.1 root=UUID=x ro\n\tinitrd\t/initrd.img-6.1\n\tlinux $kernel x\n"
    )
    tree = {b"/boot/grub/grub.cfg": grub_cfg, b"/boot/vmlinuz-6.1": b""}
    (finding,) = check_menu(Tree(tree))
    assert str(finding) == "/boot/grub/grub.cfg: the menu names /initrd.img-6.1, which is not there"
    assert check_menu(Tree({**tree, b"/boot/initrd.img-6.1": b""})) == ()
    assert check_menu(Tree({})) == ()


def test_kernels_of_other_systems_are_elsewhere() -> None:
    other = MENU.replace(
        "### BEGIN /etc/grub.d/30_os-prober ###\n",
        "### BEGIN /etc/grub.d/30_os-prober ###\nlinux /boot/vmlinuz-other root=/dev/sdb1\n",
    )
    assert other != MENU
    kernels = [b"/boot/vmlinuz-6.1.0-32-amd64", b"/boot/initrd.img-6.1.0-32-amd64"]
    there = {b"/boot/grub/grub.cfg": other.encode(), **dict.fromkeys(kernels, b"")}
    assert check_menu(Tree(there)) == ()
    del there[kernels[0]]
    assert len(check_menu(Tree(there))) == 1


@pytest.mark.parametrize("piece", ["search --fs-uuid ", "search.fs_uuid ", "search\n", "abcd-"])
def test_commands_of_any_length_are_looked_through_at_once(piece: str) -> None:
    config = piece * (64 * KIB // len(piece))
    start = time.process_time()
    check_boot(grub(Core("x", config)), (), NAMES)
    assert time.process_time() - start < 0.5


def test_a_menu_of_any_length_is_looked_through_at_once() -> None:
    begin = b"### BEGIN /etc/grub.d/30_os-prober ###\n"
    content = begin * (MIB // len(begin))
    start = time.process_time()
    assert check_menu(Tree({b"/boot/grub/grub.cfg": content})) == ()
    assert time.process_time() - start < 0.5
