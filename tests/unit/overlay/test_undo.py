"""What rebuilds keep, and what becomes of it when something is wrong with that."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from oracle import inode_flags, look

from etsclone.errors import (
    ComparisonFailed,
    DeviceError,
    ExitCode,
    KeptDamaged,
    KeptExposed,
    TargetChanged,
)
from etsclone.model.journal import (
    begun_line,
    head_line,
    parse_journal,
    progress_line,
    step_lines,
)
from etsclone.model.tree import STAGING
from etsclone.overlay import swapping
from etsclone.overlay.kept import commit, kept_folders, look_kept, look_undo, settle, undo
from etsclone.overlay.payload import Payload
from etsclone.overlay.restored import verify_restored
from etsclone.overlay.rounds import unfinished_rebuild
from etsclone.overlay.since import CHANGED, MADE, UNKNOWN

from .systems import LABEL, apply, make_clone, make_role, payload_of, unlock

KEPT = os.fsdecode(STAGING)


@pytest.fixture
def payload(tmp_path: Path) -> Iterator[Payload]:
    (tmp_path / "role").mkdir()
    make_role(tmp_path / "role")
    try:
        with payload_of(tmp_path / "role") as payload:
            yield payload
    finally:
        unlock(tmp_path)


@pytest.fixture
def system(tmp_path: Path, payload: Payload) -> Path:
    """A system that was rebuilt."""
    root = tmp_path / "system"
    root.mkdir()
    make_clone(root)
    apply(root, payload)
    return root


def test_what_is_kept_and_lies_open_is_no_leftover(system: Path, payload: Payload) -> None:
    """A backup tool that changed a mode must not make the next rebuild remove what there is to be undone."""
    (system / KEPT).chmod(0o755)
    before = look(system)
    for work in (unfinished_rebuild, look_kept, kept_folders, settle, undo, commit):
        with pytest.raises(KeptExposed, match=KEPT) as caught:
            work(str(system))
        assert "chmod 0700" in (caught.value.hint or "")
    with pytest.raises(KeptExposed):
        apply(system, payload)
    assert look(system) == before
    (system / KEPT).chmod(0o700)
    undo(str(system))
    assert (system / "etc/hostname").read_text() == "secondary"


def test_an_open_folder_without_a_journal_is_one(system: Path, payload: Payload) -> None:
    (system / KEPT).chmod(0o755)
    (system / KEPT / "000001/journal").write_bytes(b"")
    assert look_kept(str(system)) is None
    apply(system, payload)
    assert not (system / KEPT).exists()


# --- law 2: what is shown is what is done ----------------------------------------------------------------------------


def interrupted(
    system: Path, work: Callable[[], object], name: str, monkeypatch: pytest.MonkeyPatch
) -> str | None:
    """Let something fail when it has moved three paths; where that leaves the system, in words."""
    real, calls = getattr(swapping, name), count()

    def failing(*arguments: object) -> None:
        if next(calls) == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(swapping, name, failing)
        with pytest.raises(DeviceError):
            work()
    return unfinished_rebuild(str(system))


def test_half_way_there_it_is_shown_what_finishing_changes(
    system: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo(str(system))
    where = interrupted(system, lambda: apply(system, payload), "_take_over", monkeypatch)
    assert where == f"half way to {LABEL}"
    kept = look_kept(str(system))
    assert kept is not None
    assert "remove  /etc/gone  (as the rebuild began to)" in str(kept.finish)
    assert "create  /etc/linked  (as the rebuild began to)" in str(kept.finish)
    settle(str(system))
    assert not (system / "etc/gone").exists()
    assert (system / "etc/linked").exists()


def test_half_way_back_it_is_shown_what_finishing_the_undo_changes(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = interrupted(system, lambda: undo(str(system)), "_give_back", monkeypatch)
    assert where == f"half way back from {LABEL}"
    kept = look_kept(str(system))
    assert kept is not None
    assert kept.finish == kept.undo
    assert "create  /etc/gone  (was removed)" in str(kept.finish)
    assert "remove  /etc/linked  (was not there before)" in str(kept.finish)
    settle(str(system))
    assert (system / "etc/gone").exists()
    assert not (system / "etc/linked").exists()


# --- law 5: nothing is said to be done that was not looked at --------------------------------------------------------


@pytest.mark.parametrize("path", ["etc/hostname", "etc/gone.d"])
def test_what_is_not_kept_any_more_cannot_be_undone(system: Path, path: str) -> None:
    """A replaced file and a removed folder; what is in its place stays, and all the rest too."""
    kept = (system / KEPT / "000001/old").iterdir()
    lost = next(place for place in kept if _was(place, path))
    lost.rename(system.parent / "lost")
    before = look(system)
    with pytest.raises(TargetChanged, match=f"not kept any more.*: /{path}$"):
        undo(str(system))
    assert look(system) == before
    (system.parent / "lost").rename(lost)
    verify_restored(str(system), undo(str(system)))


def _was(place: Path, path: str) -> bool:
    if place.is_dir():
        return path == "etc/gone.d" and (place / "a").exists()
    return path == "etc/hostname" and place.read_text() == "secondary"


def test_what_an_undo_brought_back_is_looked_for(system: Path) -> None:
    restored = undo(str(system))
    assert not restored.swaps[b"/etc/linked"]
    assert {*restored.swaps[b"/etc/gone.d"]} == {
        b"/etc/gone.d",
        b"/etc/gone.d/a",
        b"/etc/gone.d/linked",
    }
    assert restored.vouched
    verify_restored(str(system), restored)
    inode_flags(system / "etc/gone", 0)
    (system / "etc/hostname").unlink()
    (system / "etc/linked").write_text("back again")
    (system / "etc/gone").chmod(0o777)
    with pytest.raises(
        ComparisonFailed, match="/etc/hostname: nothing in place of a file"
    ) as caught:
        verify_restored(str(system), restored)
    for words in (
        "/etc/linked: a file in place of nothing",
        "/etc/gone: mode 0777 in place of 0644",
    ):
        assert words in caught.value.message


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_text("BACK AGAIN"), "/etc/gone.d/a: 10 bytes in place of 4"),
        (lambda path: path.write_text("GONE"), "/etc/gone.d/a: other content"),
        (lambda path: os.utime(path, ns=(1, 1)), "/etc/gone.d/a: other time"),
        (lambda path: os.setxattr(path, "user.x", b"y"), "/etc/gone.d/a: other attributes"),
        (lambda path: (path.parent / "b").touch(), "/etc/gone.d/b: a file in place of nothing"),
        (lambda path: path.parent.parent.chmod(0o700), "/etc: mode 0700 in place of 0755"),
        (lambda path: (path.parent.parent / "x").touch(), "/etc: other time"),
    ],
)
def test_all_of_what_an_undo_brought_back_is_compared(
    system: Path, spoil: Callable[[Path], object], words: str
) -> None:
    restored = undo(str(system))
    spoil(system / "etc/gone.d/a")
    with pytest.raises(ComparisonFailed, match="not what it was before") as caught:
        verify_restored(str(system), restored)
    assert words in caught.value.message


def kept_file(system: Path, content: str) -> Path:
    """The first file with this content of those that are kept."""
    kept = sorted((system / KEPT / "000001/old").rglob("*"))
    return next(path for path in kept if path.is_file() and path.read_text() == content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: _rot(path, "SECONDARY"), "/etc/hostname: other content"),
        (lambda path: path.chmod(0o644), "/etc/hostname: mode 0644 in place of 0600"),
        (lambda path: os.utime(path, ns=(1, 1)), "/etc/hostname: other time"),
        (lambda path: os.setxattr(path, "user.x", b"y"), "/etc/hostname: other attributes"),
    ],
)
def test_what_is_kept_and_damaged_is_not_brought_back(
    system: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(kept_file(system, "secondary"))
    before = look(system)
    with pytest.raises(KeptDamaged, match=words) as caught:
        undo(str(system))
    assert caught.value.exit_code == ExitCode.VERIFICATION
    assert "--as-kept" in caught.value.hint
    assert look(system) == before
    assert look_undo(str(system)).damaged == (words,)
    restored = undo(str(system), as_kept=True)
    assert restored.damaged == (words,)
    assert not restored.vouched
    verify_restored(str(system), restored)


def _rot(path: Path, content: str) -> None:
    """Other bytes, and nothing that tells of it."""
    times = path.stat()
    path.write_text(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_damage_within_a_kept_folder_is_seen(system: Path) -> None:
    folder = next((system / KEPT / "000001/old").glob("*/deep"))
    for path in (folder, folder / "x"):
        inode_flags(path, 0)
    (folder / "x").unlink()
    with pytest.raises(KeptDamaged, match="/etc/becomes-file/deep/x: nothing in place of a file"):
        undo(str(system))


def test_half_way_back_damage_does_not_stop_the_undo_and_is_told(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(system, lambda: undo(str(system)), "_give_back", monkeypatch)
    _rot(kept_file(system, "secondary"), "SECONDARY")
    restored = settle(str(system))
    assert restored.damaged == ("/etc/hostname: other content",)
    assert unfinished_rebuild(str(system)) is None
    verify_restored(str(system), restored)  # all that was kept, the damaged one as it is
    _rot(system / "etc/hostname", "Secondary")
    with pytest.raises(ComparisonFailed, match="/etc/hostname: other content"):
        verify_restored(str(system), restored)


def older(system: Path) -> None:
    """Make of the journal what an older etsclone would have written."""
    path = system / KEPT / "000001/journal"
    now = parse_journal(path.read_bytes())
    assert now.version == 3
    old = replace(now, version=1, steps=replace(now.steps, was=(), put=()))
    steps = head_line(old) + step_lines(old.steps)
    path.write_bytes(steps + begun_line(steps) + progress_line(now.progress))


def test_what_nothing_vouches_for_is_brought_back_and_told(system: Path) -> None:
    older(system)
    prospect = look_undo(str(system))
    assert prospect.unvouched > 5
    assert prospect.changed[b"/etc/hostname"] == UNKNOWN
    restored = undo(str(system))
    assert (restored.unvouched, restored.vouched) == (prospect.unvouched, False)
    verify_restored(str(system), restored)
    (system / "etc/hostname").write_text("SECONDARY")
    with pytest.raises(ComparisonFailed, match="/etc/hostname: other content"):
        verify_restored(str(system), restored)


# --- what is lost ----------------------------------------------------------------------------------------------------


def test_nothing_is_lost_of_what_is_as_the_rebuild_left_it(system: Path) -> None:
    os.utime(system / "etc/hostname", ns=(1, 1))
    prospect = look_undo(str(system))
    assert not prospect.changed
    kept = look_kept(str(system))
    assert kept is not None
    assert prospect.plan == kept.undo


def test_what_was_changed_since_the_rebuild_is_shown(system: Path) -> None:
    for path in ("etc/linked", "etc/becomes-folder/x"):
        inode_flags(system / path, 0)
    _rot(system / "etc/hostname", "PRIMARY")
    (system / "etc/fstab").chmod(0o600)
    (system / "etc/linked").unlink()
    (system / "etc/gone.d").mkdir()
    (system / "etc/gone.d/of-now").touch()
    (system / "etc/becomes-folder/x/more").touch()
    (system / "etc/stays").chmod(0o700)
    (system / "etc/other").touch()
    prospect = look_undo(str(system))
    assert prospect.changed == {
        b"/etc/hostname": CHANGED,
        b"/etc/fstab": CHANGED,
        b"/etc/gone.d": MADE,
        b"/etc/becomes-folder/x/more": MADE,
        b"/etc/stays": CHANGED,
    }
    plan = str(prospect.plan)
    assert "replace /etc/hostname  (as it was before; changed since the rebuild, is lost)" in plan
    assert "remove  /etc/becomes-folder/x/more  (made since the rebuild, is lost)" in plan
    verify_restored(str(system), undo(str(system)))
    assert (system / "etc/other").exists()


def test_a_folder_that_nobody_meant_to_change_keeps_what_it_got_since(system: Path) -> None:
    """Its names were changed by the rebuild, its mode by somebody else."""
    (system / "boot").chmod(0o700)
    assert not look_undo(str(system)).changed
    verify_restored(str(system), undo(str(system)))
    assert (system / "boot").stat().st_mode & 0o777 == 0o700


def test_what_is_half_way_there_was_not_changed_by_anybody(
    system: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo(str(system))
    interrupted(system, lambda: apply(system, payload), "_take_over", monkeypatch)
    assert not look_undo(str(system)).changed
    interrupted(system, lambda: undo(str(system)), "_give_back", monkeypatch)
    assert not look_undo(str(system)).changed
