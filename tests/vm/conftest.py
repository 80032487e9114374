"""What the tests on real disks share: the image that they all copy."""

import fcntl
import subprocess
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def mounts_here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """For files of tests that mount disks on this machine: one file at a time, and not beside who makes the image.

    What runs beside in a mount namespace of its own would hold copies of these mounts, and the disks with them.
    """
    request.getfixturevalue("server_image")
    with (tmp_path_factory.getbasetemp().parent / "mounts").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
