"""Real captures into a store whose newest file is none of its chain: refused, and mended by what the hint says."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import Made, Result, contents, etsclone, generation, make, make_keys, refuses, verify

from etsclone.overlay.trust import public_key_line
from loop.small_system import mounted_system

pytestmark = pytest.mark.loop


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A store with three generations of the primary, one of the secondary."""
    made = make(tmp_path / "store", make_keys(tmp_path))
    for role in ("primary", "primary", "primary", "secondary"):
        made.capture(role)
    return made


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Path]:
    with mounted_system(tmp_path / "system") as tree:
        yield tree


def capture(made: Made, system: Path, key: str = "primary") -> Result:
    words = ("--role", "primary", "--key", made.path.parent / key, "--root", system)
    return etsclone("brd", "capture", made.path, *words)


def replayed(made: Made) -> Path:
    return Path(shutil.copy(generation(made, 1), generation(made, 4)))


def of_the_other_role(made: Made) -> Path:
    return Path(shutil.copy(generation(made, 1, "secondary"), generation(made, 4)))


def empty(made: Made) -> Path:
    path = generation(made, 999_999, suffix="header")
    path.touch()
    return path


@pytest.mark.parametrize("put", [replayed, of_the_other_role, empty])
def test_nothing_follows_a_file_that_is_none_of_the_chain(
    made: Made, system: Path, put: Callable[[Made], Path]
) -> None:
    assert verify(made).code == 0
    path = put(made)
    before = contents(made.path)
    result = capture(made, system)
    refuses(result, 4, f"no generation can follow the newest file: {path}: ")
    assert "remove it" in result.err
    assert contents(made.path) == before
    path.unlink()
    result = capture(made, system)
    assert result.code == 0, result.err
    assert generation(made, 4).exists()
    assert verify(made).code == 0


def test_a_newest_generation_that_is_cut_off_is_given_up_or_brought_back(
    made: Made, system: Path, tmp_path: Path
) -> None:
    assert capture(made, system).code == 0
    copy = made.at(Path(shutil.copytree(made.path, tmp_path / "copy")))
    path = generation(made, 4)
    path.write_bytes(path.read_bytes()[:1000])
    result = capture(made, system)
    refuses(result, 4, f"no generation can follow the newest file: {path}: ")
    assert "an older generation" not in result.err
    path.unlink()
    assert etsclone("brd", "copy", copy.path, made.path, "--trust", made.trust).code == 0
    assert "is unchanged since generation 4" in capture(made, system).out
    path.unlink()
    # Else it might be the same to the byte: of the same second, and so the one that this machine has seen.
    (system / "etc" / "hostname").write_text("renamed\n")
    assert capture(made, system).code == 0
    assert verify(made).code == 4, "this machine has seen another one"
    assert verify(made, "--accept").code == 0
    assert verify(made).code == 0


def test_a_key_that_may_not_sign_is_told_before_anything_else(made: Made, system: Path) -> None:
    refuses(capture(made, system, "secondary"), 3, "may sign for secondary, not for primary")
    line = public_key_line(made.keys["primary"].public_key)
    made.trust.write_text(f'primary valid-before="20260101Z" {line}')
    result = capture(made, system)
    refuses(result, 3, "nothing that is signed with this key would be believed: the key SHA256:")
    assert "overlay" not in result.err
