"""How far a long operation is. The only importer of tqdm."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 60.0


@contextlib.contextmanager
def progress(phase: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with rate and time left, or a line a minute when stderr is no terminal.

    Args:
        phase: what is being done, in a word.
        total: how many bytes there are to do.
        shown: False for no output at all.

    Yields:
        A function to call, from any thread, with the number of bytes that were just done.
    """
    terminal = sys.stderr.isatty()
    bar = tqdm(
        total=total,
        desc=f"{phase:>9}",
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=not shown,
        dynamic_ncols=True,
        leave=True,
        mininterval=0.2 if terminal else _SECONDS_BETWEEN_LINES,
        maxinterval=1.0 if terminal else _SECONDS_BETWEEN_LINES,
        delay=0.0 if terminal else _SECONDS_BETWEEN_LINES,
        ascii=None if terminal else True,
    )
    lock = threading.Lock()

    def advance(count: int) -> None:
        with lock:
            bar.update(count)

    try:
        yield advance
    finally:
        bar.close()
