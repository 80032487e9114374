"""Whether a system's kernel and its initramfs have the drivers that a machine needs. Pure.

The files are those that depmod(8) leaves in /lib/modules/VERSION; a module is called by its name with underscores.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from etsclone.model.hardware import Device, Purpose

_FILE = re.compile(rb"(?:.*/)?([^/]+)\.ko(?:\.xz|\.zst|\.gz)?")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a kernel can drive: patterns of modaliases with their modules, what each of them needs, what is built in."""

    version: str
    aliases: tuple[tuple[str, str], ...]
    needs: Mapping[str, tuple[str, ...]]
    builtin: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lack:
    """Devices of one name for which something is missing.

    `modules` are those that the initramfs does not hold; when there are none, the kernel itself has no driver.
    """

    purpose: Purpose
    name: str
    kernel: str
    modules: tuple[str, ...]

    def __str__(self) -> str:
        if not self.modules:
            return f"kernel {self.kernel} has no driver for this machine's {self.name}"
        verb = "drives" if len(self.modules) == 1 else "drive"
        modules = f"{', '.join(self.modules)}, which {verb} this machine's {self.name}"
        return f"the initramfs of {self.kernel} lacks {modules}"


def kernel_of(version: str, alias: bytes, dep: bytes, builtin: bytes, modinfo: bytes) -> Kernel:
    """A kernel by the content of `modules.alias`, `.dep`, `.builtin` and `.builtin.modinfo`."""
    return Kernel(
        version,
        (*_aliases(alias), *_builtin_aliases(modinfo)),
        dict(_needs(dep)),
        frozenset(filter(None, map(module_of, builtin.splitlines()))),
    )


def module_of(path: bytes) -> str:
    """The module that a file is; empty when it is none."""
    match = _FILE.fullmatch(path.strip())
    return match[1].decode("ascii", "replace").replace("-", "_") if match else ""


def lacking(
    kernel: Kernel, held: frozenset[str] | None, devices: Iterable[Device]
) -> tuple[Lack, ...]:
    """For which devices a kernel, or its initramfs, lacks a driver.

    Args:
        kernel: the kernel.
        held: the modules that its initramfs holds; None when that is not known.
        devices: what the machine has.
    """
    found: dict[tuple[Purpose, str], list[str] | None] = {}
    for device in devices:
        modules = _modules_for(kernel, device)
        key = device.purpose, device.name
        if not modules:
            found[key] = None
        elif held is not None and found.get(key, []) is not None:
            missing = min((_missing(kernel, held, module) for module in modules), key=len)
            found[key] = [*(found.get(key) or ()), *missing]
    return tuple(
        Lack(purpose, name, kernel.version, tuple(dict.fromkeys(modules or ())))
        for (purpose, name), modules in found.items()
        if modules is None or modules
    )


def _modules_for(kernel: Kernel, device: Device) -> tuple[str, ...]:
    """Those that can drive a device; only the one that does so here, if it is among them."""
    modules = dict.fromkeys(
        module
        for pattern, module in kernel.aliases
        # Of ten thousands of patterns, only a few begin as the device does.
        if device.modalias.startswith(_WILD.split(pattern, maxsplit=1)[0])
        and fnmatchcase(device.modalias, pattern)
    )
    here = device.module.replace("-", "_")
    return (here,) if here in modules else tuple(modules)


def _missing(kernel: Kernel, held: frozenset[str], module: str) -> list[str]:
    needed = (module, *kernel.needs.get(module, ()))
    return [each for each in needed if each not in held and each not in kernel.builtin]


def _aliases(text: bytes) -> Iterator[tuple[str, str]]:
    for line in text.decode("ascii", "replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "alias":
            yield words[1], words[2].replace("-", "_")


def _builtin_aliases(text: bytes) -> Iterator[tuple[str, str]]:
    for field in text.decode("ascii", "replace").split("\0"):
        module, _, alias = field.partition(".alias=")
        if alias:
            yield alias, module.replace("-", "_")


def _needs(text: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in text.splitlines():
        path, _, needed = line.partition(b":")
        yield module_of(path), tuple(map(module_of, needed.split()))
