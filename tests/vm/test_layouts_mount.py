"""Systems on LVM, LUKS and md: mounted, captured and rebuilt from one disk while its twin is attached, and in use."""

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from etsclone.model.journal import Journal, begun_line, head_line
from etsclone.units import MIB

from .helper import Helper, helper

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SETUP = """
mkdir -p /srv/disk /srv/twin
echo -n 'correct horse' > /run/key
echo -n 'wrong' > /run/wrong
cat > /run/files <<'FILES'
# install ROOT: what both servers of the pair have, as the primary
install() {
    mkdir -p $1/etc/dhcp $1/etc/ssh $1/usr/bin $1/var/log $1/home/anna $1/boot/efi
    echo primary > $1/etc/hostname
    echo 127.0.0.1 primary > $1/etc/hosts
    echo failover peer is primary > $1/etc/dhcp/dhcpd.conf
    echo root:x:0:0:root:/root:/bin/bash > $1/etc/passwd
    echo root:x:0: > $1/etc/group
    echo the same everywhere > $1/usr/bin/tool
    echo kernel > $1/boot/vmlinuz
    echo mail > $1/home/anna/mail
    echo log > $1/var/log/syslog
    cat > $1/etc/fstab
}
uuid() { blkid -p -s UUID -o value $1; }
luks() { cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$@"; }
lvms() { local command=$1; shift; lvm $command -qq "$@"; }
FILES
cd /run
etsclone brd init store --pair school --profile ltsp-isc-dhcp
for role in primary secondary; do
    etsclone brd keygen $role.key --no-passphrase
    etsclone brd trust store --role $role $role.key.pub
done
"""

CLEAN = """
if ls /run/etsclone/mounted/* 2> /dev/null; then etsclone umount {disk} || true; fi
for each in /srv/disk /srv/twin; do umount -R $each 2> /dev/null || true; done
vgchange -qq -an pair-vg 2> /dev/null || true
cryptsetup close plain 2> /dev/null || true
cryptsetup close twin 2> /dev/null || true
for array in /dev/md0 /dev/md1; do mdadm --stop $array 2> /dev/null || true; done
rm -rf /run/store/primary/* /run/store/secondary/* /run/etsclone/*
for each in {disk} {twin} {other}; do
    wipefs -qa $each? $each 2> /dev/null || true
    blkdiscard --force $each
    partx -d $each 2> /dev/null || true
done
udevadm settle
"""


@dataclass(frozen=True)
class Layout:
    """How a disk is laid out: its partition table, what makes the system on it mounted at /srv/disk, what closes that,
    what uses the twin meanwhile, and what shows the disk's root at /srv/twin with the tools of others afterwards."""

    table: str
    make: str
    close: str
    use_twin: str = "mount -o ro {twin}1 /srv/twin"
    key: str = ""
    after: str = ""


GPT = "label: gpt\n"
LVM = Layout(
    GPT + "size=32MiB\nsize=200MiB, type=lvm\nsize=200MiB, type=lvm\n",
    """
mkfs.ext4 -q {disk}1
lvms pvcreate {disk}2 {disk}3
lvms vgcreate pair-vg {disk}2 {disk}3
lvms lvcreate -y -L 240M -n root pair-vg
lvms lvcreate -y -L 48M -n var_log pair-vg {disk}3
lvms lvcreate -y -L 24M -n home pair-vg
lvms lvcreate -y -L 8M -n swap pair-vg
for each in root var_log home; do mkfs.ext4 -q /dev/pair-vg/$each; done
mkswap -q /dev/pair-vg/swap
mount /dev/pair-vg/root /srv/disk
mkdir -p /srv/disk/{{boot,var/log,home}}
mount {disk}1 /srv/disk/boot; mount /dev/pair-vg/var_log /srv/disk/var/log; mount /dev/pair-vg/home /srv/disk/home
install /srv/disk <<FSTAB
/dev/mapper/pair--vg-root / ext4 defaults 0 1
UUID=$(uuid {disk}1) /boot ext4 defaults 0 2
/dev/pair-vg/var_log /var/log ext4 defaults 0 2
UUID=$(uuid /dev/pair-vg/home) /home ext4 defaults 0 2
/dev/mapper/pair--vg-swap none swap sw 0 0
FSTAB
""",
    "vgchange -qq -an pair-vg",
    """
vgchange -qq -ay pair-vg --config 'devices {{ filter = [ "a|^{twin}[0-9]|", "r|.*|" ] }}'
mount -o ro /dev/pair-vg/root /srv/twin
""",
)
LUKS_LVM = Layout(
    GPT + "size=64MiB, type=uefi\nsize=32MiB\nsize=320MiB\n",
    """
mkfs.vfat {disk}1 > /dev/null
mkfs.ext4 -q {disk}2
luks {disk}3 /run/key
cryptsetup open {disk}3 plain --key-file /run/key
lvms pvcreate /dev/mapper/plain
lvms vgcreate pair-vg /dev/mapper/plain
lvms lvcreate -y -l 100%FREE -n root pair-vg
mkfs.ext4 -q /dev/pair-vg/root
mount /dev/pair-vg/root /srv/disk
mkdir -p /srv/disk/boot
mount {disk}2 /srv/disk/boot
mkdir -p /srv/disk/boot/efi
mount {disk}1 /srv/disk/boot/efi
install /srv/disk <<FSTAB
/dev/mapper/pair--vg-root / ext4 defaults 0 1
PARTUUID=$(blkid -p -s PART_ENTRY_UUID -o value {disk}2) /boot ext4 defaults 0 2
UUID=$(uuid {disk}1) /boot/efi vfat umask=0077 0 1
FSTAB
echo vda3_crypt UUID=$(uuid {disk}3) none luks,discard > /srv/disk/etc/crypttab
mkdir -p /srv/disk/boot/efi/EFI/BOOT
echo loader > /srv/disk/boot/efi/EFI/BOOT/BOOTX64.EFI
""",
    "vgchange -qq -an pair-vg; cryptsetup close plain",
    """
cryptsetup open {twin}3 twin --key-file /run/key
vgchange -qq -ay pair-vg
mount -o ro /dev/pair-vg/root /srv/twin
""",
    key="--key-file /run/key",
)
LUKS_KEY = Layout(
    "label: dos\nsize=330MiB, type=83\nsize=40MiB, type=83\n",
    """
luks {disk}1 /run/key
cryptsetup open {disk}1 plain --key-file /run/key
mkfs.xfs -q /dev/mapper/plain
mount /dev/mapper/plain /srv/disk
mkdir -p /srv/disk/{{home,etc/keys}}
head -c 64 /dev/urandom > /srv/disk/etc/keys/home.key
luks {disk}2 /srv/disk/etc/keys/home.key
cryptsetup open {disk}2 twin --key-file /srv/disk/etc/keys/home.key
mkfs.ext4 -q /dev/mapper/twin
mount /dev/mapper/twin /srv/disk/home
install /srv/disk <<FSTAB
/dev/mapper/root_crypt / xfs defaults 0 1
/dev/mapper/home_crypt /home ext4 defaults 0 2
FSTAB
cat > /srv/disk/etc/crypttab <<CRYPTTAB
root_crypt /dev/sda1 none luks
home_crypt /dev/sda2 /etc/keys/home.key luks
paging /dev/sda9 /dev/urandom swap
CRYPTTAB
""",
    "cryptsetup close plain; cryptsetup close twin",
    "cryptsetup open {twin}1 twin --key-file /run/key; mount -o ro /dev/mapper/twin /srv/twin",
    key="--key-file /run/key",
)
THIN = Layout(
    GPT + "size=440MiB, type=lvm\n",
    """
lvms pvcreate {disk}1
lvms vgcreate pair-vg {disk}1
lvms lvcreate --type thin-pool -n pool -L 300M pair-vg
lvms lvcreate --thin -n root -V 600M pair-vg/pool
lvms lvcreate --thin -n home -V 100M pair-vg/pool
mkfs.ext4 -q /dev/pair-vg/root; mkfs.ext4 -q /dev/pair-vg/home
mount /dev/pair-vg/root /srv/disk
mkdir -p /srv/disk/home
mount /dev/pair-vg/home /srv/disk/home
install /srv/disk <<FSTAB
/dev/disk/by-id/dm-name-pair--vg-root / ext4 defaults 0 1
/dev/pair-vg/home /home ext4 defaults 0 2
FSTAB
""",
    "vgchange -qq -an pair-vg",
    """
vgchange -qq -ay pair-vg --config 'devices {{ filter = [ "a|^{twin}[0-9]|", "r|.*|" ] }}'
mount -o ro /dev/pair-vg/root /srv/twin
""",
    after="""
vgchange -qq -an pair-vg --config 'devices {{ filter = [ "a|^{twin}[0-9]|", "r|.*|" ] }}'
wipefs -qa {twin}1
vgchange -qq -ay pair-vg
mount -o ro /dev/pair-vg/root /srv/twin
""",
)
MIRROR = Layout(
    GPT + "size=40MiB, type=raid\nsize=200MiB, type=raid\n",
    """
printf 'label: gpt\\nsize=40MiB, type=raid\\nsize=200MiB, type=raid\\n' | sfdisk --quiet {other}
udevadm settle
mdadm --create /dev/md0 --quiet --run --level=1 --metadata=1.0 --raid-devices=2 {disk}1 {other}1
mdadm --create /dev/md1 --quiet --run --level=1 --metadata=1.2 --raid-devices=2 {disk}2 {other}2
mdadm --wait /dev/md0 /dev/md1 || true
mkfs.ext4 -q /dev/md0; mkfs.ext4 -q /dev/md1
mount /dev/md1 /srv/disk
mkdir -p /srv/disk/{{boot,etc/mdadm}}
mount /dev/md0 /srv/disk/boot
mdadm --detail --brief /dev/md0 | sed 's/ name=[^ ]*//' > /srv/disk/etc/mdadm/mdadm.conf
install /srv/disk <<FSTAB
UUID=$(uuid /dev/md1) / ext4 defaults 0 1
/dev/md0 /boot ext4 defaults 0 2
FSTAB
""",
    "mdadm --quiet --stop /dev/md0; mdadm --quiet --stop /dev/md1",
    "mdadm --quiet --assemble --run /dev/md1 {twin}2; mount -o ro /dev/md1 /srv/twin",
    # The member on the other disk has not seen what was written: md must take this disk's.
    after="""
mdadm --quiet --stop /dev/md1
mdadm --quiet --assemble --run /dev/md1 {other}2 {disk}2 || true
mdadm --detail /dev/md1 | grep '{disk}2' > /dev/null
mount -o ro /dev/md1 /srv/twin
""",
)
SUBVOLUMES = Layout(
    GPT + "size=64MiB, type=uefi\nsize=380MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n",
    """
mkfs.vfat {disk}1 > /dev/null
mkfs.btrfs -q {disk}2
mount {disk}2 /srv/twin
for each in @ @home; do btrfs -q subvolume create /srv/twin/$each; done
umount /srv/twin
mount -o subvol=@ {disk}2 /srv/disk
mkdir -p /srv/disk/{{home,boot/efi}}
mount -o subvol=@home {disk}2 /srv/disk/home
install /srv/disk <<FSTAB
UUID=$(uuid {disk}2) / btrfs subvol=/@,compress=zstd 0 0
UUID=$(uuid {disk}2) /home btrfs subvol=/@home 0 0
PARTLABEL=none /srv ext4 nofail 0 0
/dev/vda1 /boot/efi vfat umask=0077 0 1
FSTAB
mount {disk}1 /srv/disk/boot/efi
echo loader > /srv/disk/boot/efi/loader
""",
    "true",
)
FURTHER = ("luks-key-mbr", "thin")
"""Those of the layouts that are only tried with --full."""

LAYOUTS = {
    "lvm": LVM,
    "luks-lvm": LUKS_LVM,
    "luks-key-mbr": LUKS_KEY,
    "thin": THIN,
    "mirror": MIRROR,
}


@pytest.fixture(scope="module")
def machine(helper_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    disks = dict.fromkeys(("disk", "twin", "other"), 460 * MIB)
    with helper(helper_image, tmp_path_factory.mktemp("layouts"), disks) as vm:
        vm.check(SETUP)
        yield vm


@pytest.fixture
def vm(machine: Helper) -> Iterator[Helper]:
    """The VM with empty disks."""
    machine.check(on(machine, CLEAN))
    yield machine
    machine.check(on(machine, CLEAN))


def on(vm: Helper, script: str) -> str:
    """A script with the names of the disks in it."""
    return script.format(**{name: vm.disk(name) for name in vm.names})


def check(vm: Helper, script: str) -> str:
    return vm.check(on(vm, script))


def make(vm: Helper, layout: Layout) -> None:
    """Lay the disk out, with a primary on it."""
    table = layout.table.replace("\n", "\\n")
    check(
        vm,
        f"printf '{table}' | sfdisk --quiet --wipe always --wipe-partitions always {{disk}}\n"
        f"udevadm settle\n. /run/files\n{layout.make}\n"
        f"umount -R /srv/disk\n{layout.close}\nblockdev --flushbufs {{disk}}\n",
    )


def state(vm: Helper) -> str:
    """What is open in the VM: mounts, devices of device-mapper and md, loop devices."""
    listed = (
        "findmnt -rno TARGET,SOURCE | sort",
        "dmsetup ls | sort",
        "cat /proc/mdstat",
        "losetup -a",
        "ls -A /run/etsclone/mounted 2> /dev/null || true",
        "ls -A /run/etsclone/folders 2> /dev/null || true",
    )
    return vm.check("; ".join(listed))


def digest(vm: Helper, name: str) -> str:
    """Of all bytes of a disk; read on this side, which is far quicker."""
    check(vm, f"sync; blockdev --flushbufs {{{name}}}")
    with vm.file(name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def twin_of_disk(vm: Helper) -> None:
    """Make the twin equal to the disk."""
    check(vm, "sync; blockdev --flushbufs {disk}")
    copy = [f"if={vm.file('disk')}", f"of={vm.file('twin')}", "bs=4M", "conv=notrunc,sparse"]
    subprocess.run(["dd", "status=none", *copy], check=True)
    check(vm, "blockdev --flushbufs {twin}; partx -a {twin}; udevadm settle")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] if name in FURTHER else [])
        for name in LAYOUTS
    ],
)
def test_capture_and_rebuild_beside_a_twin_in_use(vm: Helper, name: str) -> None:
    layout = LAYOUTS[name]
    make(vm, layout)
    twin_of_disk(vm)
    check(vm, layout.use_twin)
    before, twin = state(vm), digest(vm, "twin")

    # Looking changes nothing, not a byte; what is seen is the disk's own.
    untouched = digest(vm, "disk")
    look = f"""
etsclone mount {{disk}} /srv/disk {layout.key}
cat /srv/disk/etc/hostname /srv/disk/boot/vmlinuz /srv/disk/home/anna/mail /srv/disk/var/log/syslog
if touch /srv/disk/etc/new 2> /dev/null; then echo writable; fi
"""
    assert check(vm, look).splitlines()[2:] == ["primary", "kernel", "mail", "log"]
    check(vm, "etsclone umount /srv/disk")
    assert state(vm) == before
    assert digest(vm, "disk") == untouched

    capture = "etsclone brd capture /run/store --role primary --key /run/primary.key"
    check(vm, f"{capture} --disk {{disk}} {layout.key}")
    assert state(vm) == before

    # The disk becomes a secondary by hand, and a primary again by the overlay.
    change = f"""
etsclone mount --rw {{disk}} /srv/disk {layout.key}
echo secondary > /srv/disk/etc/hostname
echo failover peer is secondary > /srv/disk/etc/dhcp/dhcpd.conf
etsclone umount {{disk}}
"""
    check(vm, change)
    assert state(vm) == before
    rebuild = (
        "etsclone rebuild --store /run/store --role primary --trust /run/store/allowed_signers"
    )
    rebuild += f" {{disk}} {layout.key}"
    changed = digest(vm, "disk")
    check(vm, f"{rebuild} --dry-run")
    assert digest(vm, "disk") == changed
    check(vm, f"{rebuild} --yes")
    assert state(vm) == before
    look = f"""
etsclone mount {{disk}} /srv/disk {layout.key} > /dev/null
cat /srv/disk/etc/hostname /srv/disk/etc/dhcp/dhcpd.conf
etsclone umount /srv/disk > /dev/null
"""
    assert check(vm, look).splitlines() == ["primary", "failover peer is primary"]
    assert state(vm) == before
    assert digest(vm, "twin") == twin
    if layout.after:
        show = f"umount /srv/twin\n{layout.after}\ncat /srv/twin/etc/hostname"
        assert check(vm, show).splitlines()[-1] == "primary"


def test_a_wrong_key_opens_nothing_and_a_passphrase_is_asked_for(vm: Helper) -> None:
    make(vm, LUKS_LVM)
    before = state(vm)
    for how in ("--key-file /run/wrong", "< /dev/null", "<<< $'no\\nno\\nno'"):
        done = vm.run(on(vm, f"etsclone mount {{disk}} /srv/disk {how}"))
        assert done.code == 3, done.output
        assert "encrypted" in done.output
        assert state(vm) == before
    clone = "etsclone clone {other} {disk} --yes"
    mistyped = "etsclone mount {disk} /srv/disk <<< $'wrong\\ncorrect horse'"
    check(vm, mistyped)
    assert vm.run(on(vm, clone)).code == 3
    # Nothing else may take what is open for its own: neither links by UUID, nor LVM's activation by udev.
    look = """
for each in /dev/mapper/etsclone-*; do
    udevadm info --query=property $each | grep DM_UDEV_DISABLE_OTHER_RULES_FLAG=1
    if find /dev/disk -lname "*/$(basename $(realpath $each))" | grep .; then exit 1; fi
done
etsclone umount /srv/disk
"""
    check(vm, look)
    assert state(vm) == before


def test_what_is_in_use_by_its_own_names_is_not_opened_a_second_time(vm: Helper) -> None:
    make(vm, LVM)
    check(vm, "vgchange -qq -ay pair-vg; mount /dev/pair-vg/root /srv/twin")
    before = state(vm)
    capture = "etsclone brd capture /run/store --role primary --key /run/primary.key --disk {disk}"
    done = vm.run(on(vm, capture))
    assert done.code == 3, done.output
    assert "partition 2 is in use" in done.output
    assert vm.run(on(vm, "etsclone mount --rw {disk} /srv/disk")).code == 3
    assert state(vm) == before
    check(vm, "umount /srv/twin; vgchange -qq -an pair-vg")
    check(vm, capture)


def test_all_is_closed_when_it_is_interrupted_while_it_asks(vm: Helper) -> None:
    make(vm, LUKS_KEY)
    lose_the_key = """
etsclone mount --rw {disk} /srv/disk --key-file /run/key
rm /srv/disk/etc/keys/home.key
etsclone umount /srv/disk
"""
    check(vm, lose_the_key)
    before = state(vm)
    interrupt = """
mkfifo /run/typed 2> /dev/null || true
etsclone mount {disk} /srv/disk < /run/typed > /run/said 2>&1 &
exec 3> /run/typed
printf 'correct horse\\n' >&3
for try in $(seq 300); do
    if [ $(grep -o 'passphrase of' /run/said | wc -l) -ge 2 ]; then break; fi
    sleep 0.2
done
findmnt -rno TARGET | grep /srv/disk
kill -TERM $!
wait $! || echo ended with $?
"""
    out = check(vm, interrupt)
    assert "ended with 130" in out
    assert state(vm) == before


def test_an_encrypted_volume_inside_of_another_is_checked_too(vm: Helper) -> None:
    make(vm, LUKS_LVM)
    before = state(vm)
    vault = """
. /run/files
cryptsetup open {disk}3 plain --key-file /run/key
lvms vgchange -ay pair-vg
lvms lvresize --force -y --resizefs -L -48M pair-vg/root
lvms lvcreate -y -l 100%FREE -n vault pair-vg
luks /dev/pair-vg/vault /run/key
cryptsetup open /dev/pair-vg/vault twin --key-file /run/key
mkfs.ext4 -q /dev/mapper/twin
cryptsetup close twin
vgchange -qq -an pair-vg; cryptsetup close plain
etsclone brd capture /run/store --role primary --key /run/primary.key --disk {disk} --key-file /run/key
"""
    check(vm, vault)
    look = (
        "etsclone check {disk} --store /run/store --role primary --trust /run/store/allowed_signers"
    )
    assert "filesystem ext4 on pair-vg/vault, decrypted: ok\n" in check(
        vm, f"{look} --key-file /run/key"
    )
    locked = vm.run(on(vm, f"{look} --key-file /run/wrong < /dev/null"))
    assert locked.code != 0
    assert state(vm) == before


def test_what_a_killed_command_left_open_is_closed(vm: Helper) -> None:
    make(vm, LUKS_LVM)
    before = state(vm)
    nothing = vm.run(on(vm, "etsclone umount {disk}"))
    assert nothing.code == 2, nothing.output
    kill = """
etsclone mount {disk} /srv/disk --key-file /run/key > /dev/null
umount -R /srv/disk
rm /run/etsclone/mounted/*
"""
    check(vm, kill)
    assert "etsclone-" in state(vm)
    refused = vm.run(on(vm, "etsclone clone {other} {disk} --yes"))
    assert f"`etsclone umount {vm.disk('disk')}`" in refused.output
    check(vm, "mount -o ro /dev/mapper/etsclone-*-root /srv/twin")
    assert vm.run(on(vm, "etsclone umount {disk}")).code != 0
    check(vm, "umount /srv/twin")
    assert "closed what was left open on" in check(vm, "etsclone umount {disk}")
    assert state(vm) == before


def test_a_system_is_not_forgotten_while_its_disk_is_away(vm: Helper) -> None:
    make(vm, LUKS_LVM)
    before = state(vm)
    check(vm, "etsclone mount {disk} /srv/disk --key-file /run/key; mv {disk} {disk}-away")
    gone = vm.run("etsclone umount /srv/disk")
    check(vm, "mv {disk}-away {disk}")
    assert gone.code != 0
    assert "is not there any more" in gone.output
    assert check(vm, "ls /run/etsclone/mounted")
    check(vm, "etsclone umount /srv/disk")
    assert state(vm) == before


def test_subvolumes_with_debians_own_kernel_while_the_twin_is_attached(vm: Helper) -> None:
    make(vm, SUBVOLUMES)
    twin_of_disk(vm)
    change = """
mount -o subvol=@ {twin}2 /srv/twin
echo twin > /srv/twin/etc/hostname
umount /srv/twin
btrfs device scan {twin}2 > /dev/null
"""
    check(vm, change)
    before, untouched = state(vm), digest(vm, "disk")
    look = """
etsclone mount {disk} /srv/disk > /dev/null
cat /srv/disk/etc/hostname /srv/disk/home/anna/mail /srv/disk/boot/efi/loader
etsclone umount {disk} > /dev/null
mount -o ro,subvol=@ {twin}2 /srv/twin
cat /srv/twin/etc/hostname
"""
    told, *seen = check(vm, look).splitlines()
    assert "PARTLABEL=none is not mounted at /srv: " in told
    assert seen == ["primary", "mail", "loader", "twin"]
    refused = vm.run(on(vm, "etsclone mount {disk} /srv/disk"))
    assert refused.code == 3
    assert "same UUID" in refused.output
    check(vm, "umount /srv/twin")
    assert state(vm) == before
    assert digest(vm, "disk") == untouched


def test_another_disks_array_is_not_taken_for_the_only_one(vm: Helper) -> None:
    layout = replace(
        MIRROR,
        table=GPT + "size=300MiB, type=raid\n",
        make="""
mdadm --create /dev/md0 --quiet --run --level=1 --metadata=1.2 --raid-devices=2 {disk}1 missing
mkfs.ext4 -q /dev/md0
mount /dev/md0 /srv/disk
install /srv/disk <<FSTAB
/dev/md0 / ext4 defaults 0 1
/dev/md1 /home ext4 defaults 0 2
FSTAB
""",
        close="mdadm --quiet --stop /dev/md0",
    )
    make(vm, layout)
    before, untouched = state(vm), digest(vm, "disk")
    refused = vm.run(on(vm, "etsclone mount {disk} /srv/disk"))
    assert refused.code == 3
    assert "fstab mounts /dev/md1 at /home, and " in refused.output
    assert state(vm) == before
    assert digest(vm, "disk") == untouched


def begun() -> str:
    """What leaves a rebuild that was interrupted when all was prepared, in the system at /srv/disk."""
    head = head_line(Journal("2026-11-28T12:00:00Z", "primary, generation 1", (b"/",)))
    journal = base64.b64encode(head + begun_line(head)).decode()
    return f"""
umask 077
mkdir -p /srv/disk/.etsclone-staging/000001/{{{{new,old,met}}}}
echo {journal} | base64 -d > /srv/disk/.etsclone-staging/000001/journal
umask 022
"""


@pytest.mark.parametrize("name", ["lvm", "mirror"])
def test_a_rebuild_that_was_interrupted_is_seen_beneath_other_layers(vm: Helper, name: str) -> None:
    layout = LAYOUTS[name]
    make(vm, replace(layout, make=layout.make + begun()))
    before, untouched = state(vm), digest(vm, "disk")
    refused = vm.run(on(vm, "etsclone clone {disk} {twin} --yes"))
    assert refused.code == 3, refused.output
    assert "half way to primary, generation 1" in refused.output
    assert state(vm) == before
    assert digest(vm, "disk") == untouched


def test_what_needs_a_passphrase_is_not_looked_at_and_told(vm: Helper) -> None:
    make(vm, replace(LUKS_LVM, make=LUKS_LVM.make + begun()))
    before = state(vm)
    shown = check(vm, "etsclone clone {disk} {twin} --dry-run")
    assert "not looked at, for a rebuild that was interrupted: partition 3: encrypted\n" in shown
    assert state(vm) == before
