"""Snapshots of LVM logical volumes, by LVM's own tools; and what device-mapper says of a device.

LVM freezes the filesystem on a volume while it takes the snapshot, so what the snapshot shows is as clean as what was
frozen. It wants to do that itself: on a filesystem that is frozen already its suspend fails (EBUSY, Linux 6.1), and
leaves a half made snapshot behind. So several snapshots are taken one after the other.
"""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from etsclone.errors import CommandFailed, FormatError, SnapshotLost
from etsclone.model.view import Snapshot
from etsclone.plan.live import Room
from etsclone.run import run

_CONFIG = 'backup {{ backup = 0 archive = 0 }} devices {{ filter = [ {devices}, "r|.*|" ] use_devicesfile = 0 }}'
"""/etc/lvm is a part of what is copied: what is written there of a snapshot would be found on the clone. And beside a
clone, whose volumes have the same UUIDs, LVM changes nothing while it sees both."""

_TRIES = 20
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """A snapshot that is to be held (`disk.hold.Hold`)."""

    snapshot: Snapshot

    @property
    def remedy(self) -> str:
        """A command line."""
        return f"lvremove {self._name}"

    @property
    def _name(self) -> str:
        return f"{self.snapshot.group}/{self.snapshot.name}"

    def take(self) -> None:
        """Take it.

        Raises:
            CommandFailed: when LVM cannot.
        """
        wanted = self.snapshot
        how = [
            "--snapshot",
            "--permission",
            "r",
            "--extents",
            str(wanted.extents),
            "--name",
            wanted.name,
        ]
        try:
            self._lvm("lvcreate", *how, f"{wanted.group}/{wanted.volume}")
        except CommandFailed:
            with contextlib.suppress(CommandFailed):
                self._lvm("lvremove", "--yes", self._name)
            raise

    def release(self) -> None:
        """Remove it.

        Raises:
            CommandFailed: when LVM cannot, for ten seconds: udev may be looking at it.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(CommandFailed):
                self._lvm("lvremove", "--yes", self._name)
                return
            time.sleep(_PAUSE)
        self._lvm("lvremove", "--yes", self._name)

    def _lvm(self, command: str, *words: str) -> None:
        devices = ", ".join(f'"a|^{device}$|"' for device in self.snapshot.physical)
        run("lvm", [command, "--config", _CONFIG.format(devices=devices), *words])


def room_of(group: str) -> Room:
    """How many extents of a volume group are free, and which devices it lies on.

    Raises:
        CommandFailed, FormatError: when LVM does not tell.
    """
    wanted = ["--reportformat", "json", "--options", "vg_free_count,pv_name"]
    shown = run("lvm", ["vgs", *wanted, group]).stdout
    try:
        rows = json.loads(shown)["report"][0]["vg"]
        return Room(int(rows[0]["vg_free_count"]), tuple(row["pv_name"] for row in rows))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise FormatError(f"cannot read what vgs printed: {error}") from error


def check_snapshots(devices: Sequence[str]) -> None:
    """Make sure that snapshots still show what they did in the beginning.

    Source: the kernel's Documentation/admin-guide/device-mapper/snapshot.rst: the status is "Invalid" or "Overflow"
    when there was no room for a change, and fractions of the room otherwise.

    Raises:
        SnapshotLost: when one does not.
    """
    for device in devices:
        fields = run("dmsetup", ["status", "--target", "snapshot", device]).stdout.split()
        if len(fields) < 4 or "/" not in fields[3]:
            raise SnapshotLost(
                f"more changed than the snapshot {os.path.basename(device)} has room for: the target is unfinished",
                hint="make more room in the volume group, or clone when less is written",
            )


def mapper_fact(device: str, fact: str) -> str:
    """What device-mapper says of a device such as /dev/dm-0 (`name`, `uuid`); empty for devices that are not its."""
    try:
        with open(f"/sys/block/{os.path.basename(device)}/dm/{fact}", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def node_of(group: str, volume: str) -> str:
    """The device node of a logical volume. Source: lvm(8): in names of device-mapper a dash is doubled."""
    return "/dev/mapper/" + "-".join(name.replace("-", "--") for name in (group, volume))
