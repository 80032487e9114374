"""Histories that are whole, and every way in which they are not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import StoreForked
from etsclone.model.history import Flaw, Known, Link, Problem
from etsclone.plan.history import copies, not_newest, problems


def link(number: int, branch: str = "a", follows: str = "a", *, pruned: bool = False) -> Link:
    return Link(
        "primary",
        number,
        f"primary-{number:06d}",
        1000,
        pruned,
        500,
        digest=f"{branch}{number}",
        previous=f"{follows}{number - 1}" if number > 1 else None,
    )


def history(last: int) -> list[Link]:
    return [link(number) for number in range(1, last + 1)]


def flaws(links: list[Link], known: Known | None = None) -> list[tuple[Flaw, int]]:
    return [(problem.flaw, problem.generation) for problem in problems("primary", links, known)]


@given(st.integers(0, 12), st.sets(st.integers(1, 11)), st.integers(0, 12))
def test_whatever_was_pruned_a_whole_history_is_whole(
    last: int, pruned: set[int], seen: int
) -> None:
    links = [replace(each, pruned=each.number in pruned - {last}) for each in history(last)]
    known = Known(seen, f"a{seen}") if 0 < seen <= last else None
    assert flaws(links, known) == []


def test_a_newest_generation_of_which_only_the_header_is_left_was_taken_away() -> None:
    links = [*history(4), link(5, pruned=True), link(6, pruned=True)]
    assert flaws(links) == [(Flaw.ROLLBACK, 6)]


@given(st.integers(2, 12), st.data())
def test_whatever_is_missing_below_the_newest_is_told(last: int, data: st.DataObject) -> None:
    lost = data.draw(st.sets(st.integers(1, last - 1), min_size=1))
    found = problems("primary", [each for each in history(last) if each.number not in lost], None)
    firsts = {number for number in lost if number - 1 not in lost}
    assert {(problem.flaw, problem.generation) for problem in found} == {
        (Flaw.GAP, number) for number in firsts
    }


def test_a_gap_says_how_large_it_is() -> None:
    first, second = problems("primary", [link(2), link(5)], None)
    assert first.message == "generation 1 is missing, and was not pruned"
    assert second.message == "generations 3 to 4 are missing, and were not pruned"


def test_a_generation_that_follows_another_one_is_a_fork() -> None:
    assert flaws([link(1), link(2), link(3, follows="b"), link(4)]) == [(Flaw.FORK, 3)]


def test_one_number_for_two_generations_is_a_fork() -> None:
    assert flaws([link(1), link(2), link(2, "b", pruned=True), link(3)]) == [(Flaw.FORK, 2)]


def test_a_generation_may_be_there_beside_its_own_header() -> None:
    assert flaws([link(1), link(2), link(2, pruned=True), link(3)]) == []


def test_a_damaged_generation_is_told_once_and_its_neighbours_are_not_accused() -> None:
    damaged = Problem(Flaw.DAMAGED, "primary", 2, "it is damaged")
    broken = Link("primary", 2, "x", 0, problem=damaged)
    assert problems("primary", [link(1), broken, link(3)], None) == (damaged,)


@pytest.mark.parametrize("links", [[], history(1), history(2)])
def test_an_older_store_than_this_machine_has_seen_is_told(links: list[Link]) -> None:
    assert flaws(links, Known(3, "a3")) == [(Flaw.ROLLBACK, 3)]


def test_another_generation_than_this_machine_has_seen_is_told() -> None:
    assert flaws(history(5), Known(3, "b3")) == [(Flaw.FORK, 3)]


@pytest.mark.parametrize(
    ("here", "known", "wrong"),
    [
        (Known(3, "a"), None, ""),
        (Known(3, "a"), Known(3, "a"), ""),
        (Known(4, "b"), Known(3, "a"), ""),
        (
            Known(2, "b"),
            Known(3, "a"),
            "this machine has seen generation 3, the newest one here is 2",
        ),
        (
            Known(3, "b"),
            Known(3, "a"),
            "this machine has seen another generation 3 than the one that is here",
        ),
    ],
)
def test_the_newest_of_a_store_is_held_against_what_was_seen(
    here: Known, known: Known | None, wrong: str
) -> None:
    assert not_newest(here, known) == wrong


def test_generations_are_numbers_from_one_on() -> None:
    for wrong in (0, -1, True, "1"):
        with pytest.raises(ValueError, match="no generation"):
            Known(wrong, "a")  # type: ignore[arg-type]


# --- what a copy lacks ----------------------------------------------------------------------------------------------


@given(st.integers(0, 8), st.sets(st.integers(1, 8)))
def test_a_copy_lacks_what_is_not_there(last: int, lacking: set[int]) -> None:
    target = [each for each in history(last) if each.number not in lacking]
    wanted = copies(history(last), target)
    assert [each.number for each in wanted] == sorted(lacking & set(range(1, last + 1)))


def test_what_a_copy_pruned_it_does_not_lack() -> None:
    pruned = [link(1, pruned=True), link(2)]
    assert copies(history(2), pruned) == ()
    assert copies(pruned, history(2)) == ()


def test_a_target_with_more_is_refused() -> None:
    with pytest.raises(StoreForked, match="is not in the store that is to be copied"):
        copies(history(2), history(3))


def test_a_target_with_something_else_is_refused() -> None:
    with pytest.raises(StoreForked, match="is another generation 2 of primary"):
        copies(history(3), [link(1), link(2, "b")])


def test_what_cannot_be_read_in_the_source_is_no_fork() -> None:
    broken = Link("primary", 2, "x", 0, problem=Problem(Flaw.DAMAGED, "primary", 2, "x"))
    assert copies([link(1), broken], history(2)) == ()
    assert copies([link(1), broken], history(1)) == (broken,)


def test_what_follows_a_damaged_generation_tells_which_one_it_was() -> None:
    broken = Link("primary", 2, "x", 0, problem=Problem(Flaw.DAMAGED, "primary", 2, "x"))
    assert copies([link(1), broken, link(3)], history(2)) == (link(3),)
    with pytest.raises(StoreForked, match="another generation 2"):
        copies([link(1), broken, link(3, "b", "b")], history(2))
    with pytest.raises(StoreForked, match="another generation 2"):
        copies([link(1), link(2, "b"), link(3)], [link(1), broken, link(3)])
