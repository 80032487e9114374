"""`etsclone rebuild`: a clone plus an overlay is that role. Verify, plan, show, ask, apply, read again."""

import contextlib
import os
from argparse import ArgumentParser, Namespace
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from etsclone.chroot import in_chroot, require_root
from etsclone.commands.history import check_newest
from etsclone.commands.identity import add_identity, given_identities
from etsclone.commands.output import add_events, confirm, disk_facts, disk_line, print_json
from etsclone.commands.receipt import add_key, signer
from etsclone.commands.survey import existing_disk, refuse
from etsclone.commands.system import System, system_at, system_on_disk
from etsclone.commands.trust import SITE_REVOKED, SITE_SIGNERS, add_revoked, load_trust
from etsclone.errors import Interrupted, StoreRefused, TargetChanged, TargetRefused, UsageError
from etsclone.execute.rebuild import RebuildPlan, execute_rebuild, plan_rebuild, verify_rebuild
from etsclone.model.brd import CloneIdentity, Header
from etsclone.model.history import Known
from etsclone.overlay.container import VerifiedOverlay, open_verified
from etsclone.overlay.payload import read_payload
from etsclone.overlay.sealing import Identities
from etsclone.plan.guards import target_refusals
from etsclone.progress import print_event
from etsclone.store.folder import Generation, Store, open_store
from etsclone.store.memory import remember_newest
from etsclone.store.receipts import save_receipt


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "disk",
        metavar="DISK",
        nargs="?",
        help="disk or image file that carries a clone of the pair",
    )
    parser.add_argument(
        "--root", metavar="DIR", help="in place of DISK: where a clone's root is mounted"
    )
    parser.add_argument("--store", metavar="STORE", type=Path, required=True, help="the BRD store")
    parser.add_argument(
        "--role", metavar="ROLE", required=True, help="the role that the clone becomes"
    )
    parser.add_argument(
        "--generation",
        metavar="N",
        type=int,
        help="an older state of the role (default: the newest)",
    )
    parser.add_argument(
        "--trust",
        metavar="FILE",
        type=Path,
        help=f"allowed_signers file to trust (default: {SITE_SIGNERS} of this system, then of the clone)",
    )
    add_revoked(parser)
    add_identity(parser, "that opens a sealed overlay")
    parser.add_argument("--yes", action="store_true", help="do not ask for the target's name")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    add_key(parser)
    add_events(parser)


def run(arguments: Namespace) -> None:
    """Rebuild a role.

    Raises:
        NotRoot, UsageError, StoreRefused, StoreRolledBack, TrustRefused, KeyRefused, OverlaySealed, TargetRefused,
        RootNotMounted,
        ScopeConflict, UnsafePath, NotConfirmed, VerificationFailed (of the overlay): before anything was written.
        TargetFull, DeviceError, Interrupted, ComparisonFailed: the role is incomplete; the same command completes it.
    """
    require_root()
    sign = signer(arguments.key)
    identities = given_identities(arguments)
    store = open_store(arguments.store)
    asked = store.generation(arguments.role, arguments.generation)
    _check_target(arguments)
    started = datetime.now(UTC)
    with contextlib.ExitStack() as stack:
        with _system(arguments, writable=False) as system:
            overlay = _verified(asked, store, arguments, system, identities)
            stack.enter_context(overlay)
            _check_clone(overlay.header, system)
            newest = Known(overlay.header.generation, overlay.digest)
            if arguments.generation is None:
                check_newest(store, arguments.role, newest)
            payload = stack.enter_context(read_payload(overlay.payload(), overlay.header.scope))
            plan = plan_rebuild(system.folder, overlay.header.scope, payload, system.skip)
        _show(plan, overlay, system, arguments)
        if arguments.dry_run:
            return
        if plan.tree.changes:
            confirm(system.name, yes=arguments.yes)
            _apply(arguments, plan, system)
        # Mounted afresh, so that what is compared comes from the disk and not from memory.
        with _system(arguments, writable=False) as again:
            verify_rebuild(again.folder, plan, again.skip)
    remember_newest(store.pair, arguments.role, newest)
    facts = _facts(plan, overlay, system) | {"started": started.isoformat(), "verified": True}
    facts["finished"] = datetime.now(UTC).isoformat()
    receipt = save_receipt(
        "rebuild", facts, started, keep=store.write_receipt if store else None, sign=sign
    )
    if arguments.json:
        print_event("done", facts | {"receipt": str(receipt)})
    else:
        print(
            f"\n{system.name} is {arguments.role} of pair {store.pair}: its scope equals the overlay;"
            f" receipt: {receipt}"
        )


def _system(arguments: Namespace, *, writable: bool) -> AbstractContextManager[System]:
    if arguments.disk:
        # A dry run must not even replay the journal of a filesystem.
        return system_on_disk(arguments.disk, writable=writable, pristine=arguments.dry_run)
    return system_at(arguments.root)


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


def _verified(
    asked: Generation,
    store: Store,
    arguments: Namespace,
    system: System,
    identities: Identities | None,
) -> VerifiedOverlay:
    trust = load_trust(
        arguments.trust,
        revoked=arguments.revoked,
        copy=store.signers_path,
        inside=_trust_inside(system),
    )
    return open_verified(
        asked.path,
        trust,
        role=arguments.role,
        pair=store.pair,
        generation=asked.number,  # whatever name somebody gave to a genuine but older one
        identities=identities,
    )


def _trust_inside(system: System) -> tuple[str, str] | None:
    """What the clone itself says of whom to trust, and of whom not."""

    def read() -> tuple[str, str] | None:
        with contextlib.suppress(OSError):
            signers = SITE_SIGNERS.read_text(encoding="utf-8", errors="replace")
            if not os.path.lexists(SITE_REVOKED):
                return signers, ""
            return signers, SITE_REVOKED.read_text(encoding="utf-8", errors="replace")
        return None

    return in_chroot(system.folder, read)


def _check_clone(header: Header, system: System) -> None:
    captured, here = _uuids(header.clone), _uuids(system.clone)
    if captured and here and not captured & here:
        raise StoreRefused(
            f"{system.name} is no clone of pair {header.pair}: none of its UUIDs is one of the captured disk's",
            hint="clone a disk of the pair onto it first, or name the store of the pair that it belongs to",
        )


def _uuids(clone: CloneIdentity) -> set[str]:
    return {
        uuid.lower()
        for uuid in (clone.table_uuid, *(each.uuid for each in clone.filesystems))
        if uuid
    }


def _apply(arguments: Namespace, plan: RebuildPlan, shown: System) -> None:
    try:
        with _system(arguments, writable=True) as system:
            if (system.disk and system.disk.identity) != (shown.disk and shown.disk.identity):
                raise TargetChanged(
                    f"{shown.name} is not the disk that the plan was made for",
                    hint="start again: `etsclone disks`",
                )
            execute_rebuild(system.folder, plan, system.skip)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"interrupted: {shown.name} may be half way to {arguments.role}",
            hint="run the same command again: it completes what is missing",
        ) from interrupt


def _show(
    plan: RebuildPlan, overlay: VerifiedOverlay, system: System, arguments: Namespace
) -> None:
    if arguments.json and arguments.dry_run:
        print_json(_facts(plan, overlay, system))
    elif arguments.json:
        print_event("plan", _facts(plan, overlay, system))
    else:
        _show_people(plan, overlay, system)


def _show_people(plan: RebuildPlan, overlay: VerifiedOverlay, system: System) -> None:
    header = overlay.header
    print(f"overlay  generation {header.generation} of {header.role} of pair {header.pair}")
    print(
        f"         captured on {header.host} at {header.created:%Y-%m-%d %H:%M:%S} UTC,"
        f" signed by {overlay.signer.fingerprint}"
    )
    print(f"target   {disk_line(system.disk) if system.disk else system.folder}\n")
    print(plan.tree if plan.tree.changes else "its scope equals the overlay already")
    if plan.tree.changes:
        print(f"\n{len(plan.tree.changes)} changes; nothing outside the role's scope is touched")


def _facts(plan: RebuildPlan, overlay: VerifiedOverlay, system: System) -> dict[str, object]:
    header = overlay.header
    return {
        "target": disk_facts(system.disk) if system.disk else None,
        "root": None if system.disk else system.folder,
        "pair": header.pair,
        "role": header.role,
        "generation": header.generation,
        "overlay": overlay.digest,
        "signer": overlay.signer.fingerprint,
        "changes": [
            {
                "action": change.action.value,
                "path": os.fsdecode(change.path),
                "reason": change.reason,
            }
            for change in plan.tree.changes
        ],
    }
