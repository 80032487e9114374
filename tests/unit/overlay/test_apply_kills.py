"""The crash matrix: an apply, an undo, a commit are killed before every change that they make, in a fork.

Whatever comes next, another rebuild, --undo or --commit, leaves exactly what was before or exactly what is to be.
"""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from killed import killed_before
from oracle import inode_flags

from etsclone.errors import NothingKept
from etsclone.model.edit import Edit
from etsclone.model.journal import Progress
from etsclone.model.tree import STAGING
from etsclone.overlay.apply import apply_plan
from etsclone.overlay.kept import commit, look_kept, settle, undo
from etsclone.overlay.payload import Payload
from etsclone.overlay.restored import verify_restored
from etsclone.overlay.rounds import unfinished_rebuild
from etsclone.plan.tree import TreePlan

from .systems import LABEL, Picture, apply, make_clone, make_role, payload_of, picture, unlock

ALWAYS = ("etc/hostname", "etc/fstab", "etc/becomes-link", "boot/grub.cfg")
"""What is replaced by what is no folder either: at no moment is nothing there."""


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """A kill leaves what every system call before it did: there is no need to wait for disks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr("etsclone.overlay.payload.LEVEL", 1)
        yield


class Bench:
    """A clone to be copied and killed, the role that it becomes, and pictures of before and after."""

    def __init__(self, folder: Path, payload: Payload) -> None:
        self.clone = folder / "clone"
        self.payload = payload
        self._victim = folder / "victim"
        self.old = picture(self.clone)
        self.apply(self.fresh())
        self.kept = folder / "kept"
        subprocess.run(["cp", "-a", self._victim, self.kept], check=True)
        _copy_flags(self._victim, self.kept)
        commit(str(self._victim))
        self.new = picture(self._victim)

    def fresh(self, source: Path | None = None) -> Path:
        """A new victim."""
        source = source or self.clone
        if self._victim.exists():
            unlock(self._victim)
            shutil.rmtree(self._victim)
        subprocess.run(["cp", "-a", source, self._victim], check=True)
        _copy_flags(source, self._victim)
        return self._victim

    def apply(self, root: Path) -> None:
        apply(root, self.payload)


def _copy_flags(source: Path, target: Path) -> None:
    """What cp(1) does not copy; deepest first, and the times once more."""

    paths = sorted(source.rglob("*"), reverse=True)
    for path in paths:
        if (path.is_file() or path.is_dir()) and not path.is_symlink():
            inode_flags(target / path.relative_to(source), inode_flags(path))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("kills")
    for name, make in (("clone", make_clone), ("role", make_role)):
        (folder / name).mkdir()
        make(folder / name)
    try:
        with payload_of(folder / "role") as payload:
            yield Bench(folder, payload)
    finally:
        unlock(folder)


def next_rebuild(bench: Bench, root: Path) -> Picture:
    settle(str(root))
    bench.apply(root)
    commit(str(root))
    return bench.new


def next_undo(bench: Bench, root: Path) -> Picture:
    """What is undone is what was there before, also when there was nothing to undo yet."""
    with suppress(NothingKept):
        verify_restored(str(root), undo(str(root)))
    return bench.old


def next_commit(bench: Bench, root: Path) -> Picture:
    kept = look_kept(str(root))
    began = kept is not None and kept.progress in (Progress.BEGUN, Progress.APPLIED)
    with suppress(NothingKept):
        commit(str(root))
    return bench.new if began else bench.old


@pytest.mark.parametrize(("then", "first"), [(next_rebuild, 1), (next_undo, 4), (next_commit, 7)])
def test_an_apply_that_is_killed(
    bench: Bench, full: bool, then: Callable[[Bench, Path], Picture], first: int
) -> None:
    moment, step, unfinished = (1, 1, 0) if full else (first, 9, 0)
    while killed_before(moment, bench.apply, root := bench.fresh()):
        unfinished += unfinished_rebuild(str(root)) == f"half way to {LABEL}"
        assert all(os.path.lexists(root / path) for path in ALWAYS), moment
        wanted = then(bench, root)
        assert picture(root) == wanted, moment
        moment += step
    assert moment > 150
    assert unfinished > 3


@pytest.mark.parametrize(("then", "first"), [(next_rebuild, 1), (next_undo, 3)])
def test_an_undo_that_is_killed(
    bench: Bench, full: bool, then: Callable[[Bench, Path], Picture], first: int
) -> None:
    moment, step = (1, 1) if full else (first, 5)
    while killed_before(moment, lambda root: undo(str(root)), root := bench.fresh(bench.kept)):
        assert all(os.path.lexists(root / path) for path in ALWAYS), moment
        wanted = then(bench, root)
        assert picture(root) == wanted, moment
        moment += step
    assert picture(root) == bench.old
    assert moment > 60


def test_a_filesystem_without_hard_links(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """As on vfat: only the way with a moment of nothing is left, and as safe when it is done again."""
    real = os.link

    def link(source: bytes, name: bytes, *, dst_dir_fd: int, **options: object) -> None:
        if re.search(rb"/(old|new|met)$", os.readlink(b"/proc/self/fd/%d" % dst_dir_fd)):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        real(source, name, dst_dir_fd=dst_dir_fd, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    moment, step, gaps = 1, 1 if full else 5, 0
    while killed_before(moment, lambda root: undo(str(root)), root := bench.fresh(bench.kept)):
        gaps += not all(os.path.lexists(root / path) for path in ALWAYS)
        wanted = next_undo(bench, root)
        assert picture(root) == wanted, moment
        moment += step
    assert gaps


def test_an_undo_that_is_repeated_undoes_no_second_rebuild(bench: Bench, full: bool) -> None:
    """The edits make two rounds out of what one role is. A kill behind the last change of an undo is none."""
    root = bench.fresh(bench.kept)
    edit = Edit(b"/usr/bin/true", b"common", b"edited", ())
    apply_plan(str(root), TreePlan(()), bench.payload, [edit], label="second", began="later")
    two = root.parent / "two"
    subprocess.run(["cp", "-a", root, two], check=True)
    _copy_flags(root, two)
    moment, cut = 1, 0
    while killed_before(moment, lambda root: undo(str(root)), root := bench.fresh(two)):
        if not (root / os.fsdecode(STAGING) / "000002").exists():
            break
        cut += 1
        undo(str(root))
        assert (root / "usr/bin/true").read_text() == "common", moment
        assert (root / "etc/hostname").read_text() == "primary", moment
        kept = look_kept(str(root))
        assert kept is not None, moment
        assert (kept.label, kept.progress) == (LABEL, Progress.APPLIED), moment
        moment += 1 if full else 2
    assert cut > 10


def test_a_commit_that_is_killed(bench: Bench, full: bool) -> None:
    moment, step = 1, 1 if full else 3
    while killed_before(moment, lambda root: commit(str(root)), root := bench.fresh(bench.kept)):
        assert unfinished_rebuild(str(root)) is None
        with suppress(NothingKept):
            commit(str(root))
        assert picture(root) == bench.new, moment
        moment += step
    assert moment > 20


def test_finishing_what_was_killed_is_killed_too(bench: Bench) -> None:
    """Whoever pulls the plug twice still gets one or the other."""
    for first in range(120, 400, 31):
        if not killed_before(first, bench.apply, root := bench.fresh()):
            break
        killed_before(first // 5, lambda root: settle(str(root)), root)
        kept = look_kept(str(root))
        undo(str(root)) if kept else None
        assert picture(root) == bench.old, first
