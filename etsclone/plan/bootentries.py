"""The boot entries of a UEFI machine, as efibootmgr(8) prints them and makes them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from etsclone.errors import BootLoaderRefused
from etsclone.model.boot import EfiProgram, Esp, Names
from etsclone.model.disk import Disk
from etsclone.model.tree import printable

_ENTRY = (
    r"^Boot([0-9A-F]{{4}})\*\s.*\tHD\({number},{mark},[^)]*\)/(?:File\({path}\){data}|{path}{hex})$"
)
"""A line of an entry that is active (`*`), for one loader.

What the entry hands to the loader follows without a gap: text, with dots for what is none (version 17), or hexadecimal
digits for all (18). Firmware leaves its marks there. What names a file, such as an update that shim is to start, is no
entry for the system. The library of version 18 writes the path in `File()`, or plainly (efivar 39).
"""
_HEX = "(?:(?!5c)[0-9a-f]{2})*"  # without a backslash, as in the next line
_DATA = rf"(?:{_HEX}|(?![0-9a-f]+$)[^\\\n]*)"
_ORDERED = re.compile(r"^BootOrder: ([0-9A-F,]+)$", re.MULTILINE)
_NUMBER = re.compile(r"^Boot([0-9A-F]{4})[* ]\s", re.MULTILINE)
_GUID = 36  # characters
_ORDER = ("shim", "GRUB", "systemd-boot", "")
_FALLBACK = "/EFI/BOOT/"


@dataclass(frozen=True, slots=True)
class BootEntry:
    """A boot entry to be made: for a loader (`/EFI/debian/shimx64.efi`) on a partition, whose `PARTUUID` is `guid`."""

    label: str
    disk: str
    number: int
    guid: str
    loader: str

    def due(self, listed: str) -> tuple[str, ...]:
        """The arguments with which efibootmgr sees to it that the machine starts this loader; none where it does.

        An active entry that is there, under whatever label, is put in front of the boot order if that does not name
        it; it stays where it is in the order if it does.

        Args:
            listed: what `efibootmgr --verbose` prints.
        """
        there = self._numbers(listed)
        if not there:
            return self._creation
        found = _ORDERED.search(listed)
        order = found[1].split(",") if found else []
        if {*there} & {*order}:
            return ()
        # efibootmgr refuses an order with entries that are gone, such as firmware leaves in it.
        known = {*_NUMBER.findall(listed)}
        return "--bootorder", ",".join((there[0], *(each for each in order if each in known)))

    @property
    def _creation(self) -> tuple[str, ...]:
        path = self.loader.replace("/", "\\")
        return (
            *("--create", "--disk", self.disk, "--part", str(self.number)),
            *("--label", self.label, "--loader", path),
        )

    def _numbers(self, listed: str) -> list[str]:
        """Those of the active entries for this loader."""
        if not self.guid:
            return []
        entry = _ENTRY.format(
            number=self.number,
            mark=_mark(self.guid),
            path=re.escape(self.loader.replace("/", "\\")),
            data=_DATA,
            hex=_HEX,
        )
        return re.findall(entry, listed, re.MULTILINE | re.IGNORECASE)

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


def _mark(partuuid: str) -> str:
    """By what an entry knows the disk, or its partition: from what `PARTUUID=` calls that."""
    if len(partuuid) == _GUID:
        return f"GPT,{re.escape(partuuid)}"
    return f"MBR,0x{int(partuuid.partition('-')[0], 16):x}"


def _rank(program: EfiProgram) -> tuple[bool, int]:
    return program.path.upper().startswith(_FALLBACK), _ORDER.index(program.kind)
