"""The listing of a whole tree: the same with and without workers and memory, whatever changes meanwhile."""

import hashlib
import io
import os
import random
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import EtscloneError
from etsclone.model.packages import Installed
from etsclone.model.scope import Claim, Scope
from etsclone.overlay import inventory, listing, look, remembered
from etsclone.overlay.brought import Brought
from etsclone.overlay.comparing import Listing as Record
from etsclone.overlay.comparing import differing
from etsclone.overlay.listing import Aids, Listing, list_tree

NOTHING = Scope(())
# What sorts before and behind a slash, and what is no text.
NAMES = [*b"a a.b a- a0 b ~".split(), b"\xff\xfe", "\u00e9".encode(), b"new\nline", b"sp ce=#\\"]
LATER = 10**20
"""Nanoseconds: so late that everything that is there now may be remembered."""


def put(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@dataclass
class Memory:
    """What a state folder would keep from listing to listing; `dated` as in `Aids`."""

    path: Path
    dated: frozenset[int] = frozenset()

    @contextmanager
    def aids(self, workers: int) -> Iterator[Aids]:
        with ExitStack() as files:
            spools = [files.enter_context(tempfile.TemporaryFile()) for _ in range(workers)]
            old = files.enter_context(self.path.open("rb")) if self.path.exists() else None
            new = self.path.with_suffix(".new")
            yield Aids(spools, old, files.enter_context(new.open("wb")), dated=self.dated)
        new.replace(self.path)


def listed(
    root: Path,
    scope: Scope = NOTHING,
    memory: Memory | None = None,
    *,
    workers: int = 0,
    started_ns: int = LATER,
    skip: tuple[bytes, ...] = (),
) -> tuple[bytes, Listing]:
    lines: list[bytes] = []
    with (memory or Memory(root.parent / "unused")).aids(workers) as aids:
        told = list_tree(
            str(root), scope, lines.append, started_ns=started_ns, skip=skip, aids=aids
        )
    return b"".join(lines), told


def naive(root: Path, scope: Scope = NOTHING) -> dict[bytes, tuple[object, ...]]:
    """Paths with what the system tells of them, the slow and obvious way."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(root)
    for folder, folders, others in os.walk(top):
        for name in (*folders, *others):
            path = os.path.join(folder, name)
            inside = path[len(top) :]
            if scope.claim(inside) is not Claim.VOLATILE:
                status = os.lstat(path)
                content = (
                    Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(status.st_mode) else None
                )
                digest = None if content is None else hashlib.sha256(content).hexdigest()
                times = status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime_ns
                found[inside] = (*times, digest)
    return found


def facts(text: bytes) -> dict[bytes, tuple[object, ...]]:
    """The same, of an inventory's lines; and that they are in order."""
    entries = [inventory.entry_of(line) for line in text.splitlines()]
    paths = [entry.path for entry in entries]
    assert paths == sorted(set(paths))
    assert paths[0] == b"/"
    return {
        entry.path: (entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.sha256)
        for entry in entries[1:]
    }


names = st.sampled_from(NAMES)
trees = st.lists(st.lists(names, min_size=1, max_size=5).map(tuple), max_size=25)


def build(root: Path, paths: list[tuple[bytes, ...]]) -> None:
    for number, parts in enumerate(paths):
        path = Path(os.fsdecode(b"/".join((os.fsencode(root), *parts))))
        with suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if number % 4 == 3:
                path.symlink_to("anywhere")
            elif number % 4 == 2:
                path.mkdir()
            else:
                path.write_text(f"content {number}")


@given(before=trees, after=trees, volatile=st.lists(names, max_size=2))
def test_it_is_what_a_naive_walk_finds(
    tmp_path: Path,
    before: list[tuple[bytes, ...]],
    after: list[tuple[bytes, ...]],
    volatile: list[bytes],
) -> None:
    """And the same with memory of another state, with workers, and with the memory of itself."""
    scope = Scope((), (), tuple(f"/**/{os.fsdecode(name)}" for name in volatile))
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        root, memory = Path(folder, "root"), Memory(Path(folder, "memory"))
        root.mkdir()
        build(root, before)
        listed(root, NOTHING, memory)
        build(root, after)
        text, told = listed(root, scope)
        assert facts(text) == naive(root, scope)
        assert told.paths == len(naive(root, scope)) + 1
        assert listed(root, scope, memory, workers=1)[0] == text
        again, remembered = listed(root, scope, memory, workers=1)
        assert (again, remembered.read) == (text, 0)
        assert remembered.digest == told.digest


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in (
        "etc/hostname",
        "etc/a/b/c/d/e/f",
        "usr/share/doc/x/y",
        "usr/share/doc.x",
        "usr/a",
    ):
        put(root / name, name)
    return root


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "memory")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_only_what_changed_is_read(tree: Path, memory: Memory, workers: int) -> None:
    assert listed(tree, memory=memory, workers=workers)[1].read == 5
    assert listed(tree, memory=memory, workers=workers)[1].read == 0
    put(tree / "usr/share/doc/x/y", "another")
    put(tree / "usr/new")
    (tree / "etc/a/b/c/d/e/f").unlink()
    (tree / "etc/hostname").chmod(0o600)
    text, told = listed(tree, memory=memory, workers=workers)
    assert told.read == 3
    assert text == listed(tree)[0]


def test_a_change_that_keeps_size_and_time_is_noticed(tree: Path, memory: Memory) -> None:
    """As `touch -r` and tools that restore times do it: only the time of the inode tells."""
    path = tree / "etc/hostname"
    listed(tree, memory=memory)
    before = path.stat()
    path.write_text("ETC/hostname")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    text, told = listed(tree, memory=memory)
    assert told.read == 1
    assert text == listed(tree)[0]


def test_another_file_of_the_same_name_size_and_time_is_noticed(tree: Path, memory: Memory) -> None:
    path, other = tree / "usr/a", put(tree / "other", "usr/b")
    os.utime(other, ns=(5, 5))
    os.utime(path, ns=(5, 5))
    listed(tree, memory=memory)
    other.rename(path)
    assert listed(tree, memory=memory)[0] == listed(tree)[0]


def test_what_was_just_changed_is_not_believed(tree: Path, memory: Memory) -> None:
    now = time.time_ns()
    assert listed(tree, memory=memory, started_ns=now)[1].read == 5
    assert listed(tree, memory=memory, started_ns=now + remembered.GRANULARITY // 2)[1].read == 5
    assert listed(tree, memory=memory, started_ns=now + 10 * remembered.GRANULARITY)[1].read == 5
    assert listed(tree, memory=memory, started_ns=now)[1].read == 0


def test_users_and_scope_change_lines_but_not_what_is_read(tree: Path, memory: Memory) -> None:
    scope = Scope((), (), ("/usr/share",))
    listed(tree, memory=memory)
    put(tree / "etc/passwd", f"me:x:{os.geteuid()}:0::/:/bin/sh\n")
    text, told = listed(tree, scope, memory)
    assert told.read == 1
    assert text == listed(tree, scope)[0]
    assert b" uname=me " in text
    assert b"/doc" not in text
    assert listed(tree, memory=memory)[1].read == 2


def test_a_mount_point_is_listed_but_not_entered(tree: Path, memory: Memory) -> None:
    skip = (b"/usr/share", b"/etc/a/b")
    listed(tree, memory=memory)
    for workers in (0, 2):
        text = listed(tree, memory=memory, workers=workers, skip=skip)[0]
        paths = list(facts(text))
        assert b"/usr/share" in paths
        assert not [path for path in paths if path.startswith((b"/usr/share/", b"/etc/a/b/"))]


def test_damage_is_ignored(tree: Path, memory: Memory) -> None:
    listed(tree, memory=memory)
    sound, (wanted, _) = memory.path.read_bytes(), listed(tree)
    noise = random.Random(0)
    for number in range(200):
        data = bytearray(sound)
        if number % 2:
            del data[noise.randrange(len(data)) :]
        else:
            data[noise.randrange(len(data))] ^= 1 << noise.randrange(8)
        memory.path.write_bytes(bytes(data))
        text, told = listed(tree, memory=memory)
        assert (text, told.read) == (wanted, 5)
    for other in (
        b"",
        bytes(10),
        os.urandom(5000),
        sound + b"x",
        b"etsclone listing 1\n" + sound[19:],
    ):
        memory.path.write_bytes(other)
        assert listed(tree, memory=memory)[1].read == 5


def test_it_is_whole_or_nothing_when_killed(tree: Path, memory: Memory, *, full: bool) -> None:
    """What a kill leaves in the file aside is never taken for memory: its end is missing."""
    listed(tree, memory=memory)
    sound = memory.path.read_bytes()
    for length in range(0, len(sound), 1 if full else 17):
        memory.path.write_bytes(sound[:length])
        assert listed(tree, memory=memory)[1].read == 5


# --- workers -------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing._Worker, "work", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(EtscloneError, match="a process that lists the tree ended with status -9"):
        listed(tree, workers=2)


def test_what_a_worker_cannot_read_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_folder: int, _name: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(look, "open_file", failing)
    with pytest.raises(OSError, match="Input/output error"):
        listed(tree, workers=2)


def test_no_process_and_no_descriptor_is_left(tree: Path, memory: Memory) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    listed(tree, memory=memory, workers=2)
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_who_brought_a_path_is_told_and_told_anew(tmp_path: Path) -> None:
    """Lines that are taken over from the last listing do not keep a package that is gone."""
    put(tmp_path / "root" / "usr" / "tool")
    time.sleep(0.1)  # what changed in this very tick would be read again the next time
    memory, told = Memory(tmp_path / "memory"), []
    owners: dict[bytes, str]
    for owners in ({b"/usr/tool": "old"}, {b"/usr/tool": "new"}, {}):
        lines: list[bytes] = []
        with memory.aids(2) as aids:
            found = list_tree(
                str(tmp_path / "root"),
                NOTHING,
                lines.append,
                started_ns=LATER,
                brought=Brought.by(Installed((), owners)),
                aids=aids,
            )
        last = inventory.entry_of(b"".join(lines).splitlines()[-1])
        told.append((last.path, last.package, found.read))
    assert told == [
        (b"/usr/tool", "old", 1),
        (b"/usr/tool", "new", 0),
        (b"/usr/tool", "", 0),
    ]


def test_who_brought_a_path_is_told_whether_or_not_it_is_remembered(tmp_path: Path) -> None:
    """Of a path that was known, the old line says it; of a new one, only the packages do."""
    root, memory = tmp_path / "root", Memory(tmp_path / "memory")
    owners = {b"/usr/tool": "tools", b"/usr/tool-2": "more", b"/usr/link": "tools"}
    brought = Brought.by(Installed((), owners))
    put(root / "usr/tool", "before")
    (root / "usr/link").symlink_to("tool")

    def lines(memory: Memory) -> bytes:
        found: list[bytes] = []
        with memory.aids(1) as aids:
            list_tree(
                str(root), NOTHING, found.append, started_ns=LATER, brought=brought, aids=aids
            )
        return b"".join(found)

    lines(memory)
    put(root / "usr/tool", "changed")
    put(root / "usr/tool-2")
    put(root / "usr/own")
    found = lines(memory)
    assert found == lines(Memory(tmp_path / "other"))
    entries = [inventory.entry_of(line) for line in found.splitlines()]
    told = {entry.path: entry.package for entry in entries if entry.path.startswith(b"/usr/")}
    assert told == {**owners, b"/usr/own": ""}


def test_the_digest_is_of_all_but_times(tree: Path, memory: Memory) -> None:
    def digest() -> str:
        found = listed(tree, memory=memory)[1].digest
        assert listed(tree)[1].digest == found
        return found

    digests = [digest()]
    for path in (tree / "etc/hostname", tree / "usr", tree):
        os.utime(path, ns=(5, 5))
        assert digest() == digests[0]
    put(tree / "etc/hostname", "other")
    digests.append(digest())
    (tree / "usr/a").chmod(0o600)
    digests.append(digest())
    (tree / "usr/a").rename(tree / "usr/b")
    digests.append(digest())
    (tree / "usr/empty").mkdir()
    digests.append(digest())
    tree.chmod(0o700)
    digests.append(digest())
    assert len(set(digests)) == len(digests)


def test_a_short_read_is_not_the_end_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a bad sector shows: what is before it is read, and only the next read fails."""
    content = os.urandom(3000)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(content)
    real = os.readv
    monkeypatch.setattr(
        os, "readv", lambda descriptor, buffers: real(descriptor, [buffers[0][:1000]])
    )
    entry = inventory.entry_of(listed(tmp_path / "root")[0].splitlines()[-1])
    assert (entry.size, entry.sha256) == (3000, hashlib.sha256(content).hexdigest())


def test_a_full_state_folder_only_makes_the_next_listing_slow(tmp_path: Path) -> None:
    put(tmp_path / "root" / "file")
    lines: list[bytes] = []
    with open("/dev/full", "wb", buffering=0) as full:
        found = list_tree(
            str(tmp_path / "root"),
            NOTHING,
            lines.append,
            started_ns=LATER,
            aids=Aids((), None, full),
        )
    assert found.paths == len(b"".join(lines).splitlines()) == 2


@given(trees, st.integers(0, 2))
def test_a_quick_listing_is_the_full_one_without_what_takes_opening(
    paths: list[tuple[bytes, ...]], workers: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "x").aids(workers) as aids:
        root = Path(folder) / "tree"
        root.mkdir()
        build(root, paths)
        quick, full = io.BytesIO(), io.BytesIO()
        for out, way in ((quick, True), (full, False)):
            with inventory.writing_lines(out) as write:
                started = time.time_ns()
                spools = Aids(aids.spools if way else ())
                told = list_tree(
                    str(root), NOTHING, write, started_ns=started, aids=spools, quick=way
                )
            out.seek(0)
            assert way == (told.read == 0) or not any(each.is_file() for each in root.rglob("*"))
        assert list(differing(Record(quick), Record(full, quick=True))) == []


def test_a_file_of_the_far_future_is_listed_and_known_again(tmp_path: Path) -> None:
    root, memory = tmp_path / "root", Memory(tmp_path / "kept")
    path = put(root / "file")
    os.utime(path, ns=(10**19, 10**19))
    if path.stat().st_mtime_ns < 2**63:
        pytest.skip("this filesystem has no such times")
    first, _ = listed(root, memory=memory)
    again, _ = listed(root, memory=memory)
    assert first == again
    assert b"10000000000" in first
