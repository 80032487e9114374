"""`etsclone check`: whether a rebuild of this disk would give the role exactly as captured, and whether it is sound."""

import contextlib
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from etsclone.chroot import require_root
from etsclone.commands.boot import boot_look, boot_section
from etsclone.commands.fidelity import fidelity_section, headline, measured
from etsclone.commands.finished import check_finished
from etsclone.commands.health import (
    add_checks,
    check_disk,
    check_services,
    failures,
    health_section,
    told,
)
from etsclone.commands.identity import given_identities
from etsclone.commands.keyfile import add_unlock
from etsclone.commands.output import add_json, print_json
from etsclone.commands.pairing import clone_section
from etsclone.commands.rebuild_shown import Section
from etsclone.commands.survey import existing_disk, refuse
from etsclone.commands.system import System, system_at, system_on_disk
from etsclone.commands.unlock import given_keys
from etsclone.commands.wanted import add_wanted, verified
from etsclone.disk.luks import Keys
from etsclone.errors import CheckFailed, SourceRefused, UsageError
from etsclone.execute.rebuild import plan_rebuild
from etsclone.model.health import Health
from etsclone.overlay.container import VerifiedOverlay
from etsclone.overlay.payload import read_payload
from etsclone.plan.guards import target_refusals
from etsclone.store.folder import open_store
from etsclone.units import counted


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "disk",
        metavar="DISK",
        nargs="?",
        help="disk or image file that carries a clone of the pair; nothing on it is changed",
    )
    parser.add_argument("--store", metavar="STORE", type=Path, required=True, help="the BRD store")
    parser.add_argument(
        "--role", metavar="ROLE", required=True, help="the role that it would be rebuilt as"
    )
    add_wanted(parser)
    add_unlock(parser)
    parser.add_argument(
        "--full",
        action="store_true",
        help="compare the contents of all files outside the role's scope, and not only of those that look changed",
    )
    add_checks(parser)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Measure, check, print.

    Raises:
        NotRoot, UsageError, StoreRefused, TrustRefused, OverlaySealed, SourceRefused, RootNotMounted: nothing could be
        checked.
        RebuildUnfinished: when the clone is half way to a role.
        VerificationFailed: when the overlay does not verify.
        CheckFailed: when the clone is not what was captured, or not sound.
    """
    require_root()
    identities, keys = given_identities(arguments), given_keys(arguments)
    store = open_store(arguments.store)
    asked = store.generation(arguments.role, arguments.generation)
    with contextlib.ExitStack() as stack:
        with _system(arguments, keys) as system:
            check_finished(system.folder, system.name)
            overlay = verified(asked, store, arguments, system, identities)
            stack.enter_context(overlay)
            pairing = clone_section(overlay.header, system, arguments)
            due, boot = _due(overlay, system)
            fidelity = measured(overlay, system, full=arguments.full)
            services = check_services(overlay.header, system, arguments)
        health = check_disk(services, arguments, keys)
    _tell(system.name, arguments, due, (pairing, fidelity_section(fidelity), boot), health)
    problems = [] if fidelity and fidelity.exact else [f"outside the scope: {headline(fidelity)}"]
    problems += failures(health)
    if problems:
        raise CheckFailed(
            f"{system.name}: {'; '.join(problems)}",
            hint="clone the disk of the captured server anew, or mend what is told above",
        )


def _system(arguments: Namespace, keys: Keys) -> AbstractContextManager[System]:
    if bool(arguments.disk) == bool(arguments.root):
        raise UsageError(
            "name either a disk or --root DIR",
            hint="etsclone check DISK --store STORE --role ROLE",
        )
    if arguments.disk:
        # Nothing is written: a disk that is read-only will do.
        disk = replace(existing_disk(arguments.disk), read_only=False)
        refuse(target_refusals(disk))
        return system_on_disk(arguments.disk, writable=False, pristine=True, keys=keys)
    if os.path.exists(arguments.root) and os.path.samefile(arguments.root, "/"):
        raise SourceRefused(
            f"{arguments.root} is the root of the running system",
            hint="to compare it with what was captured: `etsclone brd diff STORE:ROLE /`",
        )
    return system_at(arguments.root)


def _due(overlay: VerifiedOverlay, system: System) -> tuple[int, Section]:
    """How many paths a rebuild would change to make the clone the role, and how that would boot."""
    scope = overlay.header.scope
    with read_payload(overlay.payload(), scope) as payload:
        plan = plan_rebuild(system.folder, scope, payload, system.skip)
        boot = boot_look(system, plan)
        return len(plan.tree.changes), boot_section(boot and replace(boot, commands=()))


def _tell(
    name: str, arguments: Namespace, due: int, sections: Sequence[Section], health: Health
) -> None:
    if arguments.json:
        facts: dict[str, object] = {"target": name, "role": arguments.role, "due": due}
        print_json(facts | {each.name: each.facts for each in sections} | told(health))
        return
    role = (
        f"a rebuild as {arguments.role} changes {counted(due, 'path')}"
        if due
        else f"is {arguments.role}"
    )
    lines = [line for each in (*sections, health_section(health)) for line in each.lines]
    print(f"{name}: {role}", *lines, sep="\n")
