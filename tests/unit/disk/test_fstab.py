"""Reading fstab and crypttab."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.disk.fstab import CryptEntry, FstabEntry, parse_crypttab, parse_fstab


def entry(line: str) -> FstabEntry:
    (found,) = parse_fstab(line)
    return found


def test_parents_come_before_what_is_beneath_them() -> None:
    text = "UUID=3 /var/log ext4\nUUID=2 /var ext4\nUUID=1 / ext4 defaults 0 1\n"
    assert [each.where for each in parse_fstab(text)] == ["/", "/var", "/var/log"]


def test_what_is_not_on_the_disk_or_not_mounted_at_boot() -> None:
    lines = (
        "# UUID=1 / ext4",
        "UUID=2 none swap sw 0 0",
        "tmpfs /tmp tmpfs",
        "server:/export /srv nfs",
        "//server/share /srv cifs",
        "server:/export /srv nfs4 _netdev",
        "/srv/a /srv/b none bind",
        "/dev/sda1 /mnt ext4 noauto",
        "/srv/image.iso /srv/image iso9660 loop,ro",
        "overlay /srv overlay lowerdir=/a",
        "garbage",
        "",
    )
    assert parse_fstab("\n".join(lines)) == ()


def test_what_systemd_mounts_at_the_first_access() -> None:
    assert entry("UUID=1 /boot/efi vfat noauto,x-systemd.automount").where == "/boot/efi"


def test_names_with_spaces() -> None:
    found = entry("LABEL=My\\040disk /srv/my\\040files ext4")
    assert (found.spec, found.where) == ("LABEL=My disk", "/srv/my files")


def test_subvolumes() -> None:
    assert entry("UUID=1 / btrfs subvol=@,compress=zstd").subvolume == ("subvol=@",)
    assert entry("UUID=1 / btrfs subvolid=256,subvol=/@").subvolume == ("subvol=/@",)
    assert entry("UUID=1 / btrfs subvolid=256").subvolume == ("subvolid=256",)
    assert entry("UUID=1 / btrfs").subvolume == ()


def test_crypttab() -> None:
    text = """
# comment
root_crypt  UUID="AB"  none  luks,discard
home  /dev/sda2  /etc/keys/home  luks
swap  /dev/sda3  /dev/urandom  swap,cipher=aes
tmp  /dev/sda4  none  tmp
old  /dev/sda5  none  luks,noauto
card  UUID=CD  /etc/keys/card.gpg  luks,keyscript=/lib/cryptsetup/scripts/decrypt_gnupg
bare  UUID=EF
"""
    assert parse_crypttab(text) == (
        CryptEntry("root_crypt", "UUID=AB", ""),
        CryptEntry("home", "/dev/sda2", "/etc/keys/home"),
        CryptEntry("card", "UUID=CD", ""),
        CryptEntry("bare", "UUID=EF", ""),
    )


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for each in parse_fstab(text):
        assert each.where.startswith("/")
    parse_crypttab(text)


@pytest.mark.parametrize("bad", ["\\000", "\\011", "\0", "\x1b]0;a\x07", "\\033[2J", "\x7f"])
def test_lines_with_control_characters_are_none(bad: str) -> None:
    good = "UUID=1 / ext4\n"
    for line in (f"UUID=2{bad} /a ext4", f"UUID=2 /a{bad} ext4", f"UUID=2 /a ext4 subvol={bad}"):
        assert parse_fstab(good + line) == parse_fstab(good)
    good = "home UUID=1 /etc/key\n"
    for line in (f"a{bad} UUID=2", f"a UUID=2{bad}", f"a UUID=2 /etc/{bad}key"):
        assert parse_crypttab(good + line) == parse_crypttab(good)


@given(st.text())
def test_a_subvolume_is_one_mount_option(text: str) -> None:
    for each in parse_fstab(f"UUID=1 / btrfs subvol={text}"):
        assert len(each.subvolume) == 1
        assert "," not in each.subvolume[0]
