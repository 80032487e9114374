"""How faithful a rebuild of a mounted clone is: measured, told to people and programs, refused when it must be exact.

The first look is quick: no file is opened, and one that has the size, time, mode and owner of the captured one is taken
for the same. Files of which only the time differs are then read. With `--require-exact` every file is read. What no
inventory holds cannot be compared at all: whatever is told says so.
"""

import logging
import os
import time
from argparse import ArgumentParser
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import BinaryIO

from etsclone.chroot import in_chroot
from etsclone.commands.listings import listing_spools
from etsclone.commands.packages import installed_by_rpm
from etsclone.commands.rebuild_shown import Section
from etsclone.commands.system import System
from etsclone.errors import ComparisonFailed, NotExact, StoreFull
from etsclone.model.diff import Change, Difference, PackageChange
from etsclone.model.edit import Edit
from etsclone.model.fidelity import Fidelity
from etsclone.model.scope import Scope
from etsclone.model.tree import Kind, printable
from etsclone.overlay import inventory
from etsclone.overlay.brought import Brought
from etsclone.overlay.comparing import Listing, differing
from etsclone.overlay.container import VerifiedOverlay
from etsclone.overlay.digests import read_digests, recorded_digests
from etsclone.overlay.listing import Aids, list_tree
from etsclone.overlay.packages import dpkg_packages
from etsclone.plan.fidelity import (
    Pair,
    edited_outside,
    judge,
    outside_scope,
    suspects,
    with_digests,
    without_edits,
)
from etsclone.units import counted

FEW = 20
"""How many lines of other files are printed; packages and configuration files are all printed."""

_AGES = (
    (timedelta(days=1), "days"),
    (timedelta(hours=1), "hours"),
    (timedelta(minutes=1), "minutes"),
)

logger = logging.getLogger(__name__)

_BUT = ", but for attributes, ACLs and hard links, which inventories do not hold"
_NO_INVENTORY = "unknown: the overlay was captured without an inventory"


def add_require_exact(parser: ArgumentParser) -> None:
    """Give a command `--require-exact`."""
    parser.add_argument(
        "--require-exact",
        action="store_true",
        help="compare every file outside the role's scope with the captured system, and refuse unless all are the same:"
        " content, size, mode, owner and flags, but not attributes, ACLs and hard links, which inventories do not hold",
    )


def measured(
    overlay: VerifiedOverlay, system: System, *, full: bool, edits: Sequence[Edit] = ()
) -> Fidelity | None:
    """Compare a mounted clone with the inventory of an overlay; None when the overlay has none.

    Args:
        full: whether every file is read.
        edits: what the rebuild changes outside the scope, or has changed: no differences of the clone.

    Raises:
        OverlaySealed: when no identity was given that opens the inventory.
        HostilePayload: when the inventory is not as captures write it.
        StoreFull: when there is no room for temporary files.
        OSError: when the clone cannot be read.
    """
    if not overlay.inventory().read(1):
        return None
    scope = overlay.header.scope
    # In memory: what is known of a sealed role by its inventory must not be written to the rescue system's disk.
    with os.fdopen(os.memfd_create("listing"), "w+b") as listing:
        _list(system, scope, listing, quick=not full)
        captured = Listing(overlay.inventory(), quick=not full)
        here = Listing(listing, quick=not full)
        pairs = outside_scope(differing(captured, here), scope)
    edited = edited_outside(edits, scope)
    known = iter(pairs) if full else _with_digests(pairs, overlay, system, edited)
    counting = without_edits(known, edits)
    found = judge(counting, scope, captured.packages, here.packages, full=full)
    return replace(found, edited=edited)


def measured_again(
    before: Fidelity | None,
    overlay: VerifiedOverlay,
    system: System,
    *,
    full: bool,
    edits: Sequence[Edit] = (),
) -> Fidelity | None:
    """The same after the rebuild: what is lost by a lack of temporary files must not take the receipt along.

    Nothing else outside the scope was meant to change, so what was found `before` is then told as such. The age of the
    clone is in any case the one from before: what the rebuild edited has the time of the rebuild.

    Raises:
        OverlaySealed, HostilePayload, OSError: as `measured`.
    """
    try:
        found = measured(overlay, system, full=full, edits=edits)
    except StoreFull as error:
        logger.warning("not compared again: %s; %s", error.message, error.hint)
        return before and replace(before, before=True)
    return found and replace(found, older=before.older if before else None)


def require_exact(fidelity: Fidelity | None, name: str) -> None:
    """Make sure that a rebuild gives the very system that was captured.

    Raises:
        NotExact: when it does not, or when nothing tells.
    """
    if fidelity is None or not fidelity.exact:
        raise NotExact(
            f"{name} would not be exactly what was captured: {headline(fidelity)}",
            hint="clone the disk of the captured server anew, or rebuild without --require-exact",
        )


def not_exact_now(fidelity: Fidelity | None, done: str) -> ComparisonFailed | None:
    """What there is to say of a rebuild that had to give the captured system, and did not, or nobody could look.

    Args:
        fidelity: measured after the rebuild.
        done: in a few words what was done nevertheless.
    """
    if fidelity and fidelity.exact and not fidelity.before:
        return None
    return ComparisonFailed(
        f"{done}, but it is not known to be what was captured: {headline(fidelity)}",
        hint="see that nothing else writes to the disk; `etsclone check --full` compares it again",
    )


def _list(system: System, scope: Scope, listing: BinaryIO, *, quick: bool) -> None:
    with listing_spools() as spools:
        rpm, _ = installed_by_rpm(system.folder)

        def work() -> None:
            brought = Brought.by(rpm if rpm.packages else dpkg_packages("/"))
            with inventory.writing_lines(listing, brought.head) as write:
                list_tree(
                    "/",
                    scope,
                    write,
                    started_ns=time.time_ns(),
                    skip=system.skip,
                    brought=brought,
                    aids=Aids(spools),
                    quick=quick,
                )
            listing.flush()

        in_chroot(system.folder, work)
    listing.seek(0)


def _with_digests(
    pairs: Sequence[Pair], overlay: VerifiedOverlay, system: System, edited: Collection[bytes]
) -> Iterator[Pair]:
    recorded = recorded_digests(overlay.inventory(), suspects(pairs, edited))
    here = in_chroot(system.folder, lambda: read_digests("/", sorted(recorded)))
    return with_digests(pairs, recorded, here)


# --- telling -------------------------------------------------------------------------------------------------------


def headline(fidelity: Fidelity | None) -> str:
    """A fidelity in one line: `exact` and but for what, or how old the clone is and how much differs."""
    if fidelity is None:
        return _NO_INVENTORY
    if fidelity.before:
        was = headline(replace(fidelity, before=False))
        return f"{was} (before the rebuild: there was no room to compare again)"
    if fidelity.exact:
        looked = "" if fidelity.full else " by size, time, mode and owner of every file"
        return f"exact{looked}{_BUT}"
    counts = (
        (len(fidelity.packages), "package"),
        (fidelity.files, "file"),
        (fidelity.configurations, "unclaimed configuration file"),
    )
    words = ", ".join(counted(count, name) for count, name in counts if count)
    return f"{_verdict(fidelity.older)}: {words}"


def fidelity_lines(fidelity: Fidelity | None) -> list[str]:
    """A fidelity as lines for people."""
    lines = [f"outside the scope: {headline(fidelity)}"]
    if fidelity is None:
        return lines
    lines += [f"  {_package_line(each)}" for each in fidelity.packages]
    lines += [f"  configuration {_path_line(each)}" for each in fidelity.configuration]
    lines += [f"  {_path_line(each)}" for each in fidelity.others[:FEW]]
    if len(fidelity.others) > FEW:
        lines.append(f"  and {len(fidelity.others) - FEW} more: --json tells them all")
    lines += [f"  {printable(path)} is edited by the rebuild" for path in fidelity.edited]
    return lines


def fidelity_section(fidelity: Fidelity | None) -> Section:
    """A fidelity as a rebuild tells it."""
    return Section("fidelity", fidelity_facts(fidelity), fidelity_lines(fidelity))


def fidelity_facts(fidelity: Fidelity | None) -> dict[str, object]:
    """A fidelity as JSON facts; `exact` is null when nothing tells."""
    if fidelity is None:
        return {"exact": None, "summary": headline(None)}
    older = fidelity.older
    return {
        "exact": fidelity.exact,
        "summary": headline(fidelity),
        "full": fidelity.full,
        "not_compared": list(fidelity.not_compared),
        "older_seconds": None if older is None else int(older.total_seconds()),
        "packages": [
            {
                "name": each.name,
                "arch": each.arch,
                "captured": list(each.before),
                "here": list(each.after),
                "paths": each.paths,
            }
            for each in fidelity.packages
        ],
        "files": fidelity.files,
        "configuration": [_path_facts(each) for each in fidelity.configuration],
        "others": [_path_facts(each) for each in fidelity.others],
        "touched": fidelity.touched,
        "edited": [os.fsdecode(path) for path in fidelity.edited],
    }


def _verdict(older: timedelta | None) -> str:
    if older is None or abs(older) < 2 * _AGES[-1][0]:
        return "not exact"
    unit, name = next(each for each in _AGES if abs(older) >= 2 * each[0])
    return f"the clone is {abs(older) // unit} {name} {'older' if older > timedelta() else 'newer'}"


def _package_line(change: PackageChange) -> str:
    """`package dhcpd 4.4.3-2, captured with 4.4.3-4 (12 paths)`."""
    captured, here = ", ".join(change.before), ", ".join(change.after)
    if not change.after:
        words = f"{captured} is missing"
    elif not change.before:
        words = f"{here} is only here"
    else:
        words = f"{here}, captured with {captured}"
    return f"package {change.name} {words}{_paths(change.paths)}"


def _path_line(line: Difference) -> str:
    """`/etc/login.defs differs in content`, `/opt/tool is only here (31 paths)`."""
    path = printable(line.path) + "/" * (line.kind is Kind.FOLDER)
    match line.change:
        case Change.CHANGED:
            # That the time differs too goes without saying.
            return f"{path} differs in {', '.join(word for word in line.what if word != 'time')}"
        case Change.BENEATH:
            return f"{path} differs beneath{_paths(line.paths)}"
        case Change.ADDED:
            words = "is only here"
        case Change.REMOVED:
            words = "is missing"
    return f"{path} {words}{_paths(line.paths) * (line.paths > 1)}"


def _path_facts(line: Difference) -> dict[str, object]:
    return {
        "path": os.fsdecode(line.path),
        "change": {Change.ADDED: "only here", Change.REMOVED: "missing"}.get(
            line.change, line.change.value
        ),
        "kind": line.kind.value,
        "what": list(line.what),
        "paths": line.paths,
    }


def _paths(count: int) -> str:
    return f" ({counted(count, 'path')})" if count else ""
