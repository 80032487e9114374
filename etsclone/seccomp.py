"""A filter of system calls that keeps a process, and all that it starts, out of new user namespaces.

In one, whoever makes it has all capabilities, and with them reaches whatever the kernel guards by those. The kernel
offers no other wall that holds: that a process in a chroot gets none (current_chrooted(), kernel/user_namespace.c) is
over as soon as it leaves that, as CAP_SYS_CHROOT lets it.

Sources: linux/seccomp.h, linux/filter.h, linux/audit.h; Documentation/userspace-api/seccomp_filter.rst.
"""

import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from etsclone import kernel

_NEW_USERS = 0x10000000  # linux/sched.h, CLONE_NEWUSER

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD|W|ABS; BPF_JMP|K with JEQ, JGE, JSET; BPF_RET|K."""
_NUMBER, _ARCHITECTURE, _FLAGS = 0, 4, 16
"""Where struct seccomp_data has the call's number, the architecture, and the low half of its first argument."""
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
"""SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with the errno in its low half."""
_X32 = 0x40000000
"""From here on, numbers on x86-64 are those of its x32 calls: a second way to each."""


@dataclass(frozen=True, slots=True)
class _Calls:
    """A machine by its AUDIT_ARCH_*, and the numbers of its calls (asm/unistd.h)."""

    architecture: int
    clone: int
    unshare: int
    setns: int
    clone3: int = 435


_MACHINES = {
    "x86_64": _Calls(0xC000003E, clone=56, unshare=272, setns=308),
    "aarch64": _Calls(0xC00000B7, clone=220, unshare=97, setns=268),
}


def forbid_user_namespaces() -> None:
    """Let this process and all that it starts neither make nor enter a user namespace, for good.

    `clone` and `unshare` fail (EPERM) when they are to make one, and `setns` always does. `clone3` is not there
    (ENOSYS): its flags are in memory, where no filter sees them; the C library then takes `clone`. Neither is any
    call of another architecture, by which programs of 32 bits would get around this.

    The process must have CAP_SYS_ADMIN.

    Raises:
        OSError: when the kernel has no filters, or this machine's calls are not known.
    """
    calls = _MACHINES.get(os.uname().machine)
    if calls is None:
        raise OSError(errno.ENOSYS, f"no filter is known for {os.uname().machine}")
    kernel.filter_calls(_assemble(_rules(calls)))


_Rule = tuple[int, int, str, str]
"""An instruction: code, value, and where it goes when that is so, and when not; an empty word is the next one."""


def _rules(calls: _Calls) -> Sequence[_Rule]:
    return (
        (_LOAD, _ARCHITECTURE, "", ""),
        (_EQUAL, calls.architecture, "", "absent"),
        (_LOAD, _NUMBER, "", ""),
        (_AT_LEAST, _X32, "absent", ""),
        (_EQUAL, calls.clone3, "absent", ""),
        (_EQUAL, calls.setns, "denied", ""),
        (_EQUAL, calls.unshare, "flags", ""),
        (_EQUAL, calls.clone, "flags", "allowed"),
        (_LOAD, _FLAGS, "", ""),
        (_ANY_BIT, _NEW_USERS, "denied", "allowed"),
        (_RETURN, _FAIL | errno.ENOSYS, "", ""),
        (_RETURN, _FAIL | errno.EPERM, "", ""),
        (_RETURN, _ALLOW, "", ""),
    )


def _assemble(rules: Sequence[_Rule]) -> bytes:
    """The rules as an array of struct sock_filter. The last four of them have the names that others go to."""
    places = {"flags": len(rules) - 5, "absent": len(rules) - 3}
    places |= {"denied": len(rules) - 2, "allowed": len(rules) - 1}

    def distance(here: int, name: str) -> int:
        return places[name] - here - 1 if name else 0

    return b"".join(
        struct.pack("=HBBI", code, distance(here, yes), distance(here, no), value)
        for here, (code, value, yes, no) in enumerate(rules)
    )
