"""Edits as a part of a rebuild: planners see the system as it will be; what they change is planned and verified."""

import io
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from oracle import look

from etsclone.errors import ComparisonFailed, KeptDamaged, TargetChanged
from etsclone.execute.rebuild import (
    commit_rebuilds,
    execute_rebuild,
    finish_rebuild,
    kept_rebuilds,
    plan_rebuild,
    undo_prospect,
    undo_rebuild,
    verify_rebuild,
)
from etsclone.model.edit import Edit, Files
from etsclone.model.scope import Scope
from etsclone.overlay import swapping
from etsclone.overlay.payload import Payload, read_payload, write_payload
from etsclone.overlay.rounds import Round
from etsclone.overlay.scan import scan

from .small_system import write_tree

pytestmark = pytest.mark.loop

SCOPE = Scope(("/etc/hostname", "/etc/network"), ("/etc/fstab",))
NONE = frozenset[bytes]()


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    image, root = tmp_path / "clone.img", tmp_path / "clone"
    with image.open("xb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    root.mkdir()
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    write_tree(root, {"etc/hostname": "secondary\n", "etc/fstab": "UUID=old\n", "etc/other": "x"})
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


@pytest.fixture
def payload(tmp_path: Path) -> Iterator[Payload]:
    role = tmp_path / "role"
    write_tree(role, {"etc/hostname": "primary\n", "etc/network/interfaces": "eth0\n"})
    packed = io.BytesIO()
    write_payload(packed, str(role), scan(str(role), SCOPE).scope)
    packed.seek(0)
    with read_payload(packed, SCOPE) as read:
        yield read


def rename_interfaces(files: Files) -> tuple[Edit, ...]:
    path = b"/etc/network/interfaces"
    before = files.read(path) or b""
    after = before.replace(b"eth0", b"enp1s0")
    return (Edit(path, before, after, ("eth0 is enp1s0",)),) if after != before else ()


def mend_fstab(files: Files) -> tuple[Edit, ...]:
    # What an editor sees is what those before it leave.
    assert files.read(b"/etc/network/interfaces") == b"enp1s0\n"
    assert files.names(b"/etc") == (b"fstab", b"hostname", b"network", b"other")
    before = files.read(b"/etc/fstab") or b""
    after = before.replace(b"old", b"new")
    return (Edit(b"/etc/fstab", before, after, ("the root's UUID",)),) if after != before else ()


EDITORS = (rename_interfaces, mend_fstab)


def test_what_planners_ask_for_is_planned_done_and_verified(clone: Path, payload: Payload) -> None:
    plan = plan_rebuild(str(clone), SCOPE, payload, NONE, EDITORS)
    assert [edit.path for edit in plan.due_edits] == [b"/etc/network/interfaces", b"/etc/fstab"]
    assert [edit.path for edit in plan.outer_edits] == [b"/etc/fstab"]
    execute_rebuild(str(clone), plan, NONE)
    verify_rebuild(str(clone), plan, NONE)
    assert (clone / "etc/network/interfaces").read_text() == "enp1s0\n"
    assert (clone / "etc/fstab").read_text() == "UUID=new\n"
    assert not plan_rebuild(str(clone), SCOPE, payload, NONE, EDITORS)


def test_a_planned_edit_changes_nothing_yet(clone: Path, payload: Payload) -> None:
    before = look(clone)
    assert plan_rebuild(str(clone), SCOPE, payload, NONE, EDITORS)
    assert look(clone) == before


@pytest.mark.parametrize("name", ["etc/fstab", "etc/network/interfaces"])
def test_an_edit_that_is_not_there_is_noticed(clone: Path, payload: Payload, name: str) -> None:
    plan = plan_rebuild(str(clone), SCOPE, payload, NONE, EDITORS)
    execute_rebuild(str(clone), plan, NONE)
    (clone / name).write_text("otherwise\n")
    with pytest.raises(ComparisonFailed, match=name):
        verify_rebuild(str(clone), plan, NONE)


@pytest.mark.parametrize("name", ["etc/hostname", "etc/network", "etc/fstab"])
def test_a_clone_that_changed_since_the_plan_is_left_alone(
    clone: Path, payload: Payload, name: str
) -> None:
    plan = plan_rebuild(str(clone), SCOPE, payload, NONE, EDITORS)
    if name == "etc/network":
        (clone / name).mkdir()
    else:
        (clone / name).write_text("somebody else\n")
    before = look(clone)
    with pytest.raises(TargetChanged):
        execute_rebuild(str(clone), plan, NONE)
    assert look(clone) == before


def test_a_file_that_changes_while_the_rebuild_prepares_is_kept_as_it_was(
    clone: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look, only a rename can follow: what it replaces is the newest, and undo can bring that back."""
    plan = plan_rebuild(str(clone), SCOPE, payload, NONE, EDITORS)
    real = swapping.forwards

    def late(found: Round) -> None:
        Path("/etc/hostname").write_text("somebody else\n")
        real(found)

    monkeypatch.setattr("etsclone.overlay.apply.forwards", late)
    execute_rebuild(str(clone), plan, NONE)
    verify_rebuild(str(clone), plan, NONE)
    kept = kept_rebuilds(str(clone))
    assert kept is not None
    prospect = undo_prospect(str(clone))
    with pytest.raises(KeptDamaged, match="/etc/hostname"):  # nobody can tell it from damage
        undo_rebuild(str(clone), kept, prospect=prospect)
    undo_rebuild(str(clone), kept, prospect=prospect, as_kept=True)
    assert (clone / "etc/hostname").read_text() == "somebody else\n"


def test_what_is_undone_finished_or_committed_is_what_was_shown(
    clone: Path, payload: Payload
) -> None:
    execute_rebuild(str(clone), plan_rebuild(str(clone), SCOPE, payload, NONE, EDITORS), NONE)
    shown = kept_rebuilds(str(clone))
    assert shown is not None
    (clone / "etc/hostname").write_text("somebody else\n")
    execute_rebuild(str(clone), plan_rebuild(str(clone), SCOPE, payload, NONE, EDITORS), NONE)
    before = look(clone)
    undo = partial(undo_rebuild, prospect=undo_prospect(str(clone)))
    for work in (undo, commit_rebuilds, finish_rebuild):
        with pytest.raises(TargetChanged, match="not what was shown"):
            work(str(clone), shown)
    assert look(clone) == before
