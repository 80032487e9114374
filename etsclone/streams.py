"""Standard output and error that outlast their readers: work is never cut short because nobody reads of it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO, cast


class Lasting:
    """A stream whose writes never fail: with its first error, `lost`, it turns into one to /dev/null."""

    def __init__(self, stream: TextIO) -> None:
        self.lost: OSError | None = None
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Write as streams do."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> object:
        """All else is the stream's own."""
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        self.lost = self.lost or error
        # What is still buffered would fail once more, at the latest when Python exits.
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), self._stream.fileno())


def hold_closed() -> None:
    """Have /dev/null stand for stdin, stdout and stderr where they were closed.

    Else the next file that is opened, such as a disk to write to, would get the number that words are written to.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It takes the lowest number that is free: the one that is missing.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lives


@contextmanager
def lasting() -> Iterator[None]:
    """Let `sys.stdout` and `sys.stderr` be `Lasting` while the context lasts."""
    out, err = (cast("TextIO", Lasting(each)) for each in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            sys.stdout.flush()


def lost_output() -> OSError | None:
    """What the system said when what was printed to stdout could not be written; None as long as all could."""
    return cast("OSError | None", getattr(sys.stdout, "lost", None))
