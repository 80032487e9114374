"""The drivers of the kernel that a system boots, and those that its initramfs holds. Works inside `in_chroot`."""

import os
from dataclasses import dataclass

from etsclone.boot.files import SystemFiles
from etsclone.boot.initramfs import members
from etsclone.errors import FormatError
from etsclone.plan.drivers import Kernel, kernel_of, module_of
from etsclone.plan.versions import SortKey, sort_key

_MODULES = b"/lib/modules"
_INITRAMFS = (b"/boot/initrd.img-%s", b"/boot/initramfs-%s.img", b"/boot/initrd-%s")
"""Where Debian, Red Hat and SUSE have it."""


@dataclass(frozen=True, slots=True)
class Drivers:
    """A kernel, and the modules in its initramfs; None, and a sentence about it, when these are not known."""

    kernel: Kernel
    held: frozenset[str] | None
    problem: str = ""


def drivers_of_system(root: bytes = b"") -> Drivers | None:
    """What the newest kernel of the system below `root` has; None when there are no kernel's modules at all."""
    files = SystemFiles()
    top = os.path.realpath(root + _MODULES)  # /lib is a link wherever /usr is merged
    versions = [version for version in files.names(top) if files.names(top + b"/" + version)]
    if not versions:
        return None
    # A kernel that was removed leaves its folder; what GRUB boots is the newest that is there.
    version = max(versions, key=lambda each: (_initramfs(root, each) is not None, _order(each)))
    kernel = _kernel(files, top, version)
    path = _initramfs(root, version)
    if path is None:
        return Drivers(kernel, None, f"no initramfs of {kernel.version} was found in /boot")
    try:
        return Drivers(kernel, _held(path, version))
    except (FormatError, OSError) as error:
        return Drivers(
            kernel, None, f"the initramfs of {kernel.version} was not looked into: {error}"
        )


def _kernel(files: SystemFiles, top: bytes, version: bytes) -> Kernel:
    names = (b"alias", b"dep", b"builtin", b"builtin.modinfo")
    texts = (files.read(top + b"/" + version + b"/modules." + name) for name in names)
    return kernel_of(os.fsdecode(version), *(text or b"" for text in texts))


def _initramfs(root: bytes, version: bytes) -> bytes | None:
    paths = (root + pattern % version for pattern in _INITRAMFS)
    return next((path for path in paths if os.path.isfile(path)), None)


def _held(path: bytes, version: bytes) -> frozenset[str]:
    # Opening a fifo would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        inside = b"/modules/" + version + b"/"
        return frozenset(module_of(each.name) for each in members(file) if inside in each.name) - {
            ""
        }


def _order(version: bytes) -> SortKey:
    return sort_key(os.fsdecode(version))
