"""A second store as a user sees it: `brd copy`."""

from pathlib import Path

import pytest
from stores import (
    START,
    Made,
    contents,
    copy,
    etsclone,
    flaws,
    generation,
    make,
    prune,
    refuses,
    verify,
)

from etsclone.overlay.signing import SigningKey


@pytest.mark.parametrize("name", ["second", "receipts"])
def test_a_copy_is_made_and_brought_up_to_date(name: str, made: Made, tmp_path: Path) -> None:
    target = tmp_path / name
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


@pytest.mark.parametrize("way", ["itself", "its-link", "inside", "inside-by-link", "not-yet"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_store_is_not_copied_into_itself(
    made: Made, tmp_path: Path, way: str, dry: tuple[str, ...]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(made.path / "not-yet" if way == "not-yet" else made.path)
    target = {
        "itself": made.path,
        "inside": made.path / "primary/second",
        "inside-by-link": link / "second",
    }.get(way, link)
    before = contents(made.path)
    said = "is the store itself" if way in {"itself", "its-link"} else "one lies in the other"
    refuses(copy(made, target, *dry), 3, said)
    assert contents(made.path) == before
    assert not (made.path / "primary/second").exists()


def test_a_store_in_its_copy_is_not_copied_there(made: Made, tmp_path: Path) -> None:
    assert copy(made, tmp_path / "second").code == 0
    inner = made.at(made.path.rename(tmp_path / "second/drills/store"))
    before = contents(tmp_path / "second")
    refuses(copy(inner, tmp_path / "second"), 3, "one lies in the other")
    assert contents(tmp_path / "second") == before


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


@pytest.mark.parametrize("name", ["brd.toml", "allowed_signers"])
def test_whose_settings_are_newer_is_asked(made: Made, tmp_path: Path, name: str) -> None:
    assert copy(made, tmp_path / "old").code == 0
    old = made.at(tmp_path / "old")
    settings = made.path / name
    settings.write_text(settings.read_text() + "# changed later\n")
    made.capture()
    before, trust = contents(made.path), ("--trust", old.trust)
    result = etsclone("brd", "copy", old.path, made.path, "--dry-run", *trust)
    assert result.code == 3, "the old medium lacks a generation"
    generation(made, 6).unlink()
    before = contents(made.path)
    result = etsclone("brd", "copy", old.path, made.path, *trust)
    refuses(result, 3, f"{name} of {made.path} would be replaced by that of {old.path}")
    assert contents(made.path) == before
    result = etsclone("brd", "copy", old.path, made.path, "--dry-run", *trust)
    assert (result.code, contents(made.path)) == (0, before)
    assert "-# changed later" in result.out.splitlines()
    result = etsclone("brd", "copy", old.path, made.path, "--keep-settings", "--json", *trust)
    assert (result.code, result.facts["settings"]) == (0, [str(old.path / name)])
    assert result.facts["files"] == []
    assert contents(made.path) == before
    refuses(etsclone("brd", "copy", made.path, old.path, *trust), 3, f"{name} of {old.path}")
    result = etsclone("brd", "copy", made.path, old.path, "--take-settings", *trust)
    assert result.code == 0, result.err
    assert contents(old.path) == before
    assert etsclone("brd", "copy", made.path, old.path, *trust).code == 0


def test_a_copy_that_was_interrupted_has_no_settings_of_its_own(made: Made, tmp_path: Path) -> None:
    assert copy(made, tmp_path / "second").code == 0
    (tmp_path / "second" / "allowed_signers").write_text("")
    assert copy(made, tmp_path / "second").code == 0
    assert contents(tmp_path / "second") == contents(made.path)


def test_a_fork_behind_a_damaged_generation_is_refused(made: Made, tmp_path: Path) -> None:
    assert copy(made, tmp_path / "second").code == 0
    second = made.at(tmp_path / "second")
    second.capture(content=b"theirs")
    made.capture(content=b"ours")
    made.capture()
    generation(made, 6).write_bytes(b"damaged")
    before = contents(second.path)
    refuses(copy(made, second.path), 3, "is another generation 6 of primary")
    assert contents(second.path) == before


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


@pytest.mark.parametrize(
    "place", [1000, -1000]
)  # in the header, which its signature no longer fits, and behind it
def test_the_hint_about_a_damaged_copy_mends_it(made: Made, tmp_path: Path, place: int) -> None:
    assert copy(made, tmp_path / "second").code == 0
    path = generation(made.at(tmp_path / "second"), 3)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    result = copy(made, tmp_path / "second")
    assert "remove what is damaged in one of the stores, if the other has it" in result.err
    path.unlink()
    assert copy(made, tmp_path / "second").code == 0


def test_without_a_list_the_stores_own_will_do(made: Made, tmp_path: Path) -> None:
    assert etsclone("brd", "copy", made.path, tmp_path / "second").code == 0
    assert etsclone("brd", "prune", made.path, "--keep-last", "1", "--yes").code == 0
