"""`brd prune`: what goes, what stays of it, and that the history verifies as before."""

import re
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from stores import (
    Made,
    contents,
    etsclone,
    flaws,
    generation,
    make,
    prune,
    refuses,
    verify,
)

from etsclone.commands.brd import prune as prune_command
from etsclone.errors import StoreRefused
from etsclone.overlay.signing import SigningKey
from etsclone.units import human


def test_pruned_generations_leave_their_headers_and_the_history_verifies(made: Made) -> None:
    whole = generation(made, 2).read_bytes()
    result = prune(made, "--keep-last", "2", "--yes", "--json")
    assert result.code == 0, result.err
    assert [each["generation"] for each in result.facts["roles"][0]["pruned"]] == [1, 2, 3]
    names = sorted(path.name for path in (made.path / "primary").iterdir())
    assert names == [
        *(f"primary-00000{number}.header" for number in (1, 2, 3)),
        *(f"primary-00000{number}.brd" for number in (4, 5)),
    ]
    left = generation(made, 2, suffix="header").read_bytes()
    assert whole.startswith(left)
    assert len(left) < len(whole)
    result = verify(made)
    assert result.code == 0, result.err
    assert "primary-000002.header: pruned, its header verifies\n" in result.out


def test_all_rules_at_once_keep_what_any_of_them_does(
    tmp_path: Path, keys: dict[str, SigningKey]
) -> None:
    made = make(tmp_path / "store", keys)
    times = [
        "2025-11-03T03",
        "2025-11-28T03",  # the newest of its month
        "2025-12-20T03",  # likewise
        "2026-01-05T03",  # a Monday
        "2026-01-05T22",
        "2026-01-11T03",  # a Sunday: the newest of its week and of its day
        "2026-01-12T03",
        "2026-01-12T12",  # the newest of its day
        "2026-01-13T03",
        "2026-01-13T09",
    ]
    for time in times:
        made.capture(created=datetime.fromisoformat(f"{time}:00:00+00:00"))
        made.capture("secondary")
    counts = {"last": 2, "daily": 3, "weekly": 2, "monthly": 3}
    words = [word for rule, count in counts.items() for word in (f"--keep-{rule}", str(count))]
    words += ["--role", "primary", "--json"]
    planned = prune(made, *words, "--dry-run")
    assert len(made.store.generations("primary")) == 10
    done = prune(made, *words, "--yes")
    assert done.code == 0, done.err
    assert done.facts == planned.facts
    (facts,) = done.facts["roles"]
    assert {each["generation"]: each["reasons"] for each in facts["kept"]} == {
        2: ["monthly"],
        3: ["monthly"],
        6: ["daily", "weekly"],
        8: ["daily"],
        9: ["last"],
        10: ["newest", "last", "daily", "weekly", "monthly"],
    }
    assert [each["generation"] for each in facts["pruned"]] == [1, 4, 5, 7]
    assert [item.number for item in made.store.generations("primary")] == [2, 3, 6, 8, 9, 10]
    assert [item.number for item in made.store.history("primary")] == list(range(1, 11))
    assert len(made.store.generations("secondary")) == 10
    result = verify(made)
    assert result.code == 0, result.err
    assert "all 20 generations of pair ets verify" in result.out
    (again,) = prune(made, *words, "--yes").facts["roles"]
    assert (again["pruned"], again["kept"]) == ([], facts["kept"])
    # One rule alone keeps less, of what is left.
    assert prune(made, "--keep-weekly", "2", "--role", "primary", "--yes").code == 0
    assert [item.number for item in made.store.generations("primary")] == [6, 10]
    assert verify(made).code == 0


def test_a_pruned_generation_is_told_apart_from_a_lost_one(made: Made) -> None:
    assert prune(made, "--keep-last", "2", "--yes").code == 0
    generation(made, 2, suffix="header").unlink()
    assert flaws(verify(made, "--json")) == [("gap", "primary", 2)]


def test_a_header_that_was_changed_is_told(made: Made) -> None:
    assert prune(made, "--keep-last", "2", "--yes").code == 0
    path = generation(made, 2, suffix="header")
    path.write_bytes(path.read_bytes().replace(b'"host"', b'"Host"'))
    assert flaws(verify(made, "--json")) == [("damaged", "primary", 2)]
    shutil.copy(generation(made, 1, suffix="header"), path)
    assert flaws(verify(made, "--json")) == [("foreign", "primary", 2)]


def test_the_plan_is_shown_and_confirmed(made: Made) -> None:
    before = contents(made.path)
    words = ("brd", "prune", made.path, "--keep-last", "2", "--trust", made.trust)
    result = etsclone(*words, typed="yes\n")
    refuses(result, 3, "not confirmed, nothing was changed")
    assert "primary    000003      2026-01-04T03:00:00Z" in result.out
    assert "3 generations will be pruned" in result.out
    assert "type the pair's name, ets: " in result.out
    assert contents(made.path) == before
    assert etsclone(*words, typed="ets\n").code == 0
    assert len(made.store.generations("primary")) == 2


def test_a_dry_run_prunes_nothing(made: Made) -> None:
    before = contents(made.path)
    result = prune(made, "--keep-last", "1", "--dry-run", "--json")
    assert result.code == 0
    assert result.facts["roles"][0]["freed"] > 0
    assert contents(made.path) == before


def test_only_the_role_that_was_asked_for_is_pruned(made: Made) -> None:
    assert prune(made, "--keep-last", "1", "--role", "secondary", "--yes").code == 0
    assert len(made.store.generations("primary")) == 5
    assert len(made.store.generations("secondary")) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--yes",),
        ("--keep-last", "0", "--yes"),
        ("--keep-last", "-1", "--yes"),
        ("--keep-last", "3", "--json"),
    ],
)
def test_what_to_keep_must_be_said(made: Made, words: tuple[str, ...]) -> None:
    before = contents(made.path)
    assert prune(made, *words).code == 2
    assert contents(made.path) == before


def test_what_does_not_verify_is_not_counted(made: Made) -> None:
    path = generation(made, 5)
    path.write_bytes(path.read_bytes()[:-1])
    result = prune(made, "--keep-last", "1", "--yes")
    assert result.code == 0
    assert "left alone: it does not verify" in result.out
    assert [item.number for item in made.store.generations("primary")] == [4, 5]


def test_what_is_damaged_is_shown_with_its_size_and_can_be_let_go(made: Made) -> None:
    path = generation(made, 2)
    path.write_bytes(path.read_bytes()[:-1024] + bytes(1024 - 1) + b"x")
    size = human(path.stat().st_size)
    row = re.search(r"primary +000002 .*", prune(made, "--keep-last", "9", "--dry-run").out)
    assert row
    assert row[0].split()[3:5] == size.split()
    before = path.stat().st_size
    result = prune(made, "--drop-unverified", "--json", "--yes")
    assert result.code == 0, result.err
    facts = result.facts["roles"][0]
    assert [each["generation"] for each in facts["dropped"]] == [2]
    assert (facts["damaged"], facts["pruned"], len(facts["kept"])) == ([], [], 4)
    left = path.with_suffix(".header").stat().st_size
    assert facts["freed"] == before - left
    assert verify(made).code == 0


@pytest.mark.parametrize("damage", ["the-header", "the-next-one"])
def test_what_nobody_vouches_for_is_not_let_go(made: Made, damage: str) -> None:
    path = generation(made, 2)
    data = path.read_bytes()
    if damage == "the-header":
        path.write_bytes(data.replace(b'"host": "host"', b'"host": "home"'))
    else:
        path.write_bytes(data[:-1])
        generation(made, 3).write_bytes(b"")
    before = contents(made.path)
    result = prune(made, "--drop-unverified", "--yes")
    assert result.code == 0, result.err
    assert "left alone: it does not verify" in result.out
    assert contents(made.path) == before


@pytest.mark.parametrize(
    "words",
    [
        ("log", "STORE", "--role", "primary", "--last", "0"),
        ("log", "STORE", "--role", "primary", "--last", "-1"),
        ("log", "STORE", "--role", "primary", "--last", "few"),
        ("prune", "STORE", "--keep-last", "3", "--keep-daily", "-1", "--dry-run"),
    ],
)
def test_counts_that_make_no_sense_are_usage_errors(made: Made, words: tuple[str, ...]) -> None:
    result = etsclone("brd", *(made.path if word == "STORE" else word for word in words))
    assert result.code == 2
    assert "not a whole number of " in result.err


def test_a_store_that_changed_while_it_was_shown_is_not_pruned(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(*_: object, **__: object) -> None:
        generation(made, 5).unlink()

    monkeypatch.setattr(prune_command, "confirm", change)
    refuses(prune(made, "--keep-last", "1", "--yes"), 3, "changed since the plan was shown")
    assert len(made.store.generations("primary")) == 4


def test_a_link_is_no_generation(made: Made, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(generation(made, 1).read_bytes())
    generation(made, 1).unlink()
    generation(made, 1).symlink_to(victim)
    before = victim.read_bytes()
    assert flaws(verify(made, "--json")) == [("gap", "primary", 1)]
    assert prune(made, "--keep-last", "1", "--yes").code == 0
    assert victim.read_bytes() == before


def test_a_pruned_generation_is_named_as_one(made: Made) -> None:
    assert prune(made, "--keep-last", "1", "--yes").code == 0
    with pytest.raises(StoreRefused, match="generation 2 of role primary was pruned"):
        made.store.overlay("primary", 2)
    assert made.capture().name == "primary-000006.brd"
    assert verify(made).code == 0
