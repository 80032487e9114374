"""What the tests on real disks share: the image that they all copy."""

import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def build_image(layout: str) -> Path:
    """The disk of a real primary that boots, in one of the layouts of scripts/build-image."""
    argv = [str(SCRIPTS / "build-image"), "--layout", layout]
    built = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def server_image() -> Path:
    """The disk of a real primary that boots; shared and read-only: copy it."""
    return build_image("bios-ext4")


@pytest.fixture(autouse=True)
def _own_mounts(own_mounts: None) -> None:
    """Some files mount disks on this machine."""


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
