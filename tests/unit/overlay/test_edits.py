"""Edits: other content, the same file for everybody else, and nothing half written."""

import os
from pathlib import Path

import pytest

from etsclone.errors import TargetChanged, UnsafePath
from etsclone.model.edit import Edit
from etsclone.overlay.edits import apply_edits

EDIT = Edit(b"/etc/fstab", b"UUID=old / ext4\n", b"UUID=new / ext4\n", ("the root's UUID",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "fstab").write_bytes(EDIT.before)
    (etc / "fstab").chmod(0o640)
    os.utime(etc, ns=(5, 7))
    return tmp_path


def test_content_changes_and_mode_and_folder_stay(root: Path) -> None:
    apply_edits(str(root), [EDIT])
    assert (root / "etc/fstab").read_bytes() == EDIT.after
    assert (root / "etc/fstab").stat().st_mode & 0o7777 == 0o640
    assert (root / "etc").stat().st_mtime_ns == 7
    assert os.listdir(root / "etc") == ["fstab"]


def test_can_be_repeated(root: Path) -> None:
    apply_edits(str(root), [EDIT])
    inode = (root / "etc/fstab").stat().st_ino
    apply_edits(str(root), [EDIT])
    assert (root / "etc/fstab").stat().st_ino == inode


def test_leftover_of_a_killed_run_is_no_obstacle(root: Path) -> None:
    (root / "etc/.etsclone-staging-fstab").write_bytes(b"half")
    apply_edits(str(root), [EDIT])
    assert os.listdir(root / "etc") == ["fstab"]
    assert (root / "etc/fstab").read_bytes() == EDIT.after


def test_other_content_is_not_overwritten(root: Path) -> None:
    (root / "etc/fstab").write_bytes(b"mine\n")
    with pytest.raises(TargetChanged):
        apply_edits(str(root), [EDIT])
    assert (root / "etc/fstab").read_bytes() == b"mine\n"


def test_links_are_not_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "fstab").write_bytes(EDIT.before)
    (root / "etc/fstab").unlink()
    (root / "etc").rmdir()
    (root / "etc").symlink_to(outside)
    with pytest.raises(UnsafePath):
        apply_edits(str(root), [EDIT])
    assert (outside / "fstab").read_bytes() == EDIT.before


def test_an_edit_changes_something() -> None:
    with pytest.raises(ValueError, match="changes nothing"):
        Edit(b"/etc/fstab", b"same", b"same", ())
