"""Whatever must be undone on a source in use is done by a process of its own, which waits for nothing but our end.

So frozen filesystems are let go, and snapshots removed, after success, ^C and SIGKILL alike. That process does the
holding too: were it ours, a kill could fall between what was done and the note of it.

Source: linux/fs.h, FIFREEZE and FITHAW; fsfreeze(8). A frozen filesystem has written all that it had in memory; whoever
wants to change it waits.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from etsclone.errors import DeviceError, EtscloneError, SourceRefused
from etsclone.run import run

_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878


class Hold(Protocol):
    """Something done to the system that has to be undone, in one process. `remedy` is how to undo it by hand."""

    @property
    def remedy(self) -> str:
        """A command line."""

    def take(self) -> None:
        """Do it; raises EtscloneError with nothing done when it cannot be."""

    def release(self) -> None:
        """Undo it; raises EtscloneError when that fails."""


@dataclass(slots=True)
class Freeze:
    """A filesystem, mounted at `folder`, that is held still: frozen, or where its kind cannot be (FAT), read-only."""

    folder: str
    _descriptor: int = field(default=-1, init=False)

    @property
    def remedy(self) -> str:
        """A command line."""
        frozen = self._descriptor >= 0
        return (
            f"fsfreeze --unfreeze {self.folder}" if frozen else f"mount -o remount,rw {self.folder}"
        )

    def take(self) -> None:
        """Hold it still.

        Raises:
            SourceRefused: when it cannot be, or somebody else has frozen it.
            CommandFailed: when it cannot be frozen, and somebody writes to it.
        """
        descriptor = _opened(self.folder)
        try:
            fcntl.ioctl(descriptor, _FIFREEZE, 0)
        except OSError as error:
            os.close(descriptor)
            if error.errno != errno.EOPNOTSUPP:
                why = "somebody else froze it" if error.errno == errno.EBUSY else error.strerror
                raise SourceRefused(
                    f"{self.folder} cannot be held still: {why}", hint="unmount it"
                ) from error
            run("mount", ["-o", "remount,ro", self.folder])
        else:
            self._descriptor = descriptor

    def release(self) -> None:
        """Let it go.

        Raises:
            DeviceError, CommandFailed: when that fails.
        """
        if self._descriptor < 0:
            run("mount", ["-o", "remount,rw", self.folder])
            return
        try:
            fcntl.ioctl(self._descriptor, _FITHAW, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:  # somebody else thawed it
                raise DeviceError(f"{self.folder} cannot be thawed: {error.strerror}") from error


def _opened(folder: str) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceRefused(
            f"{folder} cannot be opened: {error.strerror}", hint="unmount it"
        ) from error


@contextlib.contextmanager
def held(holds: Sequence[Hold]) -> Iterator[None]:
    """Take all of `holds`, in their order, and release them in the opposite one when the context ends.

    Raises:
        SourceRefused: when one cannot be taken; those before it are released.
        DeviceError: when one could not be released.
    """
    with contextlib.closing(_Keeper(holds)) as keeper:
        keeper.wait_until_taken()
        yield


class _Keeper:
    """The process that takes holds, and releases them as soon as the connection to its parent ends.

    It says two things, a JSON text a line each: why one was refused, or null; and at the end what was not released.
    """

    def __init__(self, holds: Sequence[Hold]) -> None:
        self._connection, theirs = socket.socketpair()
        self._child = os.fork()
        if self._child == 0:
            self._connection.close()
            _keep(theirs, holds)
        theirs.close()
        self._answers = self._connection.makefile()

    def wait_until_taken(self) -> None:
        line = self._answers.readline()
        if not line:
            raise DeviceError("the process that holds the source still has ended")
        refused = json.loads(line)
        if refused is not None:
            raise SourceRefused(refused["message"], hint=refused["hint"])

    def close(self) -> None:
        """Have all of them released."""
        self._connection.shutdown(socket.SHUT_WR)
        told = self._answers.read().splitlines()
        self._answers.close()
        self._connection.close()
        os.waitpid(self._child, 0)
        stuck = json.loads(told[-1]) if told else ["look at the kernel's messages (dmesg)"]
        if stuck:
            raise DeviceError("what was held of the source is not let go", hint="; ".join(stuck))


def _keep(connection: socket.socket, holds: Sequence[Hold]) -> NoReturn:
    try:
        # What ends the parent must not end this one: neither the terminal's signals nor those to its process group.
        os.setsid()
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        taken: list[Hold] = []
        refused = _take(holds, taken)
        if refused is None:
            _tell(connection, None)
            connection.recv(1)  # nothing is ever sent: this waits for the end
        stuck = [hold.remedy for hold in reversed(taken) if not _released(hold)]
        if refused is not None:
            _tell(connection, refused)
        _tell(connection, stuck)
    finally:
        os._exit(0)


def _take(holds: Sequence[Hold], taken: list[Hold]) -> dict[str, str] | None:
    """Take holds one by one; returns why one was refused."""
    for hold in holds:
        try:
            hold.take()
        except EtscloneError as error:
            return {"message": error.message, "hint": error.hint}
        except OSError as error:  # no memory, no process: what is held already must still be let go
            return {"message": f"the source cannot be held still: {error.strerror}", "hint": ""}
        taken.append(hold)
    return None


def _released(hold: Hold) -> bool:
    try:
        hold.release()
    except (EtscloneError, OSError):
        return False
    return True


def _tell(connection: socket.socket, answer: object) -> None:
    with contextlib.suppress(OSError):  # the parent may be gone
        connection.sendall(json.dumps(answer).encode() + b"\n")
