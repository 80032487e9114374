"""Whether a disk boots: judged from what its boot code, its EFI system partitions and its boot menu say.

Certain is only what is missing. A disk is said to boot when there is a loader, and that looks for its files where there
is something on this disk.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from etsclone.model.boot import (
    BootReport,
    BootSector,
    Core,
    EfiProgram,
    Esp,
    Finding,
    Firmware,
    Names,
    Way,
)
from etsclone.model.edit import Edit, Files

FALLBACKS = {0x8664: "/EFI/BOOT/BOOTX64.EFI", 0xAA64: "/EFI/BOOT/BOOTAA64.EFI"}
"""What a firmware starts of a disk that it has no boot entry for, by machine (UEFI 2.10, section 3.5.1.1)."""

_ESP_FOLDERS = ("/boot/efi", "/efi", "/boot")
_MENUS = (b"/boot/grub/grub.cfg", b"/boot/grub2/grub.cfg")
_LOADED = re.compile(rb"^[ \t]*(?:linux|initrd)(?:16|efi)?[ \t]+([^\s$]+)(?=\s)", re.MULTILINE)
_OTHER_SYSTEMS = b"### BEGIN /etc/grub.d/30_os-prober ###", b"### END /etc/grub.d/30_os-prober ###"

_AGAIN = "`etsclone rebuild --bootloader` installs the boot loader again"
_ENTRY = "give the machine a boot entry (--boot-entry, on that machine), or the disk a fallback loader (--bootloader)"

_PREFIX = re.compile(r"\((?:hd\d+)?,(?:gpt|msdos)(\d+)\)")
_ARRAY = re.compile(r"\(mduuid/([0-9a-f]{32})\)")
_IDENTIFIER = re.compile(r"[\"']?([0-9A-Fa-f]+(?:-[0-9A-Fa-f]+)+)")


def check_boot(sector: BootSector, esps: Sequence[Esp], names: Names) -> BootReport:
    """Judge by which firmware a disk boots, and what is wrong or missing.

    Args:
        sector: its boot code for BIOS machines.
        esps: what its EFI system partitions hold.
        names: what its parts are called.
    """
    bios, uefi = _check_bios(sector, names), _check_uefi(esps, names)
    report = BootReport((*bios.ways, *uefi.ways), (*bios.findings, *uefi.findings))
    if report.ways or report.findings:
        return report
    nothing = "there is neither boot code in the first sector nor an EFI system partition"
    return BootReport((), (Finding(nothing, _AGAIN),))


def with_edits(esp: Esp, edits: Sequence[Edit]) -> Esp:
    """What an EFI system partition will hold when a system's edits of the files on it are executed."""
    changed = {
        folder: edit.after.decode("utf-8", "replace")
        for folder in esp.menus
        for edit in edits
        if edit.path in {f"{top}{folder}/grub.cfg".encode() for top in _ESP_FOLDERS}
    }
    return replace(esp, menus={**esp.menus, **changed})


def check_menu(files: Files) -> tuple[Finding, ...]:
    """Whether the kernels and initramfs that GRUB's menu names are there; nothing is said where there is no menu."""
    found = []
    there = {*files.names(b"/boot"), *files.names(b"/")}
    for menu in _MENUS:
        own = _without_others(files.read(menu) or b"")
        for path in dict.fromkeys(_LOADED.findall(own)):
            if path.rpartition(b"/")[2] not in there:
                name = path.decode("utf-8", "backslashreplace")
                found.append(
                    Finding(f"the menu names {name}, which is not there", "run update-grub", menu)
                )
    return tuple(found)


def _without_others(menu: bytes) -> bytes:
    """GRUB's menu without the part that names the files of other systems."""
    begin, end = _OTHER_SYSTEMS
    before, begun, rest = menu.partition(begin)
    _, ended, after = rest.partition(end)
    return before + after if begun and ended else menu


def _check_bios(sector: BootSector, names: Names) -> BootReport:
    if not sector.code:
        return BootReport(())
    if not sector.grub:
        return BootReport((Way(Firmware.BIOS, "boot code that is not GRUB's"),))
    if sector.core is None:
        lost = f"GRUB's boot code looks for its core in {sector.place}, where there is none"
        return BootReport((), (Finding(lost, _AGAIN),))
    troubles = tuple(_troubles_of_core("GRUB's core", sector.core, names))
    return BootReport(() if troubles else (Way(Firmware.BIOS, "GRUB"),), troubles)


def _check_uefi(esps: Sequence[Esp], names: Names) -> BootReport:
    judged = [(esp, _judge_programs(esp, names)) for esp in esps]
    findings = tuple(
        finding for esp, programs in judged for finding in _troubles_of_esp(esp, programs)
    )
    sound = [program for _, programs in judged for program, troubles in programs if not troubles]
    fallback = next((each for each in sound if _is_fallback(each)), None)
    if fallback:
        kind = f", {fallback.kind}" if fallback.kind else ""
        return BootReport((Way(Firmware.UEFI, f"fallback loader{kind}"),), findings)
    if sound:
        lacking = f"there is no {FALLBACKS[sound[0].machine]}: firmware that does not know the disk finds no loader"
        way = Way(Firmware.UEFI, f"by a boot entry for {sound[0].path}")
        return BootReport((way,), (*findings, Finding(lacking, _ENTRY)))
    return BootReport((), findings)


_Judged = Sequence[tuple[EfiProgram, Sequence[Finding]]]


def _troubles_of_esp(esp: Esp, programs: _Judged) -> Iterator[Finding]:
    where = f"the EFI system partition ({esp.number})"
    if esp.trouble:
        yield Finding(f"{where} cannot be read: {esp.trouble}", "make it anew, with mkfs.vfat")
    elif not esp.programs:
        yield Finding(f"{where} holds no boot loader", _AGAIN)
    for _, troubles in programs:
        yield from troubles


def _judge_programs(esp: Esp, names: Names) -> _Judged:
    """What is wrong with each program: of a shim also when there is no sound GRUB for it to start.

    It starts the one beside it. But the fallback loader with a companion (fbx64.efi) starts that, which makes a boot
    entry for the shim in another folder.
    """
    lost = {
        folder.lower(): tuple(_lost_searches(f"{folder}/grub.cfg", menu, names))
        for folder, menu in esp.menus.items()
    }
    judged = [(each, list(_troubles_of_program(each, lost, names))) for each in esp.programs]
    grubs = {_place(each) for each, troubles in judged if _is_grub(each) and not troubles}
    makers = {_place(each) for each in esp.entry_makers}
    machines = {machine for _, machine in grubs}
    for each, troubles in judged:
        led_on = _is_fallback(each) and _place(each) in makers and each.machine in machines
        if each.kind == "shim" and not led_on and _place(each) not in grubs:
            alone = f"{each.path} is a shim without a sound GRUB to start"
            troubles.append(Finding(alone, _AGAIN))
    return judged


def _troubles_of_program(
    program: EfiProgram, lost: Mapping[str, Sequence[Finding]], names: Names
) -> Iterator[Finding]:
    """What is wrong with a program by itself; `lost` is that with each menu, by its folder in small letters."""
    if program.machine not in FALLBACKS:
        yield Finding(f"{program.path} is no program for x86-64 or arm64", _AGAIN)
    if program.core:
        yield from _troubles_of_core(program.path, program.core, names)
    if _is_grub(program):
        # A prefix without a device is on the partition that it was started from.
        prefix = program.core.prefix.lower() if program.core else ""
        yield from lost.get(prefix, lost.get(program.folder.lower(), ()))


def _is_grub(program: EfiProgram) -> bool:
    """By what is in it, or by the name by which a shim starts it."""
    name = program.path.lower().rpartition("/")[2]
    return program.kind == "GRUB" or (program.kind != "shim" and name.startswith("grub"))


def _place(program: EfiProgram) -> tuple[str, int]:
    return program.folder.lower(), program.machine


def _troubles_of_core(who: str, core: Core, names: Names) -> Iterator[Finding]:
    yield from _lost_searches(who, core.config, names)
    prefix = _PREFIX.match(core.prefix)
    if prefix and int(prefix[1]) not in {part.number for part in names.parts}:
        yield Finding(
            f"{who} looks for its files in partition {prefix[1]}, which is not there", _AGAIN
        )
    array = _ARRAY.match(core.prefix)
    if array and array[1] not in {part.content.uuid.replace("-", "") for part in names.parts}:
        yield Finding(
            f"{who} looks for its files in the array {array[1]}, which is not on this disk", _AGAIN
        )


def _lost_searches(who: str, commands: str, names: Names) -> Iterator[Finding]:
    for uuid in dict.fromkeys(_searched(commands)):
        if names.whole and names.find("UUID", uuid) is None:
            yield Finding(
                f"{who} looks for the filesystem {uuid}, which is not on this disk", _AGAIN
            )


def _searched(commands: str) -> Iterator[str]:
    """The UUIDs that GRUB's commands `search --fs-uuid` and `search.fs_uuid` look for."""
    for line in commands.splitlines():
        searching = asked = False
        for word in line.split():
            searching = searching or word.endswith("search")
            if word.endswith("search.fs_uuid") or (searching and word == "--fs-uuid"):
                asked = True
            elif asked and (match := _IDENTIFIER.match(word)):
                asked = False
                yield match[1]


def _is_fallback(program: EfiProgram) -> bool:
    return program.path.upper() == FALLBACKS.get(program.machine, "").upper()
