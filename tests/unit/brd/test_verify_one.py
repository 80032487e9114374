"""`brd verify` of one file: also by its name, where that is one as in a store."""

import shutil
from pathlib import Path

import pytest
from stores import Made, etsclone, generation


@pytest.mark.parametrize("wrong", ["primary-000004.brd", "secondary-000001.brd"])
def test_a_genuine_overlay_under_another_name_is_refused(
    made: Made, tmp_path: Path, wrong: str
) -> None:
    path = tmp_path / wrong
    shutil.copy(generation(made, 1), path)
    result = etsclone("brd", "verify", path, "--trust", made.trust)
    assert result.code == 4
    assert f"{path}: the overlay is generation 1 of role primary of pair ets, not of" in result.err
    assert "hint: its name says what it is not" in result.err


def test_a_name_that_says_nothing_is_no_matter(made: Made, tmp_path: Path) -> None:
    for wrong in ("old.brd", "primary-1.brd"):
        shutil.copy(generation(made, 1), tmp_path / wrong)
        assert etsclone("brd", "verify", tmp_path / wrong, "--trust", made.trust).code == 0


def test_the_header_of_a_pruned_generation_is_verified_as_one(made: Made) -> None:
    words = ("brd", "prune", made.path, "--keep-last", "2", "--yes", "--trust", made.trust)
    assert etsclone(*words).code == 0
    path = generation(made, 1, suffix="header")
    result = etsclone("brd", "verify", path, "--trust", made.trust)
    assert result.code == 0, result.err
    assert f"{path}: generation 1 of primary of pair ets, signed by SHA256:" in result.out
    assert result.out.endswith(", contents pruned\n")
    assert (
        etsclone("brd", "verify", path, "--trust", made.trust, "--json").facts["contents"]
        == "pruned"
    )
    other = path.rename(generation(made, 4, suffix="header"))
    assert etsclone("brd", "verify", other, "--trust", made.trust).code == 4
    other.write_bytes(other.read_bytes()[:900])
    assert etsclone("brd", "verify", other, "--trust", made.trust).code == 4
