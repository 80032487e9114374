"""Rebuilds for other hardware: interfaces bound to addresses, and drivers that an initramfs lacks, as typed."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest
from cpio import archive

from etsclone.boot.drivers import drivers_of_system
from etsclone.boot.hardware import devices, nics
from etsclone.chroot import in_chroot
from loop.small_system import write_tree
from loop.test_rebuild import Pair, content, made, mounted, ok, pair, rebuild, refuses

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

OLD, OTHER, NEW = "52:54:00:aa:bb:01", "52:54:00:aa:bb:02", "0c:c4:7a:00:00:0f"
LINK, IFCFG = "etc/systemd/network/10-lan.link", "etc/sysconfig/network-scripts/ifcfg-eth1"
COPY = LINK.replace("etc", "usr/lib")
DHCPD = "etc/sysconfig/dhcpd"
MENU = "boot/grub/grub.cfg"
TEXT = "HWADDR={}\nONBOOT=yes\n"
VERSION = "6.1.0-28-amd64"


@pytest.fixture
def bound(pair: Pair) -> Pair:
    """A pair whose primary's overlay binds one interface, and whose secondary's disk binds another one out of scope."""
    with mounted(pair.disk("primary")) as root:
        write_tree(root, {LINK: f"[Match]\nMACAddress={OLD.upper()}\n[Link]\nName=lan0\n"})
    words = ("--key", pair.folder / "primary.key", "--trust", pair.trust)
    ok("brd", "capture", pair.store, "--role", "primary", "--disk", pair.disk("primary"), *words)
    with mounted(pair.disk("secondary")) as root:
        write_tree(root, {IFCFG: TEXT.format(OTHER), MENU: f"linux /v ifname=eth1:{OTHER}\n"})
    return pair


def named(mac: str) -> str:
    return f"enx{mac.replace(':', '')}"


def facts(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])["hardware"]
    return found


def test_addresses_are_shown_against_those_of_the_machine(bound: Pair) -> None:
    before = content(bound.disk("secondary"))
    shown = rebuild(bound, bound.disk("secondary"), "primary", "--dry-run", "--nic", OTHER)
    assert (
        f"lan0 is bound to MAC {OLD}, which that machine does not have (/{LINK}:2)" in shown.stdout
    )
    assert f"eth1 is bound to MAC {OTHER} (/{IFCFG}:1, /{MENU}:1)" in shown.stdout
    assert "--map-nic OLD=NEW writes other addresses" in shown.stdout
    here = rebuild(bound, bound.disk("secondary"), "primary", "--dry-run").stdout
    for nic in nics():
        assert f"this machine has {nic.name} {nic.mac}" in here
    assert content(bound.disk("secondary")) == before


def test_addresses_that_nobody_maps_are_shown(bound: Pair) -> None:
    places = {
        "etc/mactab": f"eth0 {NEW}\n",
        "etc/kernel/cmdline": f"root=/dev/sda1 x={NEW.replace(':', '-').upper()}\n",
        f"etc/sysconfig/network-scripts/route-enx{NEW.replace(':', '')}": "",
        "srv/x.conf": NEW,
    }
    with mounted(bound.disk("secondary")) as root:
        write_tree(root, places)
        (root / "etc/all").symlink_to("/")
        (root / "etc/kernel/link").symlink_to("cmdline")
    disk = bound.disk("secondary")
    shown = rebuild(bound, disk, "primary", "--dry-run", "--nic", OTHER).stdout
    assert (
        f"MAC {NEW}, which that machine does not have, is named in /etc/kernel/cmdline:1, /etc/mactab:1,"
        f" /etc/sysconfig/network-scripts/route-enx{NEW.replace(':', '')}: change that by hand\n"
    ) in shown
    found = facts(rebuild(bound, disk, "primary", "--json", "--nic", OTHER))
    assert found["mentions"] == [
        {"path": "/etc/kernel/cmdline", "line": 1, "mac": NEW},
        {"path": "/etc/mactab", "line": 1, "mac": NEW},
        {"path": "/etc/sysconfig/network-scripts/route-enx0cc47a00000f", "line": 0, "mac": NEW},
    ]
    assert found["mentions_whole"] is True
    own = rebuild(bound, disk, "primary", "--dry-run", "--nic", OTHER, "--nic", NEW).stdout
    assert "is named in" not in own


def test_mapped_addresses_are_written_and_verified(bound: Pair) -> None:
    disk, maps = (
        bound.disk("secondary"),
        ("--map-nic", f"{OLD}={NEW.upper()}", "--map-nic", f"{OTHER}={OLD}"),
    )
    refuses(rebuild(bound, disk, "primary", *maps), 2, f"/{IFCFG} is not of the role")
    maps = ("--map-nic", f"{OLD}={NEW}", "--map-nic", f"{OTHER}={NEW[:-1]}e")
    with mounted(disk) as root:
        write_tree(root, {DHCPD: f"DHCPDARGS={named(OTHER)}\nDHCPD_INTERFACE={named(OTHER)}\n"})
    shown = rebuild(bound, disk, "primary", "--dry-run", "--nic", NEW).stdout
    assert (
        f"{named(OTHER)} is bound to MAC {OTHER}, which that machine does not have (/{DHCPD}:1, /{DHCPD}:2)\n"
    ) in shown
    found = facts(rebuild(bound, disk, "primary", *maps, "--json"))
    assert found["mapped"] == {OLD: NEW, OTHER: f"{NEW[:-1]}e"}
    with mounted(disk, "ro") as root:
        assert (
            root / LINK
        ).read_text() == f"[Match]\nMACAddress={NEW.upper()}\n[Link]\nName=lan0\n"
        assert (root / IFCFG).read_text() == TEXT.format(f"{NEW[:-1]}e")
        assert (root / MENU).read_text() == f"linux /v ifname=eth1:{NEW[:-1]}e\n"
        name = named(f"{NEW[:-1]}e")
        assert (root / DHCPD).read_text() == f"DHCPDARGS={name}\nDHCPD_INTERFACE={name}\n"
    (receipt,) = (bound.store / "receipts").glob("*rebuild*.json")
    assert json.loads(receipt.read_text())["hardware"]["mapped"] == found["mapped"]
    before = content(disk)
    assert facts(rebuild(bound, disk, "primary", *maps, "--json"))["mapped"] == found["mapped"]
    assert content(disk) == before
    refuses(
        rebuild(bound, disk, "primary", "--map-nic", f"{NEW}={OTHER}"),
        2,
        "no binding of the system names",
    )


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (["eth0"], "is not OLD=NEW"),
        ([f"{OLD}=eth0"], "not a MAC address: 'eth0'"),
        ([f"01:00:5e:00:00:01={NEW}"], "not the MAC address of one interface"),
        ([f"{OLD}={NEW}", f"{OLD}={OTHER}"], f"maps twice from {OLD}"),
        ([f"{OLD}={NEW}", f"{OTHER}={NEW}"], f"maps twice to {NEW}"),
        ([f"{OLD}={OLD.upper()}"], "changes nothing"),
        ([f"{NEW}={NEW[:-1]}e"], f"no binding of the system names the MAC address {NEW}"),
    ],
)
def test_mappings_that_make_no_sense_are_refused(
    bound: Pair, maps: list[str], message: str
) -> None:
    words = [word for each in maps for word in ("--map-nic", each)]
    refuses(rebuild(bound, bound.disk("secondary"), "primary", *words), 2, message)


def test_an_initramfs_that_binds_interfaces_as_before_is_told(bound: Pair) -> None:
    disk = bound.disk("secondary")
    link = f"[Match]\nMACAddress={OLD}\n[Link]\nName=lan0\n".encode()
    with mounted(disk) as root:
        image = root / "boot" / f"initrd.img-{VERSION}"
        options = f"ifname=lan1:{NEW[:-1]}e\n".encode()  # as dracut finds it on the machine
        image.write_bytes(gzip.compress(archive((COPY, link), ("etc/cmdline.d/1.conf", options))))

    def said(*words: str) -> tuple[list[str], list[str]]:
        done = rebuild(bound, disk, "primary", "--dry-run", "--json", *words)
        boot = json.loads(done.stdout)["boot"]
        return boot["stale_initramfs"], [each["message"] for each in boot["findings"]]

    stale, messages = said()
    assert stale == []
    assert [each for each in messages if "names the MAC" in each] == [
        f"etc/cmdline.d/1.conf in it names the MAC {NEW[:-1]}e, which the system does not"
    ]
    stale, messages = said("--map-nic", f"{OLD}={NEW}")
    assert stale == [f"/boot/initrd.img-{VERSION}"]
    assert f"{COPY} in it names the MAC {OLD}, which the system does not" in messages


def test_drivers_that_the_initramfs_lacks_are_told(pair: Pair) -> None:
    assert devices(), "this test needs a machine with a disk or a network card"
    modules = f"usr/lib/modules/{VERSION}"
    aliases = "".join(f"alias {device.modalias} driver-{n}\n" for n, device in enumerate(devices()))
    with mounted(pair.disk("secondary")) as root:
        write_tree(root, {f"{modules}/modules.alias": aliases, f"{modules}/modules.dep": ""})
        (root / "lib").symlink_to("usr/lib")
        image = root / "boot" / f"initrd.img-{VERSION}"
        image.parent.mkdir()
        held = archive(*((f"{modules}/driver-{n}.ko", b"") for n in range(1, len(devices()))))
        image.write_bytes(archive(("early", b"")) + gzip.compress(held))
    shown = rebuild(pair, pair.disk("secondary"), "primary", "--dry-run").stdout
    first = devices()[0].name
    assert (
        f"drivers  the initramfs of {VERSION} lacks driver_0, which drives this machine's {first}"
        in shown
    )
    done = rebuild(pair, pair.disk("secondary"), "primary", "--json")
    assert facts(done)["drivers_lacking"] == [
        {"purpose": devices()[0].purpose.value, "device": first, "modules": ["driver_0"]}
    ]
    other = rebuild(pair, pair.disk("secondary"), "primary", "--dry-run", "--nic", NEW).stdout
    assert "driver_0" not in other, "the other machine's drivers nobody knows"


def test_a_real_initramfs_is_looked_into(tmp_path: Path) -> None:
    cache = Path(os.environ.get("ETSCLONE_CACHE", "/var/cache/etsclone"))
    images = sorted(cache.glob("primary-bios-ext4-*.raw"))
    if not images:
        pytest.skip("no image is built: scripts/build-image")
    table = subprocess.run(["sfdisk", "--json", images[0]], capture_output=True, check=True).stdout
    part = max(json.loads(table)["partitiontable"]["partitions"], key=lambda each: each["size"])
    place = f"offset={part['start'] * 512},sizelimit={part['size'] * 512}"
    subprocess.run(["mount", "-o", f"loop,ro,noload,{place}", images[0], tmp_path], check=True)
    try:
        found = in_chroot(str(tmp_path), drivers_of_system)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert found
    assert found.held
    assert {"ext4", "virtio_blk", "virtio_pci"} <= found.held | found.kernel.builtin
    assert "nvme" in found.kernel.builtin | found.held
