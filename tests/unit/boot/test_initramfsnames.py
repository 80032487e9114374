"""Which files of an initramfs are looked at."""

import gzip
import os
from pathlib import Path

import pytest
from cpio import archive

from etsclone.boot.initramfs import Budget
from etsclone.boot.initramfsnames import (
    OF_DISKS,
    OF_NETWORKS,
    initramfs_images,
    is_made_apart,
    matching,
    telling_files,
)
from etsclone.errors import FormatError
from etsclone.units import KIB

RESUME = b"RESUME=UUID=11111111-2222-4333-8444-555555555555\n"


def test_the_files_that_name_disks_are_read(tmp_path: Path) -> None:
    image = tmp_path / "initrd.img-6.1"
    early = archive(("kernel/x86/microcode/GenuineIntel.bin", bytes(1000)))
    main = archive(
        ("conf/conf.d/resume", RESUME), ("etc/fstab", b"x"), ("etc/cmdline.d/10.conf", b"root=x")
    )
    image.write_bytes(early + bytes(512) + gzip.compress(main))
    assert telling_files(os.fsencode(image)) == {
        b"conf/conf.d/resume": RESUME,
        b"etc/cmdline.d/10.conf": b"root=x",
    }


def test_files_that_bind_interfaces_are_read_when_asked_for(tmp_path: Path) -> None:
    image = tmp_path / "initrd.img-6.1"
    networks = {
        b"etc/systemd/network/10-lan.link": b"[Match]\n",
        b"usr/lib/udev/rules.d/70-persistent-net.rules": b"x",
    }
    members = [(name.decode(), text) for name, text in networks.items()]
    image.write_bytes(archive(("conf/conf.d/resume", RESUME), ("etc/fstab", b"x"), *members))
    found = telling_files(os.fsencode(image), patterns=(*OF_DISKS, *OF_NETWORKS))
    assert found == networks | {b"conf/conf.d/resume": RESUME}
    assert matching(found, OF_DISKS) == telling_files(os.fsencode(image))


@pytest.mark.parametrize(
    "rules",
    [
        [("lib/udev/rules.d/51-android.rules", bytes(78 * KIB))],
        [(f"lib/udev/rules.d/{number}.rules", bytes(60 * KIB)) for number in range(18)],
        [(f"lib/udev/rules.d/{number}.rules", b"x") for number in range(1001)],
    ],
    ids=["one", "together", "many"],
)
def test_rules_of_any_size_do_not_hide_what_names_disks(
    tmp_path: Path, rules: list[tuple[str, bytes]]
) -> None:
    image = tmp_path / "initrd.img-6.1"
    image.write_bytes(archive(*rules, ("conf/conf.d/resume", RESUME)))
    found = telling_files(os.fsencode(image), patterns=(*OF_DISKS, *OF_NETWORKS))
    assert matching(found, OF_DISKS) == {b"conf/conf.d/resume": RESUME}


def test_what_is_no_initramfs_is_said(tmp_path: Path) -> None:
    image = tmp_path / "initrd.img-6.1"
    with pytest.raises(FormatError, match="cannot be read"):
        telling_files(os.fsencode(image))
    image.write_bytes(b"nonsense")
    with pytest.raises(FormatError):
        telling_files(os.fsencode(image))


def test_images_are_told_by_their_names() -> None:
    names = (
        b"grub",
        b"initramfs-5.14.img",
        b"initrd.img-6.1",
        b"initrd.img-6.1.bak",
        b"initrd.img-6.1.old-dkms",
        b"vmlinuz-6.1",
    )
    assert tuple(initramfs_images(names)) == (
        b"/boot/initramfs-5.14.img",
        b"/boot/initrd.img-6.1",
    )


def test_images_of_other_services_are_told_by_their_names() -> None:
    names = (
        b"initramfs-5.14.0-427.el9.x86_64kdump.img",
        b"initrd-6.4.0-150600-default-kdump",
        b"initramfs-0-rescue-0123456789abcdef.img",
        b"initramfs-5.14.0-427.el9.x86_64.img",
        b"initrd.img-6.1",
    )
    assert tuple(filter(is_made_apart, names)) == names[:3]


@pytest.mark.parametrize(
    "files",
    [
        [(f"conf/conf.d/{number}", b"x") for number in range(1001)],
        [(f"conf/conf.d/{number}", bytes(60 * KIB)) for number in range(18)],
    ],
    ids=["many", "large"],
)
def test_more_than_any_initramfs_tells_is_refused(
    tmp_path: Path, files: list[tuple[str, bytes]]
) -> None:
    image = tmp_path / "initrd.img-6.1"
    image.write_bytes(archive(*files))
    with pytest.raises(FormatError, match="more files that name disks"):
        telling_files(os.fsencode(image))


def test_initramfs_share_what_may_be_read_of_them(tmp_path: Path) -> None:
    image = tmp_path / "initrd.img-6.1"
    image.write_bytes(archive(("conf/conf.d/resume", RESUME), ("a", bytes(100 * KIB))))
    budget = Budget(300 * KIB)
    for _ in range(2):
        assert telling_files(os.fsencode(image), budget)
    with pytest.raises(FormatError, match="those before it"):
        telling_files(os.fsencode(image), budget)


def test_not_more_images_than_a_machine_has_are_looked_into() -> None:
    names = [b"initrd.img-6.%02d" % number for number in range(20)]
    assert initramfs_images(names) == tuple(b"/boot/" + name for name in names[4:])
