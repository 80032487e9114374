"""Programs of the clone that fail to make it boot, or to mend its initramfs: told, recorded, and the exit code."""

import json
from typing import Any

import pytest

from .small_system import etsclone
from .test_rebuild import ok
from .test_undo_boot import OLD, Site, site

__all__ = ["site"]

pytestmark = pytest.mark.loop

IMAGE = "/boot/initrd.img-1"


def failed(site: Site, program: str, script: str, *more: str) -> tuple[dict[str, Any], str, str]:
    """The receipt, what was printed, and the error, of a rebuild in which a program does something else."""
    with site.mounted() as root:
        (root / "usr/sbin" / program).write_text(f"#!/bin/sh\n{script}\n")
    words = [word for word in site.rebuilding if word != "--bootloader"]
    done = etsclone("rebuild", site.disk, *words, *more)
    assert done.returncode == 4, done.stderr
    (receipt,) = (site.folder / "store/receipts").glob("rebuild-*.json")
    facts: dict[str, Any] = json.loads(receipt.read_text())
    end = done.stdout[done.stdout.index("disk.raw is primary") :]
    return facts, end, done.stderr


def told_of_initramfs(end: str) -> bool:
    return any(
        line.startswith(f"         {IMAGE}: ") and f"UUID={OLD}" in line
        for line in end.splitlines()
    )


def test_a_boot_loader_that_was_not_installed(site: Site) -> None:
    script = "echo password s3cret; exit 7"
    facts, end, error = failed(site, "grub-install", script, "--bootloader")
    message = "grub-install of the clone failed with status 7"
    assert facts["boot"]["failed"] == message
    assert f"         failed: {message}\n" in end
    assert f"etsclone: {message}\n" in error
    assert "s3cret" in error
    assert "s3cret" not in json.dumps(facts)


@pytest.mark.parametrize("more", [(), ("--bootloader",)])
def test_an_initramfs_that_is_as_stale_as_before(site: Site, more: tuple[str, ...]) -> None:
    facts, end, error = failed(site, "update-initramfs", "exit 0", *more)
    assert facts["boot"]["stale_initramfs"] == [IMAGE]
    assert facts["boot"]["failed"] == (
        f"the initramfs was made anew, and still does not fit the system: {IMAGE}"
    )
    assert told_of_initramfs(end)
    assert f"         failed: {facts['boot']['failed']}\n" in end
    assert facts["boot"]["failed"] in error


def test_an_image_that_another_service_makes_is_only_told(site: Site) -> None:
    with site.mounted() as root:
        (root / "boot/initramfs-6.1kdump.img").write_bytes((root / IMAGE[1:]).read_bytes())
    told = site.rebuild()
    assert "/boot/initramfs-6.1kdump.img: conf/conf.d/resume in it: UUID=" in told
    assert "kept before that, for --undo: /boot/grub, /boot/initrd.img-1, boot code\n" in told
    (receipt,) = (site.folder / "store/receipts").glob("rebuild-*.json")
    facts = json.loads(receipt.read_text())["boot"]
    assert (facts["failed"], facts["stale_initramfs"]) == (None, ["/boot/initramfs-6.1kdump.img"])
    # It alone makes nobody make the others anew.
    assert "update-initramfs" not in ok("rebuild", site.disk, *site.rebuilding)


def test_what_is_wrong_is_told_at_the_end_though_nothing_failed(site: Site) -> None:
    with site.mounted() as root:
        (root / "usr/sbin/update-initramfs").unlink()
    words = [word for word in site.rebuilding if word != "--bootloader"]
    done = etsclone("rebuild", site.disk, *words, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])["boot"]
    assert (facts["failed"], facts["stale_initramfs"]) == (None, [IMAGE])
    done = etsclone("rebuild", site.disk, *words)
    end = done.stdout[done.stdout.index("disk.raw is primary") :]
    assert told_of_initramfs(end)
