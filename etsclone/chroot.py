"""Work inside a mounted clone, in a child process that can see nothing else.

A symbolic link in a clone may point anywhere; in a process whose root *is* the clone's root it cannot lead to a file
of the system that etsclone runs on. The child may neither import modules (they would come from the clone) nor look up
users and groups (the C library would load plug-ins of the clone): work that is handed to `in_chroot` must not do so.
"""

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Generic, NoReturn, TypeVar

from etsclone.errors import INTERRUPTIONS, EtscloneError, NotRoot
from etsclone.kernel import die_with

Result = TypeVar("Result")


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

    def inside() -> Result:
        os.chroot(root)
        os.chdir("/")
        sys.path.clear()
        sys.meta_path.clear()
        return work()

    with forked(inside, f"the process inside {root}") as child:
        return child.result()


class Child(Generic[Result]):
    """A forked process that works; see `forked`."""

    def __init__(self, pid: int, reader: int, name: str) -> None:
        self._pid = pid
        self._reader = reader
        self._name = name

    def result(self) -> Result:
        """Wait for its end, and return what its work returned.

        Raises:
            EtscloneError, OSError: what the work raised.
            EtscloneError: when the process died.
        """
        with os.fdopen(self._reader, "rb", closefd=False) as pipe:
            answer = pipe.read()
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        if status != 0 or not answer:
            raise EtscloneError(
                f"{self._name} ended with status {os.waitstatus_to_exitcode(status)}"
            )
        ok, value = pickle.loads(answer)  # noqa: S301 - written by our own child over a private pipe
        if ok:
            return value  # type: ignore[no-any-return]
        raise value

    def stop(self) -> None:
        """End it, if it has not ended, and wait until it is at rest."""
        os.close(self._reader)
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)
            self._pid = 0


@contextmanager
def forked(work: Callable[[], Result], name: str) -> Iterator[Child[Result]]:
    """Let a child process work; with the context it ends. Its result and `EtscloneError`s must be picklable.

    It is no place for threads, and for no work that the parent holds locks for.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # Between the fork and the handlers below, ^C would let the child run on in the parent's code.
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(work, writer, parent)
    child: Child[Result] = Child(pid, reader, name)
    try:
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)
        yield child
    finally:
        # ^C: the child must be at rest before anybody unmounts its root.
        child.stop()


def _child(work: Callable[[], object], writer: int, parent: int) -> None:
    status = 1
    try:
        # A parent that was killed can no longer tell anybody that the clone is still being worked in.
        die_with(parent)
        # The terminal's ^C reaches both processes; the parent decides, and tells us by SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)
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
