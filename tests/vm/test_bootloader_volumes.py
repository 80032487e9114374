"""Servers on LVM, mirrors and LUKS that lost their boot loader: a rebuild installs it again, and they boot.

Their twin is attached throughout, with the same UUIDs. It has to stay as it is.
"""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import build_image
from .helper import Helper, helper
from .layouts import ROOTS, SIZE, clone
from .qemu import boot

pytestmark = [pytest.mark.vm, pytest.mark.thorough, pytest.mark.timeout(3600)]

PATIENCE = 1800.0
CAPTURE = """
cd /run
printf etsclone > key
etsclone brd init store --pair ets --profile ltsp-isc-dhcp
etsclone brd keygen primary.key --no-passphrase
etsclone brd trust store --role primary primary.key.pub
etsclone brd capture store --role primary --key primary.key --disk {disk} --key-file key
cp store/allowed_signers trusted
mkdir /srv/system
"""
REBUILD = (
    "etsclone rebuild {disk} --store /run/store --role primary --trust /run/trusted --yes --json"
    " --key-file /run/key --bootloader | tail -n 1; sync"
)
UNDO = "etsclone rebuild {disk} --undo --yes --key-file /run/key; sync"

WITHOUT_CODE = """
dd if=/dev/zero of={disk} bs=440 count=1 status=none
dd if=/dev/zero of={disk} bs=512 seek={start} count={sectors} status=none
sync
"""
WITHOUT_FILES = """
etsclone mount {disk} /srv/system --rw --key-file /run/key
cd /srv/system
rm -r boot/grub/*-*
if [[ -d boot/efi/EFI ]]; then rm -r boot/efi/EFI; fi
cd /
etsclone umount /srv/system
"""
LIST = """
etsclone mount {disk} /srv/system --key-file /run/key > /dev/null
cd /srv/system
find boot -exec stat --format '%n %f %u:%g %Y' {{}} + | sort
find boot -type f -exec sha256sum {{}} + | sort -k 2
cd /
etsclone umount /srv/system > /dev/null
dd if={disk} bs=440 count=1 status=none | sha256sum
dd if={disk} bs=512 skip={start} count={sectors} status=none | sha256sum
"""
# By the volumes' own names and with GRUB's own eyes, as the administrator of a server would have done it.
BOOT_IN_ROOT = """
vgchange -qq --activate y ets
mkdir /srv/root /srv/boot
mount /dev/ets/root /srv/root
mount /dev/ets/var /srv/root/var
mount {disk}1 /srv/boot
cp --archive /srv/boot/. /srv/root/boot/
umount /srv/boot
sed --in-place '/[[:space:]]\\/boot[[:space:]]/d' /srv/root/etc/fstab
for folder in dev proc sys; do mount --rbind /$folder /srv/root/$folder; done
chroot /srv/root sh -c 'grub-install {disk} && update-grub'
umount --recursive /srv/root
vgchange -qq --activate n ets
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A layout, where its GRUB for BIOS machines is (sectors), and what is run to install GRUB again."""

    layout: str
    commands: tuple[tuple[str, ...], ...]
    start: int = 0
    sectors: int = 0
    prepared: str = ""


BIOS = ("grub-install", "--target=i386-pc")
UEFI = ("grub-install", "--target=x86_64-efi", "--efi-directory=/boot/efi", "--no-nvram")
LVM = "--modules=part_msdos lvm"
CASES = {
    "lvm": Case("bios-lvm", ((*BIOS, "DISK"),), 1, 2047),
    "lvm, /boot in it": Case("bios-lvm", ((*BIOS, LVM, "DISK"),), 1, 2047, BOOT_IN_ROOT),
    "md, /boot in it": Case("bios-md", ((*BIOS, "DISK"),), 2048, 2048),
    "luks": Case("uefi-luks", (UEFI, (*UEFI, "--removable"))),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_lost_boot_loader_is_installed_again(
    case: Case, helper_image: Path, tmp_path: Path
) -> None:
    image, kept = build_image(case.layout), tmp_path / "kept.raw"
    subprocess.run(["cp", "--sparse=always", image, tmp_path / "primary.raw"], check=True)
    with helper(helper_image, tmp_path, dict.fromkeys(("primary", "twin"), SIZE)) as vm:
        lost_and_installed(vm, case)
        os.link(vm.file("primary"), kept)  # the VM's own name of it goes with the VM
    try:
        uefi = case.layout.startswith("uefi")
        with boot(kept, tmp_path / "server.log", uefi=uefi) as console:
            assert console.log_in() == "ets1"
            root = console.run("findmnt --noheadings --raw --output SOURCE,FSTYPE /").output
            assert root.strip() == ROOTS[case.layout]
            console.power_off()
    finally:
        kept.unlink()


def lost_and_installed(vm: Helper, case: Case) -> None:
    disk = vm.disk("primary")

    def run(script: str) -> str:
        filled = script.format(disk=disk, start=case.start, sectors=case.sectors)
        return vm.check(filled, PATIENCE)

    run(case.prepared)
    run(CAPTURE)
    clone(vm, case.layout, "twin")
    twin = digest(vm, "twin")
    whole = run(LIST)
    run(WITHOUT_FILES)
    if case.sectors:
        run(WITHOUT_CODE)
    lost = run(LIST)
    assert menu_of(lost) == menu_of(whole)
    found = json.loads(run(REBUILD))["boot"]
    assert tuple(map(tuple, found["commands"])) == case.commands
    assert found["menu_stays"]
    assert found["failed"] is None
    assert len(found["ways"]) == 1
    installed = run(LIST)
    assert menu_of(installed) == menu_of(whole)
    assert installed != lost
    run(UNDO)
    assert run(LIST) == lost
    run(REBUILD)
    assert digest(vm, "twin") == twin


def digest(vm: Helper, name: str) -> str:
    """Of all of a disk; here, where the processor is no emulated one."""
    vm.check("sync", PATIENCE)
    with vm.file(name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def menu_of(listed: str) -> list[str]:
    return [line for line in listed.splitlines() if "boot/grub/grub.cfg" in line]
