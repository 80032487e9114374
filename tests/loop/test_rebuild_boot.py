"""What a rebuild says of how the disk will boot, and mends of it: on small disks with swap, as a user types it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .disks import loop_device, tool
from .small_system import common_files, etsclone, role_files, write_tree

pytestmark = pytest.mark.loop

ROOT = "11111111-2222-4333-8444-555555555555"
SWAP = "22222222-aaaa-4bbb-8ccc-dddddddddddd"
OLD = "9999ffff-0000-4111-8222-333333333333"
OTHER = "8888ffff-0000-4111-8222-333333333333"
TABLE = """label: gpt
start=2048, size=98304, type=linux
size=8192, type=swap
size=16384, type=uefi
"""

FILES = {
    "etc/fstab": f"UUID={ROOT} / ext4 defaults 0 1\nUUID={OLD} none swap sw 0 0\n",
    "etc/initramfs-tools/conf.d/resume": f"RESUME=UUID={OLD}\n",
    "etc/default/grub": f'GRUB_CMDLINE_LINUX="resume=UUID={OTHER} root=UUID={OTHER}"\n',
    "etc/crypttab": f"data UUID={OTHER} none luks,nofail\n",
    "boot/grub/grub.cfg": f"linux /boot/vmlinuz root=UUID={ROOT} resume=/dev/sda2\n",
    "boot/vmlinuz": "",
}


@dataclass(frozen=True)
class Site:
    """A folder with a clone (disk.raw), a store, and whom to trust."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.raw"

    def rebuild(self, *more: str) -> subprocess.CompletedProcess[str]:
        words = ("--store", self.folder / "store", "--trust", self.folder / "trusted")
        return etsclone("rebuild", self.disk, *words, "--role", "primary", "--yes", *more)

    def facts(self, *more: str) -> dict[str, Any]:
        done = self.rebuild("--json", *more)
        assert done.returncode == 0, done.stderr
        text = done.stdout if "--dry-run" in more else done.stdout.splitlines()[-1]
        return dict(json.loads(text))


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    folder = image.with_suffix(".mnt")
    folder.mkdir()
    with loop_device(image) as device:
        tool("mount", f"{device}p1", folder)
        try:
            yield folder
        finally:
            tool("umount", folder)
            folder.rmdir()


MBR = "1234abcd"
MBR_TABLE = f"label: dos\nlabel-id: 0x{MBR}\nstart=2048, size=98304, bootable\nsize=8192, type=82\n"
MBR_FILES = {
    "etc/fstab": f"PARTUUID={MBR}-01 / ext4 defaults 0 1\nPARTUUID={MBR}-02 none swap sw 0 0\n",
    "etc/default/grub": f'GRUB_CMDLINE_LINUX="root=PARTUUID={MBR}-01"\n',
    "boot/grub/grub.cfg": "menuentry x {\n  linux /boot/vmlinuz root=/dev/sda1 ro\n}\n",
    "boot/vmlinuz": "",
}
"""A system without an initramfs."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path, TABLE, FILES)


def make_site(tmp_path: Path, table: str, files: dict[str, str]) -> Site:
    """A disk of a primary with a root and swap, and a store with what was captured of it."""
    site = Site(tmp_path)
    with site.disk.open("wb") as file:
        file.truncate(64 << 20)
    tool("sfdisk", "--quiet", site.disk, typed=table)
    tree = tmp_path / "tree"
    write_tree(tree, common_files() | role_files("primary") | files)
    with loop_device(site.disk) as device:
        tool("mkfs.ext4", "-q", "-U", ROOT, "-d", tree, "-E", "root_owner=0:0", f"{device}p1")
        tool("mkswap", "-q", "-U", SWAP, f"{device}p2")
    key, store = tmp_path / "key", tmp_path / "store"
    for words in (
        ("brd", "init", store, "--pair", "school", "--profile", "ltsp-isc-dhcp"),
        ("brd", "keygen", key, "--no-passphrase"),
        ("brd", "trust", store, "--role", "primary", f"{key}.pub"),
        ("brd", "capture", store, "--role", "primary", "--key", key, "--disk", site.disk),
    ):
        done = etsclone(*words)
        assert done.returncode == 0, done.stderr
    (tmp_path / "trusted").write_bytes((store / "allowed_signers").read_bytes())
    return site


def test_names_that_are_gone_are_mended_where_that_is_certain(site: Site) -> None:
    with mounted(site.disk) as root:
        before = (root / "boot/grub/grub.cfg").stat()
    facts = site.facts()
    assert {edit["path"] for edit in facts["edits"]} == {
        "/etc/fstab",
        "/etc/initramfs-tools/conf.d/resume",
        "/boot/grub/grub.cfg",
    }
    with mounted(site.disk) as root:
        now = {path: (root / path).read_text() for path in FILES}
        assert (root / "boot/grub/grub.cfg").stat().st_mode == before.st_mode
    assert now == FILES | {
        "etc/fstab": FILES["etc/fstab"].replace(OLD, SWAP),
        "etc/initramfs-tools/conf.d/resume": f"RESUME=UUID={SWAP}\n",
        "boot/grub/grub.cfg": FILES["boot/grub/grub.cfg"].replace("/dev/sda2", f"UUID={SWAP}"),
    }
    assert site.facts()["edits"] == []


def test_what_is_not_certain_is_told(site: Site) -> None:
    found = {(each["path"], each["message"]) for each in site.facts()["boot"]["findings"]}
    assert (
        "/etc/crypttab",
        f"UUID={OTHER} (an encrypted volume, line 1) is not on this disk",
    ) in found
    assert (
        None,
        "the EFI system partition (3) cannot be read: its boot sector makes no sense",
    ) in found


def test_partitions_of_an_mbr_are_known_by_partuuid(tmp_path: Path) -> None:
    site = make_site(tmp_path, MBR_TABLE, MBR_FILES)
    facts = site.facts()
    assert [edit["path"] for edit in facts["edits"]] == ["/boot/grub/grub.cfg"]
    assert "PARTUUID" not in str(facts["boot"]["findings"])
    menu = MBR_FILES["boot/grub/grub.cfg"].replace("/dev/sda1", f"PARTUUID={MBR}-01")
    with mounted(site.disk) as root:
        now = {path: (root / path).read_text() for path in MBR_FILES}
    assert now == MBR_FILES | {"boot/grub/grub.cfg": menu}
    # With another identifier the disk's partitions are called otherwise: all that names them follows.
    other = Site(tmp_path / "other")
    other.folder.mkdir()
    assert etsclone("rebuild", site.disk, "--commit", "--yes").returncode == 0
    done = etsclone("clone", site.disk, other.disk, "--new-ids", "--yes")
    assert done.returncode == 0, done.stderr
    mark = json.loads(tool("sfdisk", "--json", other.disk))["partitiontable"]["id"]
    new = mark.removeprefix("0x")
    assert new != MBR
    with mounted(other.disk) as root:
        cloned = {path: (root / path).read_text() for path in MBR_FILES}
    assert cloned == {path: text.replace(MBR, new) for path, text in now.items()}
    for name in ("store", "trusted"):
        (other.folder / name).symlink_to(site.folder / name)
    facts = other.facts()
    assert "PARTUUID" not in str(facts["boot"]["findings"])
    with mounted(other.disk) as root:
        assert {path: (root / path).read_text() for path in MBR_FILES} == cloned


def test_a_dry_run_shows_it_and_changes_nothing(site: Site) -> None:
    before = site.disk.read_bytes()
    facts = site.facts("--dry-run")
    assert facts["boot"]["ways"] == []
    shown = site.rebuild("--dry-run").stdout
    assert f"edit    /etc/fstab  ({OLD} is {SWAP} now)" in shown
    assert "nothing on this disk boots it as it is" in shown
    assert "/etc/crypttab: UUID=" in shown
    assert site.disk.read_bytes() == before


def test_a_fallback_loader_is_found_on_the_esp(site: Site) -> None:
    loader = site.folder / "BOOTX64.EFI"
    loader.write_bytes(b"MZ".ljust(60, b"\0") + (64).to_bytes(4, "little") + b"PE\0\0\x64\x86")
    start = json.loads(tool("sfdisk", "--json", site.disk))["partitiontable"]["partitions"][2]
    tool("mkfs.vfat", "--offset", str(start["start"]), site.disk, str(start["size"] // 2))
    esp = f"{site.disk}@@{start['start'] * 512}"
    tool("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT")
    tool("mcopy", "-i", esp, loader, "::/EFI/BOOT/BOOTX64.EFI")
    facts = site.facts()
    assert facts["boot"]["ways"] == [{"firmware": "uefi", "loader": "fallback loader"}]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("--bootloader", "there is no GRUB in the system"),
        ("--boot-entry", "this machine was not started by UEFI"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is(
    site: Site, wish: str, words: str
) -> None:
    if wish == "--boot-entry" and Path("/sys/firmware/efi/efivars").exists():
        pytest.skip("this machine has boot entries")
    before = site.disk.read_bytes()
    done = site.rebuild(wish)
    assert done.returncode == 3
    assert words in done.stderr
    assert "hint: " in done.stderr
    assert site.disk.read_bytes() == before
