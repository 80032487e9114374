"""The names of a folder in order, some at a time: one folder may hold a million, and not all are held as objects."""

import re
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, islice

MOST = 8192
"""How many names are looked at, and told of, at a time."""

_NAME = re.compile(rb"[^/]+")

Part = tuple[Sequence[bytes], bytes]
"""Sorted names, and the first of those that follow: empty behind the last part."""


def in_parts(lists: Iterable[list[bytes]]) -> Iterator[Part]:
    """All names of some lists, sorted, `MOST` in each part but the last; a part without names when there are none.

    How they are cut depends on the names alone: not on the lists, unless there is just one, which must not hold more.
    """
    runs = map(sorted, lists)
    first, second = next(runs, []), next(runs, None)
    if second is None:
        yield first, b""
        return
    joined = [b"/".join(run) for run in chain((first, second), runs)]
    names = merge(*map(_parted, joined))
    part = list(islice(names, MOST))
    while following := list(islice(names, MOST)):
        yield part, following[0]
        part = following
    yield part, b""


def _parted(joined: bytes) -> Iterator[bytes]:
    return (match[0] for match in _NAME.finditer(joined))
