"""Whether the generations of a role are one whole history. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from etsclone.errors import StoreForked
from etsclone.model.history import Flaw, Known, Link, Problem

_UNVERIFIED = (Flaw.DAMAGED, Flaw.UNTRUSTED)


def problems(role: str, links: Sequence[Link], known: Known | None) -> tuple[Problem, ...]:
    """What is wrong with a role's history.

    Args:
        role: the role.
        links: all generations that are there, pruned ones too, oldest first.
        known: the newest generation that this machine has ever seen of the role.
    """
    found = [link.problem for link in links if link.problem]
    numbers = [list(same) for _, same in groupby(links, key=lambda link: link.number)]
    for same in numbers:
        found += _twins(same)
    firsts = [same[0] for same in numbers]
    found += _missing(role, 0, firsts[0].number) if firsts else []
    for before, after in pairwise(firsts):
        found += _missing(role, before.number, after.number)
        found += _unlinked(before, after)
    found += _cut_short(links)
    found += _forgotten(role, links, known) if known else []
    return tuple(sorted(found, key=lambda problem: problem.generation))


def vouched(links: Sequence[Link]) -> Iterator[Link]:
    """Those of a role's generations, newest first, that do not verify although a later one which does vouches for them.

    It follows exactly the header that is here, itself or by way of others. So that header may stay as a link of the
    chain, whoever signed it; of the content it says nothing.

    Args:
        links: all generations that are there, pruned ones too, oldest first.
    """
    followed: set[tuple[int, str]] = set()
    for link in reversed(links):
        previous = link.previous
        if link.problem and link.claimed:
            name, previous = link.claimed
            if link.problem.flaw not in _UNVERIFIED or (link.number, name) not in followed:
                continue
            yield link
        if previous:
            followed.add((link.number - 1, previous))


def settled(links: Sequence[Link]) -> tuple[Link, ...]:
    """The same history, in which headers that are vouched for are no problem: what their keys signed is gone."""
    known = {
        link: replace(
            link, problem=None, vouched=True, digest=link.claimed[0], previous=link.claimed[1]
        )
        for link in vouched(links)
        if link.claimed and link.pruned and link.problem and link.problem.flaw is Flaw.UNTRUSTED
    }
    return tuple(known.get(link, link) for link in links)


def copies(source: Sequence[Link], target: Sequence[Link]) -> tuple[Link, ...]:
    """Which generations of a role `target` lacks, oldest first; what it pruned it does not lack.

    Args:
        source: the generations of one store, oldest first.
        target: those of the store that is to mirror it.

    Raises:
        StoreForked: when the target has one that the source does not have, or another one of that number.
    """
    numbers, digests = {link.number for link in source}, _digests(source)
    theirs = _digests(target)
    for link in target:
        number = link.number
        if number not in numbers:
            raise StoreForked(
                f"{link.path} is not in the store that is to be copied",
                hint="copy the other way first, or take an empty folder",
            )
        if number in digests and theirs.get(number, digests[number]) != digests[number]:
            raise StoreForked(
                f"{link.path} is another generation {number} of {link.role} than that of the store that is to be"
                " copied",
                hint="both stores were captured into, each without the other: keep both, or take an empty folder",
            )
    there = {link.number for link in target}
    return tuple(link for link in source if link.number not in there)


def _digests(links: Sequence[Link]) -> dict[int, str]:
    """The digests of a history's generations. That of one that cannot be read is told by the one that follows it."""
    told = {link.number - 1: link.previous for link in links if link.previous}
    return told | {link.number: link.digest for link in links if link.digest}


def _twins(same: Sequence[Link]) -> Iterator[Problem]:
    """A number may stand for a whole generation and for its own header, but not for two generations."""
    digests = {link.digest for link in same if link.digest}
    if len(digests) > 1:
        role, number = same[0].role, same[0].number
        yield Problem(
            Flaw.FORK, role, number, f"there are {len(digests)} different generations {number}"
        )


def _missing(role: str, before: int, after: int) -> Iterator[Problem]:
    """The gap between two numbers, if there is one."""
    first, last = before + 1, after - 1
    if first == last:
        message = f"generation {first} is missing, and was not pruned"
        yield Problem(Flaw.GAP, role, first, message)
    elif first < last:
        message = f"generations {first} to {last} are missing, and were not pruned"
        yield Problem(Flaw.GAP, role, first, message)


def _cut_short(links: Sequence[Link]) -> Iterator[Problem]:
    """The newest generation is never pruned: where only its header is left, somebody took it away."""
    if links and all(link.pruned for link in links if link.number == links[-1].number):
        newest = links[-1]
        yield Problem(
            Flaw.ROLLBACK,
            newest.role,
            newest.number,
            f"generation {newest.number} is the newest, and only its header is here",
            newest.path,
        )


def _unlinked(before: Link, after: Link) -> Iterator[Problem]:
    if after.number != before.number + 1 or not after.digest or not before.digest:
        return
    if after.previous != before.digest:
        yield Problem(
            Flaw.FORK,
            after.role,
            after.number,
            f"it follows another generation {before.number} than the one that is here",
            after.path,
        )


def _forgotten(role: str, links: Sequence[Link], known: Known) -> Iterator[Problem]:
    number = known.generation
    newest = max((link.number for link in links), default=0)
    if newest < number:
        yield Problem(Flaw.ROLLBACK, role, number, older(number, newest))
    digests = {link.digest for link in links if link.number == number and link.digest}
    if digests and known.digest not in digests:
        hint = "if this one is right, and the other was given up: --accept; else find the store of the other"
        yield Problem(Flaw.FORK, role, number, _another(number), hint=hint)


def not_newest(here: Known, known: Known | None) -> str:
    """Why the newest generation of a store cannot be the newest there is; empty when it can.

    Args:
        here: the newest one in the store.
        known: the newest one that this machine has ever seen.
    """
    if known is None or here.generation > known.generation or here == known:
        return ""
    if here.generation < known.generation:
        return older(known.generation, here.generation)
    return _another(known.generation)


def older(known: int, newest: int) -> str:
    """That a store whose newest generation of a role is `newest` (0: it has none) is behind `known`, as a sentence."""
    here = f"the newest one here is {newest}" if newest else "there is none here"
    return f"this machine has seen generation {known}, {here}"


def _another(number: int) -> str:
    return f"this machine has seen another generation {number} than the one that is here"
