"""Stores as a user sees them: `brd verify`, `list` and `check`."""

import json
import os
import shlex
import shutil
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from stores import (
    ROLES,
    START,
    Made,
    Result,
    check,
    etsclone,
    flaws,
    generation,
    make,
    prune,
    refuses,
    verify,
)

from etsclone.commands import history
from etsclone.errors import StoreRolledBack
from etsclone.model.history import Known
from etsclone.overlay import container
from etsclone.overlay.signing import SigningKey

# --- verify ---------------------------------------------------------------------------------------------------------


def test_a_whole_store_verifies(made: Made) -> None:
    result = verify(made)
    assert result.code == 0, result.err
    assert result.out.endswith("all 7 generations of pair ets verify\n")
    assert verify(made, "--json").facts["verified"] is True


def test_one_generation_is_told_as_one(tmp_path: Path, keys: dict[str, SigningKey]) -> None:
    made = make(tmp_path / "small", keys)
    made.capture()
    assert verify(made).out.endswith("the only generation of pair ets verifies\n")
    made.capture()
    assert "\n1 generation will be pruned, " in prune(made, "--keep-last", "1", "--dry-run").out


def test_an_empty_store_is_told(tmp_path: Path, keys: dict[str, SigningKey]) -> None:
    refuses(verify(make(tmp_path / "empty", keys)), 3, "holds no overlay yet")


def test_a_lost_generation_is_a_gap(made: Made) -> None:
    generation(made, 3).unlink()
    result = verify(made, "--json")
    refuses(result, 4, "the history of pair ets does not verify")
    assert flaws(result) == [("gap", "primary", 3)]
    assert "primary: generation 3 is missing, and was not pruned\n" in verify(made).out
    assert "brings lost generations back" in result.err


def test_a_damaged_generation_is_told(made: Made) -> None:
    path = generation(made, 2)
    path.write_bytes(path.read_bytes()[:-600] + b"x" + path.read_bytes()[-599:])
    result = verify(made, "--json")
    assert (result.code, flaws(result)) == (4, [("damaged", "primary", 2)])
    assert "brings it back from another copy" in result.err
    (line,) = (each for each in verify(made).out.splitlines() if str(path) in each)
    assert line.count(str(path)) == 1


def test_a_generation_under_another_role_or_number_is_told(made: Made) -> None:
    shutil.copy(generation(made, 2, "secondary"), generation(made, 2))
    shutil.copy(generation(made, 1), generation(made, 6))
    result = verify(made, "--json")
    assert flaws(result) == [("foreign", "primary", 2), ("foreign", "primary", 6)]


def test_a_generation_of_another_pair_is_told(
    made: Made, tmp_path: Path, keys: dict[str, SigningKey]
) -> None:
    other = make(tmp_path / "other", keys, pair="office").capture()
    shutil.copy(other, generation(made, 1))
    result = verify(made, "--json")
    assert flaws(result) == [("foreign", "primary", 1)]
    assert "hint: what is of another pair, role or generation" in result.err


def test_two_histories_that_were_mixed_are_told(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "second")
    second = made.at(tmp_path / "second")
    made.capture(content=b"on the first medium")
    second.capture(content=b"on the second medium")
    shutil.copy(second.capture(), generation(made, 7))
    assert flaws(verify(made, "--json")) == [("fork", "primary", 7)]


def test_a_store_that_was_set_back_is_told(made: Made) -> None:
    assert verify(made).code == 0
    newest = generation(made, 5).read_bytes()
    generation(made, 5).unlink()
    result = verify(made, "--json")
    assert (result.code, flaws(result)) == (4, [("rollback", "primary", 5)])
    refuses(verify(made), 4, "the history of pair ets does not verify")
    generation(made, 5).write_bytes(newest)
    assert verify(made).code == 0


def test_a_store_that_was_set_back_can_be_accepted(made: Made) -> None:
    assert verify(made).code == 0
    generation(made, 5).unlink()
    assert verify(made, "--accept").code == 0
    assert verify(made).code == 0


def test_a_set_back_store_that_went_on_is_told(made: Made) -> None:
    assert verify(made).code == 0
    generation(made, 5).unlink()
    made.capture(content=b"another one")
    made.capture()
    result = verify(made, "--json")
    assert flaws(result) == [("fork", "primary", 5)]
    assert "brd copy" not in result.err
    assert "--accept" in result.err
    assert verify(made, "--accept").code == 0


def test_a_damaged_store_is_not_remembered(made: Made) -> None:
    made.capture()
    generation(made, 2).unlink()
    assert verify(made).code == 4
    generation(made, 6).unlink()
    generation(made, 5).unlink()
    assert ("rollback", "primary", 6) not in flaws(verify(made, "--json"))


def test_what_cannot_be_remembered_is_a_warning(
    made: Made, state_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state_folder.write_text("not a folder")
    assert verify(made).code == 0
    assert "what was seen of role primary cannot be remembered" in caplog.text


def test_a_memory_that_is_damaged_is_told(made: Made, state_folder: Path) -> None:
    assert verify(made).code == 0
    memory = state_folder / "roles" / "ets" / "primary.json"
    assert json.loads(memory.read_text())["newest"]["generation"] == 5
    for text in ("{", "[]", '{"format": 2}', '{"format": 1, "newest": {"generation": 0}}', "\xff"):
        memory.write_text(text, encoding="latin-1")
        refuses(verify(made), 1, f"{memory} is damaged")


def test_a_medium_that_fails_is_told_and_the_rest_is_verified(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if path.name == "primary-000003.brd":
            raise OSError(5, "Input/output error")
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    result = verify(made, "--json")
    refuses(result, 5, "fails")
    assert flaws(result) == [("unreadable", "primary", 3)]
    assert len(result.facts["overlays"]) == 7


@pytest.mark.parametrize(
    ("module", "function"),
    [(history, "read_envelope"), (history, "open_verified"), (container, "_spooled")],
)
def test_what_is_pruned_while_it_is_read_is_not_taken_for_damaged(
    module: ModuleType, function: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = vars(module)[function]

    def meanwhile(*positional: object, **named: object) -> object:
        monkeypatch.undo()
        assert prune(made, "--keep-last", "1", "--yes").code == 0
        return work(*positional, **named)

    monkeypatch.setattr(module, function, meanwhile)
    refuses(verify(made), 3, "primary-000001.brd was pruned or removed meanwhile")
    assert verify(made).code == 0


# --- check ----------------------------------------------------------------------------------------------------------


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def test_recent_roles_are_well(made: Made) -> None:
    for role in ROLES:
        made.capture(role, created=now() - timedelta(hours=5))
    result = check(made, "6h")
    assert result.code == 0, result.err
    assert result.out == (
        "primary: generation 6 verifies, and was true 5 h ago\n"
        "secondary: generation 3 verifies, and was true 5 h ago\n"
    )
    refuses(
        check(made, "4h"), 4, "was last captured 5 h ago: that is too old, --max-age allows 4 h\n"
    )


def test_only_the_role_that_was_asked_for_counts(made: Made) -> None:
    made.capture("secondary", created=now())
    assert check(made, "1h", "--role", "secondary").code == 0
    refuses(check(made, "1h"), 4, "role primary was last captured")
    refuses(check(made, "1h", "--role", "tertiary"), 3, "has no role")


def test_an_unchanged_capture_counts(made: Made) -> None:
    made.check("primary", now() - timedelta(days=1))
    result = check(made, "2d", "--role", "primary", "--json")
    assert result.code == 0, result.err
    (facts,) = result.facts["roles"]
    assert facts["generation"] == 5
    assert 24 * 3600 <= facts["age"] < 25 * 3600


def test_a_check_of_an_older_generation_does_not_count(made: Made) -> None:
    made.check("primary", now())
    made.capture()
    refuses(check(made, "2d", "--role", "primary"), 4, "was last captured")
    assert verify(made).code == 0


@pytest.mark.parametrize("forged", [{"role": "secondary"}, {"pair": "office"}])
def test_a_check_of_something_else_is_refused(made: Made, forged: dict[str, str]) -> None:
    made.check("primary", now(), **forged)
    refuses(check(made, "2d", "--role", "primary"), 4, "is of role")
    assert flaws(verify(made, "--json")) == [("foreign", "primary", 5)]


def test_a_check_that_others_signed_is_refused(made: Made) -> None:
    keys = {"primary": made.keys["secondary"]}
    Made(made.store, keys).check("primary", now())
    refuses(check(made, "2d", "--role", "primary"), 4, "not for primary")


def test_a_changed_check_is_refused(made: Made) -> None:
    made.check("primary", START)
    path = made.store.checked_path("primary")
    path.write_bytes(path.read_bytes().replace(b'"checked": "2026', b'"checked": "2027'))
    refuses(check(made, "2d", "--role", "primary"), 4, "not written as it must be")
    assert flaws(verify(made, "--json")) == [("damaged", "primary", 5)]


@pytest.mark.parametrize("size", [0, 700, 1 << 14])
def test_a_damaged_check_is_no_damaged_overlay(made: Made, size: int) -> None:
    made.check("primary", START)
    path = made.store.checked_path("primary")
    path.write_bytes(
        path.read_bytes().ljust(size, b"x") if size > 700 else path.read_bytes()[:size]
    )
    for result in (verify(made), check(made, "2d", "--role", "primary")):
        refuses(result, 4, "")
        assert f"{path}: the record of the last check is damaged: " in result.out
        assert "hint: no overlay is concerned: a capture that finds nothing new" in result.err
        assert "overlay is truncated" not in result.out
    made.check("primary", START)
    assert verify(made).code == 0


def test_a_changed_check_with_its_time_changed_too_is_refused(made: Made) -> None:
    made.check("primary", START)
    path = made.store.checked_path("primary")
    early = path.read_bytes()
    made.check("primary", now())
    late = path.read_bytes()
    signature = early.index(b"-----BEGIN"), early.index(b"-----END")
    path.write_bytes(late[: signature[0]] + early[slice(*signature)] + late[signature[1] :])
    refuses(check(made, "2d", "--role", "primary"), 4, "the signature does not fit")


def test_a_role_that_was_never_captured_is_stale(
    tmp_path: Path, keys: dict[str, SigningKey]
) -> None:
    made = make(tmp_path / "new", keys)
    refuses(check(made, "1w"), 4, "role primary was never captured")


def told_command(result: Result) -> list[str]:
    """The last command that a hint names, in its words after `etsclone`."""
    return shlex.split(result.err.split("`etsclone ")[-1].split("`")[0])


@pytest.mark.parametrize("another", [False, True])
def test_the_hint_of_a_check_that_saw_more_is_the_way_on(made: Made, another: bool) -> None:
    assert verify(made).code == 0
    generation(made, 5).unlink()
    if another:
        made.capture(content=b"another one")
    age = ("1000w", "--role", "primary")
    seen = "another generation 5 than" if another else "generation 5, the newest one here is 4"
    refuses(check(made, *age), 4, f"this machine has seen {seen}")
    # All options that it needs here are in it.
    result = etsclone(*told_command(check(made, *age)))
    assert result.code == 0, result.err
    assert check(made, *age).code == 0


@pytest.mark.parametrize("site", [False, True])
def test_the_hint_names_a_list_of_signers_where_one_is_needed(
    made: Made, site: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SITE_SIGNERS", made.trust if site else made.path / "none")
    here = Known(4, "0" * 64)
    assert verify(made).code == 0
    generation(made, 5).unlink()
    with pytest.raises(StoreRolledBack) as caught:
        history.check_newest(made.store, "primary", here, Namespace(trust=None, revoked=None))
    words = f"`etsclone brd verify {made.path} --accept{'' if site else ' --trust FILE'}`"
    assert words in caught.value.hint
    assert caught.value.hint.endswith("to take this one all the same, give --generation 4")


def test_an_emptied_store_is_not_taken_for_a_new_one(made: Made) -> None:
    assert verify(made).code == 0
    for number in range(1, 6):
        generation(made, number).unlink()
    result = check(made, "1000w", "--role", "primary")
    refuses(result, 4, "this machine has seen generation 5, there is none here")
    assert "--accept" in result.err


def test_a_newest_generation_that_does_not_verify_is_told(made: Made) -> None:
    made.capture(created=now())
    path = generation(made, 6)
    path.write_bytes(path.read_bytes()[:-1])
    result = check(made, "2d", "--role", "primary")
    refuses(result, 4, "truncated")
    told = etsclone(*told_command(result))  # with what it needs here to look at all
    assert (told.code, "truncated" in told.out) == (4, True)


def test_a_capture_in_the_future_is_told(made: Made) -> None:
    made.capture(created=now() + timedelta(days=3))
    refuses(check(made, "2d", "--role", "primary"), 4, "in the future")


def test_a_store_that_was_set_back_is_not_well(made: Made) -> None:
    made.capture(created=now() - timedelta(minutes=2))
    made.capture(created=now() - timedelta(minutes=1))
    assert verify(made).code == 0
    generation(made, 7).unlink()
    refuses(check(made, "2d", "--role", "primary"), 4, "has seen generation 7")


def test_a_check_remembers_the_newest_generation_that_it_saw(made: Made) -> None:
    made.capture(created=now() - timedelta(minutes=1))
    assert check(made, "2d", "--role", "primary").code == 0
    generation(made, 6).unlink()
    refuses(check(made, "2d", "--role", "primary"), 4, "has seen generation 6")
    assert flaws(verify(made, "--json")) == [("rollback", "primary", 6)]


def test_who_checks_need_not_be_allowed_to_remember(
    made: Made, state_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made.capture("secondary", created=now() - timedelta(minutes=1))
    state_folder.mkdir(parents=True, exist_ok=True)
    (state_folder / "roles").write_text("no folder: nothing can be kept here")
    assert check(made, "2d", "--role", "secondary").code == 0
    assert "cannot be remembered" in caplog.text
    (state_folder / "roles").unlink()
    assert check(made, "2d", "--role", "secondary").code == 0
    lock = state_folder / "roles" / "ets" / ".lock"
    lock.unlink()
    caplog.clear()
    assert check(made, "2d", "--role", "secondary").code == 0
    assert not caplog.text
    assert not lock.exists(), "nothing was written"


@pytest.mark.parametrize("age", ["", "2", "d", "-1d", "2 d", "1y", "1.5h", "1000000s"])
def test_an_age_has_a_unit(made: Made, age: str) -> None:
    assert check(made, age).code == 2


# --- list -----------------------------------------------------------------------------------------------------------


def test_checks_and_pruned_generations_are_listed(made: Made) -> None:
    made.check("primary", START)
    assert prune(made, "--keep-last", "1", "--role", "primary", "--yes").code == 0
    result = etsclone("brd", "list", made.path)
    assert "primary was last found unchanged at 2026-01-01T03:00:00Z\n" in result.out
    assert "primary has 4 older generations of which only the headers were kept\n" in result.out
    facts = etsclone("brd", "list", made.path, "--json").facts
    assert facts["history"] == {
        "primary": {"checked": "2026-01-01T03:00:00Z", "pruned": 4},
        "secondary": {"checked": None, "pruned": 0},
    }
    assert [row["generation"] for row in facts["overlays"]] == [5, 1, 2]


def test_a_damaged_check_is_listed_as_one(made: Made) -> None:
    made.store.checked_path("primary").write_bytes(b"x")
    assert (
        "primary was last found unchanged at (unreadable" in etsclone("brd", "list", made.path).out
    )
