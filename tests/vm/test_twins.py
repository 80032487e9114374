"""A clone with identifiers of its own boots beside its source, each from its own partitions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .qemu import boot
from .servers import etsclone

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


@pytest.fixture
def clone(server_image: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "clone.raw"
    etsclone("clone", server_image, path, "--yes", "--new-ids")
    yield path
    path.unlink()  # pytest would keep these gigabytes for three runs


@pytest.mark.parametrize("first", ["clone", pytest.param("source", marks=pytest.mark.thorough)])
def test_boots_beside_its_twin(first: str, server_image: Path, clone: Path, tmp_path: Path) -> None:
    disks = (clone, server_image) if first == "clone" else (server_image, clone)
    with boot(disks[0], tmp_path / "console.log", beside=disks[1:]) as console:
        assert console.log_in() == "ets1"
        state = console.run("systemctl is-system-running --wait")
        failed = console.run("systemctl --failed --no-legend")
        assert state.output.strip() == "running", failed.output
        used = console.run(
            "findmnt --noheadings --real --output SOURCE; swapon --noheadings --show=NAME"
        )
        assert {line.strip()[:8] for line in used.output.split()} == {"/dev/vda"}
        for tag in ("UUID", "PARTUUID"):
            shown = console.run(f"blkid --output value --match-tag {tag} /dev/vd[ab]?*")
            ids = shown.output.split()
            assert len(ids) == len(set(ids)) >= 4
        console.power_off()
