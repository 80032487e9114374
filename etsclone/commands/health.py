"""Whether a rebuilt disk is healthy: looked for, told to people and programs, and failed when it is not.

Which checks are run is what the profile says that is installed here: the profile that the overlay's header names. The
overlay holds no commands, and the clone's own copy of a profile is not asked: what root runs is up to the
administrator of the system on which it is run.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from dataclasses import replace

from etsclone.commands.rebuild_shown import Section
from etsclone.commands.system import System
from etsclone.disk.images import attached
from etsclone.disk.luks import Keys
from etsclone.errors import EtscloneError, FormatError, HealthFailed, UsageError
from etsclone.execute.health import check_filesystems, run_checks
from etsclone.model.brd import Header
from etsclone.model.health import Finding, Health
from etsclone.profiles import load_profile

DEFAULT_TIMEOUT = 60
_LONGEST = 24 * 3600


def add_checks(parser: ArgumentParser) -> None:
    """Give a command the options that `check_services` and `check_disk` read."""
    parser.add_argument(
        "--no-checks",
        action="store_true",
        help="neither run the profile's checks in the clone nor check its filesystems",
    )
    parser.add_argument(
        "--check-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=DEFAULT_TIMEOUT,
        help=f"how long each of the profile's checks may take (default: {DEFAULT_TIMEOUT})",
    )


def check_services(header: Header, system: System, arguments: Namespace) -> Health:
    """Run the profile's checks in a mounted clone; what of that cannot be done is `unseen`."""
    if arguments.no_checks:
        return Health(unseen=("no checks were run, as was asked for",))
    try:
        profile = load_profile(header.profile)
    except (UsageError, FormatError) as error:
        return Health(unseen=(f"the profile's checks were not run: {error.message}",))
    notes: tuple[str, ...] = ()
    if profile.sha256 != header.profile_sha256:
        notes = (
            f"the checks are those of profile {profile.name} as it is here; it was another one at the capture",
        )
    try:
        checks = run_checks(system.folder, profile.checks, arguments.check_timeout)
    except EtscloneError as error:
        unseen = (f"the profile's checks were not run: {error.message}",)
        return Health(notes=notes, unseen=unseen)
    return Health(checks=checks, notes=notes)


def check_disk(services: Health, arguments: Namespace, keys: Keys) -> Health:
    """Add what is found about the filesystems of a disk, which must not be mounted any more."""
    if arguments.no_checks:
        return services
    if not arguments.disk:
        note = "the filesystems are mounted and were not checked: unmount them, and run `etsclone check DISK`"
        return replace(services, unseen=(*services.unseen, note))
    try:
        with attached(arguments.disk, writable=False) as disk:
            found, missing = check_filesystems(disk, keys.silent())
    except EtscloneError as error:
        found, missing = (), (error.message,)
    unseen = (f"not all filesystems were checked: {each}" for each in missing)
    return replace(services, filesystems=found, unseen=(*services.unseen, *unseen))


def require_healthy(health: Health, done: str) -> None:
    """Make sure that nothing failed; `done` says in a few words what was done nevertheless.

    Raises:
        HealthFailed: naming all that failed.
    """
    if health.failed:
        raise HealthFailed(
            f"{done}, but it is not healthy: {'; '.join(failures(health))}",
            hint="mend the cause on a clone of the captured server, or here by hand; then `etsclone check`",
        )


def failures(health: Health) -> list[str]:
    """What failed, each in a few words."""
    return [f"{each.name}: {each.why}" for each in health.failed]


def health_section(health: Health) -> Section:
    """A health as a rebuild tells it, without what the programs wrote in its facts.

    Receipts are made of these, and travel; what a program writes may quote secrets.
    """
    return Section("health", _facts(health, output=False), _lines(health))


def told(health: Health) -> dict[str, object]:
    """The facts for whoever runs the command: all of them."""
    return {"health": _facts(health, output=True)}


def _lines(health: Health) -> list[str]:
    lines = []
    for kind, findings in (("filesystem", health.filesystems), ("check", health.checks)):
        for each in findings:
            why = f", {each.why}" if each.why else ""
            lines.append(f"{kind} {each.name}: {each.verdict.value}{why}")
            lines += [f"  | {line}" for line in each.output]
    lines += [f"note: {note}" for note in (*health.notes, *health.unseen)]
    if health.healthy is None:
        lines.append("whether it is sound is not known: not all of it was looked at")
    return lines


def _facts(health: Health, *, output: bool) -> dict[str, object]:
    return {
        "healthy": health.healthy,
        "unchecked": list(health.unchecked),
        "filesystems": _findings(health.filesystems, output=output),
        "checks": _findings(health.checks, output=output),
        "notes": list(health.notes),
    }


def _findings(findings: Iterable[Finding], *, output: bool) -> list[dict[str, object]]:
    return [
        {"name": each.name, "verdict": each.verdict.value, "why": each.why}
        | ({"output": list(each.output)} if output else {})
        for each in findings
    ]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _LONGEST:
        raise ArgumentTypeError(f"not a number of seconds up to {_LONGEST}: {text!r}")
    return seconds
