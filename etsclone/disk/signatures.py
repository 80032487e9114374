"""What a disk or partition contains, as libblkid finds it: the library behind blkid(8). Through ctypes.

Called directly, because every start of blkid takes longer than its work, and there is one for each partition. What is
asked, and in which order, is what `blkid --probe` asks (misc-utils/blkid.c, lowprobe_superblocks); the functions are
those of blkid.h.
"""

import ctypes
import os
from functools import cache

from etsclone.errors import MissingProgram
from etsclone.model.disk import Content
from etsclone.units import KIB

_ENTRY_DETAILS = 1 << 2
_ONLY_IN = 2
_FOUND = 0
_FLOPPY = 1440 * KIB


def find_content(path: str, start: int, size: int, kind: str = "") -> Content:
    """What there is in `size` bytes of a device or file from `start` on; empty when it is unknown or ambiguous.

    Args:
        path: read through the page cache; what cannot be read holds nothing.
        start: in bytes.
        size: in bytes, above 0.
        kind: the only type to look for, as blkid calls it; empty for all.

    Raises:
        MissingProgram: when libblkid is not installed.
    """
    library = _library()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return Content()
    probe = library.blkid_new_probe()
    try:
        if library.blkid_probe_set_device(probe, descriptor, start, size) != 0:
            return Content()
        if not _probed(library, probe, size, kind):
            return Content()
        return Content(*(_value(library, probe, name) for name in (b"TYPE", b"UUID", b"LABEL")))
    finally:
        library.blkid_free_probe(probe)
        os.close(descriptor)


def _probed(library: ctypes.CDLL, probe: int, size: int, kind: str) -> bool:
    if kind:
        names = (ctypes.c_char_p * 2)(kind.encode(), None)
        library.blkid_probe_filter_superblocks_type(probe, _ONLY_IN, names)
    library.blkid_probe_enable_partitions(probe, 1)
    if size <= _FLOPPY and library.blkid_probe_is_wholedisk(probe):
        # What is that small and has a partition table is not looked at further.
        if library.blkid_do_fullprobe(probe) < 0:
            return False
        if _value(library, probe, b"PTTYPE"):
            return True
    library.blkid_probe_set_partitions_flags(probe, _ENTRY_DETAILS)
    library.blkid_probe_enable_superblocks(probe, 1)
    # 1: nothing. -2: several signatures, so nobody can say what it is. -1: it cannot be read.
    return bool(library.blkid_do_safeprobe(probe) == _FOUND)


def _value(library: ctypes.CDLL, probe: int, name: bytes) -> str:
    data = ctypes.c_char_p()
    if library.blkid_probe_lookup_value(probe, name, ctypes.byref(data), None) != 0:
        return ""
    return (data.value or b"").decode("utf-8", "surrogateescape")


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libblkid.so.1")
    except OSError as error:
        raise MissingProgram(
            "libblkid is not installed: it tells what a partition contains",
            hint="apt install libblkid1",
        ) from error
    library.blkid_new_probe.restype = ctypes.c_void_p
    number, pointer, offset = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
    library.blkid_probe_set_device.argtypes = (pointer, number, offset, offset)
    library.blkid_probe_filter_superblocks_type.argtypes = (pointer, number, pointer)
    library.blkid_probe_lookup_value.argtypes = (pointer, ctypes.c_char_p, pointer, pointer)
    for name in ("enable_partitions", "set_partitions_flags", "enable_superblocks"):
        getattr(library, f"blkid_probe_{name}").argtypes = (pointer, number)
    for name in ("free_probe", "do_fullprobe", "do_safeprobe", "probe_is_wholedisk"):
        getattr(library, f"blkid_{name}").argtypes = (pointer,)
    return library
