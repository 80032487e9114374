"""How faithful a rebuild of a clone is: what differs outside the scope, what packages explain, how old the clone is.

Two lists of paths are compared: the inventory of the captured system, and what is on the disk now. What the scope
calls bound to the disk or volatile does not count, nor does what the overlay itself brings.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from etsclone.model.diff import Difference, Meaning
from etsclone.model.edit import Edit
from etsclone.model.fidelity import Fidelity
from etsclone.model.packages import Package
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.plan.diff import compare, is_package_record, meaning_of, what_differs

Pair = tuple[Entry | None, Entry | None]

_CONFIGURATION = re.compile(rb"(?:/usr/local|/opt(?:/[^/]+)*)?/etc(?:/.*)?", re.DOTALL)
"""Where configuration lies: hier(7) and the Filesystem Hierarchy Standard."""

_OWN = re.compile(rb"(?:/.*)?/\.etsclone-.*", re.DOTALL)
"""What etsclone itself keeps on a clone."""

_LONGEST = timedelta(days=999_999_999) // timedelta(microseconds=1)
"""Microseconds that both a difference of times and its negative can be."""


def outside_scope(pairs: Iterable[Pair], scope: Scope) -> list[Pair]:
    """The pairs that neither the overlay brings nor the disk or time may change."""
    return [
        pair
        for pair in pairs
        if meaning_of(_path(pair), (scope,)) is Meaning.UNCLAIMED
        and not _OWN.fullmatch(_path(pair))
    ]


def edited_outside(edits: Iterable[Edit], scope: Scope) -> tuple[bytes, ...]:
    """The paths of those edits that would count as differences of the clone."""
    return tuple(
        edit.path for edit in edits if meaning_of(edit.path, (scope,)) is Meaning.UNCLAIMED
    )


def suspects(pairs: Iterable[Pair], edited: Collection[bytes] = ()) -> frozenset[bytes]:
    """Files of which a quick listing cannot tell whether their contents differ: same size, other time, or edited."""
    return frozenset(
        before.path
        for before, after in pairs
        if before
        and after
        and before.kind is after.kind is Kind.FILE
        and (
            before.path in edited
            or (before.size == after.size and before.mtime_ns != after.mtime_ns)
        )
    )


def with_digests(
    pairs: Iterable[Pair], captured: Mapping[bytes, str], here: Mapping[bytes, str]
) -> Iterator[Pair]:
    """The same pairs with the contents' digests (by path) that are known."""
    for before, after in pairs:
        yield _known(before, captured), _known(after, here)


def without_edits(pairs: Iterable[Pair], edits: Iterable[Edit]) -> Iterator[Pair]:
    """The same pairs, with edited files of the clone as they count, whether they are edited already or not.

    What an edit changes is no difference of the clone: it counts with its content from before, unless the edit makes
    it what was captured. The pairs need the digests of edited files.
    """
    by_path = {edit.path: edit for edit in edits}
    for before, after in pairs:
        edit = by_path.get(after.path) if after and after.kind is Kind.FILE else None
        if edit is None or after is None:
            yield before, after
            continue
        mended = before is not None and before.sha256 == _sha256(edit.after)
        content = edit.after if mended else edit.before
        yield before, replace(after, size=len(content), sha256=_sha256(content))


def judge(
    pairs: Iterable[Pair],
    scope: Scope,
    captured: Sequence[Package] = (),
    here: Sequence[Package] = (),
    *,
    full: bool,
) -> Fidelity:
    """Tell how faithful a rebuild is.

    Args:
        pairs: what the captured system and the clone have at a path, in byte order of the paths, None for nothing;
            what is equal may be left out.
        scope: of the overlay.
        captured: the packages of the captured system; without them, or without those of the clone, no difference is
            explained by a package.
        here: those of the clone.
        full: whether the pairs are those of full listings, with digests.
    """
    outside = outside_scope(pairs, scope)
    known = bool(captured and here)
    found = compare(outside, (scope,), captured if known else (), here if known else ())
    lines = found.differences[Meaning.UNCLAIMED]
    return Fidelity(
        full=full,
        older=_older(outside),
        packages=found.packages,
        configuration=tuple(filter(_is_configuration, lines)),
        others=tuple(line for line in lines if not _is_configuration(line)),
        touched=found.paths[Meaning.TIME],
    )


def _older(pairs: Sequence[Pair]) -> timedelta | None:
    """How much older the clone is.

    A package manager writes its records whenever a package comes or goes, so where they differ, the newest of them tell
    how old each side's packages are; the time of a packaged file is its packager's. Where they are the same, the newest
    file that differs tells on each side. Only files that both sides have are asked: nobody knows when one was removed.
    """
    both = [
        (before, after)
        for before, after in pairs
        if before
        and after
        and before.kind is after.kind is Kind.FILE
        and what_differs(before, after) not in ((), ("time",))
    ]
    asked = [pair for pair in both if is_package_record(pair[0].path)] or both
    if not asked:
        return None
    newest = [max(each.mtime_ns for each in side) for side in zip(*asked, strict=True)]
    # Some filesystems hold any 64 bits of seconds.
    older = (newest[0] - newest[1]) // 1000
    return timedelta(microseconds=max(-_LONGEST, min(older, _LONGEST)))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_configuration(line: Difference) -> bool:
    return _CONFIGURATION.fullmatch(line.path) is not None


def _path(pair: Pair) -> bytes:
    entry = pair[0] or pair[1]
    if entry is None:
        raise ValueError("a pair of nothing")
    return entry.path


def _known(entry: Entry | None, digests: Mapping[bytes, str]) -> Entry | None:
    if entry is None or entry.path not in digests:
        return entry
    return replace(entry, sha256=digests[entry.path])
