"""A clone with identifiers of its own is a clone of the pair still, in both directions, and its clones are."""

import json
import os
import shutil
from pathlib import Path

import pytest

from etsclone.commands import clone as cloning
from loop.killing import run_changed
from loop.small_system import common_files, etsclone, make_image, role_files, write_tree
from loop.test_rebuild import Pair, made, mounted, ok, pair, rebuild, refuses

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

ORIGINS = "var/lib/etsclone/cloned-from"


def host_name(disk: Path) -> str:
    with mounted(disk) as root:
        return (root / "etc/hostname").read_text().strip()


def test_it_is_rebuilt_and_what_is_captured_of_it_is_for_all(pair: Pair, tmp_path: Path) -> None:
    first, second = tmp_path / "first.raw", tmp_path / "second.raw"
    ok("clone", pair.disk("secondary"), first, "--yes", "--new-ids")
    done = rebuild(pair, first, "primary")
    assert done.returncode == 0, done.stderr
    assert "taken for one" not in done.stdout
    assert host_name(first) == "primary"

    options = ("--store", pair.store, "--trust", pair.trust, "--role", "primary", "--no-checks")
    checked = etsclone("check", first, *options)
    assert "is primary" in checked.stdout
    assert "outside the scope: exact" not in checked.stdout  # its fstab names other identifiers
    assert ORIGINS not in checked.stdout

    # A clone of the clone knows both.
    ok("rebuild", first, "--commit", "--yes")
    ok("clone", first, second, "--yes", "--new-ids")
    with mounted(second) as root:
        kinds = [line.split()[0] for line in (root / ORIGINS).read_text().splitlines()]
    assert kinds == ["gpt", "ext4"] * 2
    done = rebuild(pair, second, "secondary")
    assert done.returncode == 0, done.stderr

    key = pair.folder / "secondary.key"
    with mounted(second) as root:
        (root / "etc/hostname").write_text("renamed\n")
    ok("brd", "capture", pair.store, "--role", "secondary", "--key", key, "--disk", second)
    for disk in (pair.disk("primary"), first):
        done = rebuild(pair, disk, "secondary")
        assert done.returncode == 0, done.stderr
        assert host_name(disk) == "renamed"


def test_what_an_undo_of_the_clone_would_bring_back_names_the_source(
    pair: Pair, tmp_path: Path
) -> None:
    source, clone = pair.disk("secondary"), tmp_path / "clone.raw"
    assert rebuild(pair, source, "primary").returncode == 0
    before = source.read_bytes()
    for words in (("--yes",), ("--dry-run",)):
        refused = etsclone("clone", source, clone, "--new-ids", *words)
        refuses(refused, 3, "secondary.raw keeps what it was before a rebuild")
        assert "--commit" in refused.stderr
    assert source.read_bytes() == before
    assert not clone.exists()
    ok("clone", source, tmp_path / "twin.raw", "--yes")  # with what is kept
    # Where it cannot be looked at before, in an encrypted volume, it is told afterwards.
    cloned = ("clone", source, clone, "--yes", "--new-ids")
    assert run_changed(cloning, "check_nothing_kept", lambda *_: None, *cloned) == 0
    receipts = Path(os.environ["ETSCLONE_STATE"]) / "receipts"
    followed = [
        json.loads(path.read_text()).get("followed") for path in receipts.glob("clone-*.json")
    ]
    assert any("do not undo a rebuild on this clone" in str(each) for each in followed)


def test_a_disk_is_taken_for_a_clone_if_somebody_says_so(pair: Pair, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.raw"
    write_tree(tmp_path / "tree", common_files() | {"etc/fstab": ""} | role_files("secondary"))
    make_image(stranger, tmp_path / "tree", uuid="99999999-2222-3333-4444-555555555555")
    before = stranger.read_bytes()
    refused = rebuild(pair, stranger, "primary")
    refuses(refused, 3, "no clone of pair school")
    assert "--other-clone" in refused.stderr
    shown = rebuild(pair, stranger, "primary", "--other-clone", "--dry-run")
    assert "warning: stranger.raw is no clone of pair school" in shown.stdout
    assert stranger.read_bytes() == before
    done = rebuild(pair, stranger, "primary", "--other-clone", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["other_clone"] == {"taken": True}
    assert host_name(stranger) == "primary"


def test_where_no_list_can_be_written_it_is_told(pair: Pair, tmp_path: Path) -> None:
    source, clone = (
        Path(shutil.copy(pair.disk("secondary"), tmp_path / "source.raw")),
        tmp_path / "c.raw",
    )
    with mounted(source) as root:
        (root / "var/lib").mkdir()
        (root / "var/lib/etsclone").write_text("no folder\n")
    told = ok("clone", source, clone, "--yes", "--new-ids")
    assert f"warning: /{ORIGINS} cannot be written" in told
    refuses(rebuild(pair, clone, "primary"), 3, "no clone of pair school")
    assert rebuild(pair, clone, "primary", "--other-clone").returncode == 0
