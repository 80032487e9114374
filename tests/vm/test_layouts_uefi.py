"""The layouts of servers with UEFI: see layouts.py."""

from pathlib import Path

import pytest

from .layouts import cases, rebuilt_and_booted

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full")
    metafunc.parametrize(("layout", "role"), cases("uefi", full=full))


def test_rebuilt_and_booted(layout: str, role: str, helper_image: Path, tmp_path: Path) -> None:
    rebuilt_and_booted(layout, role, helper_image, tmp_path)
