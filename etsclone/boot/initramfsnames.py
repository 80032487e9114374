"""What the initramfs of a system names: the files inside that tell it of disks and of interfaces.

Works inside `chroot.in_chroot`.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from etsclone.boot.initramfs import Budget, Member, members
from etsclone.errors import FormatError
from etsclone.units import KIB, MIB

_IMAGES = (b"initrd.img-*", b"initrd-*", b"initramfs-*.img", b"initramfs-linux*.img")
OF_DISKS = (b"conf/conf.d/*", b"etc/cmdline.d/*", b"cryptroot/crypttab", b"etc/crypttab")
"""initramfs-tools' resume and crypttab, dracut's kernel options and crypttab."""

OF_NETWORKS = tuple(
    top + name
    for top in (b"etc/", b"lib/", b"usr/lib/")
    for name in (b"systemd/network/*", b"udev/rules.d/*.rules")
)
"""Copies of the system's own, by which interfaces get their names before it starts: initramfs-tools puts what is in
/etc below lib, too."""

_KEPT = (b".bak", b".old", b".old-dkms", b".dpkg-bak", b".new")
_APART = (b"*kdump.img", b"*-kdump", b"initramfs-0-rescue-*")
"""What other services make than those that make the initramfs of kernels: kdump's, and the rescue image of dracut."""

_LARGEST, _MOST_TELLING, _LARGEST_TELLING = 64 * KIB, 1000, 1 * MIB
"""Such a file, how many, and their bytes together: there are a few lines in a handful of them."""

MOST_IMAGES = 16
"""Initramfs that are looked into: each may be large, and /boot may be full of them."""


def initramfs_images(names: Sequence[bytes]) -> tuple[bytes, ...]:
    """The paths of the initramfs among the sorted names in /boot, the last `MOST_IMAGES`; none kept from earlier."""
    return tuple(b"/boot/" + name for name in filter(is_initramfs, names))[-MOST_IMAGES:]


def is_initramfs(name: bytes) -> bool:
    """Whether something in /boot is called like an initramfs that is in use."""
    return _is_one_of(_IMAGES, name) and not name.endswith(_KEPT)


def is_made_apart(name: bytes) -> bool:
    """Whether an initramfs of that name in /boot is left as it is where all that kernels start with are made anew."""
    return _is_one_of(_APART, name)


def telling_files(
    path: bytes, budget: Budget | None = None, patterns: Sequence[bytes] = OF_DISKS
) -> Mapping[bytes, bytes]:
    """The files in an initramfs that may name disks, by their names in it.

    Args:
        path: the initramfs.
        budget: what it shares with others.
        patterns: what files are called that tell what is asked. Other files than those that name disks are passed over
            where they are larger, or more, than any that names interfaces: distributions have long rules for devices.

    Raises:
        FormatError: when it is none, cannot be read, is damaged, or holds too much that names disks.
    """
    disks, others = _Told(), _Told()
    try:
        with open(path, "rb") as file:
            for member in members(file, budget):
                if not member.size or not _is_one_of(patterns, member.name):
                    continue
                if _is_one_of(OF_DISKS, member.name):
                    disks.take(member)
                elif others.has_room(member):
                    others.take(member)
    except OSError as error:
        raise FormatError(f"it cannot be read: {error.strerror}") from error
    return disks.files | others.files


class _Told:
    """Files of an initramfs that are looked at, as far as there is room for them."""

    def __init__(self) -> None:
        self.files: dict[bytes, bytes] = {}
        self._size = 0

    def has_room(self, member: Member) -> bool:
        return (
            member.size <= _LARGEST
            and len(self.files) < _MOST_TELLING
            and self._size + member.size <= _LARGEST_TELLING
        )

    def take(self, member: Member) -> None:
        content = member.read(_LARGEST)
        if not self.has_room(member):
            raise FormatError("it holds more files that name disks than any is made with")
        self.files[member.name] = content
        self._size += member.size


def matching(contents: Mapping[bytes, bytes], patterns: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """Those of the files in an initramfs that are called so."""
    return {name: each for name, each in contents.items() if _is_one_of(patterns, name)}


def _is_one_of(patterns: Sequence[bytes], name: bytes) -> bool:
    return any(fnmatchcase(name, each) for each in patterns)
