"""What is to be run in a clone so that it boots: its own programs make its initramfs and install its boot loader."""

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from etsclone.errors import BootLoaderRefused
from etsclone.model.boot import BIOS_BOOT, BootSector, Names
from etsclone.model.disk import Disk
from etsclone.model.edit import Files
from etsclone.model.tree import join, printable
from etsclone.plan.grubcore import CODE
from etsclone.units import MIB, SECTOR

_FOLDERS = (b"/usr/sbin", b"/usr/bin", b"/sbin", b"/bin")
_GRUB = b"/usr/lib/grub"
"""Has a folder for each kind of machine that GRUB can be installed for: `i386-pc`, `x86_64-efi`."""

_BIOS = "i386-pc"
_MENUS = (
    (b"update-grub", ("update-grub",)),
    (b"grub2-mkconfig", ("grub2-mkconfig", "-o", "/boot/grub2/grub.cfg")),
    (b"grub-mkconfig", ("grub-mkconfig", "-o", "/boot/grub/grub.cfg")),
)
_INITRAMFS = (
    (b"update-initramfs", ("update-initramfs", "-u", "-k", "all")),
    (b"dracut", ("dracut", "--force", "--no-hostonly", "--regenerate-all")),
)
"""What makes them for any machine: the one at hand may be another than that which is to boot."""

_NOTED = b"/var/lib/initramfs-tools"
"""Where initramfs-tools keeps their digests."""

_HOOKS = b"/etc/initramfs/post-update.d"
_SETTINGS = b"/etc/initramfs-tools"
_FOR_THIS_MACHINE = re.compile(rb"^\s*MODULES=[\"']?(dep|list)\b", re.MULTILINE)

_MENU = b"grub.cfg"
_VOLUMES = frozenset({"linear", "striped"})
_ARRAY = "md"
"""Layers that GRUB reads, as `disk.layers` calls them. Device-mapper tells nothing to programs that are confined: to
grub-install a volume looks like a disk, of which nothing but the UUID of its filesystem is known. An array is known."""

_BY_HAND = (
    "by hand, without a twin attached: open the volumes under their own names (cryptsetup open, mdadm --assemble,"
    " vgchange -ay), mount the system at DIR, with /dev, /proc and /sys (mount --rbind), and run grub-install and"
    " update-grub in it (chroot DIR)"
)

DISK = "DISK"
"""Stands for the disk's node in a command: an image may have another one when the command is run."""


@dataclass(frozen=True, slots=True)
class BootCommand:
    """A program of the clone that is run in it, and what for; `DISK` stands for the disk.

    `changes` are the files and folders of the system that it writes to, `code` tells whether it writes boot code, too.
    """

    argv: tuple[str, ...]
    purpose: str
    changes: tuple[bytes, ...] = ()
    code: bool = False

    def on(self, device: str) -> tuple[str, ...]:
        """Name and arguments for a disk with this node."""
        return tuple(device if word == DISK else word for word in self.argv)

    def __str__(self) -> str:
        return f"{'run':8}{printable(shlex.join(self.argv))}  ({printable(self.purpose)})"


def initramfs_work(files: Files, images: Collection[bytes]) -> tuple[BootCommand, ...]:
    """How all initramfs of a system (`images`, their paths) are made anew for any machine.

    Nothing where there is no program for that which is known, or where what it makes depends on the machine that it
    runs on: a person has to do that on the machine itself.
    """
    settings = (
        _SETTINGS + b"/initramfs.conf",
        *(_SETTINGS + b"/conf.d/" + name for name in files.names(_SETTINGS + b"/conf.d")),
    )
    if any(_FOR_THIS_MACHINE.search(files.read(path) or b"") for path in settings):
        return ()
    noted = tuple(path for path in (_NOTED,) if files.names(path))
    return tuple(_first(files, _INITRAMFS, "the initramfs are made anew", (*images, *noted)))


def loader_work(
    files: Files,
    disk: Disk,
    sector: BootSector,
    names: Names,
    esp_folder: str | None,
    layers: Collection[str] = (),
) -> tuple[BootCommand, ...]:
    """How the boot loader of a system is installed on its disk, for each firmware that disk and system are made for.

    GRUB's menu is made anew only where root and /boot are partitions (`menu_stays`).

    Args:
        files: the system.
        disk: its disk.
        sector: the boot code that there is.
        names: what the parts of the disk are called.
        esp_folder: where the system has an EFI system partition mounted, as seen from inside; None where it has not.
        layers: what is between the disk and the filesystem with /boot (`disk.layers`); nothing for a partition.

    Raises:
        BootLoaderRefused: when the system has no GRUB that could be installed on this disk, or one that has to be shown
            what cannot be shown to it.
    """
    install = next(
        (name for name in ("grub-install", "grub2-install") if _has(files, name.encode())), ""
    )
    kinds = sorted(name.decode("utf-8", "replace") for name in files.names(_GRUB))
    modules = _modules(files, disk, layers)
    work = []
    grub = b"/boot/grub2" if install.startswith("grub2") else b"/boot/grub"
    if install and _BIOS in kinds and _takes_bios(disk, sector, names):
        argv: tuple[str, ...] = (install, f"--target={_BIOS}", *modules, DISK)
        work.append(BootCommand(argv, "GRUB for BIOS machines", (grub,), code=True))
    for kind in kinds if install and esp_folder else ():
        if kind.endswith("-efi"):
            place = f"--efi-directory={esp_folder}", "--no-nvram"
            argv = (install, f"--target={kind}", *modules, *place)
            places = grub, _efi_folder(files, f"{esp_folder}".encode())
            work.append(BootCommand(argv, "GRUB for UEFI machines", places))
            fallback = "the fallback loader of UEFI machines"
            work.append(BootCommand((*argv, "--removable"), fallback, places))
    if not work:
        raise BootLoaderRefused(
            f"there is no GRUB in the system that could be installed on {disk.path}",
            hint="it takes grub-install with i386-pc, and a BIOS boot partition where the table is GPT; or with"
            " x86_64-efi, and an EFI system partition that is mounted",
        )
    if not menu_stays(names, layers):
        return (*work, *_first(files, _MENUS, "GRUB's menu", (grub,)))
    if _MENU not in files.names(grub):
        menu = printable(join(grub, _MENU))
        raise BootLoaderRefused(
            f"there is no {menu}, and it is made anew only where root and /boot are plain partitions",
            hint=_BY_HAND,
        )
    return tuple(work)


def menu_stays(names: Names, layers: Collection[str]) -> bool:
    """Whether GRUB's menu is left as it is: its programs would name volumes as they are called only here."""
    return names.root is None or bool(layers)


def has_hooks(files: Files) -> bool:
    """Whether initramfs-tools runs scripts when an initramfs was made: nobody knows what those change."""
    return bool(files.names(_HOOKS))


def code_places(disk: Disk) -> tuple[tuple[int, int], ...]:
    """Where GRUB for BIOS machines is written on a disk, outside of all filesystems: start and size, in bytes.

    That is the code in the first sector, without the table behind it; and on GPT its own partition, else what is free
    before the first partition. GRUB 2.06 puts at most 448 KiB there (grub-core/kern/i386/pc: 0x78000 - 0x8200).
    """
    if disk.table is not None and disk.table.label == "gpt":
        cores = [(part.start, part.size) for part in disk.partitions if part.type == BIOS_BOOT]
    else:
        first = min((part.start for part in disk.partitions), default=disk.size)
        cores = [(SECTOR, first - SECTOR)]
    return ((0, CODE), *((start, min(size, MIB)) for start, size in cores if size > 0))


def _modules(files: Files, disk: Disk, layers: Collection[str]) -> tuple[str, ...]:
    """The option with the modules that GRUB needs for what is not shown to it: volumes, and what they lie on.

    Raises:
        BootLoaderRefused: when a layer cannot be read by GRUB, or not without being shown.
    """
    unknown = {*layers} - _VOLUMES - {_ARRAY}
    if unknown or (_ARRAY in layers and not _has(files, b"mdadm")):
        what = ", ".join(sorted(unknown)) or "an array of md, and the system has no mdadm"
        raise BootLoaderRefused(
            f"/boot of the system on {disk.path} lies on what cannot be shown to GRUB here: {what}",
            hint=_BY_HAND,
        )
    if not _VOLUMES.intersection(layers):
        return ()
    table = "gpt" if disk.table is not None and disk.table.label == "gpt" else "msdos"
    arrays = ("mdraid09", "mdraid1x") if _ARRAY in layers else ()
    return (f"--modules={' '.join((f'part_{table}', *arrays, 'lvm'))}",)


def _takes_bios(disk: Disk, sector: BootSector, names: Names) -> bool:
    """Whether there is room for GRUB's core, and nothing speaks for UEFI alone."""
    gpt = disk.table is not None and disk.table.label == "gpt"
    room = (
        any(part.type == BIOS_BOOT for part in disk.partitions) if gpt else disk.table is not None
    )
    return room and (sector.code or gpt or not names.esps)


def _efi_folder(files: Files, esp: bytes) -> bytes:
    """Where loaders are on an EFI system partition: FAT finds that by any spelling, but lists one."""
    return join(esp, next((name for name in files.names(esp) if name.upper() == b"EFI"), b"EFI"))


def _first(
    files: Files,
    choices: tuple[tuple[bytes, tuple[str, ...]], ...],
    purpose: str,
    changes: tuple[bytes, ...],
) -> Iterator[BootCommand]:
    for program, argv in choices:
        if _has(files, program):
            yield BootCommand(argv, purpose, changes)
            return


def _has(files: Files, program: bytes) -> bool:
    return any(program in files.names(folder) for folder in _FOLDERS)
