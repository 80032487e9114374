"""Initramfs whose files say something else: by one more archive behind the others.

The kernel unpacks all archives of an initramfs, one after the other, and a file of a later one takes the place of that
which an earlier one brought (Documentation/driver-api/early-userspace/buffer-format.rst). So nothing is unpacked and
packed again, and no program of the system is needed, which would not see the volumes that its root is on. Works inside
`chroot.in_chroot`.
"""

import io
import stat
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

from etsclone.boot.initramfs import members
from etsclone.errors import FormatError
from etsclone.model.edit import Edit
from etsclone.units import KIB, MIB, human

_TELLING = (b"conf/conf.d/*", b"cryptroot/crypttab", b"etc/mdadm/mdadm.conf")
"""All that tells an initramfs of initramfs-tools of disks. Those of dracut have units and hooks called by them."""

_MAKER = b"conf/initramfs.conf"
"""What each of initramfs-tools holds."""

_LZ4 = b"\x02\x21\x4c\x18"
"""Such an archive has no end of its own: what comes behind it could be taken for a part of it."""

_LARGEST = 512 * MIB


def amended(path: bytes, change: Callable[[bytes], bytes]) -> Edit | None:
    """The edit after which files of an initramfs of initramfs-tools say something else; None where none is to, or can.

    Args:
        path: the initramfs.
        change: makes of a file's content what it is to be.

    Raises:
        FormatError: when it is none, or damaged, or too large.
        OSError: when it cannot be read.
    """
    with open(path, "rb") as file:
        before = file.read(_LARGEST + 1)
    if len(before) > _LARGEST:
        raise FormatError(f"it has more than {human(_LARGEST)}")
    if _LZ4 in before:
        return None
    found: dict[bytes, tuple[int, bytes]] = {}
    known = False
    for member in members(io.BytesIO(before)):
        known = known or member.name == _MAKER
        if stat.S_ISREG(member.mode) and any(fnmatchcase(member.name, each) for each in _TELLING):
            found[member.name] = member.mode, member.read(64 * KIB)
    changed = {
        name: (mode, after)
        for name, (mode, content) in found.items()
        if (after := change(content)) != content
    }
    if not known or not changed:
        return None
    names = ", ".join(name.decode(errors="replace") for name in changed)
    return Edit(path, before, _filled(before) + archive(changed), (f"new {names} in it",))


def archive(files: Mapping[bytes, tuple[int, bytes]]) -> bytes:
    """An archive of regular files, by their names: mode and content."""
    whole = [_entry(name, mode, content) for name, (mode, content) in files.items()]
    return b"".join((*whole, _entry(b"TRAILER!!!", 0, b"")))


def _entry(name: bytes, mode: int, content: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _filled(head + name + b"\0") + _filled(content)


def _filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
