"""fstab(5) and crypttab(5): what of a system's disk belongs where. Pure functions over text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NOT_ON_DISK = frozenset(
    (
        *("swap", "proc", "sysfs", "tmpfs", "devpts", "devtmpfs", "debugfs", "efivarfs"),
        *("nfs", "nfs4", "cifs", "9p", "overlay", "squashfs", "none"),
    )
)
_NOT_OURS = frozenset({"bind", "rbind", "loop", "_netdev"})
"""Options of lines that show again what is mounted already, or come by the network."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_TAG = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL|ID)=")
"""Source: mount(8)."""

_AUTOMOUNT = "x-systemd.automount"

_NO_LUKS = frozenset({"swap", "tmp", "plain", "tcrypt", "bitlk", "noauto"})
"""Options of crypttab's lines that are no LUKS volume, or are not opened at boot."""


@dataclass(frozen=True, slots=True)
class FstabEntry:
    """One line: what is mounted (`UUID=...`), where, its filesystem type and mount options."""

    spec: str
    where: str
    type: str
    options: tuple[str, ...]

    @property
    def optional(self) -> bool:
        """Whether the system boots without it."""
        return "nofail" in self.options

    @property
    def subvolume(self) -> tuple[str, ...]:
        """The mount option that names a subvolume of btrfs; none when there is none."""
        named = [each for each in self.options if each.startswith("subvol=")]
        return tuple(
            (named or [each for each in self.options if each.startswith("subvolid=")])[-1:]
        )


@dataclass(frozen=True, slots=True)
class CryptEntry:
    """One line of crypttab: the name of the opened volume, the encrypted device, a key file (empty: a passphrase)."""

    name: str
    spec: str
    key_file: str


def parse_fstab(text: str) -> tuple[FstabEntry, ...]:
    """The lines that mount a local filesystem at boot, parents before what is mounted beneath them."""
    entries = []
    for fields in _lines(text):
        if len(fields) < 3:
            continue
        options = tuple(fields[3].split(",")) if len(fields) > 3 else ("defaults",)
        spec, where = _unescape(fields[0]).replace('"', ""), _unescape(fields[1])
        manual = "noauto" in options and _AUTOMOUNT not in options
        if (
            where.startswith("/")
            and _names_device(spec)
            and fields[2] not in _NOT_ON_DISK
            and not manual
            and not _NOT_OURS & set(options)
        ):
            entries.append(FstabEntry(spec, where, fields[2], options))
    return tuple(sorted(entries, key=lambda entry: entry.where.rstrip("/").count("/")))


def parse_crypttab(text: str) -> tuple[CryptEntry, ...]:
    """The lines that open a LUKS volume at boot."""
    entries = []
    for fields in _lines(text):
        if len(fields) < 2:
            continue
        options = set(fields[3].split(",")) if len(fields) > 3 else set()
        key_file = fields[2] if len(fields) > 2 and fields[2].startswith("/") else ""
        # With a key from /dev/urandom it is new at every start; a key script's file is no key.
        scripted = any(each.startswith("keyscript=") for each in options)
        if not _NO_LUKS & options and not key_file.startswith("/dev/"):
            spec = _unescape(fields[1]).replace('"', "")
            entries.append(CryptEntry(fields[0], spec, "" if scripted else key_file))
    return tuple(entries)


def _lines(text: str) -> Iterator[list[str]]:
    """The fields of each line that is no comment and has no control characters: no path can hold the first of them."""
    for fields in map(str.split, text.splitlines()):
        if (
            fields
            and not fields[0].startswith("#")
            and not _CONTROL.search(_unescape(" ".join(fields)))
        ):
            yield fields


def _names_device(spec: str) -> bool:
    return spec.startswith("/dev/") or _TAG.match(spec) is not None


def _unescape(field: str) -> str:
    # getmntent(3): space, tab and backslash are written as octal escapes.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
