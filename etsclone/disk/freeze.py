"""Filesystems that are held still while they are copied. Whatever becomes of this process, they are let go again.

Source: linux/fs.h, FIFREEZE and FITHAW; fsfreeze(8). A frozen filesystem has written all that it had in memory; whoever
wants to change it waits.
"""

import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from typing import NoReturn

from etsclone.errors import DeviceError, SourceRefused

_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878


@contextlib.contextmanager
def frozen(folders: Sequence[str]) -> Iterator[None]:
    """Hold the filesystems that are mounted at `folders` still until the context ends.

    They are let go by a process of its own, which waits for nothing but our end: SIGKILL frees them too.

    Raises:
        SourceRefused: when one cannot be frozen, or somebody else has frozen it.
        DeviceError: when one could not be let go.
    """
    with contextlib.ExitStack() as stack:
        descriptors = [_opened(folder, stack) for folder in folders]
        release = _Release(descriptors)
        try:
            for number, folder in enumerate(folders):
                release.promise(number)
                _freeze(descriptors[number], folder, number, release)
            yield
        finally:
            stuck = release.now()
        if stuck:
            raise DeviceError(
                "a frozen filesystem could not be let go",
                hint="; ".join(f"fsfreeze --unfreeze {folder}" for folder in folders),
            )


def _opened(folder: str, stack: contextlib.ExitStack) -> int:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceRefused(
            f"{folder} cannot be opened: {error.strerror}", hint="unmount it"
        ) from error
    stack.callback(os.close, descriptor)
    return descriptor


def _freeze(descriptor: int, folder: str, number: int, release: "_Release") -> None:
    try:
        fcntl.ioctl(descriptor, _FIFREEZE, 0)
    except OSError as error:
        release.promise(number, kept=False)
        why = "somebody else froze it" if error.errno == errno.EBUSY else error.strerror
        raise SourceRefused(f"{folder} cannot be held still: {why}", hint="unmount it") from error


class _Release:
    """A child process that thaws what it was told of as soon as the pipe from its parent ends."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        reader, self._writer = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._writer)
            _wait_and_thaw(reader, descriptors)
        os.close(reader)

    def promise(self, number: int, *, kept: bool = True) -> None:
        """Tell of a descriptor before it is frozen; with `kept` False, that it was not after all."""
        os.write(self._writer, bytes([number + (0 if kept else 128)]))

    def now(self) -> bool:
        """Have all of them thawed; returns whether one could not be."""
        os.close(self._writer)
        _, status = os.waitpid(self._child, 0)
        return status != 0


def _wait_and_thaw(reader: int, descriptors: Sequence[int]) -> NoReturn:
    status = 1
    try:
        # What ends the parent must not end this one: neither the terminal's signals nor those to its process group.
        os.setsid()
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        told = b""
        while more := os.read(reader, 256):
            told += more
        status = 0
        for number in {each for each in told if each < 128 and each + 128 not in told}:
            try:
                fcntl.ioctl(descriptors[number], _FITHAW, 0)
            except OSError as error:
                if error.errno != errno.EINVAL:  # it is not frozen: the parent ended in between
                    status = 1
    finally:
        os._exit(status)
