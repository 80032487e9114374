"""What the tests on real disks share: the image that they all copy."""

import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
HERE = pytest.mark.xdist_group("here")
"""For tests that mount disks on this machine: what runs beside in a mount namespace of its own holds copies of these
mounts, and the disks with them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, those of a file share a VM or an image: they follow one another."""
    for item in items:
        if item.get_closest_marker("vm") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def build_image(layout: str) -> Path:
    """The disk of a real primary that boots, in one of the layouts of scripts/build-image."""
    argv = [str(SCRIPTS / "build-image"), "--layout", layout]
    built = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def server_image() -> Path:
    """The disk of a real primary that boots; shared and read-only: copy it."""
    return build_image("bios-ext4")


@pytest.fixture(scope="session")
def helper_image() -> Path:
    """The helper VM's kernel, initrd and disk (see `helper`); shared and read-only."""
    built = subprocess.run(
        [SCRIPTS / "build-helper"], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def install_role() -> Path:
    """The script that makes a mounted tree either role by hand, without etsclone."""
    return SCRIPTS / "pair" / "install-role"
