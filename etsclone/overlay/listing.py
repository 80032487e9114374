"""List a whole tree for the inventory, in several processes, and read only what has changed since the last time.

A listing is made of folder records (`etsclone.overlay.remembered`), each from one look at a folder, or at a part of a
very large one. The tree is cut into units, a folder with or without what is below; worker processes take one after
another and write the records into spools, and this process puts them in the order of the inventory. Threads would not
do: most of what a small file costs is Python.
"""

import fcntl
import gc
import hashlib
import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import BinaryIO

from etsclone.chroot import Child, forked
from etsclone.errors import EtscloneError
from etsclone.model.scope import Scope
from etsclone.model.tree import Tree
from etsclone.overlay.agreeing import Agreement
from etsclone.overlay.brought import NOTHING, Brought
from etsclone.overlay.content import lines_digest
from etsclone.overlay.files import opened_root
from etsclone.overlay.look import Look, below
from etsclone.overlay.remembered import Keeper, Record, Remembered, packed_records

_UNITS_AT = 3
"""How deep units with all that is below begin: /usr/share/doc is one, /usr/share is one without its folders."""

_REPORT = struct.Struct("<IIQQ")
"""What a worker tells when a unit is done: its number, the worker's, and where in the spool its records are."""

_NUMBER = 4


@dataclass(frozen=True, slots=True)
class Aids:
    """What makes a listing quicker; it is the same without.

    Attributes:
        spools: an empty file for each worker process; none: all is done in this process.
        remembered: what the last listing left.
        keep: an empty file for what the next one will want to know.
        brought: what the last one knew of packages (`etsclone.overlay.brought`).
        keep_brought: an empty file for it.
        dated: the device numbers of filesystems on which a folder gets new times whenever a name comes into it or goes.
            Where it has its old ones, it need not be listed again.
    """

    spools: Sequence[BinaryIO] = ()
    remembered: BinaryIO | None = None
    keep: BinaryIO | None = None
    brought: BinaryIO | None = None
    keep_brought: BinaryIO | None = None
    dated: Collection[int] = ()


NO_AIDS = Aids()
"""All is looked at, by this process alone."""


@dataclass(slots=True)
class Listing:
    """What a listing tells: how many paths, how many files were read for it, sentences for people.

    `digest` is a sha256 (hex) over all that the lines say, but for times.
    """

    paths: int = 0
    read: int = 0
    warnings: list[str] = field(default_factory=list)
    digest: str = ""


def list_tree(
    root: str,
    scope: Scope,
    write: Callable[[bytes], object],
    *,
    started_ns: int,
    skip: Collection[bytes] = (),
    brought: Brought = NOTHING,
    aids: Aids = NO_AIDS,
    quick: bool = False,
) -> Listing:
    """List everything that is not volatile, in byte order of the paths, and never through a symbolic link.

    For the arguments and errors see `tree_listing`; `write` gets any number of whole lines of an inventory.
    """
    with tree_listing(
        root,
        scope,
        started_ns=started_ns,
        skip=skip,
        brought=brought,
        aids=aids,
        quick=quick,
    ) as put_out:
        return put_out(write, {})


@contextmanager
def tree_listing(
    root: str,
    scope: Scope,
    *,
    started_ns: int,
    skip: Collection[bytes] = (),
    brought: Brought = NOTHING,
    aids: Aids = NO_AIDS,
    quick: bool = False,
) -> Iterator[Callable[[Callable[[bytes], object], Tree], Listing]]:
    """Let the worker processes begin; the yielded function, to be called once, puts the lines out as they come.

    It is also told what a payload of the same tree holds: of that, the lines say the same.

    Args:
        root: the top of the tree; `/` inside `chroot.in_chroot`.
        scope: whose volatile patterns count.
        started_ns: when the capture began (nanoseconds since the epoch).
        skip: paths where something else is mounted: listed, but not entered.
        brought: which package brought a path.
        aids: worker processes and memory.
        quick: open no file: the lines lack what cannot be had without, digests and flags. Not for what is remembered.

    Raises:
        OSError: when something cannot be read.
        EtscloneError: when a worker process died.
    """
    with opened_root(root) as top, ExitStack() as cleanup:
        look = Look(top, scope, frozenset(skip), started_ns, brought, dated=aids.dated, quick=quick)
        look.remembered = Remembered(aids.remembered, look.context)
        cleanup.callback(look.close)
        pool = _Pool(look, aids.spools, cleanup)

        def put_out(write: Callable[[bytes], object], payload: Tree) -> Listing:
            output = _Output(
                write, Keeper(aids.keep, look.context), Agreement(payload, brought.owners)
            )
            output.top(look.top_line())
            _emit(look, pool, output)
            output.kept.end()
            told = Listing(output.paths, look.read, look.warnings, output.digest.hexdigest())
            for read, warnings in pool.results():
                told.read += read
                told.warnings += warnings
            return told

        yield put_out


def _emit(look: Look, pool: "_Pool", output: "_Output") -> None:
    """Put all records out; what no worker has, such as a folder that has just been made, this process looks at."""
    meant = look.remembered.meant

    def told(path: bytes) -> Iterable[bytes]:
        """What is told of a folder, but not of what is in it; where both are told together, they are put out."""
        unit = pool.units.get(path)
        if unit is None:
            return look.folder(path)
        if not unit.deep:
            return pool.records(unit)
        for record in pool.records(unit):
            output.add(meant(record))
        return ()

    pending = [iter(told(b"/"))]
    while pending:
        for record in pending[-1]:
            output.add(meant(record))
            if output.entered:
                pending.append(chain.from_iterable(map(told, output.entered)))
                break
        else:
            pending.pop()


class _Output:
    """Puts lines in order: of the records, each folder's comes before those of the folders that are in it."""

    def __init__(self, write: Callable[[bytes], object], kept: Keeper, payload: Agreement) -> None:
        self.kept = kept
        self.digest = hashlib.sha256()
        self.paths = 0
        self.entered: list[bytes] = []
        """The folders that were entered from the last record's: theirs follow."""
        self._write = write
        self._payload = payload
        self._waiting: list[list[bytes]] = []

    def top(self, line: bytes) -> None:
        """Take the line of the tree's top."""
        self.digest.update(lines_digest(line))
        self.paths += 1
        self._write(line)

    def add(self, packed: bytes) -> None:
        """Take the next record; write its lines up to the first folder, or all and what waited for them."""
        packed = self._payload.agreed(packed)
        path, names, folders, texts, digest = Record.outline(packed)
        self.kept.add(path, packed)
        self.digest.update(digest)
        self.paths += names
        self.entered = below(path, folders)
        self._waiting.append(list(reversed(texts)))
        while self._waiting:
            self._write(self._waiting[-1].pop())
            if self._waiting[-1]:
                return
            self._waiting.pop()


# --- workers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Unit:
    """A folder to look at, `deep`: with all below it."""

    number: int
    path: bytes
    deep: bool


class _Pool:
    """Worker processes, and where the records are that they have made."""

    def __init__(self, look: Look, spools: Sequence[BinaryIO], cleanup: ExitStack) -> None:
        units = list(_units(look)) if spools else []
        self.units = {unit.path: unit for unit in units}
        self._spools = spools
        self._done: dict[int, tuple[int, int, int]] = {}
        self._children: list[Child[tuple[int, list[str]]]] = []
        if spools:
            self._start(look, units, cleanup)

    def _start(self, look: Look, units: list[_Unit], cleanup: ExitStack) -> None:
        # All take from one queue: processes that share an open file share its position.
        queue = os.memfd_create("units")
        cleanup.callback(os.close, queue)
        os.write(queue, b"".join(unit.number.to_bytes(_NUMBER, "little") for unit in units))
        os.lseek(queue, 0, os.SEEK_SET)
        self._reports, reports = os.pipe()
        cleanup.callback(os.close, self._reports)
        try:
            for number, spool in enumerate(self._spools):
                worker = _Worker(look, units, queue, reports, number, spool)
                child = forked(worker.work, "a process that lists the tree")
                self._children.append(cleanup.enter_context(child))
        finally:
            os.close(reports)

    def records(self, unit: _Unit) -> Iterator[bytes]:
        """The records of a unit, when they are there.

        Raises:
            EtscloneError, OSError: what a worker raised, or that it died.
        """
        while unit.number not in self._done:
            report = os.read(self._reports, _REPORT.size)
            if not report:
                list(self.results())
                raise EtscloneError("the processes that list the tree ended too early")
            number, *place = _REPORT.unpack(report)
            self._done[number] = (place[0], place[1], place[2])
        spool, start, end = self._done.pop(unit.number)
        return packed_records(self._spools[spool].fileno(), start, end)

    def results(self) -> Iterator[tuple[int, list[str]]]:
        """How many files each worker has read, and what it warns of."""
        while self._children:
            yield self._children.pop(0).result()


@dataclass(frozen=True, slots=True)
class _Worker:
    """What one worker process does."""

    look: Look
    units: list[_Unit]
    queue: int
    reports: int
    number: int
    spool: BinaryIO

    def work(self) -> tuple[int, list[str]]:
        """Take units until there are no more."""
        gc.disable()  # nothing here makes cycles, and to look for them takes a twentieth of the time
        while number := self._take():
            unit, start = self.units[int.from_bytes(number, "little")], self.spool.tell()
            for packed in self._records(unit):
                self.spool.write(packed)
            self.spool.flush()
            report = _REPORT.pack(unit.number, self.number, start, self.spool.tell())
            os.write(self.reports, report)
        return self.look.read, self.look.warnings

    def _take(self) -> bytes:
        """The next number. The kernel does not lock the shared position of a memfd: two would get the same one."""
        fcntl.lockf(self.queue, fcntl.LOCK_EX)
        try:
            return os.read(self.queue, _NUMBER)
        finally:
            fcntl.lockf(self.queue, fcntl.LOCK_UN)

    def _records(self, unit: _Unit) -> Iterator[bytes]:
        pending = [iter(self.look.folder(unit.path))]
        while pending:
            for packed in pending[-1]:
                yield packed
                if self.look.entered and unit.deep:
                    pending.append(chain.from_iterable(map(self.look.folder, self.look.entered)))
                    break
            else:
                pending.pop()


def _units(look: Look) -> Iterator[_Unit]:
    """The tree cut up, in the order of the inventory."""
    pending, number = [(b"/", 0)], 0
    while pending:
        path, depth = pending.pop()
        deep = depth == _UNITS_AT
        yield _Unit(number, path, deep)
        number += 1
        if not deep:
            pending += [(folder, depth + 1) for folder in reversed(look.folders(path))]
