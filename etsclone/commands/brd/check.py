"""`etsclone brd check`: whether a role's overlay is recent and verifies; for monitoring."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from etsclone.commands.history import last_check, read_newest, seen, verifying, where_it_is
from etsclone.commands.output import add_json, print_json
from etsclone.commands.trust import add_revoked, load_trust
from etsclone.errors import (
    ChainBroken,
    DeviceError,
    EtscloneError,
    RoleStale,
    UsageError,
    VerificationFailed,
)
from etsclone.model.history import Flaw, Link
from etsclone.overlay.trust import Trust
from etsclone.plan.history import not_newest, older
from etsclone.store.folder import Store, open_store
from etsclone.store.memory import recall, remember_newest
from etsclone.units import human_age, parse_age

_CLOCKS_DIFFER = timedelta(hours=1)
"""How far in the future a capture may lie."""


@dataclass(frozen=True, slots=True)
class _Health:
    """What a role's newest generation is, when it was last known to be true, and what is wrong, if anything."""

    role: str
    newest: Link | None = None
    confirmed: datetime | None = None
    error: EtscloneError | None = None


def configure(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=run)
    parser.add_argument("store", metavar="STORE", type=Path, help="the BRD store")
    parser.add_argument("--role", metavar="ROLE", help="check this role only (default: all roles)")
    parser.add_argument(
        "--max-age",
        metavar="AGE",
        required=True,
        help="how old it may be: 90s, 30m, 36h, 2d, 1w",
    )
    parser.add_argument("--trust", metavar="FILE", type=Path, help="allowed_signers file to trust")
    add_revoked(parser)
    add_json(parser)


def run(arguments: Namespace) -> None:
    """Print a line a role.

    Raises:
        UsageError, StoreRefused, TrustRefused: when nothing can be checked.
        DeviceError: when the medium fails.
        VerificationFailed: when a role's newest generation does not verify, or is older than this machine has seen.
        RoleStale: when it does, but is too old, or there is none.
    """
    try:
        oldest = parse_age(arguments.max_age)
    except ValueError as error:
        raise UsageError(str(error), hint="for example: --max-age 2d") from error
    store = open_store(arguments.store)
    trust = load_trust(arguments.trust, revoked=arguments.revoked, copy=store.signers_path)
    now = datetime.now(UTC)
    roles = (arguments.role,) if arguments.role else store.roles
    healths = [_health(store, role, trust, arguments, now, oldest) for role in roles]
    if arguments.json:
        print_json({"pair": store.pair, "roles": [_facts(health, now) for health in healths]})
    else:
        for health in healths:
            print(_line(health, now))
    failed = [health.error for health in healths if health.error]
    if failed:
        raise max(failed, key=_weight)


def _health(
    store: Store, role: str, trust: Trust, arguments: Namespace, now: datetime, oldest: timedelta
) -> _Health:
    newest = read_newest(store, role, trust)
    if newest is None:
        if known := recall(store.pair, role).newest:
            hint = (
                "find the store that has it; if that one was given up: capture into this one, then"
                " `etsclone brd verify --accept`"
            )
            lost = ChainBroken(f"role {role}: {older(known.generation, 0)}", hint=hint)
            return _Health(role, error=lost)
        hint = f"run `etsclone brd capture {store.path} --role {role}` on that server"
        return _Health(role, error=RoleStale(f"role {role} was never captured", hint=hint))
    try:
        confirmed = _confirmed(store, newest, trust, arguments)
    except EtscloneError as error:
        return _Health(role, newest, error=error)
    return _Health(role, newest, confirmed, _age_error(role, now - confirmed, oldest))


def _confirmed(store: Store, newest: Link, trust: Trust, arguments: Namespace) -> datetime:
    """When the newest generation was captured, or last found to be still true.

    Raises:
        VerificationFailed, DeviceError: when it cannot be used.
    """
    here = seen(newest)
    if newest.problem and newest.problem.flaw is Flaw.UNREADABLE:
        raise DeviceError(newest.problem.message, hint="check that the medium is still plugged in")
    if newest.problem or here is None or newest.created is None:
        message = newest.problem.message if newest.problem else f"{newest.path} was not verified"
        raise VerificationFailed(message, hint=f"look with {verifying(store, arguments)}")
    if wrong := not_newest(here, recall(store.pair, newest.role).newest):
        raise ChainBroken(f"role {newest.role}: {wrong}", hint=where_it_is(store, arguments))
    remember_newest(store.pair, newest.role, here)
    check = last_check(store, newest, trust)
    return max(newest.created, check) if check else newest.created


def _age_error(role: str, age: timedelta, oldest: timedelta) -> EtscloneError | None:
    if age > oldest:
        return RoleStale(
            f"role {role} was last captured {human_age(age)} ago: that is too old,"
            f" --max-age allows {human_age(oldest)}",
            hint="look why the captures on that server end",
        )
    if age < -_CLOCKS_DIFFER:
        return VerificationFailed(
            f"role {role} was captured {human_age(-age)} in the future",
            hint="check the clocks of that server and of this machine",
        )
    return None


def _weight(error: EtscloneError) -> int:
    """The worse the larger: who can only be told one thing is told this."""
    return 2 if isinstance(error, DeviceError) else 0 if isinstance(error, RoleStale) else 1


def _facts(health: _Health, now: datetime) -> dict[str, object]:
    confirmed = health.confirmed
    return {
        "role": health.role,
        "generation": health.newest.number if health.newest else None,
        "confirmed": f"{confirmed:%Y-%m-%dT%H:%M:%SZ}" if confirmed else None,
        "age": int((now - confirmed).total_seconds()) if confirmed else None,
        "problem": health.error.message if health.error else None,
    }


def _line(health: _Health, now: datetime) -> str:
    if health.error or not health.newest or not health.confirmed:
        return f"{health.role}: {health.error and health.error.message}"
    age = human_age(now - health.confirmed)
    return f"{health.role}: generation {health.newest.number} verifies, and was true {age} ago"
