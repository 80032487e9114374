"""What a plan can tell of names that the disk's filesystem takes for one: names are looked up, and nothing is written.

The rebuild itself tries each name (`folding`). Of what it would find, looking tells that a name is another one of the
folder already; and wherever names fold, two that differ in the case of ASCII letters are one.
"""

import errno
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from etsclone.kernel import filesystem_kind
from etsclone.model.tree import name_of, parent_of, twins
from etsclone.overlay.files import filesystem_top, opened_folder, opened_root, typed_errors
from etsclone.overlay.flags import folds_case
from etsclone.overlay.folding import conflict, impossible, listed
from etsclone.plan.steps import Handover, below, handovers
from etsclone.plan.tree import MADE, TreePlan

_APART = {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994}
"""Kinds of filesystems that keep names apart unless they were told to fold them: ext, xfs, btrfs, f2fs, tmpfs."""
_FOLDING = {0x4D44, 0x2011BAB0, 0x5346544E, 0x7366746E}
"""Those that always fold case: vfat, exFAT, and both drivers of NTFS. FUSE (exFAT and NTFS, too) does not tell."""
_IMPOSSIBLE = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """Names that come new into a folder when others are gone; one that is new itself will fold as `alike` does."""

    path: bytes
    coming: Collection[bytes]
    leaving: Collection[bytes]
    alike: bytes


def foresee_names(root: str, plan: TreePlan) -> tuple[bytes, ...]:
    """See whether what a plan brings would stand in the tree beside all else, under names of its own.

    Returns the folders of which only the rebuild can tell: their filesystem folds names, or may do so.

    Raises:
        ScopeConflict: when it is certain that the rebuild would be refused.
    """
    with typed_errors(b"/"), opened_root(root) as top:
        return tuple(each.path for each in _arrivals(top, plan) if not _is_certain(top, each))


def _arrivals(top: int, plan: TreePlan) -> Iterator[_Arrivals]:
    changing = handovers(plan)
    by_folder: dict[bytes, list[Handover]] = {}
    for each in changing:
        by_folder.setdefault(parent_of(each.path), []).append(each)
    for path, here in sorted(by_folder.items()):
        coming = [name_of(each.path) for each in here if not each.old]
        leaving = {name_of(each.path) for each in here if not each.new}
        if coming:
            yield _Arrivals(path, coming, leaving, path)
    made = {change.path for change in plan.changes if change.action in MADE}
    tops = {each.path for each in changing}
    inside: dict[bytes, list[bytes]] = {}
    for new in sorted(made):
        inside.setdefault(parent_of(new), []).append(name_of(new))
    for path in sorted(inside.keys() & made):
        yield _Arrivals(path, inside[path], (), filesystem_top(top, below(path, tops)))


def _is_certain(top: int, arrivals: _Arrivals) -> bool:
    """Whether all that come will have names of their own; raises as `foresee_names`."""
    path, coming, leaving = arrivals.path, arrivals.coming, arrivals.leaving
    with typed_errors(path), opened_folder(top, arrivals.alike) as folder:
        names = listed(folder)
        folds = _folds(folder, names)
        there = names if arrivals.alike == path else []
        staying = [name for name in there if name not in leaving]
        if folds:
            first = {name.lower(): name for name in staying}
            for name in coming:
                if first.setdefault(name.lower(), name) != name:
                    raise conflict(path, name, first[name.lower()])
        for name in coming if there else ():
            met = _met(folder, path, name)
            if met and name not in there:
                twin = _twin(folder, name, met, there)
                # Of one that is not listed any more the kernel remembers names in FUSE for a second.
                if twin is not None and twin not in leaving:
                    raise conflict(path, name, twin)
    return folds is False


def _folds(folder: int, names: Sequence[bytes]) -> bool | None:
    """Whether names that differ in the case of ASCII letters are one in a folder; None when it does not tell."""
    kind = filesystem_kind(folder)
    if folds_case(folder) or kind in _FOLDING:
        return True
    other = next((each.swapcase() for each in names if each.swapcase() not in names), None)
    if other is not None and _met(folder, b"", other):
        return True
    return False if kind in _APART else None


def _met(folder: int, path: bytes, name: bytes) -> os.stat_result | None:
    """What a name leads to in a folder."""
    try:
        return os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            raise impossible(path, name) from error
        raise


def _twin(folder: int, name: bytes, met: os.stat_result, among: Sequence[bytes]) -> bytes | None:
    """Which listed name is the same: by what usually folds, since FUSE gives each spelling an inode of its own."""
    usual = (each for each in among if twins((each, name)))
    same = (each for each in among if os.path.samestat(os.lstat(each, dir_fd=folder), met))
    return next(usual, next(same, None))
