"""Media that are full when a role is on the disk already: what is done stays done, and what is missing is said."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .small_system import etsclone
from .test_rebuild import Pair, made, ok, pair
from .test_undo import options

__all__ = ["made", "pair"]  # fixtures

pytestmark = pytest.mark.loop

HOOK = """
import sys
from etsclone.cli import main
from etsclone.commands import rebuild
real = rebuild.verify_rebuild
def hooked(*positional, **named):
    real(*positional, **named)
    with open(sys.argv[1], "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
rebuild.verify_rebuild = hooked
main(sys.argv[2:])
"""


@contextmanager
def small(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "small", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def filled(
    small: Path, *words: str | Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command that finds a medium full as soon as it has verified the scope."""
    argv = [sys.executable, "-c", HOOK, str(small / "filler"), *map(str, words)]
    path = os.pathsep.join(each for each in sys.path if each)
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment | {"PYTHONPATH": path},
        timeout=120,
    )


def test_no_room_for_temporary_files_costs_no_receipt(pair: Pair, tmp_path: Path) -> None:
    disk = pair.disk("secondary")
    with small(tmp_path / "small") as folder:
        done = filled(folder, "rebuild", disk, *options(pair), TMPDIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert f"not compared again: no space left in {folder} for temporary files" in done.stderr
    assert "set TMPDIR" in done.stderr
    (receipt,) = (pair.store / "receipts").glob("*.json")
    facts = json.loads(receipt.read_text())
    assert (facts["verified"], facts["fidelity"]["exact"]) == (True, True)
    assert (
        "(before the rebuild: there was no room to compare again)" in facts["fidelity"]["summary"]
    )
    assert "its scope equals the overlay already" in ok("rebuild", disk, *options(pair))


def test_a_receipt_that_is_nowhere_to_be_kept(pair: Pair, tmp_path: Path) -> None:
    disk = pair.disk("secondary")
    with small(tmp_path / "small") as folder:
        # Both full: the store, and what this machine keeps.
        subprocess.run(["cp", "-a", pair.store, folder / "store"], check=True)
        words = [
            str(word).replace(str(pair.store), str(folder / "store")) for word in options(pair)
        ]
        done = filled(folder, "rebuild", disk, *words, ETSCLONE_STATE=str(folder / "state"))
    assert done.returncode == 1
    assert "kept on this machine, not in the store: no space left for" in done.stderr
    assert "etsclone: all is done, but the receipt cannot be kept in" in done.stderr
    assert "hint: free some space there, or set ETSCLONE_STATE" in done.stderr
    assert "its scope equals the overlay; receipt: none" in done.stdout
    again = etsclone("rebuild", disk, *options(pair))
    assert (again.returncode, "its scope equals the overlay already" in again.stdout) == (0, True)
