"""What all tests share: how thorough they are, and what they must not touch."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from etsclone import kernel
from etsclone.errors import INTERRUPTIONS

UNIT = Path(__file__).parent / "unit"
NEED_ROOT = ("loop", "vm")

settings.register_profile(
    "quick",
    max_examples=40,
    deadline=None,
    # Our automatic fixtures only point at folders; examples may share them.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("full", settings.get_profile("quick"), max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the longer matrix of every tier")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("full" if config.getoption("--full") else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if os.geteuid() != 0 and any(item.get_closest_marker(name) for name in NEED_ROOT):
        pytest.fail("this test was selected and needs root: run it with sudo", pytrace=False)


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the longer matrix was asked for."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(scope="session")
def own_mounts(worker_id: str) -> None:
    """For tests that mount: beside other workers, mounts are this worker's alone.

    A namespace that one worker's programs make copies all mounts, and holds the disks of those that are another's.
    """
    if worker_id != "master":
        kernel.unshare(kernel.NEW_MOUNTS)
        kernel.mount("", "/", flags=kernel.RECURSIVE | kernel.PRIVATE)


@pytest.fixture(scope="session", autouse=True)
def _state_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where what larger fixtures run remembers things: never on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETSCLONE_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where receipts go in this test, also those of programs that it starts."""
    folder = tmp_path / "state"
    monkeypatch.setenv("ETSCLONE_STATE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Whoever calls `etsclone.cli.main` in this process has it heed signals its own way."""
    before = {number: signal.getsignal(number) for number in (*INTERRUPTIONS, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def real_programs() -> None:
    """Ask for this in a unit test that means to run other programs."""


@pytest.fixture(autouse=True)
def _no_real_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if UNIT in request.path.parents and "real_programs" not in request.fixturenames:
        monkeypatch.setattr("etsclone.run._completed", _refuse)


def _refuse(argv: list[str], _feed: bytes = b"") -> NoReturn:
    pytest.fail(f"a unit test would run {argv[0]}: ask for the fixture real_programs if it should")
