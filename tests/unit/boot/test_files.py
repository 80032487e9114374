"""Reading the files of a system."""

import os
from pathlib import Path

from etsclone.boot.files import SystemFiles


def test_a_regular_file_is_read_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    files, top = SystemFiles(), os.fsencode(tmp_path)
    assert files.read(top + b"/file") == b"content"
    for other in (b"/link", b"/folder", b"/fifo", b"/missing"):
        assert files.read(top + other) is None


def test_what_is_too_large_for_configuration_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    assert SystemFiles().read(os.fsencode(tmp_path / "large")) is None


def test_names_are_in_byte_order(tmp_path: Path) -> None:
    for name in (b"b", b"a", b"\xff"):
        (tmp_path / os.fsdecode(name)).touch()
    files, top = SystemFiles(), os.fsencode(tmp_path)
    assert files.names(top) == (b"a", b"b", b"\xff")
    assert files.names(top + b"/missing") == ()
