"""`clone --new-ids` of systems whose root is in a container: the clone boots alone, by its own identifiers."""

import os
import subprocess
from pathlib import Path

import pytest

from etsclone.units import GIB

from .conftest import build_image
from .helper import helper
from .qemu import boot

pytestmark = [pytest.mark.vm, pytest.mark.thorough, pytest.mark.timeout(3600)]

PATIENCE = 1800.0
CLONE = """
printf etsclone > /run/key
etsclone clone {source} {target} --yes --new-ids --key-file /run/key
sync
"""


def test_an_encrypted_root_is_opened_by_its_new_identifier(
    helper_image: Path, tmp_path: Path
) -> None:
    image, disk = build_image("uefi-luks"), tmp_path / "clone.raw"
    subprocess.run(["cp", "--sparse=always", image, tmp_path / "source.raw"], check=True)
    with helper(helper_image, tmp_path, dict.fromkeys(("source", "target"), 3 * GIB)) as vm:
        devices = {"source": vm.disk("source"), "target": vm.disk("target")}
        told = vm.check(CLONE.format(**devices), PATIENCE)
        old, new = (vm.check(f"cryptsetup luksUUID {each}3").strip() for each in devices.values())
        os.link(vm.file("target"), disk)  # the VM's own name of it goes with the VM
    try:
        assert old != new
        assert "/boot/initrd.img-" in told.partition("new identifiers are named by ")[2]
        assert "names old identifiers" not in told
        with boot(disk, tmp_path / "console.log", uefi=True) as console:
            assert console.log_in() == "ets1"
            opened = console.run("cryptsetup status system | grep device; blkid -s UUID").output
            assert new in opened
            assert old not in opened
            console.power_off()
    finally:
        disk.unlink()
