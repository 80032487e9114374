"""Run the programs of a clone in the clone, where they see nothing else but its disk: to install its boot loader.

How they are kept from the system around is told in `etsclone.confined`. They may write to the clone, and to its disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etsclone import confined
from etsclone.confined import End, World
from etsclone.errors import CommandFailed

_KEPT = frozenset({0, 1, 3, 4, 5, 6, 7, 18, 31})
"""chown, dac_override, fowner, fsetid, kill, setgid, setuid, sys_chroot, setfcap (capabilities(7))."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status (128 + N for signal N, 127 when there is none), and its last words."""

    status: int
    said: str


def run_confined(
    root: str,
    argv: Sequence[str],
    *,
    devices: Mapping[str, str],
    links: Mapping[str, str],
    seconds: float,
    mounts: Sequence[str] = (),
) -> Ended:
    """Run a program of the system mounted at `root` to its end.

    Args:
        root: the folder; it has folders /dev, /proc, /sys, /run and /tmp.
        argv: name and arguments; found in the usual folders of the clone.
        devices: nodes that the program gets, by their paths in its /dev: those of this system.
        links: symbolic links in /dev, by their paths below it.
        seconds: after these it is killed.
        mounts: where, beneath `root`, other filesystems of the clone are mounted.

    Raises:
        NotRoot: without root rights.
        CommandFailed: when the time is over.
        EtscloneError: when the kernel does not grant what is needed.
    """
    world = World(
        mounts=mounts,
        writable=True,
        devices=devices,
        links=links,
        sysfs=True,
        capabilities=_KEPT,
    )
    ended = confined.run_confined(root, argv, world, timeout=seconds)
    match ended.end:
        case End.MISSING:
            return Ended(127, f"{argv[0]} is not installed in the clone\n")
        case End.TIME:
            raise CommandFailed(f"{argv[0]} of the clone did not end in time")
        case End.PROCESSES:
            raise CommandFailed(f"{argv[0]} of the clone started too many processes")
        case End.ITSELF:
            status = ended.status if ended.status >= 0 else 128 - ended.status
            return Ended(status, ended.output.decode("utf-8", "replace"))
