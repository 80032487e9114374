"""What is known of how a disk boots, and by which names its system looks for its parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from etsclone.model.disk import Content, Partition
from etsclone.model.tree import printable


class Firmware(Enum):
    """What starts a machine's boot loader."""

    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should know of how a disk boots: what is wrong, how to mend it, and in which file."""

    message: str
    hint: str = ""
    path: bytes = b""

    def __str__(self) -> str:
        where = f"{printable(self.path)}: " if self.path else ""
        return f"{where}{printable(self.message)}"


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which a disk boots as it is: by which firmware, and what that starts."""

    firmware: Firmware
    loader: str

    def __str__(self) -> str:
        return f"boots by {self.firmware.name} ({printable(self.loader)})"


@dataclass(frozen=True, slots=True)
class BootReport:
    """How a disk boots (not at all when there are no ways), and what is missing or wrong."""

    ways: tuple[Way, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Core:
    """Where an installed GRUB looks for its files: built-in prefix (`(,gpt2)/boot/grub`), and commands before it."""

    prefix: str
    config: str


@dataclass(frozen=True, slots=True)
class BootSector:
    """The boot code that a BIOS machine starts.

    `code` tells whether there is any, `grub` whether it is GRUB's, which loads a core from `place` (in words); `core`
    is what is found there, None when that is no core.
    """

    code: bool
    grub: bool = False
    core: Core | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class EfiProgram:
    """A program on an EFI system partition that a firmware may start.

    `path` is absolute there (`/EFI/BOOT/BOOTX64.EFI`); `machine` is what its PE header says (0x8664 for x86-64, 0xaa64
    for arm64, 0 when it is no PE file); `kind` is `GRUB`, `shim`, `systemd-boot` or empty.
    """

    path: str
    machine: int
    kind: str = ""
    core: Core | None = None

    @property
    def folder(self) -> str:
        """Where it lies."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Esp:
    """An EFI system partition: its programs, and its grub.cfg files by the folder that they are in.

    `entry_makers` are companions of shims that make boot entries for what is in other folders (`fbx64.efi`).
    `trouble` says why it cannot be read, and is empty when it can.
    """

    number: int
    programs: tuple[EfiProgram, ...] = ()
    menus: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""
    entry_makers: tuple[EfiProgram, ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """By what names the parts of one disk can be found.

    Attributes:
        parts: its partitions, and the volumes inside them as far as they are known (those have the number 0).
        root: what holds the system's root; None when that is not known.
        boot: what holds its /boot.
        whole: whether the parts are all there is: nothing lies in volumes that are not open.
        serial: the disk's serial number; empty when it has none.
    """

    parts: tuple[Partition, ...]
    root: Partition | None = None
    boot: Partition | None = None
    whole: bool = True
    serial: str = ""

    @property
    def swaps(self) -> tuple[Partition, ...]:
        """Its swap spaces."""
        return tuple(part for part in self.parts if part.content.type == "swap")

    @property
    def esps(self) -> tuple[Partition, ...]:
        """Its EFI system partitions."""
        return tuple(part for part in self.parts if is_esp(part))

    def find(self, tag: str, value: str) -> Partition | None:
        """The part with this `UUID`, `LABEL`, `PARTUUID` or `PARTLABEL`."""
        exact = tag.endswith("LABEL")
        return next(
            (
                part
                for part in self.parts
                if (name := tag_of(part, tag))
                and (name == value or (not exact and name.lower() == value.lower()))
            ),
            None,
        )


ESP_TYPES = frozenset({"C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "EF"})
"""Types of an EFI system partition in a GPT (UEFI 2.10, table 5.7) and in an MBR (5.2.2)."""

BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
"""GRUB's type of the partition that holds its core on a GPT disk."""


def is_esp(part: Partition) -> bool:
    """Whether its type says that it is an EFI system partition."""
    return part.type in ESP_TYPES


def tag_of(part: Partition, tag: str) -> str:
    """What a part is called by `UUID`, `LABEL`, `PARTUUID` or `PARTLABEL`; empty where it has no such name."""
    content: Content = part.content
    names = {
        "UUID": content.uuid,
        "LABEL": content.label,
        "PARTUUID": part.uuid,
        "PARTLABEL": part.name,
    }
    return names.get(tag, "")
