"""The door to calls of the Linux kernel that Python's `os` lacks, some until 3.12: namespaces, mounts, capabilities.

See section 2 of the manual. Each raises OSError when the kernel says no, where nothing else is said. The numbers are
those of the kernel's headers, the same on every architecture.
"""

import ctypes
import os
import signal
from collections.abc import Collection
from contextlib import suppress
from functools import cache

_libc = ctypes.CDLL(None, use_errno=True)

NEW_MOUNTS = 0x00020000  # linux/sched.h, CLONE_NEW*
NEW_CGROUP = 0x02000000
NEW_HOST_NAME = 0x04000000
NEW_IPC = 0x08000000
NEW_PIDS = 0x20000000
NEW_NETWORK = 0x40000000

READ_ONLY = 0x1  # linux/mount.h, MS_*
NO_SUID = 0x2
NO_DEVICES = 0x4
NO_PROGRAMS = 0x8
REMOUNT = 0x20
BIND = 0x1000
MOVE = 0x2000
RECURSIVE = 0x4000
PRIVATE = 0x40000
SLAVE = 0x80000

DETACH = 0x2  # linux/fs.h, MNT_DETACH

_SET_PDEATHSIG = 1  # linux/prctl.h
_SET_DUMPABLE = 4
_CAPBSET_DROP = 24
_SET_SECCOMP = 22
_SET_NO_NEW_PRIVS = 38

_FILTER_MODE = 2  # linux/seccomp.h

_CAPABILITIES = 64
_VERSION_3 = 0x20080522  # linux/capability.h


def unshare(flags: int) -> None:
    """Leave namespaces that are shared with other processes; of new pids, only children are in it (unshare(2))."""
    _check(_libc.unshare(flags))


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount, bind, move or change a mount (mount(2))."""
    words = (source, target, kind, options)
    what, where, fs, data = (os.fsencode(word) for word in words)
    _check(_libc.mount(what, where, fs, ctypes.c_ulong(flags), data), target)


def unmount(target: str, flags: int = 0) -> None:
    """Unmount (umount2(2))."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def pivot_root(new: str, old: str) -> None:
    """Change the root mount (pivot_root(2)); not possible where the root is the kernel's own initial one."""
    _check(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), new)


@cache
def mount_privately() -> None:
    """From now on, what this process and its children mount is mounted for them alone, and gone when they have ended.

    Even when they are killed. What others mount and unmount is still seen. Where the kernel does not grant this, mounts
    are everybody's, as they were; a person may have to unmount what a killed process left.
    """
    with suppress(OSError):
        unshare(NEW_MOUNTS)
        mount("", "/", flags=RECURSIVE | SLAVE)


def die_with(parent: int) -> None:
    """Have this process killed at once when the thread of `parent` (a pid) that forked it ends, however it ends."""
    end_with_parent()
    if os.getppid() != parent:  # it ended before that was said
        os.kill(os.getpid(), signal.SIGKILL)


def end_with_parent() -> None:
    """The same, where the parent's pid means nothing: in a new namespace of pids."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)


def hide_from_others() -> None:
    """Have no process without further rights look into this one (ptrace(2), /proc/PID)."""
    _prctl(_SET_DUMPABLE, 0)


def keep_capabilities(kept: Collection[int]) -> None:
    """Give up all capabilities but some, for good: no program that is executed gets one back (capabilities(7))."""
    for number in range(_CAPABILITIES):
        if number not in kept and _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # beyond the last that this kernel knows
    bits = sum(1 << number for number in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    # Effective, permitted, inheritable; of the first 32, then of the others.
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _check(_libc.capset(header, data))
    _prctl(_SET_NO_NEW_PRIVS, 1)


def filter_calls(program: bytes) -> None:
    """Have a program of BPF judge each system call from now on, also those of what is executed (seccomp(2))."""
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):  # linux/filter.h, struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filled = Program(len(program) // 8, ctypes.addressof(code))
    _check(_libc.prctl(_SET_SECCOMP, ctypes.c_ulong(_FILTER_MODE), ctypes.byref(filled), 0, 0))


def filesystem_kind(descriptor: int) -> int:
    """The number of the kind of filesystem that something lies on (fstatfs(2), linux/magic.h)."""
    status = (ctypes.c_long * 64)()  # struct statfs begins with it, and is smaller
    _check(_libc.fstatfs(descriptor, status))
    return status[0]


def _prctl(operation: int, value: int) -> None:
    _check(_libc.prctl(operation, ctypes.c_ulong(value), 0, 0, 0))


def _check(result: int, name: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
