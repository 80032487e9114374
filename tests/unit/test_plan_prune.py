"""What is kept: examples by hand, and the rules told a second time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.model.history import Flaw, Link, Problem
from etsclone.plan.prune import Policy, PrunePlan, plan_prune

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday


def links(*times: datetime) -> list[Link]:
    return [
        Link("primary", number, f"p{number}", 1000, False, 300, f"d{number}", None, time)
        for number, time in enumerate(times, start=1)
    ]


def days(*numbers: float) -> list[Link]:
    return links(*(NOON + timedelta(days=number) for number in numbers))


def kept(plan: PrunePlan) -> dict[int, tuple[str, ...]]:
    return {each.link.number: each.reasons for each in plan.kept}


def prune(found: list[Link], **policy: int) -> PrunePlan:
    return plan_prune("primary", found, Policy(**policy))


def test_the_last_ones_stay() -> None:
    plan = prune(days(0, 1, 2, 3), last=2)
    assert kept(plan) == {3: ("last",), 4: ("newest", "last")}
    assert [link.number for link in plan.pruned] == [1, 2]
    assert plan.freed == 1400


def test_of_each_day_the_newest_stays() -> None:
    assert set(kept(prune(days(0, 0.1, 1, 1.1, 1.2, 2), daily=2))) == {5, 6}


def test_days_without_a_generation_do_not_count() -> None:
    assert set(kept(prune(days(0, 10, 20, 30), daily=3))) == {2, 3, 4}


def test_days_are_those_of_utc() -> None:
    late = datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC)
    assert set(kept(prune(links(late, late + timedelta(seconds=1)), daily=2))) == {1, 2}


def test_weeks_begin_on_monday() -> None:
    # Sunday, Monday, Sunday, Monday
    assert set(kept(prune(days(-1, 0, 6, 7), weekly=2))) == {3, 4}


def test_weeks_around_the_new_year_are_one() -> None:
    times = (datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    older = datetime(2026, 1, 1, tzinfo=UTC)
    assert set(kept(prune(links(older, *times), weekly=1))) == {3}


def test_months() -> None:
    times = [datetime(2026, month, day, tzinfo=UTC) for month in (1, 2, 3) for day in (1, 28)]
    assert set(kept(prune(links(*times), monthly=2))) == {4, 6}


def test_the_oldest_stays_as_long_as_a_rule_has_room() -> None:
    found = days(0, 0.1, 1)
    assert kept(prune(found, daily=2)) == {2: ("daily",), 3: ("newest", "daily")}
    assert kept(prune(found, daily=3))[1] == ("daily",)


def test_the_newest_always_stays_whatever_its_clock_said() -> None:
    assert 3 in kept(prune(days(5, 6, -100), monthly=1))


def test_what_does_not_verify_is_neither_counted_nor_touched() -> None:
    found = days(0, 1, 2)
    damaged = Problem(Flaw.DAMAGED, "primary", 3, "damaged")
    found[2] = Link("primary", 3, "p3", 0, problem=damaged)
    plan = prune(found, last=1)
    assert set(kept(plan)) == {2}
    assert (plan.pruned, plan.damaged) == ((found[0],), (found[2],))


def test_what_was_pruned_stays_pruned_and_is_finished_if_it_was_not() -> None:
    found = days(0, 1, 2)
    for number, size in ((0, 300), (1, 1000)):
        each = found[number]
        found[number] = Link(
            "primary", each.number, each.path, size, True, 300, each.digest, None, each.created
        )
    plan = prune(found, last=3)
    assert set(kept(plan)) == {3}
    assert plan.pruned == (found[1],)


def bucket(rule: str, time: datetime) -> str:
    """What a generation must be the newest of, as text."""
    return time.strftime({"daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m"}[rule])


@given(
    st.lists(st.integers(0, 24 * 400), max_size=30),
    *(st.integers(0, 5) for _ in range(4)),
)
def test_the_rules_told_otherwise(
    hours: list[int], last: int, daily: int, weekly: int, monthly: int
) -> None:
    times = [NOON + timedelta(hours=hour) for hour in sorted(hours)]
    counts = {"daily": daily, "weekly": weekly, "monthly": monthly}
    wanted = set(range(len(times), 0, -1)[:last]) | {len(times)} - {0}
    for rule, count in counts.items():
        names = [bucket(rule, time) for time in times]
        newest = {name: number for number, name in enumerate(names, start=1)}
        chosen = sorted(newest.values(), reverse=True)[:count]
        wanted |= set(chosen)
        if names and len(chosen) < count:
            wanted.add(1)
    plan = prune(links(*times), last=last, **counts)
    assert set(kept(plan)) == wanted
    assert {link.number for link in plan.pruned} == set(range(1, len(times) + 1)) - wanted


@pytest.mark.parametrize("count", [1, 1000])
def test_pruning_twice_prunes_nothing_more(count: int) -> None:
    found = days(*range(50))
    policy = {"last": 3, "weekly": count, "monthly": 2}
    stays = [each.link for each in prune(found, **policy).kept]
    again = prune(stays, **policy)
    assert again.pruned == ()
