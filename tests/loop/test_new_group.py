"""A volume group and its physical volume get other identifiers; LVM's own tools judge, without device-mapper."""

from pathlib import Path

import pytest

from etsclone.disk.identifiers import change_group, check_group
from etsclone.errors import CommandFailed, ComparisonFailed
from etsclone.model.extents import Extent
from etsclone.model.ids import GROUP, GROUP_NAME, VOLUME, GroupIds, NewId

from . import disks
from .disks import MIB, loop_device
from .lvm import linear, lvm, segments

pytestmark = pytest.mark.loop

PV = "abcdef-ABCD-0123-4567-89ab-cdef-XYZxyz"
VG = "zyxwvu-ABCD-0123-4567-89ab-cdef-XYZxyz"


def facts(device: Path) -> list[str]:
    fields = ("--noheadings", "--options", "pv_uuid,vg_uuid,vg_name")
    return lvm("pvs", *fields, device, devices=[device]).split()[-3:]


def test_a_group_is_another_with_the_same_volumes(tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "pv.img", 64 * MIB)
    with loop_device(image) as device:
        lvm("pvcreate", device, devices=[device])
        lvm("vgcreate", "pair-vg", device, devices=[device])
        linear("root", "pair-vg", "--size", "16M", devices=[device])
        linear("home", "pair-vg", "--size", "8M", devices=[device])
        disks.scrawl(device, MIB, 60 * MIB)
        before, places = facts(device), segments(device, [device])
        volumes = lvm("lvs", "--noheadings", "--options", "lv_uuid,lv_name", devices=[device])
        data = disks.part_of(device, MIB, 64 * MIB)
        ids = GroupIds(
            Extent(0, 64 * MIB),
            NewId(VOLUME, 1, before[0], PV),
            NewId(GROUP, 1, before[1], VG),
            NewId(GROUP_NAME, 1, "pair-vg", "pair-vg_0a1b"),
        )
        with pytest.raises(ComparisonFailed):
            check_group(str(device), ids)
        change_group(str(device), ids)
        check_group(str(device), ids)
        assert facts(device) == [PV, VG, "pair-vg_0a1b"]
        assert segments(device, [device]) == places
        shown = lvm("lvs", "--noheadings", "--options", "lv_uuid,lv_name", devices=[device])
        assert sorted(shown.split()) == sorted(volumes.split())
        assert disks.part_of(device, MIB, 64 * MIB) == data
        with pytest.raises(CommandFailed):  # there is no such group any more
            change_group(str(device), ids)
