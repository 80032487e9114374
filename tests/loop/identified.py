"""A small system on many filesystems whose files name them, and all identifiers that a disk has."""

import json
import os
import re
import shutil
from pathlib import Path

from . import disks
from .disks import MIB, loop_device, mounted, node, tool

GPT = "label: gpt\nsize=34MiB, type=uefi\nsize=48MiB\nsize=8MiB, type=swap\nsize=300MiB\nsize=120MiB\nsize=16MiB\n"
MBR = (
    "label: dos\n1: size=34MiB, type=c\n2: size=48MiB, bootable\n3: size=8MiB, type=82\n4: type=5\n"
    "5: size=300MiB\n6: size=120MiB\n7: size=16MiB\n"
)
MAKE = {
    "vfat": ("mkfs.vfat", "-F", "32"),
    "fat16": ("mkfs.vfat", "-F", "16"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-O", "metadata_csum,^metadata_csum_seed"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "swap": ("mkswap",),
    "ext2": ("mkfs.ext2", "-q", "-F"),
}
CONTENTS = ("vfat", "ext4", "swap", "xfs", "btrfs", "ext2")


def numbers(label: str) -> dict[str, int]:
    """The partition of each content."""
    first = (1, 2, 3, 4, 5, 6) if label == "gpt" else (1, 2, 3, 5, 6, 7)
    return dict(zip(CONTENTS, first, strict=True))


def probed(device: Path, number: int) -> dict[str, str]:
    """What blkid tells of a partition."""
    where = node(device, number)
    lines = tool("blkid", "--probe", "--output", "export", where).splitlines()
    return dict(line.split("=", 1) for line in lines)


def identifiers(path: Path) -> dict[str, str]:
    """All identifiers that others find on an image: the disk's, and each partition's and content's."""
    table = json.loads(tool("sfdisk", "--json", path))["partitiontable"]
    found = {"disk": table["id"]}
    with loop_device(path, read_only=True) as device:
        for row in table["partitions"]:
            number = int(row["node"].rsplit("img", 1)[1])
            if row["type"] == "5":
                continue
            facts = probed(device, number)
            found[f"content {number}"] = facts["UUID"]
            mbr = f"{int(table['id'], 16):08x}-{number:02x}" if table["label"] == "dos" else ""
            found[f"partition {number}"] = row.get("uuid", mbr).lower()
    return found


def make_system(image: Path, script: str, scratch: Path) -> Path:
    """A system whose root is the ext4, and whose files name every filesystem."""
    disks.blank(image, 536 * MIB)
    tool("sfdisk", "--quiet", image, typed=script)
    label = "gpt" if "gpt" in script else "dos"
    parts = numbers(label)
    with loop_device(image) as device:
        for kind, number in parts.items():
            tool(*MAKE[kind], node(device, number))
    ids = identifiers(image)
    uuid = {kind: ids[f"content {number}"] for kind, number in parts.items()}
    fstab = (
        f"UUID={uuid['ext4']} / ext4 errors=remount-ro 0 1\n"
        f"PARTUUID={ids['partition ' + str(parts['xfs'])]} /srv xfs defaults 0 2\n"
        f'UUID="{uuid["btrfs"].upper()}" /data btrfs defaults 0 2\n'
        f"UUID={uuid['ext2']} /boot ext2 defaults 0 2\n"
        f"UUID={uuid['vfat']} /boot/efi vfat noauto 0 2\n"
        f"/dev/disk/by-uuid/{uuid['swap']} none swap sw 0 0\n"
    )
    with loop_device(image) as device, mounted(node(device, parts["ext4"]), scratch) as root:
        for folder in ("etc/initramfs-tools/conf.d", "srv", "data", "boot", "var/lib"):
            (root / folder).mkdir(parents=True)
        (root / "etc/fstab").write_text(fstab)
        (root / "etc/fstab").chmod(0o640)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/other").write_text(fstab)
        (root / "etc/initramfs-tools/conf.d/resume").write_text(f"RESUME=UUID={uuid['swap']}\n")
        (root / "data.bin").write_bytes(os.urandom(4 * MIB))
        with mounted(node(device, parts["ext2"]), root / "boot") as boot:
            (boot / "grub").mkdir()
            (boot / "grub/grub.cfg").write_text(f"search --set=root {uuid['ext2']}\n{fstab}")
        for kind in ("xfs", "btrfs"):
            with mounted(node(device, parts[kind]), root / "srv"):
                (root / "srv/file").write_bytes(os.urandom(MIB))
    return image


def make_small(image: Path, scratch: Path) -> Path:
    """A root and swap space."""
    disks.blank(image, 44 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=32MiB\nsize=8MiB, type=swap\n")
    with loop_device(image) as device:
        tool(*MAKE["ext4"], node(device, 1))
        tool(*MAKE["swap"], node(device, 2))
    ids = identifiers(image)
    with loop_device(image) as device, mounted(node(device, 1), scratch) as root:
        (root / "etc/initramfs-tools/conf.d").mkdir(parents=True)
        fstab = f"UUID={ids['content 1']} / ext4 defaults 0 1\nUUID={ids['content 2']} none swap\n"
        (root / "etc/fstab").write_text(fstab)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        resume = f"RESUME=UUID={ids['content 2']}\n"
        (root / "etc/initramfs-tools/conf.d/resume").write_text(resume)
        (root / "data.bin").write_bytes(os.urandom(4 * MIB))
    return image


def make_two_roots(image: Path, scratch: Path) -> Path:
    """Two filesystems, each of which looks like the root of a system."""
    disks.blank(image, 44 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=20MiB\nsize=20MiB\n")
    with loop_device(image) as device:
        for number in (1, 2):
            tool(*MAKE["ext4"], node(device, number))
            uuid = probed(device, number)["UUID"]
            with mounted(node(device, number), scratch) as root:
                (root / "etc").mkdir()
                (root / "etc/fstab").write_text(f"UUID={uuid} / ext4 defaults 0 1\n")
                (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return image


def add_programs(root: Path, *names: str) -> None:
    """Put some of this machine's programs into a system, with the libraries that they need."""
    for folder in ("dev", "proc", "sys", "run", "tmp", "usr/bin", "usr/sbin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        program = shutil.which(name, path="/usr/bin:/bin")
        assert program
        shutil.copy(program, root / "usr/bin" / name)
        for library in re.findall(r"(/\S+) \(0x", tool("ldd", program)):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
