"""Maps of what lies inside: unlocked LUKS volumes, LVM in them, mirrors of md, thin pools."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etsclone.units import GIB, MIB

from .helper import Helper, helper

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

FORMAT = "cryptsetup luksFormat -q --type {type} --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {more} {disk}1 /run/key"
TABLE = """
echo -n secret > /run/key
printf 'label: gpt\\nsize={size}MiB\\n' | sfdisk --quiet --wipe always --wipe-partitions always {disk}
udevadm settle
"""
CLEAN = """
umount /srv/inside 2> /dev/null || true
vgchange -qq -an hidden lean 2> /dev/null || true
cryptsetup close inside 2> /dev/null || true
mdadm --stop /dev/md0 2> /dev/null || true
mdadm --zero-superblock {disk}1 {other}1 {target}1 2> /dev/null || true
wipefs -qa {disk} {other} {target}
for each in {disk} {other} {target}; do blkdiscard --force $each; partx -d $each 2> /dev/null || true; done
udevadm settle
"""
FILL = """
mkdir -p /srv/inside
mount {device} /srv/inside
cp -r /usr/lib/python3.11/json /srv/inside/json
dd if=/dev/urandom of=/srv/inside/random bs=1M count=8 status=none
sync
"""
SIZE = 160


@pytest.fixture(scope="module")
def machine(helper_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    disks = {"source": GIB, "target": GIB, "other": GIB}
    with helper(helper_image, tmp_path_factory.mktemp("inside"), disks) as vm:
        yield vm


@pytest.fixture
def vm(machine: Helper) -> Iterator[Helper]:
    """The VM with a source disk with one partition, and the key of what will be encrypted in /run/key."""
    machine.check(on(machine, TABLE))
    yield machine
    machine.check(on(machine, CLEAN))


def on(vm: Helper, script: str, **more: str) -> str:
    """A script with the names of the disks in it."""
    names = {name: vm.disk(name) for name in vm.names}
    return script.format(disk=names["source"], size=SIZE, **names, **more)


def clone(vm: Helper, *words: str) -> dict[str, Any]:
    """Clone the source to the target; returns what the plan says of the partition."""
    out = vm.check(on(vm, "etsclone clone {disk} {target} --yes --json " + " ".join(words)))
    plan = json.loads(out.splitlines()[0])
    (part,) = plan["partitions"]
    assert isinstance(part, dict)
    return part


@pytest.mark.parametrize(
    ("version", "kind", "more"),
    [
        ("luks1", "ext4", ""),
        ("luks2", "ext4", "--sector-size 4096"),
        ("luks2", "btrfs", "--sector-size 512"),
    ],
)
def test_of_an_unlocked_volume_what_is_used_inside(
    vm: Helper, version: str, kind: str, more: str
) -> None:
    make = f"""
{FORMAT}
cryptsetup open {{disk}}1 inside --key-file /run/key
mkfs.{kind} -q /dev/mapper/inside
{FILL}
umount /srv/inside
"""
    vm.check(on(vm, make, type=version, more=more, device="/dev/mapper/inside"))
    part = clone(vm)
    assert part["content"] == "crypto_LUKS"
    method = {"ext4": "block bitmaps", "btrfs": "partclone.btrfs"}[kind]
    assert part["method"] == f"LUKS, {method}"
    assert part["used"] < SIZE * MIB // 2
    look = """
sha256sum < /dev/mapper/inside > /dev/null
cryptsetup close inside
cryptsetup open {target}1 inside --key-file /run/key
CHECK
mount -o ro /dev/mapper/inside /srv/inside
diff -r /srv/inside/json /usr/lib/python3.11/json
stat -c %s /srv/inside/random
umount /srv/inside
cryptsetup close inside
""".replace(
        "CHECK",
        {"ext4": "e2fsck -fn /dev/mapper/inside"}.get(kind, "btrfs check -q /dev/mapper/inside"),
    )
    assert str(8 * MIB) in vm.check(on(vm, look))


def test_of_a_locked_volume_everything(vm: Helper) -> None:
    vm.check(on(vm, FORMAT, type="luks2", more=""))
    part = clone(vm)
    assert part["used"] == SIZE * MIB
    assert (
        part["note"]
        == "everything is copied: encrypted with LUKS and locked, free and used look alike"
    )
    vm.check(on(vm, "cryptsetup open --test-passphrase {target}1 --key-file /run/key"))


def test_volumes_inside_luks_that_are_in_use(vm: Helper) -> None:
    make = f"""
{FORMAT}
cryptsetup open {{disk}}1 inside --key-file /run/key
pvcreate -qq /dev/mapper/inside
vgcreate -qq hidden /dev/mapper/inside
lvcreate -qq -n data -L 80M hidden
mkfs.ext4 -q /dev/hidden/data
{FILL}
"""
    vm.check(on(vm, make, type="luks2", more="", device="/dev/hidden/data"))
    part = clone(vm, "--live")
    assert part["method"] == "LUKS, lvm2 metadata, block bitmaps"
    assert part["used"] < SIZE * MIB // 2
    look = """
sha256sum < /srv/inside/random
umount /srv/inside
vgchange -qq -an hidden
cryptsetup close inside
cryptsetup open {target}1 inside --key-file /run/key
vgchange -qq -ay hidden
e2fsck -fn /dev/hidden/data
mount -o ro /dev/hidden/data /srv/inside
sha256sum < /srv/inside/random
umount /srv/inside
vgchange -qq -an hidden
cryptsetup close inside
"""
    first, *_, last = vm.check(on(vm, look)).splitlines()
    assert first == last


@pytest.mark.parametrize(("metadata", "live"), [("1.2", True), ("1.0", False)])
def test_of_a_mirror_what_is_used_inside(vm: Helper, metadata: str, live: bool) -> None:
    make = f"""
sfdisk --quiet --dump {{disk}} | grep -v label-id | sed 's/, uuid=[^,]*//' | sfdisk --quiet {{other}}
udevadm settle
mdadm --create /dev/md0 --run --level=1 --metadata={metadata} --bitmap=internal --raid-devices=2 {{disk}}1 {{other}}1
mdadm --wait /dev/md0 || true
mkfs.ext4 -q /dev/md0
{FILL}
"""
    vm.check(on(vm, make, device="/dev/md0"))
    if not live:
        vm.check("umount /srv/inside")
    part = clone(vm, *(["--live"] if live else []))
    assert part["content"] == "linux_raid_member"
    assert part["method"] == "md mirror, block bitmaps"
    assert part["used"] < SIZE * MIB // 2
    look = """
umount /srv/inside || true
mdadm --stop /dev/md0
mdadm --assemble --run /dev/md0 {target}1
e2fsck -fn /dev/md0
mount -o ro /dev/md0 /srv/inside
diff -r /srv/inside/json /usr/lib/python3.11/json
umount /srv/inside
mdadm --stop /dev/md0
mdadm --zero-superblock {disk}1 {other}1 {target}1
wipefs -qa {other}
"""
    vm.check(on(vm, look))


def test_of_a_stripe_everything(vm: Helper) -> None:
    make = """
mdadm --create /dev/md0 --run --level=0 --raid-devices=1 --force {disk}1
mdadm --stop /dev/md0
"""
    vm.check(on(vm, make))
    part = clone(vm)
    assert part["used"] == SIZE * MIB
    assert part["note"] == "everything is copied: a member of an md array, which may use all of it"
    look = "mdadm --assemble --run /dev/md0 {target}1; mdadm --stop /dev/md0"
    vm.check(on(vm, f"{look}; mdadm --zero-superblock {{disk}}1 {{target}}1"))


def test_of_a_thin_pool_all_its_extents(vm: Helper) -> None:
    make = f"""
pvcreate -qq {{disk}}1
vgcreate -qq lean {{disk}}1
lvcreate -qq --type thin-pool -n pool -L 80M lean
lvcreate -qq --thin -n thin -V 300M lean/pool
mkfs.ext4 -q /dev/lean/thin
{FILL}
umount /srv/inside
vgchange -qq -an lean
"""
    vm.check(on(vm, make, device="/dev/lean/thin"))
    part = clone(vm)
    assert 80 * MIB < part["used"] < (SIZE - 16) * MIB
    assert part["method"] == "lvm2 metadata"
    look = """
wipefs -qa {disk}1
vgchange -qq -ay lean
e2fsck -fn /dev/lean/thin
mount -o ro /dev/lean/thin /srv/inside
diff -r /srv/inside/json /usr/lib/python3.11/json
umount /srv/inside
vgchange -qq -an lean
"""
    vm.check(on(vm, look))
