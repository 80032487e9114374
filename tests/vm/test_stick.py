"""A BRD store on a stick with FAT, as they are sold: no owners, no modes, no links, times to two seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from etsclone.units import MIB

from .helper import Helper, helper

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

STICK = """
mkfs.vfat -F 32 {stick} > /dev/null
mkdir -p /media/stick /run/tree
mount -t vfat {stick} /media/stick
mount -t tmpfs tree /run/tree
mkdir /run/tree/etc
cp /etc/fstab /etc/passwd /etc/group /run/tree/etc
echo ets1 > /run/tree/etc/hostname
"""
STORE = """
cd /run
etsclone brd init /media/stick/brd --pair school --profile base-debian
etsclone brd keygen primary.key --no-passphrase
etsclone brd trust /media/stick/brd --role primary primary.key.pub
etsclone brd capture /media/stick/brd --role primary --key primary.key --root /run/tree
cp /media/stick/brd/allowed_signers trusted
"""
AGAIN = """
cd /run
etsclone brd capture /media/stick/brd --role primary --key primary.key --root /run/tree
"""
PULLED_OUT_AND_IN = "umount /media/stick && mount -t vfat {stick} /media/stick"
VERIFY = "etsclone brd verify /media/stick/brd --trust /run/trusted"


@pytest.fixture(scope="module")
def vm(helper_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    """The VM with a stick, and a small system mounted at /run/tree."""
    with helper(helper_image, tmp_path_factory.mktemp("stick"), {"stick": 256 * MIB}) as machine:
        machine.check(STICK.format(stick=machine.disk("stick")))
        machine.check(STORE)
        yield machine


def test_a_store_lives_on_a_stick_with_fat(vm: Helper) -> None:
    again = PULLED_OUT_AND_IN.format(stick=vm.disk("stick"))
    vm.check(again)
    vm.check(VERIFY)
    vm.check("echo changed > /run/tree/etc/hosts")
    vm.check(AGAIN)
    assert "is unchanged since generation 2" in vm.check(AGAIN)
    vm.check(again)
    vm.check(VERIFY)
    vm.check("etsclone brd check /media/stick/brd --role primary --max-age 1d --trust /run/trusted")
    vm.check("etsclone brd copy /media/stick/brd /run/copy --trust /run/trusted")
    vm.check("diff -r --exclude=.lock /media/stick/brd /run/copy")
    vm.check("etsclone brd prune /media/stick/brd --keep-last 1 --yes --trust /run/trusted")
    vm.check(again)
    vm.check(VERIFY)
    names = vm.check("ls /media/stick/brd/primary").split()
    assert names == ["primary-000001.header", "primary-000002.brd", "primary.checked"]


def test_what_it_holds_brings_the_role_back(vm: Helper) -> None:
    vm.check("rm /run/tree/etc/hostname")
    words = "/media/stick/brd --role primary --root /run/tree --trust /run/trusted --yes"
    vm.check(f"etsclone rebuild --store {words}")
    assert vm.check("cat /run/tree/etc/hostname") == "ets1\n"


def test_a_stick_that_is_read_only_is_read(vm: Helper) -> None:
    vm.check("mount -o remount,ro /media/stick")
    try:
        vm.check(VERIFY)
        capture = "--role primary --key primary.key --root /run/tree"
        refused = vm.run(f"cd /run && etsclone brd capture /media/stick/brd {capture}")
        assert refused.code == 3, refused.output
        assert "read-only" in refused.output.lower()
    finally:
        vm.check("mount -o remount,rw /media/stick")
