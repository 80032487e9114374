"""Work inside a mounted clone, in a child process that can see nothing else.

A symbolic link in a clone may point anywhere; in a process whose root *is* the clone's root it cannot lead to a file
of the system that etsclone runs on. The child may neither import modules (they would come from the clone) nor look up
users and groups (the C library would load plug-ins of the clone): work that is handed to `in_chroot` must not do so.
"""

import os
import pickle
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TypeVar

from etsclone.errors import EtscloneError, NotRoot

Result = TypeVar("Result")

_INTERRUPTIONS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def require_root() -> None:
    """Raise `NotRoot` unless the process may do what an administrator may."""
    if os.geteuid() != 0:
        raise NotRoot("root rights are needed", hint="run the command again with sudo, or as root")


def in_chroot(root: str, work: Callable[[], Result]) -> Result:
    """Run `work` in a forked child whose root folder is `root`, and return what it returns.

    `work` sees the clone's root as `/`. Open file descriptors are inherited, which is how content gets in and out.
    Its result and its `EtscloneError`s travel back through a pipe and must be picklable.

    Raises:
        NotRoot: without root rights.
        EtscloneError: what `work` raised, or that the child died.
    """
    require_root()
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # Between the fork and the handlers below, ^C would let the child run on in the parent's code.
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)
    child = os.fork()
    if child == 0:
        _child(root, work, writer)
    try:
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        # ^C: the child must be at rest before anybody unmounts its root.
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    _, status = os.waitpid(child, 0)
    if status != 0 or not answer:
        raise EtscloneError(
            f"the process inside {root} ended with status {os.waitstatus_to_exitcode(status)}"
        )
    ok, value = pickle.loads(answer)  # noqa: S301 - written by our own child over a private pipe
    if ok:
        return value  # type: ignore[no-any-return]
    raise value


def _child(root: str, work: Callable[[], object], writer: int) -> None:
    status = 1
    try:
        # The terminal's ^C reaches both processes; the parent decides, and tells us by SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
        os.chroot(root)
        os.chdir("/")
        sys.path.clear()
        sys.meta_path.clear()
        try:
            answer: tuple[bool, object] = (True, work())
        except EtscloneError as error:
            answer = (False, error)
        except OSError as error:
            answer = (False, error)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe, protocol=pickle.HIGHEST_PROTOCOL)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # noqa: BLE001 - the child must never return into the parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
