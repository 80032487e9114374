"""Listing trees that change meanwhile, and what is odd in them: every kind, very deep ones, paths too long."""

import hashlib
import io
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import files, inventory, look
from etsclone.overlay.comparing import Listing as Record
from etsclone.overlay.comparing import differing
from etsclone.overlay.scan import scan
from etsclone.overlay.status import ATTEMPTS
from etsclone.units import MIB

from .test_listing import Memory, facts, listed, put

LONG, DEEP = "long" * 10, 110
"""A name, and how often it stands in a path that is too long for the kernel, in more folders than are kept open."""


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "memory")


def test_a_writer_that_does_not_stop_is_told(tmp_path: Path, memory: Memory) -> None:
    """A real one: what is listed of its file is told, and not believed the next time; the other files are right."""
    root = tmp_path / "root"
    busy, calm = put(root / "busy"), put(root / "calm", "calm")
    os.truncate(
        busy, 64 * MIB
    )  # reading it takes so long that the writer has its turn on any machine
    end = threading.Event()

    def write() -> None:
        with busy.open("r+b", buffering=0) as file:
            while not end.is_set():
                file.seek(0)
                file.write(os.urandom(16))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        text, told = listed(root, memory=memory)
        seen = scan(str(root), Scope(("/busy", "/calm")))
    finally:
        end.set()
        writer.join()
    assert told.warnings == ["/busy changed while it was read"]
    assert seen.warnings == ("/busy changed while it was read",)
    found = facts(text)
    assert found[b"/calm"][-1] == hashlib.sha256(calm.read_bytes()).hexdigest()
    assert len(found) == 2
    assert listed(root, memory=memory)[1].read == 1
    assert listed(root, memory=memory)[0] == listed(root)[0]


@pytest.mark.parametrize("times", [1, 2, 99])
def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The change comes between its first piece and the rest, and keeps its size and time."""
    busy = put(tmp_path / "root/busy", "a" * MIB)
    real, looks = os.readv, [0]

    def readv(descriptor: int, buffers: list[memoryview]) -> int:
        begins = os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        count = real(descriptor, buffers)
        if begins and count:
            looks[0] += 1
            if looks[0] <= times:
                before = busy.stat()
                busy.write_text(chr(ord("a") + looks[0]) * MIB)
                os.utime(busy, ns=(before.st_atime_ns, before.st_mtime_ns))
        return count

    monkeypatch.setattr(os, "readv", readv)
    text, told = listed(tmp_path / "root")
    stops = times < ATTEMPTS
    assert told.warnings == ([] if stops else ["/busy changed while it was read"])
    assert looks[0] == (times + 1 if stops else ATTEMPTS)
    whole = hashlib.sha256(busy.read_bytes()).hexdigest()
    assert (facts(text)[b"/busy"][-1] == whole) is stops


def test_folders_that_come_and_go_are_survived(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(300):
        put(root / f"calm/{number % 7}/{number}")
    end = threading.Event()

    def change() -> None:
        number = 0
        while not end.is_set():
            number += 1
            for name in (f"come/{number % 5}/a/b", f"come/{number % 5}/c", f"calm/3/x{number % 9}"):
                put(root / name)
            for name in (f"come/{number % 5}", "calm/3"):
                os.rename(root / name, root / "moved")
                os.rename(root / "moved", root / name)
            for path in sorted((root / f"come/{number % 5}").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for workers in (0, 2, 0, 2):
            text, _ = listed(root, workers=workers)
            paths = list(facts(text))
            for number in range(300):
                if number % 7 != 3:
                    assert f"/calm/{number % 7}/{number}".encode() in paths
    finally:
        end.set()
        changer.join()


def test_a_file_that_becomes_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, secret = tmp_path / "root", put(tmp_path / "secret", "secret")
    path = put(root / "x", "old")
    real = files.open_file

    def swapping(folder: int, name: bytes) -> tuple[int, os.stat_result]:
        if not path.is_symlink():
            path.unlink()
            path.symlink_to(secret)
        return real(folder, name)

    monkeypatch.setattr(look, "open_file", swapping)
    entries = [inventory.entry_of(line) for line in listed(root)[0].splitlines()]
    assert [(entry.path, entry.kind, entry.sha256) for entry in entries[1:]] == [
        (b"/x", Kind.SYMLINK, None)
    ]


@pytest.mark.parametrize(
    ("was", "becomes"), [("link", "file"), ("file", "link"), ("folder", "link"), ("link", "folder")]
)
def test_what_becomes_something_else_between_look_and_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str, becomes: str
) -> None:
    path = tmp_path / "x"

    def become(what: str) -> None:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        {"link": lambda: path.symlink_to("y"), "file": path.touch, "folder": path.mkdir}[what]()

    become(was)
    real, left = os.lstat, [becomes]

    def lstat(name: bytes, *, dir_fd: int | None = None) -> os.stat_result:
        status = real(name, dir_fd=dir_fd)
        if left:
            become(left.pop())
        return status

    monkeypatch.setattr(os, "lstat", lstat)
    text, told = listed(tmp_path)
    kinds = {"link": Kind.SYMLINK, "file": Kind.FILE, "folder": Kind.FOLDER}
    entries = [inventory.entry_of(line) for line in text.splitlines()]
    assert [(entry.path, entry.kind) for entry in entries[1:]] == [(b"/x", kinds[becomes])]
    assert not told.warnings


def test_every_kind_is_listed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root / "file")
    (root / "link").symlink_to("target\n")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    entries = {entry.path: entry for entry in map(inventory.entry_of, listed(root)[0].splitlines())}
    assert entries[b"/link"].target == b"target\n"
    assert {path: entry.kind for path, entry in entries.items()} == {
        b"/": Kind.FOLDER,
        b"/fifo": Kind.FIFO,
        b"/file": Kind.FILE,
        b"/link": Kind.SYMLINK,
        b"/socket": Kind.SOCKET,
    }
    mtime = (root / "fifo").lstat().st_mtime_ns
    owner = os.geteuid(), os.getegid()
    assert entries[b"/fifo"] == Entry(b"/fifo", Kind.FIFO, 0o640, *owner, mtime)


def test_very_deep_trees(tmp_path: Path) -> None:
    """Deeper than the longest path that the kernel takes, and than the folders that may be open."""
    root = tmp_path / "root"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir(LONG, dir_fd=here)
        below = os.open(LONG, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert listed(root, workers=1)[1].paths == DEEP + 1
    subprocess.run(["rm", "-rf", root / LONG], check=True)


@pytest.mark.parametrize("beside", [False, True])
def test_deep_folders_are_not_opened_from_the_top_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """Neither on the way down nor, with a folder `z` beside each `d`, on the way up."""
    root, depth = tmp_path / "root", 4 * DEEP
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        if beside:
            os.mkdir("z", dir_fd=here)
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    real, opened = files.folder_below, 0

    def counting(folder: int, name: bytes, path: bytes) -> int:
        nonlocal opened
        opened += 1
        return real(folder, name, path)

    for module in (files, look):
        monkeypatch.setattr(module, "folder_below", counting)
    text, told = listed(root)
    folders = depth * (1 + beside)
    assert told.paths == len(text.splitlines()) == folders + 1
    assert not told.warnings
    assert opened < 20 * folders
    subprocess.run(["rm", "-rf", root / "d"], check=True)


def test_a_path_that_no_line_has_room_for_is_told_and_left_out(tmp_path: Path) -> None:
    """Four bytes for each that is no text: what anybody may have made must not keep a system from being captured."""
    root, wide = tmp_path / "root", b"\xff" * 255
    first = LONG * 4
    (root / first).mkdir(parents=True)
    here = os.open(root / first, os.O_RDONLY)
    for _ in range(63):
        os.mkdir(wide, dir_fd=here)
        below = os.open(wide, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("x", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    words = len(next(line for line in listed(root)[0].splitlines() if b"/x type=" in line))
    room = inventory.LONGEST_LINE - words + 1
    name = b"\xff" * (room // 4) + b"f" * (room % 4)
    os.rename("x", name, src_dir_fd=here, dst_dir_fd=here)
    fits, _ = listed(root)
    assert max(map(len, fits.splitlines())) == inventory.LONGEST_LINE
    assert len(readable(fits)) == 1 + 1 + 63 + 1
    os.rename(name, name + b"f", src_dir_fd=here, dst_dir_fd=here)
    os.mkdir(wide, dir_fd=here)
    os.mkdir(wide + b"/beneath", dir_fd=here)
    os.close(here)
    memory = Memory(tmp_path / "memory", frozenset({tmp_path.stat().st_dev}))
    for _ in range(2):
        text, told = listed(root, memory=memory)
        assert list(readable(text)) == list(readable(fits))[:-1]
        (warning,) = dict.fromkeys(told.warnings)
        assert warning.startswith(rf"/{first}/\xff\xff")
        assert "too long a path to be listed" in warning
    subprocess.run(["rm", "-rf", root / first], check=True)


def readable(text: bytes) -> dict[bytes, Entry]:
    """What both readers of inventories find in these lines."""
    packed = io.BytesIO()
    with inventory.writing_lines(packed) as write:
        write(text)
    found = {entry.path: entry for entry in inventory.read(io.BytesIO(packed.getvalue()))}
    one, other = (Record(io.BytesIO(packed.getvalue())) for _ in range(2))
    assert not list(differing(one, other))
    return found
