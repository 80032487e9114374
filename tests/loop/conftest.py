"""Disks for the tests on loop devices, and the real command line to clone them with."""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import disks
from .disks import MIB, Sample

BOOT_CODE = 440
ETSCLONE = (sys.executable, "-m", "etsclone")


@dataclass(frozen=True)
class Result:
    """How a run of etsclone ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it printed with `--json` as it went."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def facts(self) -> Any:  # noqa: ANN401
        """What it printed with `--json`: all of it, or of events the last that says what was done."""
        if not self.out.startswith('{"event"'):
            return json.loads(self.out)
        return next(event for event in reversed(self.events) if event["event"] == "done")


Cli = Callable[..., Result]
Stop = Callable[..., Result]
HOOKED = Path(__file__).with_name("hooked.py")


@pytest.fixture(autouse=True)
def same_mounts(own_mounts: None) -> Iterator[None]:  # noqa: ARG001
    """No test may leave this process with mounts of its own: they would hold the disks of all tests that follow."""
    before = os.readlink("/proc/self/ns/mnt")
    yield
    assert os.readlink("/proc/self/ns/mnt") == before


@pytest.fixture
def etsclone(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the command line in a process of its own: `etsclone("clone", source, target, "--yes")`."""
    # As wherever pytest found the package.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))

    def run(*words: str | Path, typed: str = "", before: tuple[str, ...] = ()) -> Result:
        argv = [*before, *ETSCLONE, *map(str, words)]
        done = subprocess.run(
            argv, input=typed, capture_output=True, text=True, check=False, timeout=disks.SECONDS
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def stopped() -> Stop:
    """Run etsclone with something happening at a moment: see hooked.py. With `saves` the state is always saved."""

    def run(moment: str, what: str | int, *words: str | Path, saves: bool = False) -> Result:
        path = os.pathsep.join(each for each in sys.path if each)
        done = subprocess.run(
            [sys.executable, HOOKED, moment, str(what), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": path} | ({"SAVES": "often"} if saves else {}),
            timeout=disks.SECONDS,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared images lie."""
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder to mount on."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    base = tmp_path_factory.getbasetemp()
    # The kernel takes the mounts of a process that was killed apart after it is gone.
    deadline = time.monotonic() + 10
    while disks.loops_of(base) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert disks.loops_of(base) == []
    mounts = Path("/proc/self/mounts").read_text()
    assert str(base) not in mounts


def make(
    workshop: Path, name: str, size: int, script: str, kinds: dict[int, str], first: int = MIB
) -> Sample:
    image = disks.blank(workshop / f"{name}.img", size)
    if script:
        disks.tool("sfdisk", "--quiet", image, typed=script)
        disks.scrawl(image, 0, BOOT_CODE)
        # A boot loader in the gap behind the table.
        disks.scrawl(image, first - 20 * 512, 20 * 512)
    return disks.furnish(image, kinds, workshop / "mnt")


BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"


@pytest.fixture(scope="session")
def gpt_disk(workshop: Path) -> Sample:
    """What a server's disk looks like, with every filesystem that this kernel can mount."""
    script = (
        f"label: gpt\nsize=1MiB, type={BIOS_BOOT}\nsize=128MiB, type=linux, name=root\nsize=16MiB, type=swap\n"
        "size=128MiB, type=linux\nsize=320MiB, type=linux\n"
    )
    kinds = {2: "ext4", 3: "swap", 4: "btrfs", 5: "xfs"}
    sample = make(workshop, "gpt", 600 * MIB, script, kinds)
    disks.scrawl(sample.image, MIB, MIB)
    return sample


@pytest.fixture(scope="session")
def mbr_disk(workshop: Path) -> Sample:
    """An old table: the first partition in sector 63, and logical ones in an extended one."""
    script = (
        "label: dos\nx1: start=63, size=40000, type=83, bootable\nx2: start=43008, size=120000, type=5\n"
        "x5: start=45056, size=40000, type=83\nx6: start=90112, size=20000, type=82\n"
    )
    kinds = {1: "ext4", 5: "ext4", 6: "swap"}
    return make(workshop, "mbr", 96 * MIB, script, kinds, first=63 * 512)


@pytest.fixture(scope="session")
def bare_disk(workshop: Path) -> Sample:
    """A filesystem without any table."""
    return make(workshop, "bare", 64 * MIB, "", {0: "ext4"})


@pytest.fixture(scope="session")
def small_disk(workshop: Path) -> Sample:
    """The quickest disk that is one: a boot partition and a root."""
    script = f"label: gpt\nsize=1MiB, type={BIOS_BOOT}\ntype=linux\n"
    return make(workshop, "small", 48 * MIB, script, {2: "ext4"})


@pytest.fixture(scope="session")
def four_k_disk(workshop: Path) -> Sample:
    """A disk with sectors of 4096 bytes."""
    image = disks.blank(workshop / "four-k.img", 64 * MIB)
    with disks.loop_device(image, sector_size=4096) as device:
        disks.tool(
            "sfdisk", "--quiet", device, typed="label: gpt\nsize=4096\nsize=4096\n", accept=(0, 1)
        )
    return disks.furnish(image, {1: "ext4", 2: "swap"}, workshop / "mnt", sector_size=4096)


MINIMUM = {"xfs": 300, "btrfs": 210}
"""MiB that a filesystem needs to be made, or to be enlarged by a little."""

MadeWith = Callable[[str], Sample]


@pytest.fixture(scope="session")
def disk_with(workshop: Path) -> MadeWith:
    """Make a disk with a root of some kind, and swap space behind it."""

    @functools.cache
    def made(kind: str) -> Sample:
        size = MINIMUM.get(kind, 32)
        script = (
            f"label: gpt\nsize=1MiB, type={BIOS_BOOT}\nsize={size}MiB, type=linux, name=root\n"
            "size=8MiB, type=swap, name=paging\n"
        )
        return make(workshop, f"grow-{kind}", (size + 12) * MIB, script, {2: kind, 3: "swap"})

    return made


@pytest.fixture(scope="session")
def ext4_disk(disk_with: MadeWith) -> Sample:
    """A root and swap space behind it: the quickest of them."""
    return disk_with("ext4")


@pytest.fixture(params=["gpt", "mbr", "bare"])
def sample(request: pytest.FixtureRequest) -> Sample:
    """Each kind of disk."""
    found = request.getfixturevalue(f"{request.param}_disk")
    assert isinstance(found, Sample)
    return found
