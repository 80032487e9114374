"""Disks that are half way between two roles are refused wherever on the disk the root is, and how it is told."""

from pathlib import Path

import pytest

from etsclone.model.journal import Journal, Steps
from etsclone.overlay.files import opened_root
from etsclone.overlay.rounds import new_round

from . import disks
from .disks import loop_device, node, tool
from .small_system import etsclone
from .test_layouts import files, image_of, uuid_of
from .test_rebuild import Pair, made, pair, refuses

__all__ = ["made", "pair"]  # fixtures

pytestmark = pytest.mark.loop

WHERE = "half way to primary, generation 1"


def begin(root: Path) -> None:
    """Leave a rebuild that was interrupted when all was prepared."""
    with opened_root(str(root)) as top:
        head = Journal("2026-11-28T12:00:00Z", "primary, generation 1", (b"/",))
        new_round(top, head).begin(Steps())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return image_of(tmp_path / "btrfs.img", 220, "label: gpt\ntype=linux\n", {1: "btrfs"})


def half_way(image: Path, where: Path, path: str) -> None:
    """Make a system in a subvolume, half way, and have another one be the default: a snapshot of what it was."""
    with loop_device(image) as device, disks.mounted(node(device, 1), where) as top:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        tool("btrfs", "subvolume", "create", top / path)
        uuid = uuid_of(node(device, 1))
        files(top / path, f"UUID={uuid} / btrfs subvol=/{path} 0 0\n")
        tool("btrfs", "subvolume", "snapshot", "-r", top / path, top / "before")
        tool("btrfs", "subvolume", "set-default", top / "before")
        begin(top / path)


@pytest.mark.parametrize("path", ["@", "@root/deep/er"])
def test_in_a_subvolume_that_is_not_the_default(
    pair: Pair, image: Path, tmp_path: Path, path: str
) -> None:
    half_way(image, tmp_path / "mnt", path)
    before = image.read_bytes()
    done = etsclone("clone", image, tmp_path / "target", "--yes")
    refuses(done, 3, WHERE)
    assert f"subvolume /{path} was interrupted" in done.stderr
    assert not (tmp_path / "target").exists()
    store, role = ("--store", pair.store), ("--role", "primary")
    refuses(etsclone("check", image, *store, *role, "--trust", pair.trust), 3, WHERE)
    key = pair.folder / "primary.key"
    refuses(etsclone("brd", "capture", pair.store, *role, "--key", key, "--disk", image), 3, WHERE)
    assert image.read_bytes() == before


def test_where_its_default_subvolume_is_mounted(image: Path, tmp_path: Path) -> None:
    half_way(image, tmp_path / "mnt", "@")
    with loop_device(image) as device, disks.mounted(node(device, 1), tmp_path / "mnt") as root:
        assert not (root / "@").exists()
        refuses(etsclone("clone", device, tmp_path / "target", "--live", "--yes"), 3, WHERE)


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A disk with a volume that needs a passphrase, beside a filesystem that needs none."""
    table = "label: gpt\nsize=20MiB, type=linux\ntype=linux\n"
    image = image_of(tmp_path / "locked.img", 64, table, {1: "ext4"})
    with loop_device(image) as device:
        typed = "secret"
        luks = ("cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2")
        fast = ("--pbkdf-force-iterations", "1000", "--key-file", "-")
        tool(*luks, *fast, node(device, 2), typed=typed)
    return image


def test_what_cannot_be_looked_at_is_said(locked: Path, tmp_path: Path) -> None:
    done = etsclone("clone", locked, tmp_path / "target", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "not looked at" in line]
    assert lines == [
        "note: not looked at, for a rebuild that was interrupted: partition 2: encrypted"
    ]


def test_where_all_was_looked_at_nothing_is_said(image: Path, tmp_path: Path) -> None:
    done = etsclone("clone", image, tmp_path / "target", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "not looked at" not in done.stdout
