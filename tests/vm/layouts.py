"""A role rebuilt on a clone of a layout that servers are on; the disk boots alone, by its own firmware.

Cloned, opened and rebuilt in the helper VM, which has all drivers, with the twin attached throughout. One role a
layout, unless the full matrix is asked for.
"""

import itertools
import os
import subprocess
from pathlib import Path

from etsclone.units import GIB

from .conftest import build_image
from .helper import Helper, helper
from .qemu import boot
from .servers import (
    HOST_NAMES,
    MACHINE_ID,
    SSH_KEYS,
    Identity,
    assert_is,
    make_store,
    parse_identity,
)

ROOTS = {
    "uefi-xfs": "/dev/vda3 xfs",
    "uefi-btrfs": "/dev/vda3[/@] btrfs",
    "bios-lvm": "/dev/mapper/ets-root ext4",
    "uefi-luks": "/dev/mapper/system ext4",
    "bios-md": "/dev/md0 ext4",
}
USUAL = dict(zip(ROOTS, itertools.cycle(HOST_NAMES), strict=False))  # one role, then the other
SIZE = 3 * GIB
PATIENCE = 1800.0

# The passphrase, as somebody types it who rebuilds a server: the disk boots with a key file of its own.
PREPARE = """
cp -r /mnt/more/* /run/
printf etsclone > /run/key
mkdir /srv/system
"""
MAKE_SECONDARY = "/mnt/pair/install-role /srv/system secondary"
CAPTURE = "etsclone brd capture /run/store --role {role} --key /run/{role}.key --disk {disk} --key-file /run/key"
REBUILD = "etsclone rebuild {disk} --store /run/store --role {role} --trust /run/trusted --yes --key-file /run/key"


def cases(firmware: str, *, full: bool) -> list[tuple[str, str]]:
    """The layouts for a firmware (`bios`, `uefi`) with both roles of each, or with one."""
    every = itertools.product(ROOTS, HOST_NAMES) if full else USUAL.items()
    return [(layout, role) for layout, role in every if layout.startswith(firmware)]


def rebuilt_and_booted(layout: str, role: str, helper_image: Path, folder: Path) -> None:
    """From the image of a layout to a server that was seen running."""
    store = folder / "store"
    store.mkdir()
    make_store(store)
    image, disk = build_image(layout), folder / "rebuilt.raw"
    subprocess.run(["cp", "--sparse=always", image, folder / "primary.raw"], check=True)
    disks = dict.fromkeys(("primary", "secondary", "spare"), SIZE)
    with helper(helper_image, folder, disks, more=store) as vm:
        vm.check(PREPARE)
        clone(vm, layout, "secondary")
        identities = make_secondary(vm)
        vm.check(CAPTURE.format(role=role, disk=vm.disk(role)), PATIENCE)
        if role == "primary":
            target = "secondary"
        else:
            target = "spare"
            clone(vm, layout, target)
        vm.check(REBUILD.format(role=role, disk=vm.disk(target)) + "; sync", PATIENCE)
        os.link(vm.file(target), disk)  # the VM's own name of it goes with the VM
    with boot(disk, folder / "server.log", uefi=layout.startswith("uefi")) as console:
        assert_is(console, role, identities[role])
        root = console.run("findmnt --noheadings --raw --output SOURCE,FSTYPE /").output
        assert root.strip() == ROOTS[layout]
    disk.unlink()


def clone(vm: Helper, layout: str, target: str) -> None:
    """Clone the primary; an encrypted volume while it is unlocked, so that only what is used is copied."""
    script = f"etsclone clone {vm.disk('primary')} {vm.disk(target)} --yes"
    if layout == "uefi-luks":
        opened = f"cryptsetup open {vm.disk('primary')}3 opened --key-file /run/key"
        script = f"{opened}; {script}; cryptsetup close opened"
    vm.check(script, PATIENCE)


def make_secondary(vm: Helper) -> dict[str, Identity]:
    """Make the primary's clone the secondary, by hand; returns who both are."""
    look = f"cd /srv/system; cat .{MACHINE_ID} .{SSH_KEYS}"
    vm.check(f"etsclone mount {vm.disk('secondary')} /srv/system --rw --key-file /run/key")
    primary = parse_identity(vm.check(look))
    vm.check(MAKE_SECONDARY)
    secondary = parse_identity(vm.check(look))
    vm.check("etsclone umount /srv/system")
    return {"primary": primary, "secondary": secondary}
