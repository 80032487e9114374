"""The seeds of the fuzzer are accepted or refused as they should be, and what it once found is no bug any more."""

from pathlib import Path

import pytest
from readers import READERS

HERE = Path(__file__).parent
SEEDS = sorted((HERE / "corpus").glob("*/*"))
FOUND = sorted((HERE / "found").glob("*/*"))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", SEEDS, ids=name)
def test_seeds_are_accepted(path: Path) -> None:
    """All of them are sound: a fuzzer that begins with what is refused at the first byte finds nothing."""
    assert READERS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("path", FOUND, ids=name)
def test_what_was_found_is_mended(path: Path) -> None:
    assert not READERS[path.parent.name](path.read_bytes())


def test_every_reader_has_seeds() -> None:
    assert {path.parent.name for path in SEEDS} == READERS.keys()
