"""`etsclone brd prune`: let old generations go, so that their headers still tell the whole history."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from etsclone.commands.counts import count_from
from etsclone.commands.history import add_trust, problem_facts, read_history, trust_or_copy
from etsclone.commands.output import add_json, confirm, print_json, print_table
from etsclone.errors import UsageError
from etsclone.execute.prune import execute_prune
from etsclone.model.history import Link
from etsclone.plan.prune import Policy, PrunePlan, plan_prune
from etsclone.store.folder import open_store
from etsclone.units import counted, human

_RULES = (
    ("last", "the last N generations"),
    ("daily", "the newest generation of each of the last N days that have one"),
    ("weekly", "the same for weeks (ISO, from Monday)"),
    ("monthly", "the same for months"),
)


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    for rule, what in _RULES:
        parser.add_argument(
            f"--keep-{rule}", metavar="N", type=count_from(0), default=0, help=f"keep {what}"
        )
    parser.add_argument(
        "--drop-unverified",
        action="store_true",
        help="let also go what does not verify: damaged, or signed by a key that is no longer trusted, if a later"
        " generation vouches for its header; with no --keep option all that verifies is kept",
    )
    parser.add_argument("--role", metavar="ROLE", help="prune this role only (default: all roles)")
    parser.add_argument("--yes", action="store_true", help="do not ask for the pair's name")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    add_trust(parser)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Plan, show, ask, prune.

    Raises:
        UsageError, StoreRefused, TrustRefused, NotConfirmed, TargetChanged: before anything was pruned.
        DeviceError: the same command completes it.
    """
    policy = _policy(arguments)
    store = open_store(arguments.store)
    roles = (arguments.role,) if arguments.role else store.roles
    for role in roles:
        store.check_role(role)
    trust = trust_or_copy(arguments, store)
    plans = [
        plan_prune(role, read_history(store, role, trust), policy, drop=arguments.drop_unverified)
        for role in roles
    ]
    if arguments.json:
        print_json({"pair": store.pair, "roles": [_facts(plan) for plan in plans]})
    else:
        _show(plans)
    if arguments.dry_run or not any(plan.going for plan in plans):
        return
    confirm(store.pair, yes=arguments.yes, whose="pair")
    execute_prune(store, plans)
    if not arguments.json:
        print("\npruned: the headers stay, so that the history can be verified as before")


def _policy(arguments: Namespace) -> Policy | None:
    counts = {rule: getattr(arguments, f"keep_{rule}") for rule, _ in _RULES}
    if not any(counts.values()) and not arguments.drop_unverified:
        raise UsageError(
            "nothing says what to keep", hint="give --keep-last 10, or --keep-daily 7, or others"
        )
    if arguments.json and not (arguments.yes or arguments.dry_run):
        raise UsageError(
            "--json shows no plan to confirm",
            hint="give --dry-run to see the plan, --yes to execute it",
        )
    return Policy(**counts) if any(counts.values()) else None


def _facts(plan: PrunePlan) -> dict[str, object]:
    return {
        "role": plan.role,
        "kept": [
            {"path": kept.link.path, "generation": kept.link.number, "reasons": list(kept.reasons)}
            for kept in plan.kept
        ],
        "pruned": [{"path": link.path, "generation": link.number} for link in plan.pruned],
        "dropped": [problem_facts(link.problem) for link in plan.dropped if link.problem],
        "damaged": [problem_facts(link.problem) for link in plan.damaged if link.problem],
        "freed": plan.freed,
    }


def _show(plans: Sequence[PrunePlan]) -> None:
    rows = [
        *((kept.link, ", ".join(kept.reasons)) for plan in plans for kept in plan.kept),
        *((link, "prune") for plan in plans for link in plan.pruned),
        *((link, "drop: it does not verify") for plan in plans for link in plan.dropped),
        *((link, "left alone: it does not verify") for plan in plans for link in plan.damaged),
    ]
    print_table(
        ("ROLE", "GENERATION", "CREATED", "SIZE", "KEEP"),
        [_cells(link, what) for link, what in sorted(rows, key=_place)],
    )
    print()
    for link in (link for plan in plans for link in (*plan.dropped, *plan.damaged)):
        if link.problem:
            print(link.problem.line)
    count = sum(len(plan.going) for plan in plans)
    freed = human(sum(plan.freed for plan in plans))
    print(f"{counted(count, 'generation')} will be pruned, {freed} freed")


def _place(row: tuple[Link, str]) -> tuple[str, int]:
    return row[0].role, row[0].number


def _cells(link: Link, what: str) -> tuple[str, ...]:
    created = f"{link.created:%Y-%m-%dT%H:%M:%SZ}" if link.created else "-"
    return (link.role, f"{link.number:06d}", created, human(link.size), what)
