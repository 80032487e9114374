"""Stores as a user sees them: `brd verify`, `list`, `check`, `prune` and `copy`."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stores import ROLES, START, Made, Result, contents, etsclone, make, make_keys

from etsclone.commands.brd import prune as prune_command
from etsclone.errors import StoreRefused
from etsclone.overlay.signing import SigningKey


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SigningKey]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def made(tmp_path: Path, keys: dict[str, SigningKey]) -> Made:
    """A store with five generations of the primary and two of the secondary."""
    made = make(tmp_path / "store", keys)
    for role, count in zip(ROLES, (5, 2), strict=True):
        for _ in range(count):
            made.capture(role)
    return made


def generation(made: Made, number: int, role: str = "primary", suffix: str = "brd") -> Path:
    return made.path / role / f"{role}-{number:06d}.{suffix}"


def verify(made: Made, *more: str) -> Result:
    return etsclone("brd", "verify", made.path, "--trust", made.trust, *more)


def prune(made: Made, *more: str) -> Result:
    return etsclone("brd", "prune", made.path, "--trust", made.trust, *more)


def copy(made: Made, target: Path, *more: str) -> Result:
    return etsclone("brd", "copy", made.path, target, "--trust", made.trust, *more)


def check(made: Made, age: str, *more: str) -> Result:
    return etsclone("brd", "check", made.path, "--max-age", age, "--trust", made.trust, *more)


def flaws(result: Result) -> list[tuple[str, str, int]]:
    return [(each["flaw"], each["role"], each["generation"]) for each in result.facts["problems"]]


def refuses(result: Result, code: int, message: str) -> None:
    assert result.code == code, result.err
    assert message in result.err
    assert "hint: " in result.err


# --- verify ---------------------------------------------------------------------------------------------------------


def test_a_whole_store_verifies(made: Made) -> None:
    result = verify(made)
    assert result.code == 0, result.err
    assert result.out.endswith("all 7 generations of pair ets verify\n")
    assert verify(made, "--json").facts["verified"] is True


def test_an_empty_store_is_told(tmp_path: Path, keys: dict[str, SigningKey]) -> None:
    refuses(verify(make(tmp_path / "empty", keys)), 3, "holds no overlay yet")


def test_a_lost_generation_is_a_gap(made: Made) -> None:
    generation(made, 3).unlink()
    result = verify(made, "--json")
    refuses(result, 4, "the history of pair ets does not verify")
    assert flaws(result) == [("gap", "primary", 3)]
    assert "primary: generation 3 is missing, and was not pruned\n" in verify(made).out


def test_a_damaged_generation_is_told(made: Made) -> None:
    path = generation(made, 2)
    path.write_bytes(path.read_bytes()[:-600] + b"x" + path.read_bytes()[-599:])
    result = verify(made, "--json")
    assert (result.code, flaws(result)) == (4, [("damaged", "primary", 2)])


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
    assert flaws(verify(made, "--json")) == [("foreign", "primary", 1)]


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
    assert flaws(verify(made, "--json")) == [("fork", "primary", 5)]


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
    refuses(check(made, "4h"), 4, "was last captured 5 h ago")


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


def test_a_newest_generation_that_does_not_verify_is_told(made: Made) -> None:
    made.capture(created=now())
    path = generation(made, 6)
    path.write_bytes(path.read_bytes()[:-1])
    refuses(check(made, "2d", "--role", "primary"), 4, "truncated")


def test_a_capture_in_the_future_is_told(made: Made) -> None:
    made.capture(created=now() + timedelta(days=3))
    refuses(check(made, "2d", "--role", "primary"), 4, "in the future")


def test_a_store_that_was_set_back_is_not_well(made: Made) -> None:
    made.capture(created=now() - timedelta(minutes=2))
    made.capture(created=now() - timedelta(minutes=1))
    assert verify(made).code == 0
    generation(made, 7).unlink()
    refuses(check(made, "2d", "--role", "primary"), 4, "has seen generation 7")


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


# --- prune ----------------------------------------------------------------------------------------------------------


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
    assert "3 generations are pruned" in result.out
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


# --- copy -----------------------------------------------------------------------------------------------------------


def test_a_copy_is_made_and_brought_up_to_date(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "second"
    made.store.write_receipt("rebuild.json", b"{}")
    made.check("secondary", START)
    result = copy(made, target)
    assert result.code == 0, result.err
    assert f"{target} is a copy of {made.path}; all of it verifies" in result.out
    assert contents(target) == contents(made.path)
    assert verify(made.at(target)).code == 0
    made.capture()
    made.check("primary", START)
    result = copy(made, target, "--json")
    assert result.facts["generations"] == [str(generation(made, 6))]
    assert [Path(path).name for path in result.facts["files"]] == ["primary.checked"]
    assert contents(target) == contents(made.path)
    result = copy(made, target, "--json")
    assert (result.facts["generations"], result.facts["files"]) == ([], [])


def test_a_copy_of_a_pruned_store_verifies(made: Made, tmp_path: Path) -> None:
    assert prune(made, "--keep-last", "1", "--yes").code == 0
    assert copy(made, tmp_path / "second").code == 0
    assert contents(tmp_path / "second") == contents(made.path)


def test_pruning_is_not_copied_and_not_undone(made: Made, tmp_path: Path) -> None:
    assert copy(made, tmp_path / "second").code == 0
    second = made.at(tmp_path / "second")
    assert prune(made, "--keep-last", "3", "--yes").code == 0
    assert copy(made, second.path).code == 0
    assert len(second.store.generations("primary")) == 5
    assert prune(second, "--keep-last", "1", "--yes").code == 0
    assert copy(made, second.path).code == 0
    assert len(second.store.generations("primary")) == 1


def test_a_dry_run_copies_nothing(made: Made, tmp_path: Path) -> None:
    result = copy(made, tmp_path / "second", "--dry-run", "--json")
    assert len(result.facts["generations"]) == 7
    assert not (tmp_path / "second").exists()


def test_another_pairs_store_is_refused(
    made: Made, tmp_path: Path, keys: dict[str, SigningKey]
) -> None:
    other = make(tmp_path / "other", keys, pair="office")
    before = contents(other.path)
    refuses(copy(made, other.path), 3, "is a store of pair office")
    assert contents(other.path) == before


def test_a_target_that_is_no_store_is_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo.jpg").write_bytes(b"x")
    refuses(copy(made, tmp_path / "photos"), 3, "not empty and no BRD store")
    refuses(copy(made, made.path), 3, "is the store itself")


def test_forks_are_refused(made: Made, tmp_path: Path) -> None:
    assert copy(made, tmp_path / "second").code == 0
    second = made.at(tmp_path / "second")
    second.capture(content=b"theirs")
    before = contents(second.path)
    refuses(copy(made, second.path), 3, "is not in the store that is to be copied")
    made.capture(content=b"ours")
    refuses(copy(made, second.path), 3, "is another generation 6 of primary")
    assert contents(second.path) == before
    assert copy(second, tmp_path / "third").code == 0


def test_what_is_damaged_is_not_copied_but_all_else_is(made: Made, tmp_path: Path) -> None:
    path = generation(made, 3)
    path.write_bytes(path.read_bytes()[:-1])
    result = copy(made, tmp_path / "second", "--json")
    refuses(result, 4, "the copy is not whole")
    assert flaws(result) == [("damaged", "primary", 3), ("gap", "primary", 3)]
    second = made.at(tmp_path / "second")
    assert [item.number for item in second.store.generations("primary")] == [1, 2, 4, 5]


def test_a_good_copy_mends_a_damaged_store(made: Made, tmp_path: Path) -> None:
    assert copy(made, tmp_path / "second").code == 0
    generation(made, 3).unlink()
    assert verify(made).code == 4
    assert copy(made.at(tmp_path / "second"), made.path).code == 0
    assert verify(made).code == 0


def test_a_damaged_generation_in_the_copy_is_told(made: Made, tmp_path: Path) -> None:
    assert copy(made, tmp_path / "second").code == 0
    path = generation(made.at(tmp_path / "second"), 3)
    path.write_bytes(path.read_bytes()[:-1])
    result = copy(made, tmp_path / "second", "--json")
    assert (result.code, flaws(result)) == (4, [("damaged", "primary", 3)])


def test_without_a_list_the_stores_own_will_do(made: Made, tmp_path: Path) -> None:
    assert etsclone("brd", "copy", made.path, tmp_path / "second").code == 0
    assert etsclone("brd", "prune", made.path, "--keep-last", "1", "--yes").code == 0
