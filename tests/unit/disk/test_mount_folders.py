"""Folders to mount on: a killed process leaves its own to the next one, which takes none that is in use."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etsclone.disk import mounts
from etsclone.errors import EtscloneError


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mounts, "_FOLDERS", str(tmp_path / "folders"))
    return tmp_path / "folders"


@contextmanager
def another_process() -> Iterator[str]:
    """A process that has a folder until it is killed with the context: the name of that."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with mounts.mount_folder() as folder:
            os.write(writer, os.path.basename(folder).encode())
            signal.pause()
        os._exit(0)
    try:
        yield os.read(reader, 100).decode()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


def test_it_is_private_and_ends(folders: Path) -> None:
    with mounts.mount_folder() as folder:
        assert os.stat(folder).st_mode & 0o777 == 0o700
        with mounts.mount_folder() as other:
            assert {folder, other} == {str(each) for each in folders.iterdir()}
    assert os.listdir(folders) == []


def test_none_is_taken_from_a_process_that_lives(folders: Path) -> None:
    with another_process() as name, mounts.mount_folder():
        assert name in os.listdir(folders)


def test_what_a_killed_one_left_goes(folders: Path) -> None:
    with another_process() as name:
        pass
    assert os.listdir(folders) == [name]
    with mounts.mount_folder() as folder:
        assert os.listdir(folders) == [os.path.basename(folder)]


def test_what_holds_anything_stays(folders: Path) -> None:
    (folders / "left").mkdir(parents=True)
    (folders / "left/file").touch()
    with mounts.mount_folder():
        pass
    assert os.listdir(folders) == ["left"]


def test_where_none_can_be_made_that_is_said(folders: Path) -> None:
    folders.touch()
    with (
        pytest.raises(EtscloneError, match="no folder to mount at") as caught,
        mounts.mount_folder(),
    ):
        pass
    assert "/run" in caught.value.hint
