"""A role whose interface is bound to another machine's MAC address has it on this machine after a rebuild.

Its initramfs, which has a copy of what binds it, is made anew for that by the clone's own programs.
"""

import os
from pathlib import Path

import pytest
from cpio import archive, padded

from etsclone.boot.initramfsnames import OF_NETWORKS, telling_files

from .qemu import boot
from .servers import HOST_NAMES, etsclone
from .test_boot import Pair, mounted_root

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

OLD, QEMU = "0c:c4:7a:00:00:0f", "52:54:00:12:34:56"
COPY = "usr/lib/systemd/network/10-lan0.link"
"""Where update-initramfs puts what is in /etc."""

LINK = f"[Match]\nMACAddress={OLD.upper()}\n\n[Link]\nName=lan0\n"


@pytest.mark.thorough
def test_a_mapped_interface_has_its_name(server_image: Path, tmp_path: Path) -> None:
    pair, key = Pair(tmp_path), tmp_path / "primary.key"
    etsclone("clone", server_image, pair.disk("primary"), "--yes")
    with mounted_root(pair.disk("primary"), tmp_path / "root") as root:
        (root / "etc/systemd/network/10-lan0.link").write_text(LINK)
    etsclone("brd", "init", pair.store, "--pair", "ets", "--profile", "ltsp-isc-dhcp")
    etsclone("brd", "keygen", key, "--no-passphrase")
    etsclone("brd", "trust", pair.store, "--role", "primary", f"{key}.pub")
    capture = ("brd", "capture", pair.store, "--role", "primary", "--key", key)
    etsclone(*capture, "--disk", pair.disk("primary"))
    pair.disk("primary").unlink()
    pair.trust.write_bytes((pair.store / "allowed_signers").read_bytes())
    disk = tmp_path / "other.raw"
    etsclone("clone", server_image, disk, "--yes")
    with mounted_root(disk, tmp_path / "there") as root:
        (image,) = (root / "boot").glob("initrd.img-*")
        # As update-initramfs made it on the server.
        copied = archive((COPY, LINK.encode()))
        image.write_bytes(padded(image.read_bytes()) + copied)
    words = ("--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes")
    etsclone("rebuild", disk, *words, "--map-nic", f"{OLD}={QEMU}")
    with mounted_root(disk, tmp_path / "then") as root:
        (image,) = (root / "boot").glob("initrd.img-*")
        found = telling_files(os.fsencode(image), patterns=OF_NETWORKS)
        assert QEMU.upper() in found[COPY.encode()].decode()
    try:
        with boot(disk, tmp_path / "console.log") as console:
            assert console.log_in() == HOST_NAMES["primary"]
            assert QEMU in console.run("cat /sys/class/net/lan0/address").output
    finally:
        disk.unlink()  # pytest would keep these gigabytes for three runs
