"""Disks that no longer boot: boot code, swap, or all loaders are gone. A rebuild mends them, and they boot."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etsclone.units import GIB

from .conftest import build_image
from .helper import helper
from .qemu import boot, new_variables

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

BOOT_CODE = 440
CORE = (2048 * 512, 1 << 20)
SWAP = "22222222-aaaa-4bbb-8ccc-dddddddddddd"


def etsclone(*arguments: str | Path) -> str:
    words = [sys.executable, "-m", "etsclone", *map(str, arguments)]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture
def disk(server_image: Path, tmp_path: Path) -> Iterator[Path]:
    """A primary that is captured, and damaged afterwards."""
    disk, store, key = tmp_path / "disk.raw", tmp_path / "store", tmp_path / "key"
    etsclone("clone", server_image, disk, "--yes")
    try:
        etsclone("brd", "init", store, "--pair", "ets", "--profile", "ltsp-isc-dhcp")
        etsclone("brd", "keygen", key, "--no-passphrase")
        etsclone("brd", "trust", store, "--role", "primary", f"{key}.pub")
        etsclone("brd", "capture", store, "--role", "primary", "--key", key, "--disk", disk)
        (tmp_path / "trusted").write_bytes((store / "allowed_signers").read_bytes())
        damage(disk)
        yield disk
    finally:
        disk.unlink()  # pytest would keep these gigabytes for three runs


def damage(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.write(bytes(BOOT_CODE))
        start, size = CORE
        file.seek(start)
        file.write(bytes(size))
    read = subprocess.run(["sfdisk", "--json", disk], check=True, stdout=subprocess.PIPE)
    swap = json.loads(read.stdout)["partitiontable"]["partitions"][-1]
    place = ["--offset", str(swap["start"] * 512), "--sizelimit", str(swap["size"] * 512)]
    attach = ["losetup", "--find", "--show", *place, str(disk)]
    loop = subprocess.run(attach, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        subprocess.run(["mkswap", "--quiet", "--uuid", SWAP, loop], check=True)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def rebuild(disk: Path, *more: str) -> dict[str, Any]:
    store, trusted = disk.parent / "store", disk.parent / "trusted"
    options = ("--store", store, "--role", "primary", "--trust", trusted, "--yes", "--json")
    return dict(json.loads(etsclone("rebuild", disk, *options, *more).splitlines()[-1]))


def test_what_was_lost_is_installed_again_and_boots(disk: Path, tmp_path: Path) -> None:
    found = rebuild(disk, "--bootloader")
    assert found["boot"]["ways"] == [{"firmware": "bios", "loader": "GRUB"}]
    assert found["boot"]["findings"] == []
    assert {edit["path"] for edit in found["edits"]} == {
        "/etc/fstab",
        "/etc/initramfs-tools/conf.d/resume",
    }
    assert [command[0] for command in found["boot"]["commands"]] == [
        "update-initramfs",
        "grub-install",
        "update-grub",
    ]
    assert rebuild(disk)["boot"]["commands"] == []
    with boot(disk, tmp_path / "console.log") as console:
        assert console.log_in() == "ets1"
        assert console.run("swapon --show=UUID --noheadings").output.strip() == SWAP
        state = console.run("systemctl is-system-running --wait")
        failed = console.run("systemctl --failed --no-legend")
        assert state.output.strip() == "running", failed.output
        console.power_off()


EMPTY_ESP = """
mkdir /run/esp
mount {disk}1 /run/esp
rm -r /run/esp/EFI
umount /run/esp
"""
NO_FALLBACK = """
mount {disk}1 /run/esp
rm -r /run/esp/EFI/BOOT
umount /run/esp
"""
CAPTURE = """
cd /run
etsclone brd init store --pair ets --profile ltsp-isc-dhcp
etsclone brd keygen key --no-passphrase
etsclone brd trust store --role primary key.pub
etsclone brd capture store --role primary --key key --disk {disk}
cp store/allowed_signers trusted
"""
REBUILD = (
    "etsclone rebuild {disk} --store /run/store --role primary --trust /run/trusted --yes --json"
)
PATIENCE = 1800.0


@pytest.mark.thorough
def test_an_empty_esp_gets_its_loaders_again_and_the_firmware_an_entry(
    helper_image: Path, tmp_path: Path
) -> None:
    """The disk boots by that entry: the fallback loader, which firmware takes without one, is gone."""
    image, variables = build_image("uefi-xfs"), new_variables(tmp_path / "variables")
    subprocess.run(["cp", "--sparse=always", image, tmp_path / "disk.raw"], check=True)
    with helper(helper_image, tmp_path, {"disk": 3 * GIB}, variables=variables) as vm:
        disk = vm.disk("disk")
        vm.check("modprobe efivarfs; mount -t efivarfs efivarfs /sys/firmware/efi/efivars")
        vm.check(CAPTURE.format(disk=disk) + EMPTY_ESP.format(disk=disk), PATIENCE)
        command = REBUILD.format(disk=disk)
        before = json.loads(vm.check(f"{command} --dry-run", PATIENCE))
        refused = vm.run(f"{command} --boot-entry", PATIENCE)
        after = json.loads(vm.check(f"{command} --bootloader | tail -n 1", PATIENCE))
        entries = []
        for _ in range(2):
            vm.check(f"{command} --boot-entry", PATIENCE)
            entries.append(vm.check("efibootmgr --verbose"))
        vm.check(NO_FALLBACK.format(disk=disk))
        os.link(vm.file("disk"), tmp_path / "kept.raw")  # the VM's own name of it goes with the VM
    try:
        assert before["boot"]["ways"] == []
        assert "holds no boot loader" in before["boot"]["findings"][0]["message"]
        assert refused.code == 3
        assert "--bootloader" in refused.output
        assert after["boot"]["ways"] == [{"firmware": "uefi", "loader": "fallback loader, GRUB"}]
        assert after["boot"]["findings"] == []
        assert entries[0].count("etsclone primary") == 1
        assert entries[1] == entries[0]
        with boot(tmp_path / "kept.raw", tmp_path / "console.log", variables=variables) as console:
            assert console.log_in() == "ets1"
            console.power_off()
    finally:
        (tmp_path / "kept.raw").unlink()


LIST = """
mkdir -p /run/system
mount -o ro {disk}3 /run/system
mount -o ro {disk}1 /run/system/boot/efi
cd /run/system
find boot -exec stat --format '%n %f %u:%g %Y' {{}} + | sort > /run/{name}
find boot -type f -exec sha256sum {{}} + | sort >> /run/{name}
cd /
umount /run/system/boot/efi /run/system
"""
UNDO = "etsclone rebuild {disk} --undo --yes; sync"


@pytest.mark.thorough
def test_undone_a_uefi_disk_has_its_loaders_of_before(helper_image: Path, tmp_path: Path) -> None:
    image = build_image("uefi-xfs")
    subprocess.run(["cp", "--sparse=always", image, tmp_path / "disk.raw"], check=True)
    with helper(helper_image, tmp_path, {"disk": 3 * GIB}) as vm:
        disk = vm.disk("disk")
        vm.check(CAPTURE.format(disk=disk), PATIENCE)
        for damage in ("", EMPTY_ESP):
            vm.check(damage.format(disk=disk) + LIST.format(disk=disk, name="before"), PATIENCE)
            told = vm.check(f"{REBUILD.format(disk=disk)} --bootloader | tail -n 1; sync", PATIENCE)
            assert json.loads(told)["boot"]["kept"] == ["/boot/efi/EFI", "/boot/grub"]
            vm.check(LIST.format(disk=disk, name="changed"), PATIENCE)
            assert vm.run("cmp /run/before /run/changed").code == 1
            vm.check(UNDO.format(disk=disk), PATIENCE)
            vm.check(LIST.format(disk=disk, name="after"), PATIENCE)
            assert vm.run("diff /run/before /run/after").output == ""
