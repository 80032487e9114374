"""`etsclone brd copy`: a second medium with all that the first one has."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from etsclone.commands.history import (
    add_trust,
    peek_history,
    problem_facts,
    read_generation,
    read_history,
    trust_or_copy,
)
from etsclone.commands.output import add_json, print_json
from etsclone.errors import ChainBroken, DeviceError, StoreRefused
from etsclone.execute.mirror import MirrorPlan, execute_mirror, plan_mirror
from etsclone.model.history import Flaw, Link, Problem
from etsclone.overlay.trust import Trust
from etsclone.plan.history import copies, problems
from etsclone.store.folder import CONFIG, Store, create_like, open_store
from etsclone.units import human


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument(
        "target", metavar="STORE2", type=Path, help="its copy; it is made if it does not exist"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what is missing and stop")
    add_trust(parser)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Bring the copy up to date; what is there already stays as it is.

    Raises:
        StoreRefused, StoreForked: before anything was written.
        StoreFull, DeviceError, DigestMismatch: the same command goes on where this one ended.
        ChainBroken: when a generation in one of the stores is damaged or missing; all others were copied.
    """
    source = open_store(arguments.store)
    target = _existing(arguments.target, source)
    trust = trust_or_copy(arguments, source)
    links = [read_generation(source, link, trust) for link in _missing(source, target)]
    plan = plan_mirror(source, target, [link for link in links if link.problem is None])
    found = [link.problem for link in links if link.problem]
    if not arguments.dry_run:
        target = target or create_like(source, arguments.target)
        execute_mirror(source, target, plan)
        found += _problems(target, trust)
    _report(arguments, plan, found)
    if any(problem.flaw is Flaw.UNREADABLE for problem in found):
        raise DeviceError("a medium fails", hint="check that both are still plugged in")
    if found:
        raise ChainBroken(
            "the copy is not whole",
            hint="remove what is damaged in one of the stores, if the other has it, and copy it from there",
        )


def _missing(source: Store, target: Store | None) -> list[Link]:
    pairs = [
        (peek_history(source, role), peek_history(target, role) if target else ())
        for role in source.roles
    ]
    return [link for mine, theirs in pairs for link in copies(mine, theirs)]


def _problems(target: Store, trust: Trust) -> list[Problem]:
    """What is wrong with the copy, all of which is read."""
    return [
        problem
        for role in target.roles
        for problem in problems(role, tuple(read_history(target, role, trust)), None)
    ]


def _existing(path: Path, source: Store) -> Store | None:
    """The store to bring up to date; None when it is to be made."""
    if not (path / CONFIG).exists():
        return None
    target = open_store(path)
    if path.samefile(source.path):
        raise StoreRefused(f"{path} is the store itself", hint="name a folder on another medium")
    if (target.pair, set(target.roles)) != (source.pair, set(source.roles)):
        raise StoreRefused(
            f"{path} is a store of pair {target.pair} with roles {', '.join(target.roles)}",
            hint=f"name the copy of {source.path}, or an empty folder",
        )
    return target


def _report(arguments: Namespace, plan: MirrorPlan, found: list[Problem]) -> None:
    generations = [link.path for link in plan.generations]
    size = sum(link.size for link in plan.generations)
    if arguments.json:
        print_json(
            {
                "copied": not arguments.dry_run,
                "generations": generations,
                "files": [str(path) for path in plan.files],
                "size": size,
                "problems": [problem_facts(problem) for problem in found],
            }
        )
        return
    for path in (*generations, *plan.files):
        print(path)
    for problem in found:
        print(f"{problem.path or problem.role}: {problem.message}")
    done = "are missing" if arguments.dry_run else "copied and read back"
    print(
        f"{len(generations)} generations ({human(size)}) and {len(plan.files)} other files {done}"
    )
    if not arguments.dry_run and not found:
        print(f"{arguments.target} is a copy of {arguments.store}; all of it verifies")
