"""Which generations a retention policy keeps. Pure; the rules are those of `restic forget`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from etsclone.model.history import Link
from etsclone.plan.history import vouched

_NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class Policy:
    """How many generations to keep: the last ones, and the newest of each day, ISO week and month (UTC)."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A generation that stays, and what for."""

    link: Link
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What happens to the generations of one role: `kept` stay whole, of `pruned` and `dropped` the headers stay.

    Those that do not verify are not counted: `dropped` ones go because of that, `damaged` ones are not touched.
    """

    role: str
    kept: tuple[Kept, ...]
    pruned: tuple[Link, ...]
    damaged: tuple[Link, ...]
    dropped: tuple[Link, ...] = ()

    @property
    def going(self) -> tuple[Link, ...]:
        """All of which only the headers stay, oldest first."""
        return tuple(sorted((*self.pruned, *self.dropped), key=lambda link: link.number))

    @property
    def freed(self) -> int:
        """How many bytes pruning gives back."""
        return sum(link.size - link.header_size for link in self.going)


def plan_prune(
    role: str, links: Sequence[Link], policy: Policy | None, *, drop: bool = False
) -> PrunePlan:
    """Plan the pruning of a role.

    The newest generation always stays. As with restic, the oldest one counts for each rule that has not kept as many
    as it may. Generations whose pruning was interrupted are pruned again.

    Args:
        role: the role.
        links: its history, oldest first; only what verified is counted and pruned.
        policy: what to keep; None: all that verifies.
        drop: let also go what does not verify, where a later generation vouches for the header that stays.
    """
    whole = [link for link in links if not link.pruned and link.problem is None]
    reasons = _reasons(whole, policy or Policy(last=len(whole)))
    dropped = tuple(link for link in vouched(links) if not link.pruned)[::-1] if drop else ()
    return PrunePlan(
        role,
        tuple(Kept(link, reasons[link]) for link in whole if reasons[link]),
        tuple(link for link in links if link.unfinished or (link in reasons and not reasons[link])),
        tuple(link for link in links if link.problem and link not in dropped),
        dropped,
    )


def _reasons(whole: Sequence[Link], policy: Policy) -> dict[Link, tuple[str, ...]]:
    """Why each generation stays; nothing where none says so."""
    found: dict[Link, list[str]] = {link: [] for link in whole}
    for link in whole[-1:]:
        found[link].append(_NEWEST)
    for name, most, bucket in _rules(policy):
        last: object = None
        left = most
        for link in reversed(whole):
            value = bucket(link)
            if left and (value != last or link is whole[0]):
                found[link].append(name)
                last, left = value, left - 1
    return {link: tuple(names) for link, names in found.items()}


def _rules(policy: Policy) -> tuple[tuple[str, int, Callable[[Link], object]], ...]:
    """Name, how many to keep, and what a generation must be the newest of."""
    return (
        ("last", policy.last, lambda link: link.number),
        ("daily", policy.daily, lambda link: _time(link).date()),
        ("weekly", policy.weekly, lambda link: _time(link).isocalendar()[:2]),
        ("monthly", policy.monthly, lambda link: (_time(link).year, _time(link).month)),
    )


def _time(link: Link) -> datetime:
    if link.created is None:
        raise ValueError(f"generation {link.number} was never verified")
    return link.created
