"""`etsclone rebuild`: a clone plus an overlay is that role. Verify, plan, show, ask, apply, read again."""

import contextlib
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from etsclone.chroot import require_root
from etsclone.commands.boot import (
    add_boot,
    boot_editors,
    boot_lines,
    boot_section,
    boot_survey,
    keeping,
    seen_to_boot,
)
from etsclone.commands.fidelity import (
    add_require_exact,
    fidelity_section,
    headline,
    measured,
    measured_again,
    not_exact_now,
    require_exact,
)
from etsclone.commands.finished import check_finished
from etsclone.commands.hardware import Nics, add_nics, given_nics, hardware_section, nic_editors
from etsclone.commands.health import (
    add_checks,
    check_disk,
    check_services,
    health_section,
    require_healthy,
    told,
)
from etsclone.commands.history import check_newest
from etsclone.commands.identity import given_identities
from etsclone.commands.kept import (
    Mount,
    add_kept,
    check_same,
    finish_first,
    run_kept,
)
from etsclone.commands.keyfile import add_unlock
from etsclone.commands.output import add_events, confirm, print_json
from etsclone.commands.pairing import clone_section
from etsclone.commands.rebuild_shown import Shown, untried_section
from etsclone.commands.receipt import Signer, add_key, receipt_words, signer
from etsclone.commands.stopped import Left, change_told, is_role, telling_what_is_left
from etsclone.commands.survey import existing_disk, refuse
from etsclone.commands.system import (
    System,
    check_mounted_once,
    system_at,
    system_on_disk,
)
from etsclone.commands.unlock import given_keys
from etsclone.commands.wanted import add_wanted, verified
from etsclone.disk.luks import Keys
from etsclone.errors import (
    EtscloneError,
    Interrupted,
    RebuildUnfinished,
    ReceiptLost,
    TargetRefused,
    UsageError,
)
from etsclone.execute.bootkeep import check_code
from etsclone.execute.rebuild import (
    Editor,
    RebuildPlan,
    execute_rebuild,
    plan_rebuild,
    verify_rebuild,
)
from etsclone.model.health import Health
from etsclone.model.history import Known
from etsclone.overlay.payload import read_payload
from etsclone.plan.guards import target_refusals
from etsclone.progress import print_event
from etsclone.store.folder import open_store
from etsclone.store.memory import remember_newest
from etsclone.store.receipts import save_receipt


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument(
        "disk",
        metavar="DISK",
        nargs="?",
        help="disk or image file that carries a clone of the pair",
    )
    parser.add_argument("--store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument("--role", metavar="ROLE", help="the role that the clone becomes")
    add_kept(parser)
    add_wanted(parser)
    add_require_exact(parser)
    add_checks(parser)
    add_nics(parser)
    add_boot(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask for the target's name")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    add_unlock(parser)
    add_key(parser)
    add_events(parser)


def run(arguments: Namespace) -> None:
    """Rebuild a role.

    Raises:
        NotRoot, UsageError, StoreRefused, StoreRolledBack, TrustRefused, KeyRefused, OverlaySealed, TargetRefused,
        RootNotMounted, NotExact, BootLoaderRefused, RebuildUnfinished (--dry-run), NothingKept (--undo, --commit),
        ScopeConflict, UnsafePath, NotConfirmed, VerificationFailed (of the overlay): before anything was written.
        HealthFailed, CannotBoot, ComparisonFailed (--require-exact): the role is complete, the receipt is kept, but the
        system is not sound, its boot loader was not installed, or it is not what was captured.
        ReceiptLost: the role is complete, but no receipt can be kept.
        TargetFull, DeviceError, Interrupted, ComparisonFailed: the role is incomplete; the same command completes it.
    """
    require_root()
    keys = given_keys(arguments)
    mount = partial(_system, arguments, keys)
    undoes = bool(arguments.undo or arguments.commit)
    _check_words(arguments, undoes=undoes)
    _check_target(arguments)
    sign = signer(arguments.key)
    if undoes:
        run_kept(arguments, mount, sign)
        return
    with telling_what_is_left() as left:
        try:
            _rebuild(arguments, mount, keys, sign, left)
        except RebuildUnfinished:
            if arguments.dry_run:
                raise
            finish_first(arguments, mount, sign)
            _rebuild(arguments, mount, keys, sign, left)


def _rebuild(
    arguments: Namespace, mount: Mount, keys: Keys, sign: Signer | None, left: Left
) -> None:
    identities = given_identities(arguments)
    nics = given_nics(arguments)
    store = open_store(arguments.store)
    asked = store.generation(arguments.role, arguments.generation)
    started = datetime.now(UTC)
    with contextlib.ExitStack() as stack:
        with mount(False) as system:
            check_finished(system.folder, system.name)
            overlay = verified(asked, store, arguments, system, identities)
            stack.enter_context(overlay)
            pairing = clone_section(overlay.header, system, arguments)
            check_mounted_once(system, overlay.header.scope)
            newest = Known(overlay.header.generation, overlay.digest)
            if arguments.generation is None:
                check_newest(store, arguments.role, newest, arguments)
            payload = stack.enter_context(read_payload(overlay.payload(), overlay.header.scope))
            plan = plan_rebuild(
                system.folder, overlay.header.scope, payload, system.skip, _editors(system, nics)
            )
            full, edits = arguments.require_exact, plan.outer_edits
            fidelity = measured(overlay, system, full=full, edits=edits)
            boot = boot_survey(system, plan, arguments)
            plan = keeping(plan, boot)
            hardware = hardware_section(system, plan, nics)
        sections = (
            untried_section(plan),
            pairing,
            boot_section(boot),
            hardware,
            fidelity_section(fidelity),
        )
        signed = sign is not None
        _show(Shown(plan, overlay, system, signed, sections), arguments)
        if arguments.require_exact:
            require_exact(fidelity, system.name)
        if arguments.dry_run:
            return
        if plan or (boot and boot.due):
            confirm(system.name, yes=arguments.yes)
        label = f"{arguments.role}, generation {overlay.header.generation}"
        done = is_role(system.name, label, undoable=bool(plan))
        if plan:
            change = partial(
                execute_rebuild,
                plan=plan,
                label=label,
                began=f"{started:%Y-%m-%dT%H:%M:%SZ}",
                pair=store.pair,
            )
            _apply(mount, plan, system, change, left, done)
        left.said = done
        # Mounted afresh, so that what is compared comes from the disk and not from memory.
        with mount(False) as again:
            verify_rebuild(again.folder, plan, again.skip)
            fidelity = measured_again(fidelity, overlay, again, full=full, edits=edits)
            services = check_services(overlay.header, again, arguments)
        boot, trouble = seen_to_boot(boot, plan, arguments, mount)
    health = check_disk(services, arguments, keys)
    remember_newest(store.pair, arguments.role, newest)
    after = (
        pairing,
        boot_section(boot, trouble),
        hardware,
        fidelity_section(fidelity),
        health_section(health),
    )
    facts = Shown(plan, overlay, system, signed, after).facts()
    facts |= {"started": started.isoformat(), "verified": True}
    facts["finished"] = datetime.now(UTC).isoformat()
    lost = None
    try:
        receipt = str(save_receipt("rebuild", facts, started, keep=store.write_receipt, sign=sign))
    except ReceiptLost as error:
        receipt, lost, facts["signed"] = None, error, False
    left.said = None
    if arguments.json:
        print_event("done", facts | told(health) | {"receipt": receipt})
    else:
        print(
            f"\n{system.name} is {arguments.role} of pair {store.pair}: its scope equals the overlay;"
            f" {receipt_words(receipt, signed=signed)}"
        )
        print(f"outside the scope: {headline(fidelity)}", *after[-1].lines, sep="\n")
        print(*boot_lines(boot, trouble), sep="\n")
        if plan:
            print("what it replaced is kept on it: --undo brings it back, --commit removes it")
    is_now = f"{system.name} is {arguments.role}"
    inexact = not_exact_now(fidelity, is_now) if full else None
    _judge(trouble or inexact, health, lost, is_now)


def _judge(
    trouble: EtscloneError | None, health: Health, lost: ReceiptLost | None, done: str
) -> None:
    """Raise the worst that there is to say of a disk that is the role."""
    if trouble:
        raise trouble
    require_healthy(health, done)
    if lost:
        raise lost


def _editors(system: System, nics: Nics) -> tuple[Editor, ...]:
    """What else than the overlay decides about the files of this disk and this machine."""
    return (*boot_editors(system), *nic_editors(nics))


def _system(arguments: Namespace, keys: Keys, writable: bool) -> AbstractContextManager[System]:
    if arguments.disk:
        # A dry run must not even replay the journal of a filesystem.
        looks = arguments.dry_run
        return system_on_disk(
            arguments.disk, writable=writable, pristine=looks, replay=not looks, keys=keys
        )
    return system_at(arguments.root)


def _check_words(arguments: Namespace, *, undoes: bool) -> None:
    if undoes and arguments.role:
        raise UsageError(
            "--undo and --commit take no --role",
            hint="they need the disk alone, and --store to keep the receipt there: etsclone rebuild DISK --undo",
        )
    if arguments.as_kept and not arguments.undo:
        raise UsageError("--as-kept is for --undo", hint="etsclone rebuild DISK --undo --as-kept")
    if not undoes and not (arguments.store and arguments.role):
        raise UsageError(
            "a rebuild needs --store and --role",
            hint="etsclone rebuild DISK --store STORE --role ROLE",
        )


def _check_target(arguments: Namespace) -> None:
    if bool(arguments.disk) == bool(arguments.root):
        raise UsageError(
            "name either a disk or --root DIR",
            hint="etsclone rebuild DISK --store STORE --role ROLE",
        )
    if arguments.disk:
        refuse(target_refusals(existing_disk(arguments.disk)))
    elif os.path.exists(arguments.root) and os.path.samefile(arguments.root, "/"):
        raise TargetRefused(
            f"{arguments.root} is the root of the running system",
            hint="start a rescue system and mount the clone there, or name its disk",
        )


def _apply(
    mount: Mount,
    plan: RebuildPlan,
    shown: System,
    change: Callable[..., None],
    left: Left,
    done: Interrupted,
) -> None:
    with mount(True) as system:
        check_same(system, shown)
        check_code(plan.keep, system.disk)
        change_told(system, partial(change, skip=system.skip), left, done)


def _show(shown: Shown, arguments: Namespace) -> None:
    if arguments.json and arguments.dry_run:
        print_json(shown.facts())
    elif arguments.json:
        print_event("plan", shown.facts())
    else:
        print(*shown.lines(), sep="\n")
