"""Sources on LVM that are in use: snapshots are taken, copied from, and removed whatever happens."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from etsclone.units import GIB

from .helper import Helper, helper

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SETUP = """
sfdisk --quiet {disk} <<TABLE
label: gpt
size=64MiB, type=uefi
type=lvm
TABLE
udevadm settle
mkfs.vfat -F 32 {disk}1 > /dev/null
pvcreate -qq {disk}2
vgcreate -qq pair {disk}2
lvcreate -qq -n srv-data -L 200M pair
lvcreate -qq -n logs -L 320M pair
lvcreate -qq -n idle -L 100M pair
mkfs.ext4 -q /dev/pair/srv-data
mkfs.xfs -q /dev/pair/logs
mkfs.ext4 -q /dev/pair/idle
mkdir -p /srv/esp /srv/data /srv/logs
mount {disk}1 /srv/esp
mount /dev/pair/srv-data /srv/data
mount /dev/pair/logs /srv/logs
echo loader > /srv/esp/loader
dd if=/dev/urandom of=/srv/data/old bs=1M count=20 status=none
"""
TEARDOWN = """
empty() {{
    wipefs -qa $1
    partx -d $1 2> /dev/null || true
    blkdiscard --force $1
    udevadm settle
}}
empty {target}  # first: LVM changes no group that it sees twice
umount /srv/esp /srv/data /srv/logs
vgchange -qq -an pair
vgremove -qq --yes pair
empty {disk}
"""
ONLY_CLONE = '--config \'devices {{ filter = [ "a|^{target}2$|", "r|.*|" ] use_devicesfile = 0 }}\''


@pytest.fixture(scope="module")
def vm(helper_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    disks = {"source": GIB, "target": 3 * GIB}
    with helper(helper_image, tmp_path_factory.mktemp("live"), disks) as machine:
        yield machine


def on(vm: Helper, script: str) -> str:
    """A script with the names of the disks in it."""
    return script.format(disk=vm.disk("source"), target=vm.disk("target"))


@pytest.fixture
def pair(vm: Helper) -> Iterator[Helper]:
    """The VM with a source disk in use: an ESP, and volumes with ext4 and xfs."""
    vm.check(on(vm, SETUP))
    try:
        yield vm
    finally:
        vm.check(on(vm, TEARDOWN))


def snapshots(vm: Helper) -> str:
    return vm.check("lvs --noheadings -o lv_name -S 'lv_name=~^etsclone' 2> /dev/null").strip()


def clone(vm: Helper, *words: str) -> str:
    return on(vm, "etsclone clone {disk} {target} --live --yes " + " ".join(words))


def test_the_root_of_the_running_system(vm: Helper) -> None:
    script = """
mkdir /written
writer /written & writer=$!
until [ -s /written/20 ]; do sleep 0.1; done
etsclone clone /dev/vda {target} --live --yes --json > /run/out || {{ cat /run/out; exit 1; }}
kill $writer
cat /run/out
"""
    lines = vm.check(on(vm, script)).splitlines()
    plan, done = json.loads(lines[0]), json.loads(lines[-1])
    assert (plan["event"], done["event"]) == ("plan", "done")
    assert plan["frozen"] == {"/dev/vda1": "/boot"}
    (place,) = plan["snapshots"]["helper/root"]["places"]
    assert "CheckSnapshots" in plan["steps"]
    assert snapshots(vm) == ""
    names = vm.check(on(vm, f"lvs --noheadings -o lv_name {ONLY_CLONE} 2> /dev/null"))
    assert names.split() == ["root"]
    vm.check(on(vm, f"vgck {ONLY_CLONE} helper"))
    look = f"""
loop=$(losetup --find --show --read-only --offset {place["start"]} \
    --sizelimit {place["end"] - place["start"]} {{target}})
mkdir -p /run/clone
e2fsck -fn $loop
mount -o ro $loop /run/clone
written /run/clone/written
cmp /run/clone/usr/bin/python3.11 /usr/bin/python3.11
test -z "$(grep -rl etsclone /run/clone/etc/lvm)"
umount /run/clone
losetup --detach $loop
wipefs -qa {{target}}
udevadm settle
rm -r /written
"""
    vm.check(on(vm, look))


def test_volumes_and_an_esp_in_use(pair: Helper) -> None:
    script = """
writer /srv/data & data=$!
writer /srv/logs & logs=$!
until [ -s /srv/data/10 ] && [ -s /srv/logs/10 ]; do sleep 0.1; done
CLONE
cp /srv/esp/loader /srv/esp/after  # it can be written to again
kill $data $logs
wait
umount /srv/esp /srv/data /srv/logs
vgchange -qq -an pair
""".replace("CLONE", clone(pair))
    out = pair.check(on(pair, script))
    assert "is mounted at /srv/esp: frozen from now" in out
    assert "pair/srv-data is mounted at /srv/data: copied as it was a moment ago" in out
    assert "each volume is as it was at its own moment" in out
    assert "everything is copied" not in out
    look = f"""
vgchange -qq -ay {ONLY_CLONE} pair
lvs --noheadings -o lv_name {ONLY_CLONE}
fsck.vfat -n {{target}}1
e2fsck -fn /dev/pair/srv-data
mount /dev/pair/logs /srv/logs  # it has a log to replay, as after any freeze
written /srv/logs
umount /srv/logs
xfs_repair -n /dev/pair/logs
mount -o ro /dev/pair/srv-data /srv/data
written /srv/data
mount -o ro {{target}}1 /srv/esp
cat /srv/esp/loader
sha256sum < /srv/data/old
ls /srv/esp
umount /srv/esp /srv/data
vgchange -qq -an {ONLY_CLONE} pair
wipefs -qa {{target}}2
vgchange -qq -ay pair
mount {{disk}}1 /srv/esp
mount /dev/pair/srv-data /srv/data
mount /dev/pair/logs /srv/logs
sha256sum < /srv/data/old
"""
    seen = pair.check(on(pair, look)).splitlines()
    assert sorted(line.strip() for line in seen[:3]) == ["idle", "logs", "srv-data"]
    assert "loader" in seen
    assert "after" not in seen
    digests = [line for line in seen if line.endswith("  -")]
    assert len(digests) == 2
    assert len(set(digests)) == 1


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("INT", 130)])
def test_snapshots_are_removed_whatever_happens(pair: Helper, signal: str, code: int) -> None:
    # As a terminal does it: to the whole process group.
    script = """
set -m
CLONE > /run/out & clone=$!
until grep -q plan /run/out; do sleep 0.1; done
lvs --noheadings -o lv_name -S 'lv_name=~^etsclone' | wc -l
grep -c ' /srv/esp vfat ro' /proc/mounts
kill -SIGNAL -- -$clone
wait $clone && exit 1 || echo ended with $?
for _ in $(seq 300); do
    lvs -o lv_name | grep -q etsclone || grep -q ' /srv/esp vfat ro' /proc/mounts || break
    sleep 0.2
done
touch /srv/esp/again /srv/data/again /srv/logs/again
""".replace("CLONE", clone(pair, "--json", "--rate-limit=4M")).replace("SIGNAL", signal)
    out = pair.check(on(pair, script))
    assert out.splitlines()[:2] == ["2", "1"]
    assert f"ended with {code}" in out, out
    assert snapshots(pair) == ""
    assert pair.run(on(pair, "sfdisk --json {target}")).code != 0


def test_a_snapshot_that_overflows_fails_the_clone(pair: Helper) -> None:
    # Twenty extents are left: a tenth of what is mounted, and little more.
    script = """
free=$(vgs --noheadings -o vg_free_count pair)
lvcreate -qq -n filler -l $((free - 14)) pair
CLONE > /run/out 2>&1 & clone=$!
until grep -q plan /run/out; do sleep 0.1; done
dd if=/dev/urandom of=/srv/data/new bs=1M count=60 conv=fsync status=none
wait $clone && exit 1 || echo ended with $?
cat /run/out
""".replace("CLONE", clone(pair, "--json", "--rate-limit=20M"))
    out = pair.check(on(pair, script))
    assert "ended with 5" in out
    assert "more changed than the snapshot pair-etsclone--srv--data-" in out
    assert pair.run(on(pair, "sfdisk --json {target}")).code != 0
    assert snapshots(pair) == ""
    assert pair.run("touch /srv/data/again /srv/esp/again").code == 0


def test_without_room_for_snapshots_it_is_refused(pair: Helper) -> None:
    fill = "lvcreate -qq -n filler -l $(($(vgs --noheadings -o vg_free_count pair) - 3)) pair"
    pair.check(fill)
    result = pair.run(clone(pair))
    assert result.code == 3
    # A tenth of 50 and of 80 extents of 4 MiB, rounded up.
    assert "10 free extents are missing (40.0 MiB)" in result.output
    assert "vgextend" in result.output


def test_a_snapshot_that_is_left_is_named(pair: Helper) -> None:
    pair.check("lvcreate -qq --snapshot -n etsclone-logs-1 -l 5 pair/logs")
    result = pair.run(clone(pair))
    assert result.code == 3
    assert "there are snapshots of another clone: pair/etsclone-logs-1" in result.output
    assert "lvremove pair/etsclone-logs-1" in result.output
    pair.check("lvremove -qq --yes pair/etsclone-logs-1")


def test_btrfs_is_frozen(pair: Helper) -> None:
    make = "lvcreate -qq -n tree -L 120M pair; mkfs.btrfs -q /dev/pair/tree"
    pair.check(f"{make}; mkdir -p /srv/tree; mount /dev/pair/tree /srv/tree")
    try:
        out = pair.check(clone(pair))
        assert "is mounted at /srv/tree: frozen from now until the clone is verified" in out
    finally:
        pair.check("umount /srv/tree")
