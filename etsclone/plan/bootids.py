"""Names of disks and filesystems in a system's files that are not on its disk: found, and mended where that is certain.

Where a name that is gone stood for the root, for /boot, for the EFI system partition or for swap, and the disk has
exactly one part that can be meant, the new name is certain: unless the same file names that part as well, or two that
are gone, as a boot menu with several systems does. The rewriting itself is `plan.references`. Names that the kernel
gives (`/dev/sda2`) depend on which disks are plugged in, and those after a disk's serial number belong to that disk
alone: both are replaced by lasting ones in the same cases. crypttab is never touched: a wrong name there may be wiped.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from operator import attrgetter

from etsclone.model.boot import Finding, Names, tag_of
from etsclone.model.disk import Partition
from etsclone.model.edit import Edit, Files, merged
from etsclone.model.tree import printable
from etsclone.plan.references import referring, rewrite
from etsclone.units import KIB

DEVICE = "device"
"""The tag of a name that goes by the kernel's order of disks, by a serial number, or by a socket."""


class Use(Enum):
    """What a name stands for, as far as its place in a file tells."""

    ROOT = "the root"
    FILES = "GRUB's files"
    ESP = "the EFI system partition"
    SWAP = "swap"
    RESUME = "the resume device"
    LOCKED = "an encrypted volume"
    OTHER = "something else"


_OF_GROUP = {"fs": Use.FILES, "luks": Use.LOCKED}


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in a file: `[start, end)` are the bytes that spell it, `tag` is `UUID`, `LABEL`, ... or `device`."""

    path: bytes
    line: int
    start: int
    end: int
    tag: str
    value: str
    use: Use

    def __str__(self) -> str:
        value = printable(self.value.encode("utf-8", "surrogateescape"))
        return value if self.tag == DEVICE else f"{self.tag}={value}"


_PIECES = {
    b"word": rb"""[^\x00-\x20"'#;,}]""",
    b"disk": rb"(?:[svh]d[a-z]+|xvd[a-z]+|nvme\d{1,4}n\d{1,4}|mmcblk\d{1,4})(?:p?\d{1,4})?",
    b"id": rb"[0-9A-Fa-f]+(?:-[0-9A-Fa-f]+)+",
}
_NAME = re.compile(
    rb"""
    (?<![A-Za-z])(?P<tag>PARTUUID|UUID|PARTLABEL|LABEL)=["']?(?P<value>%(word)b+)
    | /dev/disk/by-(?P<by>partuuid|uuid|partlabel|label)/(?P<linked>%(word)b+)
    | (?P<device>/dev/(?:%(disk)b|disk/by-(?:id|path)/%(word)b+)(?!%(word)b))
    | \b(?:rd\.)?luks\.uuid=(?:luks-)?(?P<luks>%(id)b)
    """
    % _PIECES,
    re.VERBOSE,
)
_SEARCHED = re.compile(rb"(?<!\S)[\"']?(?P<fs>%(id)b)(?![\w-])|\S+" % _PIECES)
"""A word of GRUB's commands that is an identifier, or another one."""

_IDENTIFIER = re.compile(r"[0-9A-Fa-f]+(-[0-9A-Fa-f]+)+")
_BEFORE = re.compile(rb"(?<![\w.])(?P<key>root|resume|RESUME)=[\"']?$")
_BEFORE_SIZE = 16
"""Bytes in which that is found: a long line is not looked through for each name in it."""

_ENTRY = re.compile(rb"(?im)^[ \t]*(?:(?:menuentry|label)\b|\})")
"""Where an entry of a boot menu begins or ends (GRUB, syslinux); systemd-boot has a file for each."""

_ENTRY_SIZE = 4 * KIB
"""Bytes before and after a name in which its entry is looked at."""

_INITRAMFS = re.compile(rb"(?im)^[ \t]*initrd\w*[ \t]|\binitrd=")

_MOST_NAMES = 64
"""Swap spaces of one file, or names in a system, that are still mended: no system has as many."""

_ESP_FOLDERS = frozenset({b"/boot/efi", b"/efi"})
_PASSED_OVER = (b"/etc/lvm/", b"/etc/mdadm", b"/etc/grub.d/")
"""What names volumes by other identifiers, and scripts that look for disks by themselves."""


def find_references(files: Files) -> tuple[Reference, ...]:
    """All names of disks, partitions and filesystems in the files that tell a system of them; comments do not count."""
    return tuple(
        reference
        for path in referring(files)
        if not path.startswith(_PASSED_OVER)
        for reference in references_in(path, files.read(path) or b"")
    )


def references_in(path: bytes, content: bytes) -> Iterator[Reference]:
    """The names in one file."""
    offset = 0
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if not line.lstrip().startswith(b"#"):
            found = [*_NAME.finditer(line), *_searched(line)]
            for match in sorted(found, key=lambda match: match.start()):
                yield _reference(path, number, offset, line, match)
        offset += len(line)


def _searched(line: bytes) -> Iterator[re.Match[bytes]]:
    """The filesystems that GRUB is told to look for."""
    asked = False
    for match in _SEARCHED.finditer(line):
        if asked and match["fs"]:
            asked = False
            yield match
        asked = asked or match[0] == b"--fs-uuid" or match[0].endswith(b"search.fs_uuid")


def mend(files: Files, names: Names, mapping: Mapping[str, str]) -> tuple[Edit, ...]:
    """The edits after which a system's files name the parts of its disk, as far as that is certain.

    Args:
        files: the system.
        names: what there is.
        mapping: other identifiers by old ones that are known (see `plan.references.rewrite`).
    """
    renamed = rewrite(files, {**_inferred(_known_after(files, mapping), names), **mapping})
    after = Edited(files, renamed)
    return merged((*renamed, *_lasting(after, names)))


def boot_editor(
    names: Names, mapping: Mapping[str, str] | None = None
) -> Callable[[Files], tuple[Edit, ...]]:
    """`mend` with these facts, for a plan that asks its editors for edits."""
    return lambda files: mend(files, names, mapping or {})


def unknown_names(files: Files, names: Names) -> tuple[Finding, ...]:
    """What a system's files name that is not on its disk, or only by chance; one finding a name and file."""
    return _findings(find_references(files), names)


def unknown_inside(
    initramfs: bytes, contents: Mapping[bytes, bytes], names: Names
) -> tuple[Finding, ...]:
    """What the files in an initramfs name that is not on the disk; `contents` by their names there."""
    found = [
        Finding(
            f"{printable(name)} in it: {finding.message}",
            "it has to be made anew, if not now then on the machine that boots by it",
            initramfs,
        )
        for name, content in contents.items()
        for finding in _findings(tuple(references_in(name, content)), names)
    ]
    return tuple(found)


def is_stale(files: Files, contents: Mapping[bytes, bytes], names: Names) -> bool:
    """Whether an initramfs names what is gone, and the system that it is made from does not."""
    inside = [each for name, content in contents.items() for each in references_in(name, content)]
    lost = {str(each) for each in inside if _is_lost(each, names)}
    return not lost <= {str(each) for each in find_references(files)}


def _findings(references: Sequence[Reference], names: Names) -> tuple[Finding, ...]:
    found: dict[tuple[bytes, str], Finding] = {}
    for each in references:
        if _is_lost(each, names):
            message = f"{each} ({each.use.value}, line {each.line}) is not on this disk"
            hint = "right if it is on another disk of this machine; else the name has to be mended by hand"
        elif each.tag == DEVICE and not _is_own(each, names):
            message = (
                f"{each} ({each.use.value}, line {each.line}) may be another disk's, or nobody's"
            )
            hint = "name it by UUID; on the line of a kernel without initramfs by PARTUUID"
        else:
            continue
        found.setdefault((each.path, str(each)), Finding(message, hint, each.path))
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Edited:
    """Files as they will be once edits are executed."""

    files: Files
    edits: Sequence[Edit]

    def read(self, path: bytes) -> bytes | None:
        """See `Files`."""
        edit = next((each for each in self.edits if each.path == path), None)
        return edit.after if edit else self.files.read(path)

    def names(self, folder: bytes) -> tuple[bytes, ...]:
        """See `Files`."""
        return self.files.names(folder)


def _known_after(files: Files, mapping: Mapping[str, str]) -> Files:
    return Edited(files, rewrite(files, mapping)) if mapping else files


def _reference(
    path: bytes, number: int, offset: int, line: bytes, match: re.Match[bytes]
) -> Reference:
    facts = match.groupdict()
    group = next(name for name in ("value", "linked", "device", "fs", "luks") if facts.get(name))
    tags = {"value": facts.get("tag"), "linked": (facts.get("by") or b"").upper()}
    tag = tags.get(group, b"UUID")
    start, end = match.span(group)
    return Reference(
        path,
        number,
        offset + start,
        offset + end,
        DEVICE if group == "device" else (tag or b"").decode(),
        match[group].decode("utf-8", "surrogateescape"),
        _OF_GROUP.get(group) or _use(path, line, match.start()),
    )


def _use(path: bytes, line: bytes, start: int) -> Use:
    if path == b"/etc/crypttab":
        return Use.LOCKED
    if path == b"/etc/fstab":
        fields = line.split() if not line[:start].strip(b" \t\"'") else []
        if len(fields) < 3:
            return Use.OTHER
        if fields[2] == b"swap":
            return Use.SWAP
        return {b"/": Use.ROOT}.get(fields[1], Use.ESP if fields[1] in _ESP_FOLDERS else Use.OTHER)
    before = _BEFORE.search(line[max(start - _BEFORE_SIZE, 0) : start])
    if before is None:
        return Use.OTHER
    return Use.ROOT if before["key"] == b"root" else Use.RESUME


def _is_lost(reference: Reference, names: Names) -> bool:
    """Whether a name is certainly none of this disk's."""
    if reference.tag == DEVICE or "$" in reference.value:
        return False
    is_plain = reference.tag.startswith("PART")
    return (names.whole or is_plain) and names.find(reference.tag, reference.value) is None


def _is_own(reference: Reference, names: Names) -> bool:
    """Whether a device's name goes by the serial number of this very disk."""
    return bool(names.serial) and names.serial in reference.value


def _inferred(files: Files, names: Names) -> dict[str, str]:
    """Other identifiers by those that are gone, where all places that name one leave exactly one part to be meant."""
    meant: dict[tuple[str, str], list[Partition]] = {}
    references = find_references(files)
    beside = _beside(references)
    for each in references:
        if _is_lost(each, names) and _IDENTIFIER.fullmatch(each.value):
            candidates = _candidates(each, beside, names)
            if candidates is not None:
                key = (each.tag, each.value.lower())
                so_far = meant.get(key, candidates)
                meant[key] = [part for part in candidates if part in so_far]
    found = {
        value: new
        for (tag, value), parts in meant.items()
        if len(parts) == 1 and _same_form(value, new := tag_of(parts[0], tag))
    }
    return found if len(found) <= _MOST_NAMES else {}


_Beside = Mapping[tuple[bytes, Use], Mapping[str, Reference]]


def _beside(references: Sequence[Reference]) -> _Beside:
    """What stands for the same in the same menu: one reference for each name, by that."""
    found: dict[tuple[bytes, Use], dict[str, Reference]] = {}
    for each in references:
        found.setdefault((_menu(each.path), each.use), {})[each.value.lower()] = each
    return found


def _candidates(reference: Reference, all_beside: _Beside, names: Names) -> list[Partition] | None:
    """Which parts of the disk a name may stand for that is none of them; None where its use does not tell."""
    use = reference.use
    if use is Use.OTHER:
        return None
    if use is Use.LOCKED:
        return []
    beside = all_beside[_menu(reference.path), use]
    if len(beside) > (_MOST_NAMES if use is Use.SWAP else 1):
        return []
    if use is Use.ROOT:
        return [part for part in (names.root,) if part]
    if use is Use.FILES:
        return [*{names.boot: 0, names.root: 0}] if names.boot and names.root else []
    if use is Use.ESP:
        return list(names.esps)
    found = [names.find(each.tag, each.value) for each in beside.values()]
    if found.count(None) > 1:
        return []
    return [part for part in names.swaps if part not in found]


def _menu(path: bytes) -> bytes:
    """What a file belongs to: systemd-boot's menu is a folder of files."""
    folder, entries, _ = path.partition(b"/loader/entries/")
    return folder + entries if entries else path


def _same_form(old: str, new: str) -> bool:
    return [len(part) for part in old.split("-")] == [len(part) for part in new.split("-")]


def _lasting(files: Files, names: Names) -> Iterator[Edit]:
    """Names of devices become names of what they hold."""
    references = find_references(files)
    beside = _beside(references)
    for path, group in groupby(references, key=attrgetter("path")):
        before = files.read(path) or b""
        lasting = [
            (each, new) for each in group if (new := _lasting_name(each, before, beside, names))
        ]
        if lasting:
            pieces, at = [], 0
            for each, new in lasting:
                pieces += [before[at : each.start], new.encode()]
                at = each.end
            reasons = tuple(f"{each} is {new} on every machine" for each, new in lasting)
            yield Edit(path, before, b"".join((*pieces, before[at:])), reasons)


def _lasting_name(each: Reference, content: bytes, beside: _Beside, names: Names) -> str:
    """What to write for a device's name in a file with this content; empty where that is not certain."""
    if each.tag != DEVICE or _is_own(each, names):
        return ""
    parts = _candidates(each, beside, names) or []
    if len(parts) != 1:
        return ""
    if each.use is Use.ROOT and each.path != b"/etc/fstab":
        # What a kernel finds by itself: there may be no initramfs, which a UUID needs.
        if parts[0].uuid:
            return f"PARTUUID={parts[0].uuid}"
        if not _has_initramfs(content, each.start):
            return ""
    return f"UUID={parts[0].content.uuid}" if parts[0].content.uuid else ""


def _has_initramfs(content: bytes, at: int) -> bool:
    """Whether the entry of a boot menu that byte `at` is in loads an initramfs."""
    before = _ENTRY.split(content[max(at - _ENTRY_SIZE, 0) : at])[-1]
    after = _ENTRY.split(content[at : at + _ENTRY_SIZE], maxsplit=1)[0]
    return _INITRAMFS.search(before + after) is not None
