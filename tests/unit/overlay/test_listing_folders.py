"""Folders that need not be listed again, since their own times tell that they hold the same names."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etsclone.model.scope import Scope
from etsclone.overlay import look, remembered

from .test_listing import LATER, Memory, build, listed, put, trees

TICK = 0.02
"""Seconds in which the clock of a filesystem goes on."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("etc/hostname", "etc/a/b/c", "usr/share/doc/x"):
        put(tmp_path / "root" / name, name)
    time.sleep(TICK)
    return tmp_path / "root"


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return dated(tmp_path)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The folders whose names are asked for, when all is remembered."""
    asked: list[bytes] = []
    found = look.Look._listed

    def noting(self: look.Look, at: look._At, *, tells_files: bool) -> Iterator[list[bytes]]:
        if not tells_files:
            asked.append(at.path)
        return found(self, at, tells_files=tells_files)

    monkeypatch.setattr(look.Look, "_listed", noting)
    return asked


def dated(folder: Path) -> Memory:
    return Memory(folder / "memory", frozenset({folder.stat().st_dev}))


@settings(max_examples=25)
@given(before=trees, after=trees, gone=st.sets(st.integers(0, 60)))
def test_whatever_changes_is_noticed(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[tuple[bytes, ...]],
    after: list[tuple[bytes, ...]],
    gone: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("changes")
    root, memory = folder / "root", dated(folder)
    root.mkdir()
    build(root, before)
    time.sleep(TICK)
    listed(root, memory=memory)
    time.sleep(TICK)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        if number in gone and (path.is_symlink() or not path.is_dir()):
            path.unlink()
        elif number in gone and not any(path.iterdir()):
            path.rmdir()
        elif number in gone:
            path.rename(path.with_name(f"{path.name}, renamed"))
    build(root, after)
    for workers in (0, 1):
        assert listed(root, memory=memory, workers=workers)[0] == listed(root)[0]


def test_only_what_changed_is_listed_again(root: Path, memory: Memory, names: list[bytes]) -> None:
    listed(root, memory=memory)
    listed(root, memory=memory)
    assert names == []
    put(root / "usr/share/doc/new")
    put(root / "etc/a/b/c", "another content, and the same names")
    assert listed(root, memory=memory)[0] == listed(root)[0]
    assert names == [b"/usr/share/doc"]
    time.sleep(TICK)
    listed(root, memory=memory)
    assert names == [b"/usr/share/doc"]


def test_where_folders_are_not_dated_all_are_listed(
    root: Path, tmp_path: Path, names: list[bytes]
) -> None:
    for _ in range(2):
        listed(root, memory=Memory(tmp_path / "memory"))
    assert len(names) == 7
    listed(root, memory=dated(tmp_path))  # what was remembered without is not believed
    assert len(names) == 14


def test_where_found_files_are_put_is_always_listed(
    root: Path, memory: Memory, names: list[bytes]
) -> None:
    """As fsck puts them there, without a new time; a real time cannot be set back, so only that it is asked shows."""
    (root / "lost+found").mkdir()
    time.sleep(TICK)
    for _ in range(2):
        listed(root, memory=memory)
    assert names == [b"/lost+found"]


def test_a_folder_that_was_just_changed_is_not_believed(
    root: Path, memory: Memory, names: list[bytes]
) -> None:
    now = root.stat().st_ctime_ns
    for started in (now, now + remembered.GRANULARITY // 2, LATER):
        names.clear()
        listed(root, memory=memory, started_ns=started)
    assert len(names) == 7
    names.clear()
    listed(root, memory=memory)
    assert names == []


def test_what_comes_while_a_folder_is_listed_is_met_the_next_time(
    root: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look.Look._listed

    def coming(self: look.Look, at: look._At, *, tells_files: bool) -> Iterator[list[bytes]]:
        yield from found(self, at, tells_files=tells_files)
        if at.path == b"/etc":
            put(root / "etc/new")

    with monkeypatch.context() as patch:
        patch.setattr(look.Look, "_listed", coming)
        assert b"/etc/new" not in listed(root, memory=memory)[0]
    assert b"/etc/new" in listed(root, memory=memory)[0]


def test_another_scope_finds_what_was_hidden(root: Path, memory: Memory) -> None:
    scope = Scope((), (), ("/etc/a/**", "/usr/share"))
    listed(root, scope, memory)
    assert listed(root, memory=memory)[0] == listed(root)[0]
    assert listed(root, scope, memory)[0] == listed(root, scope)[0]
