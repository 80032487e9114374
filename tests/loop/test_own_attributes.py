"""Attributes that only one kind of filesystem takes: a role on btrfs, its clone on ext4. Real filesystems, as root."""

import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from etsclone.model.edit import Edit
from etsclone.model.scope import Scope
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.edits import write_edited
from etsclone.overlay.payload import read_payload, write_payload
from etsclone.overlay.scan import scan
from etsclone.plan.tree import plan_tree
from etsclone.units import MIB

pytestmark = pytest.mark.loop

SCOPE = Scope(("/etc",))
COMPRESSION = "btrfs.compression"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """An empty filesystem of each kind."""
    folders = {}
    with ExitStack() as cleanup:
        for kind, size in (("btrfs", 128 * MIB), ("ext4", 64 * MIB)):
            image, folder = tmp_path / f"{kind}.img", tmp_path / kind
            with image.open("xb") as file:
                file.truncate(size)
            folder.mkdir()
            subprocess.run([f"mkfs.{kind}", "-q", image], check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["mount", "-o", "loop", image, folder], check=True)
            cleanup.callback(partial(subprocess.run, ["umount", folder], check=True))
            folders[kind] = folder
        yield folders


def test_they_are_told_and_left_to_their_filesystem(mounted: dict[str, Path]) -> None:
    role, clone = mounted["btrfs"], mounted["ext4"]
    path = role / "etc/packed"
    path.parent.mkdir()
    path.write_text("x")
    os.setxattr(path, COMPRESSION, b"zstd")
    os.setxattr(path, "user.kept", b"1")
    seen = scan(str(role), SCOPE)
    assert seen.warnings == (
        f"/etc/packed has an attribute that is its filesystem's own and is not captured: {COMPRESSION}",
    )
    packed = io.BytesIO()
    write_payload(packed, str(role), seen.scope)
    with read_payload(io.BytesIO(packed.getvalue()), SCOPE) as payload:
        for root in (clone, role):
            there = scan(str(root), SCOPE)
            plan = plan_tree(there.scope, payload.tree, SCOPE, there.outside)
            assert bool(plan.changes) is (root is clone)
            apply_plan(str(root), plan, payload)
            verify_scope(str(root), payload.tree, SCOPE)
    assert os.listxattr(clone / "etc/packed") == ["user.kept"]
    assert os.getxattr(path, COMPRESSION) == b"zstd"


def test_they_stay_with_a_file_that_is_edited(mounted: dict[str, Path]) -> None:
    """It is no part of the scope: all but the edit is to be as it was."""
    fstab = mounted["btrfs"] / "etc/fstab"
    fstab.parent.mkdir()
    fstab.write_text("before\n")
    os.setxattr(fstab, COMPRESSION, b"zstd")
    with fstab.open("rb") as old, (fstab.parent / "new").open("wb") as new:
        write_edited(old.fileno(), new.fileno(), Edit(b"/etc/fstab", b"before\n", b"after\n", ()))
    assert os.getxattr(fstab.parent / "new", COMPRESSION) == b"zstd"
    assert (fstab.parent / "new").read_text() == "after\n"
