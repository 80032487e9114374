"""Images of systems that were not cleanly unmounted: what only reads them cannot replay their journals."""

import os
import subprocess
from pathlib import Path

import pytest

from .small_system import etsclone
from .test_rebuild import Pair, made, mounted, ok, pair, refuses

__all__ = ["made", "pair"]  # fixtures

pytestmark = pytest.mark.loop

REBUILD = "--role", "primary", "--store"


@pytest.fixture
def unclean(pair: Pair) -> Path:
    """The primary's disk as it was in the middle of its work."""
    disk = pair.folder / "unclean.raw"
    with mounted(pair.disk("primary")) as root:
        (root / "var/new").write_text("in the journal\n")
        os.sync()
        subprocess.run(["cp", "--sparse=always", pair.disk("primary"), disk], check=True)
    return disk


def test_a_journal_that_must_be_replayed_is_told(pair: Pair, unclean: Path, tmp_path: Path) -> None:
    before = unclean.read_bytes()
    key = pair.folder / "primary.key"
    capture = ("brd", "capture", pair.store, "--role", "primary", "--key", key, "--disk", unclean)
    diff = ("brd", "diff", pair.overlay("primary"), unclean, "--trust", pair.trust)
    for words in (capture, diff):
        done = etsclone(*words)
        refuses(done, 3, f"{unclean} was not cleanly unmounted: the journal of a filesystem (ext4)")
        assert f"hint: etsclone mount {unclean} DIR --rw; etsclone umount DIR\n" in done.stderr
    assert unclean.read_bytes() == before
    folder = tmp_path / "mnt"
    folder.mkdir()
    ok("mount", unclean, folder, "--rw")
    ok("umount", folder)
    ok(*capture)
    assert etsclone(*diff).returncode == 0


def tune(image: Path, options: str) -> None:
    """Write default mount options into the superblock of the system on an image."""
    where = f"{image}?offset={1 << 20}"
    subprocess.run(["tune2fs", "-E", f"mount_opts={options}", where], check=True)


@pytest.mark.parametrize("options", ["commit=60", "data_err=abort"])
def test_default_mount_options_of_a_journal_are_no_obstacle(pair: Pair, options: str) -> None:
    disk = pair.disk("secondary")
    tune(disk, options)
    before = disk.read_bytes()
    ok("rebuild", disk, *REBUILD, pair.store, "--trust", pair.trust, "--dry-run")
    key = pair.folder / "secondary.key"
    ok("brd", "capture", pair.store, "--role", "secondary", "--key", key, "--disk", disk)
    assert disk.read_bytes() == before
    ok("rebuild", disk, *REBUILD, pair.store, "--trust", pair.trust, "--yes")


@pytest.mark.parametrize("option", ["journal_checksum", "journal_async_commit"])
def test_those_that_no_other_takes_back_are_told(pair: Pair, option: str) -> None:
    disk = pair.disk("secondary")
    tune(disk, option)
    before = disk.read_bytes()
    done = etsclone("rebuild", disk, *REBUILD, pair.store, "--trust", pair.trust, "--dry-run")
    refuses(done, 3, f"without replaying its journal: its default mount options have {option}\n")
    assert "tune2fs -E mount_opts=, DEVICE" in done.stderr
    assert disk.read_bytes() == before
    tune(disk, ",")
    ok("rebuild", disk, *REBUILD, pair.store, "--trust", pair.trust, "--dry-run")
