"""Kernels, and what is in their initramfs, found in a tree."""

import gzip
import os
from pathlib import Path

from cpio import archive

from etsclone.boot.drivers import drivers_of_system


def put(root: Path, path: str, content: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def kernel(root: Path, version: str) -> None:
    """As on Debian, where /lib is a link."""
    if not (root / "lib").is_symlink():
        (root / "lib").symlink_to("usr/lib")
    put(root, f"usr/lib/modules/{version}/modules.alias", b"alias pci:x* nvme\n")
    put(root, f"usr/lib/modules/{version}/modules.builtin", b"kernel/a/b-c.ko\n")


def initramfs(*paths: str) -> bytes:
    early = archive(("kernel/x86/microcode/AuthenticAMD.bin", b"x"))
    return early + gzip.compress(archive(*((path, b"module") for path in paths)))


def test_the_newest_kernel_with_an_initramfs_counts(tmp_path: Path) -> None:
    for version in ("6.1.0-9-amd64", "6.1.0-28-amd64", "6.1.0-30-amd64"):
        kernel(tmp_path, version)
    paths = [f"usr/lib/modules/6.1.0-28-amd64/kernel/{name}" for name in ("nvme-core.ko.xz", "x")]
    other = "usr/lib/modules/6.1.0-9-amd64/kernel/old.ko"
    put(tmp_path, "boot/initrd.img-6.1.0-28-amd64", initramfs(*paths, other))
    put(tmp_path, "boot/initrd.img-6.1.0-9-amd64", initramfs(other))
    found = drivers_of_system(os.fsencode(tmp_path))
    assert found
    assert (found.kernel.version, found.held) == ("6.1.0-28-amd64", frozenset({"nvme_core"}))
    assert found.kernel.aliases == (("pci:x*", "nvme"),)
    assert found.kernel.builtin == {"b_c"}


def test_what_cannot_be_looked_into_is_told(tmp_path: Path) -> None:
    kernel(tmp_path, "5.14")
    found = drivers_of_system(os.fsencode(tmp_path))
    assert found
    assert (found.held, found.problem) == (None, "no initramfs of 5.14 was found in /boot")
    put(tmp_path, "boot/initramfs-5.14.img", b"garbage")
    found = drivers_of_system(os.fsencode(tmp_path))
    assert found
    assert found.held is None
    assert (
        "the initramfs of 5.14 was not looked into: the initramfs is compressed in no"
        in found.problem
    )


def test_a_system_without_a_kernel(tmp_path: Path) -> None:
    assert drivers_of_system(os.fsencode(tmp_path)) is None
