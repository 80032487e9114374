"""Run a program of a mounted clone where it can do no harm to the system around it, nor to the clone unless it may.

A clone's programs are as little to be trusted as the rest of it. One runs in namespaces of its own: its root is the
clone, and no other mount is there; it sees no process but its own, no network, no device but those without state, and
empty folders to write to, in memory. It has few capabilities, none of which reaches beyond that, and it inherits no
open file. All that it has started ends with it, or when its time is up. What more it gets, its `World` says.

Three processes: a watcher, which reads what the program writes and looks at the clock; a keeper, the first process of
the new pid namespace, with which the kernel ends all others; and the program.
"""

import contextlib
import errno
import logging
import os
import resource
import select
import shlex
import signal
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NoReturn

from etsclone import kernel, seccomp
from etsclone.chroot import forked, require_root
from etsclone.errors import EtscloneError
from etsclone.units import GIB, KIB, MIB

logger = logging.getLogger(__name__)

FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a program without a slash in its name is looked for in the clone."""

OUTPUT_LIMIT = 64 * KIB
"""Bytes of its output that are kept, the last ones; the rest is read and dropped."""

MOST_THREADS = 256 + (os.cpu_count() or 1)
"""How many it may have at a time, in all of its processes. Limits of the kernel for a user do not hold for root.

Compressors start one for each processor.
"""

CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 10, 12})
"""CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN (linux/capability.h).

Reading any configuration takes DAC_OVERRIDE; not DAC_READ_SEARCH, with which a file could be opened by its number past
the root of a bind mount. NET_ADMIN is for `nft --check`: of a network namespace with nothing in it.
"""

_NAMESPACES = (
    kernel.NEW_MOUNTS
    | kernel.NEW_NETWORK
    | kernel.NEW_IPC
    | kernel.NEW_HOST_NAME
    | kernel.NEW_CGROUP
)
_HARMLESS = kernel.READ_ONLY | kernel.NO_SUID | kernel.NO_DEVICES
_CLONE = "/clone"
_PROCESSES = "/proc"
_SCRATCH = ("/run", "/tmp")  # noqa: S108 - of the clone, each a filesystem of its own
_LARGE_SCRATCH = "/var/tmp"  # noqa: S108
"""A whole initramfs is put together there: who may write to the clone has the clone's own."""
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
"""Minor numbers below major 1 (Documentation/admin-guide/devices.txt)."""

_LIMITS = {resource.RLIMIT_FSIZE: 64 * MIB, resource.RLIMIT_DATA: GIB}
"""Of what may write nothing."""
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_ENVIRONMENT = {
    "PATH": FOLDERS,
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
}
_TICK = 0.05
"""Seconds between two looks at how many threads there are."""


class End(Enum):
    """Why a confined program ended."""

    ITSELF = "itself"
    MISSING = "missing"
    """It is not there."""
    TIME = "time"
    """Its time was up."""
    PROCESSES = "processes"
    """It started too many processes."""


@dataclass(frozen=True, slots=True)
class World:
    """What a confined program has beside that; by default nothing, and it can write to nothing of the clone.

    Attributes:
        mounts: where, beneath the clone's root, its other filesystems are mounted. What else is mounted there it does
            not see.
        scratch: further folders to write to, in memory.
        writable: whether it may write to the clone, where that is mounted for writing.
        devices: nodes that it gets in /dev, by their paths there: those of this system.
        links: symbolic links in /dev, by their paths below it.
        sysfs: whether it sees /sys, read-only.
        capabilities: numbers of linux/capability.h.
    """

    mounts: Sequence[str] = ()
    scratch: Sequence[str] = ()
    writable: bool = False
    devices: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    sysfs: bool = False
    capabilities: Collection[int] = CAPABILITIES


@dataclass(frozen=True, slots=True)
class Ended:
    """How a confined program ended: its exit status (negative: the signal that ended it) when it did by itself, and the
    last of what it wrote to stdout and stderr, with how many bytes before that were dropped."""

    end: End
    status: int = 0
    output: bytes = b""
    dropped: int = 0


def run_confined(root: str, argv: Sequence[str], world: World, *, timeout: float) -> Ended:
    """Run a program of the clone mounted at `root`, and wait until nothing of it is left.

    Args:
        root: where the clone's root is mounted.
        argv: the program, as it is called in the clone, and its words; never seen by a shell.
        world: what it has beside the clone.
        timeout: seconds that it may take.

    Raises:
        NotRoot: without root rights.
        EtscloneError: when this kernel cannot confine it; it was not run.
    """
    require_root()
    logger.info("run in %s: %s", root, shlex.join(argv))
    with forked(lambda: _watch(root, argv, world, timeout), f"{argv[0]} in {root}") as watcher:
        return watcher.result()


# --- the watcher ---------------------------------------------------------------------------------------------------


def _watch(root: str, argv: Sequence[str], world: World, timeout: float) -> Ended:
    with contextlib.ExitStack() as stack:
        output, into = os.pipe()
        words, report = os.pipe()
        stack.callback(os.close, output)
        stack.callback(os.close, words)
        try:
            kernel.unshare(kernel.NEW_PIDS)
            keeper = os.fork()
        except OSError as error:
            raise _cannot(str(error)) from error
        if keeper == 0:
            _keep(root, argv, world, into, report)
        stack.callback(_end, keeper)
        os.close(into)
        os.close(report)
        tail, told = _read(output, words, time.monotonic() + timeout)
        if told is None:
            return Ended(End.TIME, 0, tail.kept, tail.dropped)
        return _ended(told, tail)


def _end(keeper: int) -> None:
    os.kill(keeper, signal.SIGKILL)
    os.waitpid(keeper, 0)  # it is the last to end: the kernel has ended all others by then


class _Tail:
    """The last bytes of what is written."""

    def __init__(self) -> None:
        self.kept = b""
        self.dropped = 0

    def add(self, data: bytes) -> None:
        self.kept += data
        self.dropped += max(0, len(self.kept) - OUTPUT_LIMIT)
        self.kept = self.kept[-OUTPUT_LIMIT:]


def _read(output: int, words: int, until: float) -> tuple[_Tail, str | None]:
    """What the program writes, and what the keeper tells, until both are gone; None for that when time was up."""
    tail, told, left = _Tail(), b"", [output, words]
    while left and (seconds := until - time.monotonic()) > 0:
        for ready in select.select(left, [], [], seconds)[0]:
            data = os.read(ready, OUTPUT_LIMIT)
            if not data:
                left.remove(ready)
            elif ready == words:
                told += data
            else:
                tail.add(data)
    return tail, None if left else told.decode()


def _ended(told: str, tail: _Tail) -> Ended:
    word, _, rest = told.partition(" ")
    if word == "error" or not word:
        raise _cannot(rest or "the keeping process died")
    return Ended(End(word), int(rest or 0), tail.kept, tail.dropped)


def _cannot(why: str) -> EtscloneError:
    return EtscloneError(
        f"programs of the clone cannot be confined here: {why}",
        hint="the kernel has to grant namespaces (unshare --mount --pid --net); rebuild needs none with --no-checks",
    )


# --- the keeper ----------------------------------------------------------------------------------------------------


def _keep(root: str, argv: Sequence[str], world: World, into: int, report: int) -> NoReturn:
    """The first process of the new namespace: shut the door, start the program, tell how it ended."""
    words = "error the keeping process failed"
    try:
        kernel.end_with_parent()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        processes = _shut(root, world, {into, report})
        words = _program(argv, world, processes, into, report)
    except OSError as error:
        words = f"error {error}"
    finally:
        os.write(report, words.encode())
        os._exit(0)


def _shut(root: str, world: World, kept: Collection[int]) -> int:
    """Enter the clone for good. Returns an open /proc, which the program does not have."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in range(3):
        os.dup2(null, standard)
    # When memory gets short, this is what goes first.
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    kernel.unshare(_NAMESPACES)
    nodes = {path: os.stat(node) for path, node in world.devices.items()}
    _bind(root, world)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):  # the one of the list itself
                os.close(descriptor)
    processes = _enter(root)
    _furnish(world, nodes)
    kernel.hide_from_others()
    seccomp.forbid_user_namespaces()
    return processes


def _bind(root: str, world: World) -> None:
    """Cover the clone's root by an empty filesystem that has the clone, and nothing but the clone, in a folder.

    What leaves the clone's root, as CAP_SYS_CHROOT lets it, is in that, and can write nothing there.
    """
    top = os.path.realpath(root)
    sources = {
        os.path.relpath(where, top): os.open(where, os.O_PATH | os.O_CLOEXEC)
        for where in (top, *world.mounts)
    }
    kernel.mount("", "/", flags=kernel.PRIVATE | kernel.RECURSIVE)
    kernel.mount("tmpfs", root, "tmpfs", _HARMLESS & ~kernel.READ_ONLY, "size=4k,nr_inodes=4")
    for folder in (_CLONE, _PROCESSES):
        os.mkdir(root + folder, 0o700)
    for place, source in sources.items():
        where = os.path.normpath(f"{root}{_CLONE}/{place}")
        # What is mounted beneath comes by itself, or not at all.
        kernel.mount(f"/proc/self/fd/{source}", where, flags=kernel.BIND)
        if not world.writable:
            kernel.mount("", where, flags=kernel.BIND | kernel.REMOUNT | _HARMLESS)
    kernel.mount("", root, flags=kernel.BIND | kernel.REMOUNT | _HARMLESS)


def _enter(root: str) -> int:
    """Leave all mounts but those, and make the clone the root. Returns an open /proc, which is not in it."""
    os.chdir(root)
    try:
        kernel.pivot_root(".", ".")
        # Both are at "/" now, the old one on top.
        kernel.unmount(".", kernel.DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # A rescue system that runs in the kernel's initial root (initramfs): that one can only be covered.
        kernel.mount(".", "/", flags=kernel.MOVE)
        os.chroot(".")
    kernel.mount("proc", _PROCESSES, "proc", _HARMLESS | kernel.NO_PROGRAMS)
    processes = os.open(_PROCESSES, os.O_RDONLY | os.O_CLOEXEC)
    kernel.unmount(_PROCESSES, kernel.DETACH)
    os.chroot(_CLONE)
    os.chdir("/")
    return processes


def _furnish(world: World, nodes: Mapping[str, os.stat_result]) -> None:
    """Mount what a program may expect; where the clone has a link in place of a folder, nothing."""
    if _is_folder("/proc"):
        # Read-only: its files speak to the kernel of the system around, and ask for no capability but root's name.
        kernel.mount("proc", "/proc", "proc", _HARMLESS | kernel.NO_PROGRAMS)
    if world.sysfs and _is_folder("/sys"):
        kernel.mount("sysfs", "/sys", "sysfs", _HARMLESS | kernel.NO_PROGRAMS)
    large = () if world.writable else (_LARGE_SCRATCH,)
    for folder in (*_SCRATCH, *large, *world.scratch):
        if folder.startswith("/run/"):  # in memory, where a service makes it as it starts
            with contextlib.suppress(OSError):
                os.makedirs(folder, exist_ok=True)
        if not _is_folder(folder):
            continue
        mode = "1777" if folder.endswith("/tmp") else "755"  # noqa: S108 - of the clone
        options = f"mode={mode},size=64m,nr_inodes=4096"
        kernel.mount("tmpfs", folder, "tmpfs", kernel.NO_SUID | kernel.NO_DEVICES, options)
    if _is_folder("/dev"):
        _make_devices(world, nodes)
    elif nodes:
        raise NotADirectoryError(errno.ENOTDIR, "/dev is no folder")
    os.umask(0o022)


def _make_devices(world: World, nodes: Mapping[str, os.stat_result]) -> None:
    options = "mode=755,size=1m,nr_inodes=512"
    kernel.mount("tmpfs", "/dev", "tmpfs", kernel.NO_SUID, options)
    os.umask(0)
    for name, minor in _DEVICES.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
    for path, status in nodes.items():
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.mknod(path, status.st_mode, status.st_rdev)
    for link, target in {**_LINKS, **world.links}.items():
        os.makedirs(os.path.dirname(f"/dev/{link}"), 0o755, exist_ok=True)
        os.symlink(target, f"/dev/{link}")
    flags = kernel.REMOUNT | kernel.READ_ONLY | kernel.NO_SUID
    kernel.mount("tmpfs", "/dev", "tmpfs", flags, options)


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _program(argv: Sequence[str], world: World, processes: int, into: int, report: int) -> str:
    """Start the program and wait for it; what its end is called."""
    candidates = [argv[0]]
    if "/" not in argv[0]:
        candidates = [f"{folder}/{argv[0]}" for folder in FOLDERS.split(":")]
    path = next(filter(os.path.isfile, candidates), None)
    if path is None:
        return End.MISSING.value
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    program = os.fork()
    if program == 0:
        _execute(path, argv, world, into, report)
    os.close(into)
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, _TICK)
        if _threads(processes) > MOST_THREADS:
            return End.PROCESSES.value
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == program:
                return f"{End.ITSELF.value} {os.waitstatus_to_exitcode(status)}"
            if ended == 0:
                break


def _threads(processes: int) -> int:
    """How many threads all the processes have that are in an open /proc."""
    threads = 0
    for name in filter(str.isdecimal, os.listdir(processes)):
        with contextlib.suppress(OSError):  # it has ended
            # A link each, and two for the folder itself (proc_task_getattr(), fs/proc/base.c).
            threads += os.stat(f"{name}/task", dir_fd=processes).st_nlink - 2
    return threads


def _execute(path: str, argv: Sequence[str], world: World, into: int, report: int) -> NoReturn:
    status = 127
    try:
        os.dup2(into, 1)
        os.dup2(into, 2)
        os.close(report)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        # Where cores are piped to a program of this system, 0 would not hold that back, but 1 does (core(5)).
        limits = {resource.RLIMIT_CORE: 1} | ({} if world.writable else _LIMITS)
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))
        os.setgroups([])
        kernel.keep_capabilities(world.capabilities)
        os.execve(path, list(argv), _ENVIRONMENT)  # noqa: S606 - an argv list, no shell
    except OSError as error:
        os.write(2, f"{path}: {error.strerror}\n".encode())
        status = 126
    finally:
        os._exit(status)
