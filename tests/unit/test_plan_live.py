"""What may be held still of a source that is in use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.model.disk import Disk, DiskIdentity, Use
from etsclone.model.extents import Extent
from etsclone.model.view import Stretch
from etsclone.plan.live import (
    MountedVolume,
    Room,
    active_swap,
    live_refusals,
    plan_snapshots,
    room_refusals,
    to_freeze,
)
from etsclone.units import MIB, counted


def source(*uses: Use) -> Disk:
    return Disk(DiskIdentity("/dev/sda", 1 << 30, (8, 0)), uses=uses)


SRV = Use("/dev/sda1", "mounted", "/srv")
BIND = Use("/dev/sda1", "mounted", "/var/www")
READ_ONLY = Use("/dev/sda2", "mounted", "/media", writable=False)
VOLUME = Use("/dev/dm-0", "mounted", "/home")
SWAP = Use("/dev/sda3", "swap", "")


def test_each_filesystem_that_can_change_is_frozen_once() -> None:
    found = to_freeze(source(SRV, BIND, READ_ONLY, VOLUME, SWAP))
    assert found == {"/dev/sda1": "/var/www", "/dev/dm-0": "/home"}


def test_what_nobody_needs_can_be_frozen() -> None:
    assert live_refusals(source(SRV, BIND, READ_ONLY, VOLUME, SWAP), {"/", "/tmp"}) == ()


@pytest.mark.parametrize("needed", ["/srv", "/var/www"])
def test_what_the_clone_writes_to_is_refused_at_whatever_place(needed: str) -> None:
    (refusal,) = live_refusals(source(SRV, BIND, VOLUME), {needed})
    assert refusal.message.endswith(f"the clone itself writes to {needed}")


@pytest.mark.parametrize("writable", [True, False])
def test_the_root_is_refused_even_where_another_place_of_it_is_writable(writable: bool) -> None:
    root = Use("/dev/sda1", "mounted", "/", writable=writable)
    (refusal,) = live_refusals(source(root, SRV), {"/tmp"})
    assert refusal.message.startswith("/dev/sda1 holds the root of the running system")


def test_swap_that_is_in_use() -> None:
    assert active_swap(source(SRV, SWAP)) == (SWAP,)


def volume(name: str, extents: int, group: str = "vg") -> MountedVolume:
    place = (Extent(MIB, MIB + extents * 4 * MIB), 0)
    return MountedVolume(group, name, f"/dev/dm-{name}", f"/{name}", extents, 4 * MIB, (place,))


def snapshots(volumes: list[MountedVolume], **free: int) -> dict[str, int]:
    rooms = {group: Room(extents, ("/dev/sda2",)) for group, extents in free.items()}
    assert room_refusals(volumes, rooms) == ()
    nodes = {each.device: f"/dev/mapper/{each.name}-snap" for each in volumes}
    found = plan_snapshots(volumes, rooms, "77", nodes)
    assert [each.stretches for each in found] == [
        (Stretch(each.places[0][0], nodes[each.device]),)
        for each in sorted(volumes, key=lambda each: each.group)
    ]
    return {each.name: each.extents for each in found}


def test_free_extents_are_shared_by_size() -> None:
    found = snapshots([volume("a", 100), volume("b", 300)], vg=240)
    assert found == {"etsclone-a-77": 60, "etsclone-b-77": 180}


def test_no_snapshot_gets_more_than_its_volume_has() -> None:
    assert snapshots([volume("a", 100)], vg=5000) == {"etsclone-a-77": 100}


def test_each_group_has_its_own_room() -> None:
    found = snapshots([volume("b", 10, "two"), volume("a", 10, "one")], one=1, two=4)
    assert found == {"etsclone-a-77": 1, "etsclone-b-77": 4}


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.integers(0, 20000))
def test_what_is_shared_is_there(sizes: list[int], free: int) -> None:
    volumes = [volume(str(number), size) for number, size in enumerate(sizes)]
    least = sum(-(-size // 10) for size in sizes)
    rooms = {"vg": Room(free, ("/dev/sda2",))}
    refused = room_refusals(volumes, rooms)
    if free < least:
        assert f" {counted(least - free, 'free extent', 'is', 'are')} missing" in refused[0].message
        return
    assert refused == ()
    counts = snapshots(volumes, vg=free).values()
    assert sum(counts) <= free
    for size, count in zip(sizes, counts, strict=True):
        assert -(-size // 10) <= count <= size


def test_of_the_root_a_snapshot_will_do() -> None:
    root = Use("/dev/dm-0", "mounted", "/")
    assert len(live_refusals(source(root, SRV), {"/"})) == 1
    assert live_refusals(source(root, SRV), {"/"}, {"/dev/dm-0"}) == ()
    assert to_freeze(source(root, SRV), {"/dev/dm-0"}) == {"/dev/sda1": "/srv"}
