"""Work on a tree that is killed, in a fork, before any of the changes that it makes."""

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

CHANGES = (
    "mkdir",
    "rename",
    "unlink",
    "rmdir",
    "symlink",
    "mkfifo",
    "mknod",
    "link",
    "fchown",
    "fchmod",
    "chmod",
    "chown",
    "setxattr",
    "removexattr",
    "utime",
    "fsync",
    "write",
    "pwrite",
    "ftruncate",
    "open",
)

Work = Callable[[Path], object]


def killed_before(moment: int, work: Work, root: Path) -> bool:
    """Run in a fork that kills itself before its `moment`-th change; whether it got that far."""
    child = os.fork()
    if child == 0:
        try:
            _kill_self_before(moment)
            work(root)
            os._exit(0)
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _kill_self_before(moment: int) -> None:
    left = moment

    def hooked(real: Callable[..., object], *, always: bool = True) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            if always or int(str(arguments[1])) & os.O_CREAT:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in CHANGES:
        setattr(os, name, hooked(getattr(os, name), always=name != "open"))
    fcntl.ioctl = hooked(fcntl.ioctl)  # type: ignore[assignment]
