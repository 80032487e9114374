"""The boot entries of a UEFI machine, as efibootmgr(8) prints them and makes them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from etsclone.errors import BootLoaderRefused
from etsclone.model.boot import EfiProgram, Esp, Names
from etsclone.model.disk import Disk
from etsclone.model.tree import printable

_ENTRY = re.compile(
    r"^Boot[0-9A-Fa-f]{4}\*?\s.*\tHD\((\d+),(?:GPT|MBR),([^,]+),[^)]*\)/(?:File\()?(\\[^)\n]*)",
    re.MULTILINE,
)
_ORDER = ("shim", "GRUB", "systemd-boot", "")
_FALLBACK = "/EFI/BOOT/"


@dataclass(frozen=True, slots=True)
class BootEntry:
    """A boot entry to be made: for a loader (`/EFI/debian/shimx64.efi`) on a partition, which has this GUID."""

    label: str
    disk: str
    number: int
    guid: str
    loader: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """For efibootmgr."""
        path = self.loader.replace("/", "\\")
        return (
            *("--create", "--disk", self.disk, "--part", str(self.number)),
            *("--label", self.label, "--loader", path),
        )

    def is_among(self, listed: str) -> bool:
        """Whether `efibootmgr --verbose` lists it already, under whatever label."""
        path = self.loader.replace("/", "\\").lower()
        return any(
            int(number) == self.number
            and guid.lower() == self.guid.lower()
            and found.lower() == path
            for number, guid, found in _ENTRY.findall(listed)
        )

    def __str__(self) -> str:
        loader = printable(self.loader)
        return f"{'entry':8}{loader} on partition {self.number}  (boot entry {self.label!r} of this machine)"


def boot_entry(
    disk: Disk, esps: Sequence[Esp], names: Names, label: str, machine: int
) -> BootEntry:
    """The entry for a disk's boot loader.

    Args:
        disk: it; `device` is its node.
        esps: what its EFI system partitions hold.
        names: what its parts are called.
        label: what the entry is called.
        machine: for which the loader must be, as PE headers say it.

    Raises:
        BootLoaderRefused: when it has no loader.
    """
    found = [
        (_rank(program), esp.number, program.path)
        for esp in esps
        for program in esp.programs
        if program.machine == machine
    ]
    if not found:
        raise BootLoaderRefused(
            f"{disk.path} has no boot loader for this machine's UEFI",
            hint="install one with --bootloader first",
        )
    _, number, path = min(found)
    guid = next(part.uuid for part in names.parts if part.number == number)
    return BootEntry(label, disk.device, number, guid, path)


def _rank(program: EfiProgram) -> tuple[bool, int]:
    return program.path.upper().startswith(_FALLBACK), _ORDER.index(program.kind)
