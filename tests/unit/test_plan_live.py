"""What may be held still of a source that is in use."""

import pytest

from etsclone.model.disk import Disk, DiskIdentity, Use
from etsclone.plan.live import active_swap, live_refusals, to_freeze


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
