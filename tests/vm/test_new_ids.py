"""`clone --new-ids` of LVM, LUKS, md and FAT: source and clone attached to one machine, and both in use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from etsclone.units import MIB

from .helper import Helper, helper

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SETUP = """
mkdir -p /srv/disk /srv/clone
echo -n 'correct horse' > /run/key
cat > /run/files <<'FILES'
install() {
    mkdir -p $1/etc $1/boot/efi/EFI/debian
    echo root:x:0:0:root:/root:/bin/bash > $1/etc/passwd
    echo the same everywhere > $1/etc/motd
    cat > $1/etc/fstab
    cp $1/etc/fstab $1/boot/efi/EFI/debian/grub.cfg
}
uuid() { blkid -p -s UUID -o value $1; }
ids() { blkid -p -s UUID -o value $1?; blkid -p -s PART_ENTRY_UUID -o value $1?; sfdisk --disk-id $1; }
FILES
"""

TABLE = "label: gpt\nsize=40MiB, type=uefi\nsize=200MiB\nsize=32MiB\n"

LVM = """
mkfs.vfat -F 32 {disk}1 > /dev/null
lvm pvcreate -qq {disk}2
lvm vgcreate -qq pair-vg {disk}2
lvm lvcreate -qq -y -L 100M -n root pair-vg
lvm lvcreate -qq -y -L 40M -n home pair-vg
lvm lvcreate -qq -y -L 8M -n swap pair-vg
mkfs.ext4 -q /dev/pair-vg/root
mkfs.ext4 -q /dev/pair-vg/home
mkswap -q /dev/pair-vg/swap
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {disk}3 /run/key
mount /dev/pair-vg/root /srv/disk
mkdir -p /srv/disk/boot/efi /srv/disk/home
mount {disk}1 /srv/disk/boot/efi
install /srv/disk <<FSTAB
/dev/mapper/pair--vg-root / ext4 defaults 0 1
UUID=$(uuid /dev/pair-vg/home) /home ext4 defaults 0 2
UUID=$(uuid {disk}1) /boot/efi vfat umask=0077 0 1
UUID=$(uuid /dev/pair-vg/swap) none swap sw 0 0
FSTAB
echo data UUID=$(uuid {disk}3) /etc/key luks,noauto > /srv/disk/etc/crypttab
umount -R /srv/disk
"""

MD = """
mkfs.vfat -F 16 {disk}1 > /dev/null
mdadm --create /dev/md0 --quiet --run --level=1 --raid-devices=2 --bitmap=internal --metadata=1.2 {disk}2 missing
mkfs.ext4 -q /dev/md0
mkswap -q {disk}3
mount /dev/md0 /srv/disk
mkdir -p /srv/disk/boot/efi /srv/disk/etc/mdadm
mount {disk}1 /srv/disk/boot/efi
install /srv/disk <<FSTAB
UUID=$(uuid /dev/md0) / ext4 defaults 0 1
UUID=$(uuid {disk}1) /boot/efi vfat umask=0077 0 1
UUID=$(uuid {disk}3) none swap sw 0 0
FSTAB
mdadm --detail --brief /dev/md0 > /srv/disk/etc/mdadm/mdadm.conf
umount -R /srv/disk
mdadm --stop --quiet /dev/md0
"""

LUKS = """
mkfs.vfat -F 32 {disk}1 > /dev/null
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {disk}2 /run/key
cryptsetup open {disk}2 plain --key-file /run/key
mkfs.ext4 -q /dev/mapper/plain
mkfs.ext4 -q {disk}3
mount /dev/mapper/plain /srv/disk
mkdir /srv/disk/boot
mount {disk}3 /srv/disk/boot
mkdir /srv/disk/boot/efi
mount {disk}1 /srv/disk/boot/efi
install /srv/disk <<FSTAB
/dev/mapper/root_crypt / ext4 defaults 0 1
UUID=$(uuid {disk}3) /boot ext4 defaults 0 2
UUID=$(uuid {disk}1) /boot/efi vfat umask=0077 0 1
FSTAB
echo root_crypt UUID=$(uuid {disk}2) none luks > /srv/disk/etc/crypttab
umount -R /srv/disk
cryptsetup close plain
"""

CLEAN = """
umount -R /srv/disk /srv/clone 2> /dev/null || true
for each in {disk} {clone}; do
    vgchange -qq -an --devices $each 2> /dev/null || true
done
cryptsetup close plain 2> /dev/null || true
vgchange -qq -an --select 'vg_name=~pair' 2> /dev/null || true
for array in /dev/md?*; do mdadm --stop $array 2> /dev/null || true; done
for each in {disk} {clone}; do
    wipefs -qa $each? $each 2> /dev/null || true
    blkdiscard --force $each
    partx -d $each 2> /dev/null || true
done
udevadm settle
"""


@pytest.fixture(scope="module")
def machine(helper_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    disks = dict.fromkeys(("disk", "clone"), 280 * MIB)
    with helper(helper_image, tmp_path_factory.mktemp("new-ids"), disks) as vm:
        vm.check(SETUP)
        yield vm


@pytest.fixture
def vm(machine: Helper) -> Iterator[Helper]:
    """The VM with empty disks."""
    machine.check(on(machine, CLEAN))
    yield machine
    machine.check(on(machine, CLEAN))


def on(vm: Helper, script: str) -> str:
    return script.replace("{disk}", vm.disk("disk")).replace("{clone}", vm.disk("clone"))


def check(vm: Helper, script: str) -> str:
    return vm.check(on(vm, f". /run/files\n{script}"))


def make(vm: Helper, layout: str) -> None:
    table = TABLE.replace("\n", "\\n")
    check(
        vm,
        f"printf '{table}' | sfdisk --quiet --wipe always --wipe-partitions always {{disk}}\n"
        f"udevadm settle\n{layout}\nblockdev --flushbufs {{disk}}\n",
    )


def clone(vm: Helper, *words: str) -> None:
    """Clone, and see that no identifier is on both."""
    check(vm, f"etsclone clone {{disk}} {{clone}} --yes --new-ids {' '.join(words)}")
    check(vm, "partx -u {clone} || partx -a {clone}; udevadm settle")
    before, after = (check(vm, f"ids {{{name}}}").split() for name in ("disk", "clone"))
    assert len(before) == len(after) == 7
    assert not set(before) & set(after)


def test_volume_group_luks_and_fat(vm: Helper) -> None:
    make(vm, LVM)
    check(vm, "mount /dev/pair-vg/home /srv/disk")  # the source's group is in use
    check(vm, "umount /srv/disk; vgchange -qq -an pair-vg")
    clone(vm)
    shown = check(vm, "vgs --noheadings -o vg_name; pvs --noheadings -o pv_uuid,vg_uuid").split()
    assert len(set(shown)) == len(shown) == 9, shown  # with the VM's own
    name = next(each for each in shown if each.startswith("pair-vg_"))
    check(vm, f"vgchange -qq -ay pair-vg; vgchange -qq -ay {name}")
    check(vm, f"mount /dev/pair-vg/root /srv/disk; mount /dev/{name}/root /srv/clone")
    check(vm, "mount {disk}1 /srv/disk/boot/efi; mount {clone}1 /srv/clone/boot/efi")
    fstab = check(vm, "cat /srv/clone/etc/fstab")
    wanted = check(
        vm,
        f"echo /dev/mapper/{name.replace('-', '--')}-root / ext4 defaults 0 1\n"
        f"echo UUID=$(uuid /dev/{name}/home) /home ext4 defaults 0 2\n"
        "echo UUID=$(uuid {clone}1) /boot/efi vfat umask=0077 0 1\n"
        f"echo UUID=$(uuid /dev/{name}/swap) none swap sw 0 0\n",
    )
    assert fstab == wanted
    assert check(vm, "cat /srv/clone/boot/efi/EFI/debian/grub.cfg") == fstab
    assert check(vm, "cat /srv/clone/etc/crypttab") == check(
        vm, "echo data UUID=$(uuid {clone}3) /etc/key luks,noauto"
    )
    assert check(vm, "cat /srv/clone/etc/motd") == "the same everywhere\n"
    check(vm, "cryptsetup open --test-passphrase {clone}3 --key-file /run/key")
    check(vm, "umount -R /srv/disk /srv/clone; vgchange -qq -an pair-vg; vgchange -qq -an " + name)


def test_mirror(vm: Helper) -> None:
    make(vm, MD)
    clone(vm)
    check(vm, "mdadm --assemble --quiet --run /dev/md0 {disk}2")
    check(vm, "mdadm --assemble --quiet --run /dev/md1 {clone}2")
    assert check(vm, "uuid /dev/md0") != check(vm, "uuid /dev/md1")
    check(vm, "mount /dev/md0 /srv/disk; mount /dev/md1 /srv/clone")
    assert check(vm, "cat /srv/clone/etc/fstab") == check(
        vm,
        "echo UUID=$(uuid /dev/md1) / ext4 defaults 0 1\n"
        "echo UUID=$(uuid {clone}1) /boot/efi vfat umask=0077 0 1\n"
        "echo UUID=$(uuid {clone}3) none swap sw 0 0\n",
    )
    named = check(vm, "grep -o 'UUID=.*' /srv/clone/etc/mdadm/mdadm.conf").split()[0]
    assert named in check(vm, "mdadm --detail --brief /dev/md1")
    assert named not in check(vm, "mdadm --detail --brief /dev/md0")
    check(vm, "umount -R /srv/disk /srv/clone; mdadm --stop /dev/md0; mdadm --stop /dev/md1")


@pytest.mark.thorough
def test_a_root_that_is_encrypted(vm: Helper) -> None:
    make(vm, LUKS)
    refused = vm.run(on(vm, "etsclone clone {disk} {clone} --yes --new-ids"))
    assert refused.code == 4
    assert "is encrypted" in refused.output
    assert "--key-file" in refused.output
    clone(vm, "--resume", "--key-file", "/run/key")
    check(
        vm, "cryptsetup open {clone}2 plain --key-file /run/key; mount /dev/mapper/plain /srv/clone"
    )
    wanted = "echo root_crypt UUID=$(uuid {clone}2) none luks"
    assert check(vm, "cat /srv/clone/etc/crypttab") == check(vm, wanted)
    assert (
        check(vm, "grep -c -e $(uuid {clone}1) -e $(uuid {clone}3) /srv/clone/etc/fstab") == "2\n"
    )
    check(vm, "umount /srv/clone; cryptsetup close plain")
