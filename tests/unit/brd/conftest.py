"""Stores for the tests of the commands that work on them."""

from pathlib import Path

import pytest
from stores import ROLES, Made, make, make_keys

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
