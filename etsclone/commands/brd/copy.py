"""`etsclone brd copy`: a second medium with all that the first one has."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from difflib import unified_diff
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
from etsclone.errors import ChainBroken, DeviceError, SettingsDiffer, StoreRefused
from etsclone.execute.mirror import MirrorPlan, execute_mirror, plan_mirror
from etsclone.model.brd import CONFIG
from etsclone.model.history import Flaw, Link, Problem
from etsclone.model.tree import printable
from etsclone.overlay.trust import Trust
from etsclone.plan.history import copies, problems
from etsclone.store.folder import Store, create_like, lies_in, open_store, read_settings
from etsclone.units import counted, human


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run, changes=True)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument(
        "target", metavar="STORE2", type=Path, help="its copy; it is made if it does not exist"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what is missing and stop")
    settings = parser.add_mutually_exclusive_group()
    settings.add_argument(
        "--take-settings",
        action="store_true",
        help="where brd.toml or allowed_signers differ, replace those of STORE2",
    )
    settings.add_argument(
        "--keep-settings", action="store_true", help="where they differ, leave those of STORE2"
    )
    add_trust(parser)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Bring the copy up to date; what is there already stays as it is.

    Raises:
        StoreRefused, StoreForked, SettingsDiffer: before anything was written.
        StoreFull, DeviceError, DigestMismatch: the same command goes on where this one ended.
        ChainBroken: when a generation in one of the stores is damaged or missing; all others were copied.
    """
    source = open_store(arguments.store)
    target = _existing(arguments.target, source)
    trust = trust_or_copy(arguments, source)
    links = _read(source, _missing(source, target), trust)
    plan = plan_mirror(
        source,
        target,
        [link for link in links if link.problem is None],
        take_settings=arguments.take_settings,
    )
    found = [link.problem for link in links if link.problem]
    if target:
        _check_settings(arguments, plan, target)
    if not arguments.dry_run:
        target = target or create_like(source, arguments.target)
        execute_mirror(source, target, plan)
        found += _problems(target, trust)
    _report(arguments, plan, found)
    if any(problem.flaw is Flaw.UNREADABLE for problem in found):
        raise DeviceError("a medium fails", hint="check that both are still plugged in")
    if found:
        mend = "remove what is damaged in one of the stores, if the other has it, and copy it from there"
        hints = dict.fromkeys(problem.hint for problem in found if problem.hint)
        if any(problem.flaw is Flaw.DAMAGED or not problem.hint for problem in found):
            hints[mend] = None
        raise ChainBroken("the copy is not whole", hint="; ".join(hints))


def _check_settings(arguments: Namespace, plan: MirrorPlan, target: Store) -> None:
    """Have somebody decide whose settings are the newer ones: an old medium must not bring back old recipients."""
    chosen = arguments.take_settings or arguments.keep_settings
    if not arguments.json and not chosen:
        for path in plan.settings:
            _show_difference(target.path / path.name, path)
    if plan.settings and not chosen and not arguments.dry_run:
        names = " and ".join(path.name for path in plan.settings)
        raise SettingsDiffer(
            f"{names} of {target.path} would be replaced by {'those' if len(plan.settings) > 1 else 'that'} of"
            f" {arguments.store}",
            hint=f"--take-settings if those of {arguments.store} are newer, --keep-settings if not;"
            " --dry-run shows how they differ",
        )


def _show_difference(before: Path, after: Path) -> None:
    old, new = (
        read_settings(path).decode("utf-8", "surrogateescape").splitlines()
        for path in (before, after)
    )
    for line in unified_diff(old, new, str(before), str(after), lineterm=""):
        print(printable(line))
    print()


def _missing(source: Store, target: Store | None) -> list[Link]:
    pairs = [
        (peek_history(source, role), peek_history(target, role) if target else ())
        for role in source.roles
    ]
    return [link for mine, theirs in pairs for link in copies(mine, theirs)]


def _read(source: Store, missing: Sequence[Link], trust: Trust) -> list[Link]:
    """What is missing, every byte of it verified."""
    links = [read_generation(source, link, trust) for link in missing]
    if any(link.pruned and link.problem for link in links):
        # Those that follow may vouch for it, also such as are not missing.
        all_of_it = (link for role in source.roles for link in read_history(source, role, trust))
        whole = {link.path: link for link in all_of_it}
        links = [whole.get(link.path, link) for link in links]
    return links


def _problems(target: Store, trust: Trust) -> list[Problem]:
    """What is wrong with the copy, all of which is read."""
    return [
        problem
        for role in target.roles
        for problem in problems(role, read_history(target, role, trust), None)
    ]


def _existing(path: Path, source: Store) -> Store | None:
    """The store to bring up to date; None when it is to be made."""
    is_store, elsewhere = (path / CONFIG).exists(), "name a folder on another medium"
    if is_store and path.samefile(source.path):
        raise StoreRefused(f"{path} is the store itself", hint=elsewhere)
    if lies_in(path, source.path) or (is_store and lies_in(source.path, path)):
        raise StoreRefused(f"of {path} and {source.path} one lies in the other", hint=elsewhere)
    if not is_store:
        return None
    target = open_store(path)
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
                "settings": [str(path) for path in plan.settings],
                "size": size,
                "problems": [problem_facts(problem) for problem in found],
            }
        )
        return
    for path in (*generations, *plan.files):
        print(path)
    for problem in found:
        print(problem.line)
    done = "are missing" if arguments.dry_run else "copied and read back"
    print(
        f"{counted(len(generations), 'generation')} ({human(size)})"
        f" and {counted(len(plan.files), 'other file')} {done}"
    )
    if not arguments.dry_run and not found:
        print(f"{arguments.target} is a copy of {arguments.store}; all of it verifies")
