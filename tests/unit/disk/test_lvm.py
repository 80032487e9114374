"""Volume groups that hold more than a machine has devices for."""

import contextlib

import pytest

from etsclone.disk.lvm import Groups
from etsclone.errors import FormatError
from etsclone.plan.lvmgroup import LogicalVolume, VolumeGroup


def test_a_group_of_too_many_volumes_is_not_opened() -> None:
    volumes = tuple(LogicalVolume(f"v{number}", True, ()) for number in range(1001))
    view = VolumeGroup("group", 1, "pv0", 0, 4096, 1, volumes)
    groups = Groups(contextlib.ExitStack(), read_only=True)
    with pytest.raises(FormatError, match="more than 1000 logical volumes"):
        list(groups._open("uuid", {"/dev/nothing": view}))
