"""Partitions encrypted with LUKS that are unlocked now: what device-mapper says of them."""

import os
from dataclasses import dataclass

from etsclone.disk.snapshots import mapper_fact
from etsclone.run import run
from etsclone.units import SECTOR


@dataclass(frozen=True, slots=True)
class CryptMapping:
    """A device that shows encrypted bytes in the clear: they begin `start` bytes into the encrypted device."""

    device: str
    start: int
    size: int


def mapping_of(device: str) -> CryptMapping | None:
    """The mapping that shows all that is encrypted on a device such as /dev/sda2; None when there is none.

    Raises:
        CommandFailed: when device-mapper does not tell.
    """
    holders = f"/sys/class/block/{os.path.basename(device)}/holders"
    names = os.listdir(holders) if os.path.isdir(holders) else []
    found = [parse_table(_table(name), f"/dev/{name}") for name in names if _is_crypt(name)]
    return found[0] if len(found) == 1 else None


def parse_table(text: str, device: str) -> CryptMapping | None:
    """Read what `dmsetup table` prints of a mapping; None when it is not one stretch of ciphertext.

    Source: the kernel's Documentation/admin-guide/device-mapper/dm-crypt.rst: `start length crypt cipher key iv_offset
    device offset ...`, in sectors of 512 bytes.
    """
    lines = text.splitlines()
    fields = lines[0].split() if len(lines) == 1 else []
    if len(fields) < 8 or fields[0] != "0" or fields[2] != "crypt":
        return None
    return CryptMapping(device, int(fields[7]) * SECTOR, int(fields[1]) * SECTOR)


def _table(name: str) -> str:
    return run("dmsetup", ["table", f"/dev/{name}"]).stdout


def _is_crypt(name: str) -> bool:
    # Source: cryptsetup, lib/utils_devpath.c: CRYPT-LUKS1-... and CRYPT-LUKS2-...
    return mapper_fact(name, "uuid").startswith("CRYPT-LUKS")
