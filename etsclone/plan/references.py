"""Files of a system that name disks, partitions and filesystems by their identifiers, and those files with others.

Each identifier has some spellings: systemd escapes its dashes in names of units (systemd-escape(1)), mdadm writes four
groups with colons (mdadm.conf(5)), GRUB's `mduuid/` and `cryptouuid/` and LVM's files leave the dashes out.
"""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

from etsclone.model.edit import Edit, Files

_FILES = (
    "/etc/fstab", "/etc/crypttab", "/etc/default/grub", "/etc/default/grub.d/*", "/etc/grub.d/*",
    "/etc/kernel/cmdline", "/etc/cmdline.d/*", "/etc/dracut.conf", "/etc/dracut.conf.d/*",
    "/etc/initramfs-tools/initramfs.conf", "/etc/initramfs-tools/conf.d/*", "/etc/uswsusp.conf",
    "/etc/mdadm.conf", "/etc/mdadm/mdadm.conf", "/etc/mdadm/mdadm.conf.d/*", "/etc/lvm/devices/system.devices",
    "/etc/systemd/system/*.mount", "/etc/systemd/system/*.automount", "/etc/systemd/system/*.swap",
    "/etc/systemd/system/*.service", "/etc/systemd/system/*.d/*.conf",
    "/boot/grub*/*.cfg", "/boot/grub*/device.map", "/boot/grub*/grubenv",
    "/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg",
    *(f"{top}/loader/entries/*.conf" for top in ("/boot", "/boot/efi", "/efi")),
    *(f"{top}/EFI/*/{name}" for top in ("/boot", "/boot/efi", "/efi") for name in ("grub.cfg", "grubenv")),
)  # fmt: skip
"""Where boot loaders, initramfs makers and systemd are told of disks; `*` stands for the names in a folder."""

_UNITS = "/etc/systemd/system/*"
_LOADERS = tuple(f"{top}/EFI/*/*.efi" for top in ("/boot", "/boot/efi", "/efi"))

_BY_LABEL = re.compile(rb"(?:PART)?LABEL=|/dev/disk/by-(?:part)?label/")

_UUID = re.compile("-".join(f"([0-9a-f]{{{size}}})" for size in (8, 4, 4, 4, 12)))
_LVM = re.compile("-".join(f"([0-9A-Za-z]{{{size}}})" for size in (6, 4, 4, 4, 4, 4, 6)))
_SHORT = re.compile(r"0x[0-9a-f]{8}|[0-9a-f]{8}-[0-9a-f]{2}|[0-9a-f]{4}-[0-9a-f]{4}|[0-9a-f]{16}")
"""The identifier of an MBR's disk, of one of its partitions; the serial numbers of FAT and of NTFS."""

_ESCAPED_DASH = r"\x2d"
_NO_WORD = r"(?![0-9A-Za-z])"
_AFTER_ALL = r"(?:(?<![0-9A-Za-z])|(?<=\\x2d))"
"""What may stand before an identifier that nothing else looks like: also a dash, as in `luks-UUID`."""


def rewrite(
    files: Files, mapping: Mapping[str, str], names: Mapping[str, str] = MappingProxyType({})
) -> tuple[Edit, ...]:
    """The edits after which a system's files name other identifiers.

    All are replaced at once: two that change places do so. What is found is told apart from its surroundings by word,
    in upper and lower case (but LVM's, where these differ), and written in the case in which it was found.

    Args:
        files: the system.
        mapping: other identifiers by old ones, each as blkid, sfdisk or LVM prints it: UUIDs (of filesystems, swap,
            LUKS, md, partitions, GPT disks), serials of FAT (`ABCD-1234`), identifiers of an MBR (`0x1234abcd`) and of
            its partitions (`1234abcd-01`), UUIDs of LVM.

    Returns:
        One edit for each file that names any of them.

    Raises:
        ValueError: when the mapping holds something else, or gives an identifier one of another form.
    """
    spelled, groups = _Spellings(mapping), [_Group(*each) for each in names.items()]
    edits = []
    for path in _paths(files):
        before = files.read(path)
        if before is None:
            continue
        after, found = spelled.replaced(before)
        reasons = [f"{old} is {mapping[old]} now" for old in mapping if old in found]
        for group in groups:
            after, count = group.replaced(after)
            reasons += [f"the volume group {group.old} is {group.new} now"] * bool(count)
        if after != before:
            edits.append(Edit(path, before, after, tuple(reasons)))
    return tuple(edits)


def stale(files: Files, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """What else names old identifiers and cannot follow by an edit, one line each; arguments and errors as `rewrite`.

    These are units of systemd that are called by one, and boot loaders with one built in.
    """
    spelled = _Spellings(mapping)
    units = [path for path in _matching(files, _UNITS) if spelled.replaced(path)[1]]
    loaders = [
        path
        for pattern in _LOADERS
        for path in _matching(files, pattern)
        if spelled.replaced(files.read(path) or b"")[1]
    ]
    return (
        *(f"{_text(path)} is called by an old identifier: give it another name" for path in units),
        *(
            f"{_text(path)} names an old identifier: install the boot loader again"
            for path in loaders
        ),
    )


def renamed(
    content: bytes,
    mapping: Mapping[str, str],
    names: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """One content as `rewrite` makes it; mapping, names, and errors, as there."""
    after, _ = _Spellings(mapping).replaced(content)
    for old, new in names.items():
        after, _ = _Group(old, new).replaced(after)
    return after


def names_old(
    contents: Mapping[bytes, bytes],
    mapping: Mapping[str, str],
    names: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Whether any of some contents names an old identifier; mapping, names, and errors, as for `rewrite`."""
    spelled, groups = _Spellings(mapping), [_Group(*each) for each in names.items()]
    return any(
        spelled.replaced(content)[1] or any(group.replaced(content)[1] for group in groups)
        for content in contents.values()
    )


def named_by_label(files: Files) -> tuple[str, ...]:
    """What fstab mounts by a label, which source and clone have in common, one line each."""
    lines = (files.read(b"/etc/fstab") or b"").splitlines()
    words = [
        line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith(b"#")
    ]
    return tuple(
        f"fstab names {_text(word)}, which source and clone have in common: name it by UUID"
        for word in words
        if _BY_LABEL.match(word)
    )


def _text(path: bytes) -> str:
    return path.decode(errors="replace")


class _Spellings:
    """The spellings of the identifiers of a mapping, and what takes their places."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self._exact: dict[str, tuple[str, str]] = {}
        self._any_case: dict[str, tuple[str, str]] = {}
        patterns: list[str] = []
        for old, new in mapping.items():
            known = self._exact if _LVM.fullmatch(old) else self._any_case
            for spelling, other, pattern in _spellings(old, new):
                known[spelling] = (old, other)
                patterns.append(pattern)
        self._pattern = re.compile("|".join(patterns).encode()) if patterns else None

    def replaced(self, content: bytes) -> tuple[bytes, frozenset[str]]:
        """A content with the new identifiers, and the old ones that it names."""
        if self._pattern is None:
            return content, frozenset()
        found = set()

        def other(match: re.Match[bytes]) -> bytes:
            text = match[0].decode()
            exact = self._exact.get(text)
            old, new = exact or self._any_case[text.lower()]
            found.add(old)
            return (new if exact else _as_written(text, new)).encode()

        return self._pattern.sub(other, content), frozenset(found)


class _Group:
    """A volume group by its name: that is replaced only where it can be nothing else.

    In names of device-mapper a dash is doubled, before the one that parts group and volume (lvm(8)).
    """

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new
        mapped, other = old.replace("-", "--"), new.replace("-", "--")
        self._patterns = [
            (rf"(/dev/mapper/|\blvm/){re.escape(mapped)}(?=-[^-])", other),
            (rf"(dev-mapper-){re.escape(_escaped(mapped))}(?=\\x2d(?!\\x2d))", _escaped(other)),
            (rf"(/dev/){re.escape(old)}(?=/)", new),
            (rf"(\bdev-){re.escape(_escaped(old))}(?=-)", _escaped(new)),
            (rf"(\brd\.lvm\.(?:vg|lv)=){re.escape(old)}(?![0-9A-Za-z+_.-])", new),
        ]

    def replaced(self, content: bytes) -> tuple[bytes, int]:
        """A content with the new name, and how often it was there."""
        total = 0
        for pattern, name in self._patterns:
            template = r"\g<1>" + name.replace("\\", r"\\")
            content, count = re.subn(pattern.encode(), template.encode(), content)
            total += count
        return content, total


def _spellings(old: str, new: str) -> Iterator[tuple[str, str, str]]:
    """How an identifier may be spelled, the other one in that spelling, and the pattern that finds it."""
    if old == new:
        return
    if _LVM.fullmatch(old) and _LVM.fullmatch(new):
        for dash in ("-", _ESCAPED_DASH, ""):
            spelling = old.replace("-", dash)
            yield spelling, new.replace("-", dash), _AFTER_ALL + re.escape(spelling) + _NO_WORD
        return
    low, other = old.lower(), new.lower()
    if _UUID.fullmatch(low) and _UUID.fullmatch(other):
        for spell in (_dashed, _escaped, _plain, _with_colons):
            spelling = spell(low)
            yield spelling, spell(other), f"{_AFTER_ALL}(?i:{re.escape(spelling)}){_NO_WORD}"
    elif _SHORT.fullmatch(low) and len(low) == len(other) and _SHORT.fullmatch(other):
        # Not as a part of a longer one.
        yield low, new, rf"(?<![0-9A-Za-z-])(?i:{re.escape(low)})(?![0-9A-Za-z-])"
        if "-" in low:
            pattern = rf"(?<![0-9A-Za-z])(?i:{re.escape(_escaped(low))})(?![0-9A-Za-z]|\\x2d)"
            yield _escaped(low), _escaped(new), pattern
    else:
        raise ValueError(f"not two identifiers of one form: {old!r}, {new!r}")


def _dashed(uuid: str) -> str:
    return uuid


def _escaped(uuid: str) -> str:
    return uuid.replace("-", _ESCAPED_DASH)


def _plain(uuid: str) -> str:
    return uuid.replace("-", "")


def _with_colons(uuid: str) -> str:
    digits = _plain(uuid)
    return ":".join(digits[at : at + 8] for at in range(0, 32, 8))


def _as_written(found: str, new: str) -> str:
    """An identifier in the case of the one in whose place it comes; one of digits alone has none."""
    letters = found.replace(_ESCAPED_DASH, "").replace("0x", "")
    if letters == letters.lower() == letters.upper():
        return new
    if letters == letters.upper():
        return new.upper().replace(_ESCAPED_DASH.upper(), _ESCAPED_DASH).replace("0X", "0x")
    return new.lower()


def referring(files: Files) -> Iterator[bytes]:
    """The paths of the files that may name disks, whether they are there or not."""
    yield from _paths(files)


def _paths(files: Files) -> Iterator[bytes]:
    for pattern in _FILES:
        yield from _matching(files, pattern)


def _matching(files: Files, pattern: str) -> Iterator[bytes]:
    """The paths that a pattern stands for; a path without `*` stands for itself, whether it is there or not."""
    folders = [b""]
    for part in pattern.strip("/").split("/"):
        name = part.encode()
        folders = [
            folder + b"/" + each
            for folder in folders
            for each in (_names(files, folder or b"/", name) if b"*" in name else (name,))
        ]
    yield from folders


def _names(files: Files, folder: bytes, pattern: bytes) -> Iterator[bytes]:
    return (name for name in files.names(folder) if fnmatchcase(name, pattern))
