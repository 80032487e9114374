"""`etsclone rebuild --undo` and `--commit`, and what an interrupted rebuild has to see done first."""

import logging
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from etsclone.commands.diskwords import disk_facts, disk_line
from etsclone.commands.output import confirm, print_json
from etsclone.commands.receipt import UNSIGNED, Signer, receipt_words
from etsclone.commands.stopped import change_told, is_changed, telling_what_is_left
from etsclone.commands.system import System
from etsclone.errors import KeptDamaged, NothingKept, ReceiptLost, StoreRefused, TargetChanged
from etsclone.execute.bootkeep import code_writer, fits, verify_code
from etsclone.execute.rebuild import (
    commit_rebuilds,
    finish_rebuild,
    kept_rebuilds,
    undo_prospect,
    undo_rebuild,
    verify_committed,
    verify_undone,
)
from etsclone.model.journal import Progress, half_way
from etsclone.model.keep import WriteCode
from etsclone.overlay.kept import Kept, Prospect
from etsclone.overlay.restored import Restored, damage
from etsclone.plan.tree import TreePlan
from etsclone.progress import print_event
from etsclone.store.folder import Store, open_store
from etsclone.store.receipts import save_receipt
from etsclone.units import counted, human

logger = logging.getLogger(__name__)

Done = TypeVar("Done")
Mount = Callable[[bool], AbstractContextManager[System]]
"""Mounts the system; whether to write to it."""


def add_kept(parser: ArgumentParser) -> None:
    """Add `--undo` and `--commit`."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--undo",
        action="store_true",
        help="make of the disk what it was before the last rebuild (no --role; the receipt goes to --store, if given)",
    )
    which.add_argument(
        "--commit",
        action="store_true",
        help="remove what rebuilds keep to be undone (no --role; the receipt goes to --store, if given)",
    )
    parser.add_argument(
        "--as-kept",
        action="store_true",
        help="with --undo: bring back what is kept, even where it is not what it was (exit code 4)",
    )


def run_kept(arguments: Namespace, mount: Mount, sign: Signer | None) -> None:
    """Undo or commit.

    Raises:
        StoreRefused, NothingKept, NotConfirmed, TargetChanged: nothing was changed.
        KeptDamaged: what is kept is not what it was; nothing was changed, unless `--as-kept` wanted it all the same, or
            an undo had been interrupted.
        ComparisonFailed: it is done, but what is on the disk is not what it should be.
        TargetFull, DeviceError, UnsafePath, Interrupted: the disk may be half way; the same command goes on.
        ReceiptLost: it is done, but no receipt can be kept.
    """
    store = open_store(arguments.store) if arguments.store else None
    started = datetime.now(UTC)
    what = "undo" if arguments.undo else "commit"
    with mount(False) as system:
        kept = kept_rebuilds(system.folder)
        prospect = _prospect(what, kept, system)
    if kept is None:
        raise NothingKept(
            f"{system.name} keeps nothing of what it was before a rebuild",
            hint="a rebuild can be undone until it is committed or undone",
        )
    _check_pair(kept, store, system)
    # An undo that was interrupted goes on: it tells what is damaged, and is not left half way for it.
    halfway = kept.progress is Progress.UNDOING
    if prospect.damaged and not (arguments.as_kept or halfway):
        raise damage(kept.progress, prospect.damaged)
    _show(what, kept, system, prospect, arguments, store)
    if arguments.dry_run:
        return
    confirm(system.name, yes=arguments.yes)
    # Mounted afresh, so that what is looked at comes from the disk and not from memory.
    if arguments.undo:
        work = partial(undo_rebuild, prospect=prospect, as_kept=arguments.as_kept or halfway)
        restored = _change(mount, system, kept, work)
        with mount(False) as again:
            _verify(what, kept, system, again, restored)
    else:
        restored = _change(mount, system, kept, commit_rebuilds)
        with mount(False) as again:
            _verify(what, kept, system, again, restored)
            verify_committed(again.folder)
    verified = restored.vouched and not _lost(what, kept, system) and not _unseen(what, kept)
    facts = _facts(what, kept, system, prospect, arguments) | {"verified": verified}
    receipt = _save(what, facts, started, store, sign)
    if arguments.json:
        print_event("done", facts | {"receipt": str(receipt)})
    else:
        done = "as it was before" if arguments.undo else "committed: nothing of before is kept"
        done += "" if verified else ", but for what is told above"
        print(f"\n{system.name} is {done}; {receipt_words(receipt, signed=bool(arguments.key))}")
    _check_undamaged(system, restored)


def finish_first(arguments: Namespace, mount: Mount, sign: Signer | None) -> None:
    """Finish a rebuild, or an undoing, that was interrupted, before anything else is planned. Raises as `run_kept`.

    Its receipt says of a way forwards that it is not verified: the rebuild that follows looks at all of that. Where no
    receipt can be kept, that is no reason to stop here.
    """
    store = open_store(arguments.store)
    started = datetime.now(UTC)
    with mount(False) as system:
        kept = kept_rebuilds(system.folder)
        prospect = _prospect("finish", kept, system)
    if kept is None or not kept.unfinished:
        return
    _check_pair(kept, store, system)
    if arguments.json:
        print_event("unfinished", _facts("finish", kept, system, prospect, arguments))
    else:
        print(f"{system.name} is {half_way(kept.label, kept.progress)}: that is finished first\n")
        print(*kept.finish.changes, "", counted(len(kept.finish.changes), "change"), sep="\n")
        for line in _doubts("finish", prospect, kept, store):
            print(line)
    confirm(system.name, yes=arguments.yes)
    restored = _change(mount, system, kept, finish_rebuild)
    with mount(False) as again:
        _verify("finish", kept, system, again, restored)
    verified = _goes_back("finish", kept) and restored.vouched
    verified &= not _lost("finish", kept, system)
    facts = _facts("finish", kept, system, prospect, arguments) | {"verified": verified}
    try:
        receipt = _save("finish", facts, started, store, sign)
    except ReceiptLost as error:
        logger.warning("%s; %s", error.message, error.hint)
    else:
        if arguments.json:
            print_event("finished", facts | {"receipt": str(receipt)})
        else:
            words = receipt_words(receipt, signed=bool(arguments.key))
            print(f"\nwhat was interrupted is finished; {words}\n")
    _check_undamaged(system, restored)


def _prospect(what: str, kept: Kept | None, system: System) -> Prospect:
    """What is come upon where something is brought back."""
    return undo_prospect(system.folder) if kept and _goes_back(what, kept) else Prospect()


def _verify(what: str, kept: Kept, shown: System, again: System, restored: Restored) -> None:
    """Read what was brought back again, from a disk that was mounted afresh: boot code where it fits what was shown."""
    verify_undone(again.folder, restored)
    if _goes_back(what, kept) and not _misfit(kept, shown):
        verify_code(kept.code, again.disk)


def _check_undamaged(system: System, restored: Restored) -> None:
    """Raise `KeptDamaged` where what was brought back is not what it was."""
    if restored.damaged:
        raise KeptDamaged(
            f"{system.name} has what was kept, and some of that is not what it was before the rebuild",
            hint="rebuild the role from its overlay, or mend what is told above by hand",
        )


def _check_pair(kept: Kept, store: Store | None, system: System) -> None:
    """Raise `StoreRefused` where the receipt would go to the store of another pair than the rebuild was of."""
    if store and kept.pair and kept.pair != store.pair:
        raise StoreRefused(
            f"the rebuild of {system.name} was of pair {kept.pair}, and {store.path} is the store of pair {store.pair}",
            hint=f"name the store of pair {kept.pair}; --undo and --commit do without --store too, and keep the"
            " receipt on this machine",
        )


def _save(
    what: str,
    facts: dict[str, object],
    started: datetime,
    store: Store | None,
    sign: Signer | None,
) -> Path:
    """Keep the receipt, in the store where one is named, of what began at a time; its times are added."""
    facts |= {"started": started.isoformat(), "finished": datetime.now(UTC).isoformat()}
    keep = store.write_receipt if store else None
    return save_receipt(what, facts, started, keep=keep, sign=sign)


def _change(
    mount: Mount, shown: System, kept: Kept, work: Callable[[str, Kept, WriteCode | None], Done]
) -> Done:
    with (
        telling_what_is_left() as left,
        mount(True) as system,
        code_writer(kept.code, system.disk) as write_code,
    ):
        check_same(system, shown)
        if _misfit(kept, system) is not _misfit(kept, shown):
            raise TargetChanged(
                f"the partitions of {shown.name} changed since the plan was shown",
                hint="run the same command again",
            )
        done = is_changed(shown.name)
        return change_told(system, lambda folder: work(folder, kept, write_code), left, done)


def check_same(system: System, shown: System) -> None:
    """Raise `TargetChanged` unless a disk is the one that was shown."""
    if (system.disk and system.disk.identity) != (shown.disk and shown.disk.identity):
        raise TargetChanged(
            f"{shown.name} is not the disk that the plan was made for",
            hint="start again: `etsclone disks`",
        )


def _show(
    what: str,
    kept: Kept,
    system: System,
    prospect: Prospect,
    arguments: Namespace,
    store: Store | None,
) -> None:
    if arguments.json:
        facts = _facts(what, kept, system, prospect, arguments)
        print_json(facts) if arguments.dry_run else print_event("plan", facts)
        return
    print(f"target   {disk_line(system.disk) if system.disk else system.folder}")
    print(f"rebuild  {_state(kept)}")
    if kept.size:
        print(f"kept     {human(kept.size)} of files as they were before")
    if plan := _plan(what, kept, prospect).changes:
        if what == "commit":
            print("         that is finished first")
        print("", *plan, "", counted(len(plan), "change"), sep="\n")
    if size := _code_size(what, kept, system):
        print(f"write   {human(size)} of boot code  (as it was before)")
    for each in _lost(what, kept, system):
        print(f"not brought back: {each}")
    for line in _doubts(what, prospect, kept, store):
        print(line)
    count = kept.count + (kept.progress is Progress.BEGUN)
    if what == "commit" and count:
        keep = counted(count, "rebuild", "keeps", "keep")
        print(f"what {keep} is removed; that cannot be undone any more")
    if not arguments.key:
        print(UNSIGNED)


def _doubts(what: str, prospect: Prospect, kept: Kept, store: Store | None) -> list[str]:
    """What is not known to be what it was, or known not to be, and whether the store is the right one."""
    lines = [f"not what it was before the rebuild: {each}" for each in prospect.damaged]
    if prospect.unvouched:
        paths = counted(prospect.unvouched, "path")
        lines.append(
            f"not known: whether {paths} kept by an older etsclone are what they were; they come back as kept"
        )
    if _unseen(what, kept):
        lines.append(
            "not known: whether what came back before is what it was; what it could be compared with is being removed"
        )
    if store and kept.began and not kept.pair:
        lines.append(
            f"not known: of which pair the rebuild by an older etsclone was; the receipt goes to that of {store.pair}"
        )
    return lines


def _unseen(what: str, kept: Kept) -> bool:
    """Whether an undo that was interrupted at its very end had not yet looked at what it brought back."""
    return what == "undo" and kept.progress is Progress.DROPPING


def _state(kept: Kept) -> str:
    rebuild = f"to {kept.label or 'another role'}, of {kept.began}"
    match kept.progress:
        case None | Progress.STAGED:
            return "was interrupted and changed nothing; what is left of it is removed"
        case Progress.BEGUN:
            return f"{rebuild}, was interrupted"
        case Progress.APPLIED:
            return f"{rebuild}, was done"
        case Progress.UNDOING:
            return f"{rebuild}, was being undone, and that was interrupted"
        case Progress.DROPPING:
            return f"{rebuild}, is undone or committed already; what is left of it is removed"


def _plan(what: str, kept: Kept, prospect: Prospect) -> TreePlan:
    """What changes on the disk, beside what is kept."""
    return prospect.plan if what == "undo" else kept.finish


def _goes_back(what: str, kept: Kept) -> bool:
    return what == "undo" or kept.progress is Progress.UNDOING


def _code_size(what: str, kept: Kept, system: System) -> int:
    """How many bytes of boot code are brought back."""
    back = _goes_back(what, kept) and not _misfit(kept, system)
    return sum(len(each.before) for each in kept.code) if back else 0


def _lost(what: str, kept: Kept, system: System) -> tuple[str, ...]:
    """What an undo leaves as it is."""
    if not _goes_back(what, kept):
        return ()
    if _misfit(kept, system):
        return (*kept.lost, "boot code: the disk has other partitions than it had then")
    return kept.lost


def _misfit(kept: Kept, system: System) -> bool:
    """Whether there is boot code that cannot be written where it was."""
    return system.disk is not None and bool(kept.code) and not fits(kept.code, system.disk)


def _facts(
    what: str, kept: Kept, system: System, prospect: Prospect, arguments: Namespace
) -> dict[str, object]:
    return {
        "target": disk_facts(system.disk) if system.disk else None,
        "root": None if system.disk else system.folder,
        "what": what,
        "label": kept.label,
        "pair": kept.pair or None,
        "began": kept.began,
        "progress": kept.progress and kept.progress.value,
        "unfinished": kept.unfinished,
        "kept": kept.count,
        "size": kept.size,
        "code": _code_size(what, kept, system),
        "lost": list(_lost(what, kept, system)),
        "signed": bool(arguments.key),
        "changed_since": {os.fsdecode(path): words for path, words in prospect.changed.items()},
        "damaged": list(prospect.damaged),
        "unvouched": prospect.unvouched,
        "changes": [
            {
                "action": change.action.value,
                "path": os.fsdecode(change.path),
                "reason": change.reason,
            }
            for change in _plan(what, kept, prospect).changes
        ],
    }
