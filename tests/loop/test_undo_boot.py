"""What the clone's own programs change so that it boots, kept before and undone: files, whole folders, boot code.

The programs are scripts here that do what the real ones do, to a small disk; tests/vm has the real ones.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cpio
import pytest
from oracle import Sight, links, look

from etsclone.commands import kept
from etsclone.commands.output import confirm
from etsclone.execute import bootkeep
from etsclone.model.keep import BootCode
from etsclone.overlay.rounds import unfinished_rebuild

from . import disks
from .killing import run_changed, run_killed_inside
from .small_system import common_files, etsclone, role_files, write_tree
from .test_rebuild import KEPT, ok, refuses

pytestmark = pytest.mark.loop

ROOT = "11111111-2222-4333-8444-555555555555"
SWAP = "22222222-aaaa-4bbb-8ccc-dddddddddddd"
OLD = "9999ffff-0000-4111-8222-333333333333"
TABLE = """label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
start=4096, size=131072, type=linux
size=8192, type=swap
"""
PART, ROOT_START = 1 << 20, 2 << 20
CODE = b"the boot code of before"
INITRAMFS = cpio.archive(("conf/conf.d/resume", f"RESUME=UUID={OLD}\n".encode()))
FILES = {
    "etc/fstab": f"UUID={ROOT} / ext4 defaults 0 1\nUUID={OLD} none swap sw 0 0\n",
    "boot/grub/grub.cfg": f"linux /boot/vmlinuz root=UUID={ROOT} resume=UUID={OLD}\n",
    "boot/grub/i386-pc/normal.mod": "of before",
    "boot/vmlinuz": "",
    "usr/lib/grub/i386-pc/normal.mod": "",
}
PROGRAMS = {
    # Another file in its place, as initramfs-tools does it.
    "update-initramfs": "echo new > /boot/initrd.img-1.new && mv -f /boot/initrd.img-1.new /boot/initrd.img-1",
    # Into the files that are there, and new ones beside them; onto the disk, and onto its partition.
    "grub-install": "echo new > /boot/grub/i386-pc/normal.mod; echo new > /boot/grub/i386-pc/new.mod;"
    ' printf new > "$2"; printf new > "$2p1"',
    "update-grub": "echo new > /boot/grub/grub.cfg",
}
Picture = tuple[Sight, set[frozenset[bytes]], bytes]


class Site:
    """A folder with a clone (disk.raw), a store, and whom to trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "disk.raw"

    @property
    def rebuilding(self) -> tuple[str | Path, ...]:
        """The words after the disk."""
        store, trusted = self.folder / "store", self.folder / "trusted"
        return "--store", store, "--trust", trusted, "--role", "primary", "--yes", "--bootloader"

    def rebuild(self) -> str:
        return ok("rebuild", self.disk, *self.rebuilding)

    def picture(self) -> Picture:
        """All that the root holds but for what is kept, and all before it."""
        with self.mounted("ro,noload") as root:
            names = (frozenset(p for p in each if not p.startswith(KEPT)) for each in links(root))
            sight = {path: seen for path, seen in look(root).items() if not path.startswith(KEPT)}
            return sight, {each for each in names if each}, self.before_root()

    def receipt(self, what: str) -> tuple[bool, list[str]]:
        """Whether the one of this kind in the store says `verified`, and what did not come back."""
        (receipt,) = (self.folder / "store/receipts").glob(f"{what}-*.json")
        facts = json.loads(receipt.read_text())
        return facts["verified"], facts["lost"]

    def before_root(self) -> bytes:
        return disks.part_of(self.disk, 0, ROOT_START)

    @contextmanager
    def mounted(self, options: str = "rw") -> Iterator[Path]:
        with (
            disks.loop_device(self.disk) as device,
            disks.mounted(disks.node(device, 2), self.folder / "mnt", options) as root,
        ):
            yield root


def furnish(tree: Path) -> None:
    write_tree(tree, common_files() | role_files("primary") | FILES)
    (tree / "boot/initrd.img-1").write_bytes(INITRAMFS)
    os.link(tree / "boot/initrd.img-1", tree / "boot/another-name")
    (tree / "boot/grub/link").symlink_to("/etc/fstab")
    os.setxattr(tree / "boot/grub/i386-pc", "user.x", b"y")
    for file in ("/bin/sh", "/bin/mv"):
        listed = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
        for each in (file, *(word for word in listed.split() if word.startswith("/"))):
            (tree / each[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(each, tree / each[1:])
    for folder in ("proc", "sys", "dev", "run", "tmp", "var/tmp", "usr/sbin"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for name, script in PROGRAMS.items():
        program = tree / "usr/sbin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    disks.blank(site.disk, 80 << 20)
    disks.tool("sfdisk", "--quiet", site.disk, typed=TABLE)
    furnish(tmp_path / "tree")
    with disks.loop_device(site.disk) as device:
        options = ("-q", "-U", ROOT, "-d", tmp_path / "tree", "-E", "root_owner=0:0")
        disks.tool("mkfs.ext4", *options, disks.node(device, 2))
        disks.tool("mkswap", "-q", "-U", SWAP, disks.node(device, 3))
    with site.disk.open("r+b") as file:
        file.write(CODE)
        file.seek(PART)
        file.write(CODE)
    key, store = tmp_path / "key", tmp_path / "store"
    ok("brd", "init", store, "--pair", "school", "--profile", "ltsp-isc-dhcp")
    ok("brd", "keygen", key, "--no-passphrase")
    ok("brd", "trust", store, "--role", "primary", f"{key}.pub")
    ok("brd", "capture", store, "--role", "primary", "--key", key, "--disk", site.disk)
    shutil.copy(store / "allowed_signers", tmp_path / "trusted")
    return site


def test_what_programs_changed_is_undone(site: Site) -> None:
    before = site.picture()
    told = site.rebuild()
    kept = "/boot/grub, /boot/initrd.img-1, boot code"
    assert f"         kept before that, for --undo: {kept}\n" in told
    assert "will not bring back" not in told
    with site.mounted("ro,noload") as root:
        for name in ("initrd.img-1", "grub/grub.cfg", "grub/i386-pc/normal.mod"):
            assert (root / "boot" / name).read_text() == "new\n"
        assert (root / "boot/grub/i386-pc/new.mod").exists()
    assert site.before_root().startswith(b"new" + CODE[3:])
    assert site.before_root()[PART:].startswith(b"new" + CODE[3:])

    facts = json.loads(ok("rebuild", site.disk, "--undo", "--dry-run", "--json"))
    assert (facts["code"], facts["lost"]) == (440 + (1 << 20), [])
    shown = ok("rebuild", site.disk, "--undo", "--dry-run")
    since = "; changes since the rebuild, if any, are lost"
    assert f"replace /boot/grub  (as it was before{since})\n" in shown
    assert "write   1.00 MiB of boot code  (as it was before)\n" in shown
    done = ok("rebuild", site.disk, "--undo", "--yes", *site.rebuilding[:2])
    assert "disk.raw is as it was before; unsigned receipt: " in done
    assert site.receipt("undo") == (True, [])
    assert site.picture() == before
    refuses(etsclone("rebuild", site.disk, "--undo", "--yes"), 3, "keeps nothing")


def test_what_is_edited_is_edited_in_the_copy(site: Site) -> None:
    with site.mounted() as root:
        (root / "usr/sbin/update-grub").unlink()
    before = site.picture()
    site.rebuild()
    with site.mounted("ro,noload") as root:
        assert (root / "boot/grub/grub.cfg").read_text() == FILES["boot/grub/grub.cfg"].replace(
            OLD, SWAP
        )
        now = look(root)
    same = b"/boot/grub/i386-pc", b"/boot/grub/link"
    assert {path: now[path].attributes for path in same} == {
        path: before[0][path].attributes for path in same
    }
    assert now[b"/boot/grub/link"] == before[0][b"/boot/grub/link"]
    ok("rebuild", site.disk, "--undo", "--yes")
    assert site.picture() == before


@pytest.mark.parametrize(
    ("moment", "then"), [(1, "--undo"), (2, "--undo"), (1, "--commit"), (1, "rebuild")]
)
def test_killed_before_the_boot_code_is_back_it_goes_on(site: Site, moment: int, then: str) -> None:
    before = site.picture()
    site.rebuild()
    with disks.loop_device(site.disk) as device:
        undoing = ("rebuild", device, "--undo", "--yes")
        assert run_killed_inside(bootkeep, "_put", moment, *undoing) < 0
    with site.mounted("ro") as root:
        where = unfinished_rebuild(str(root))
        assert (root / "boot/initrd.img-1").read_bytes() == INITRAMFS
    assert where == "half way back from primary, generation 1"
    assert site.before_root()[PART:].startswith(b"new")
    if then == "rebuild":
        told = site.rebuild()
        assert "half way back from primary, generation 1: that is finished first" in told
        then = "--undo"
    ok("rebuild", site.disk, then, "--yes")
    assert site.picture() == before


@pytest.mark.parametrize("then", ["--undo", "--commit", "rebuild"])
def test_boot_code_that_does_not_come_back_is_seen(site: Site, then: str) -> None:
    site.rebuild()
    with disks.loop_device(site.disk) as device:
        undoing = ("rebuild", device, "--undo", "--yes")
        assert run_killed_inside(bootkeep, "_put", 1, *undoing) < 0
    words = site.rebuilding if then == "rebuild" else (then, "--yes", *site.rebuilding[:2])

    def lost(_descriptor: int, _code: BootCode) -> None:
        """As on a medium that forgets what was written."""

    assert run_changed(bootkeep, "_put", lost, "rebuild", site.disk, *words) == 4
    (receipt,) = (site.folder / "store/receipts").glob("*.json")
    assert receipt.name.startswith("rebuild-")


def test_a_mounted_tree_is_undone_with_its_disk(site: Site) -> None:
    before = site.picture()
    site.rebuild()
    with site.mounted() as root:
        ok("rebuild", "--root", root, "--undo", "--yes")
    assert site.picture() == before


def test_what_is_written_through_a_link_is_told(site: Site) -> None:
    with site.mounted() as root:
        (root / "srv").mkdir(exist_ok=True)
        (root / "boot/grub").rename(root / "srv/grub")
        (root / "boot/grub").symlink_to("/srv/grub")
    told = site.rebuild()
    assert "kept before that, for --undo: /boot/initrd.img-1\n" in told
    changed = site.before_root()
    assert changed.startswith(b"new")
    lost = "the boot loader: /boot/grub is a symbolic link"
    assert f"         --undo will not bring back {lost}" in told
    done = ok("rebuild", site.disk, "--undo", "--yes", *site.rebuilding[:2])
    assert f"not brought back: {lost}" in done
    assert "as it was before, but for what is told above" in done
    assert site.receipt("undo")[0] is False
    # Boot code of before would not fit the modules and the menu that stay.
    assert site.before_root() == changed


def test_what_there_is_no_room_for_is_told_before_and_after(site: Site) -> None:
    with site.mounted() as root:
        room = os.statvfs(root)
        with (root / "boot/ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - (6 << 20))
    told = site.rebuild()
    assert "kept before that" not in told
    changed = site.before_root()
    lost = [
        "the initramfs: there is no room for a copy of 4.00 KiB",
        "the boot loader: there is no room for a copy of ",
    ]
    for each in lost:
        assert f"         --undo will not bring back {each}" in told
    (receipt,) = (site.folder / "store/receipts").glob("rebuild-*.json")
    assert len(json.loads(receipt.read_text())["boot"]["lost"]) == len(lost)
    done = ok("rebuild", site.disk, "--undo", "--yes")
    for each in lost:
        assert f"not brought back: {each}" in done
    assert "as it was before, but for what is told above" in done
    with site.mounted("ro,noload") as root:
        assert (root / "etc/fstab").read_text() == FILES["etc/fstab"]
        assert (root / "boot/initrd.img-1").read_text() == "new\n"
    assert site.before_root() == changed


def test_boot_code_goes_nowhere_else(site: Site) -> None:
    site.rebuild()
    disks.tool("sfdisk", "--quiet", "-N", "1", site.disk, typed="start=2048, size=1024\n")
    changed = site.before_root()
    told = "boot code: the disk has other partitions than it had then"
    done = ok("rebuild", site.disk, "--undo", "--yes", *site.rebuilding[:2])
    assert f"not brought back: {told}\n" in done
    assert "of boot code" not in done
    assert site.receipt("undo") == (False, [told])
    assert site.before_root() == changed
    with site.mounted("ro,noload") as root:
        assert (root / "boot/initrd.img-1").read_bytes() == INITRAMFS


def test_an_undo_that_is_finished_elsewhere_says_what_did_not_come_back(site: Site) -> None:
    site.rebuild()
    with disks.loop_device(site.disk) as device:
        undoing = ("rebuild", device, "--undo", "--yes")
        assert run_killed_inside(bootkeep, "_put", 1, *undoing) < 0
    disks.tool("sfdisk", "--quiet", "-N", "1", site.disk, typed="start=2048, size=1024\n")
    site.rebuild()
    assert site.receipt("finish") == (
        False,
        ["boot code: the disk has other partitions than it had then"],
    )


def test_partitions_that_move_meanwhile_are_seen(site: Site) -> None:
    site.rebuild()
    before = site.picture()

    def moved(*positional: str, **named: bool) -> None:
        confirm(*positional, yes=named["yes"])
        disks.tool("sfdisk", "--quiet", "-N", "1", site.disk, typed="start=2048, size=1024\n")

    assert run_changed(kept, "confirm", moved, "rebuild", site.disk, "--undo", "--yes") == 3
    assert site.picture()[:2] == before[:2]
    told = ok("rebuild", site.disk, "--undo", "--dry-run")
    assert "not brought back: boot code: " in told


def test_what_scripts_of_the_system_do_is_told(site: Site) -> None:
    with site.mounted() as root:
        write_tree(root, {"etc/initramfs/post-update.d/mine": ""})
    told = site.rebuild()
    assert "--undo will not bring back what scripts in /etc/initramfs/post-update.d change" in told
