"""The layouts of servers with BIOS: see layouts.py. BIOS and ext4 are test_boot.py's."""

from pathlib import Path

import pytest

from .layouts import cases, rebuilt_and_booted

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full")
    metafunc.parametrize(("layout", "role"), cases("bios", full=full))


def test_rebuilt_and_booted(layout: str, role: str, helper_image: Path, tmp_path: Path) -> None:
    rebuilt_and_booted(layout, role, helper_image, tmp_path)
