"""Receipts: what they tell, who signed them, and that a person can check it with the commands of docs/receipts.md."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from etsclone.model.extents import Extents

from . import disks
from .conftest import Cli
from .disks import MIB, Sample
from .failing import SECTOR, failing
from .test_bad_sectors import blocks_of, run_of

pytestmark = pytest.mark.loop

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "receipts.md"


def block(language: str, number: int) -> str:
    """One of the blocks of commands in the manual."""
    section = MANUAL.read_text().split("## By hand")[1]
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return found[number]


def by_hand(*argv: str | Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, check=False, timeout=disks.SECONDS
    )


@pytest.fixture
def keyfile(tmp_path: Path, etsclone: Cli) -> Path:
    assert etsclone("brd", "keygen", "--no-passphrase", tmp_path / "key").code == 0
    return tmp_path / "key"


def tree_hash_by_hand(disk: Path, map_: Path, folder: Path) -> str:
    shutil.copy(map_, folder / "map")
    done = by_hand(sys.executable, "-c", block("python", 0), disk, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_person_can_check_all_of_it(
    sample: Sample, etsclone: Cli, tmp_path: Path, keyfile: Path
) -> None:
    clone, folder = tmp_path / "clone.img", tmp_path / "by-hand"
    folder.mkdir()
    facts = etsclone("clone", sample.image, clone, "--yes", "--json", "--key", keyfile).facts
    receipt = Path(facts["receipt"])
    signature = receipt.with_name(f"{receipt.name}.sig")
    assert signature.stat().st_mode & 0o777 == 0o600
    shutil.copy(receipt, folder / "receipt.json")
    shutil.copy(signature, folder / "receipt.json.sig")
    shutil.copy(f"{keyfile}.pub", folder / "key.pub")
    shutil.copy(facts["map"]["path"], folder / "map")
    for number, said in enumerate(['Good "receipt@etsclone" signature for me', "map: OK"]):
        assert said in by_hand("bash", "-c", block("sh", number), folder=folder).stdout
    for disk in (sample.image, clone):
        found = tree_hash_by_hand(disk, Path(facts["map"]["path"]), folder)
        assert found == facts["tree_hash"]
    disks.flip(folder / "receipt.json", 300)
    changed = by_hand("bash", "-c", block("sh", 0), folder=folder)
    assert changed.returncode != 0
    assert "Good" not in changed.stdout


def test_what_it_tells_beside_the_disks(
    small_disk: Sample, etsclone: Cli, tmp_path: Path, keyfile: Path
) -> None:
    options = ("--retries", "3", "--workers", "2", "--map", tmp_path / "map", "--key", keyfile)
    result = etsclone("clone", small_disk.image, tmp_path / "c.img", "--yes", "--json", *options)
    receipt: dict[str, Any] = json.loads(Path(result.facts["receipt"]).read_text())
    assert receipt["etsclone"]
    assert receipt["source"]["sector_size"] == receipt["target"]["sector_size"] == 512
    assert (
        receipt["options"].items()
        >= {
            "retries": 3,
            "workers": 2,
            "block_size": MIB,
            "rate_limit": None,
            "map": str(tmp_path / "map"),
            "verify": "digests",
            "wipe": False,
        }.items()
    )
    assert receipt["map"]["path"] == str(tmp_path / "map")
    assert [phase["phase"] for phase in receipt["phases"]] == ["copying", "verifying"]
    for phase in receipt["phases"]:
        assert 0 < phase["bytes"] <= receipt["bytes"]  # holes need neither
        assert phase["rate"] == pytest.approx(phase["bytes"] / phase["seconds"], rel=0.2)


def test_no_key_no_signature(small_disk: Sample, etsclone: Cli, tmp_path: Path) -> None:
    facts = etsclone("clone", small_disk.image, tmp_path / "c.img", "--yes", "--json").facts
    assert [path.name for path in Path(facts["receipt"]).parent.iterdir()] == [
        Path(facts["receipt"]).name
    ]


def test_a_key_that_cannot_sign_is_refused_before_anything_is_written(
    small_disk: Sample, etsclone: Cli, tmp_path: Path, keyfile: Path
) -> None:
    keyfile.chmod(0o644)
    for key in (keyfile, Path(f"{keyfile}.pub"), tmp_path / "none"):
        result = etsclone("clone", small_disk.image, tmp_path / "c.img", "--yes", "--key", key)
        assert result.code == 3
        assert "hint: " in result.err
    assert not (tmp_path / "c.img").exists()


def test_the_hash_does_not_depend_on_the_options(
    small_disk: Sample, etsclone: Cli, tmp_path: Path
) -> None:
    words = ("clone", small_disk.image, tmp_path / "c.img", "--yes", "--json")
    ways = ((), ("--block-size", "192K"), ("--verify=full",), ("--verify=none",), ("--refresh",))
    assert len({etsclone(*words, *options).facts["tree_hash"] for options in ways}) == 1


def test_with_bad_sectors_all_but_their_pieces_are_in_the_hash(
    small_disk: Sample, etsclone: Cli, tmp_path: Path
) -> None:
    image, target = Path(shutil.copy(small_disk.image, tmp_path / "disk")), tmp_path / "c.img"
    places = blocks_of(image, "/data")
    bad = Extents.of([run_of(places[len(places) // 2], 2)])
    with failing(image, bad) as source:
        result = etsclone("clone", source, target, "--yes", "--json")
    assert result.code == 5
    facts = result.facts
    assert facts["lost"] == [{"start": bad.ranges[0].start, "end": bad.ranges[0].end}]
    assert facts["lost_owners"] == ["partition 2: file /data"]
    map_ = Path(facts["map"]["path"])
    assert tree_hash_by_hand(target, map_, tmp_path) == facts["tree_hash"]
    disks.flip(target, bad.ranges[0].start // (64 * 1024) * 64 * 1024 - 1)  # the piece before
    assert tree_hash_by_hand(target, map_, tmp_path) != facts["tree_hash"]
    phases = [event["phase"] for event in result.events if event["event"] == "progress"]
    assert list(dict.fromkeys(phases)) == ["copying", "rescuing", "verifying"]
    last = [event for event in result.events if event["event"] == "progress"][-1]
    assert last["unreadable"] == bad.size == 2 * SECTOR
    assert (
        max(e.get("unreadable", 0) for e in result.events) >= MIB
    )  # before it was looked at closely
    done, error = result.events[-2:]
    assert (done["event"], error["event"], error["exit_code"]) == ("done", "error", 5)
    assert error["message"] in result.err
    assert error["hint"] in result.err
