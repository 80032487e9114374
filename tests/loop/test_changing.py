"""Capture of a system that is at work: files of the scope change, come and go while they are read."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pyrage
import pytest

from etsclone.commands.brd.capture import Captured, capture_system
from etsclone.commands.system import System
from etsclone.errors import SourceChanged
from etsclone.model.brd import CloneIdentity
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Tree
from etsclone.overlay import inventory
from etsclone.overlay.listing import Aids
from etsclone.overlay.payload import Archived, read_payload, write_payload
from etsclone.units import MIB

pytestmark = pytest.mark.loop

SCOPE = Scope(("/etc",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/busy").write_bytes(b"a" * 2 * MIB)
    (root / "etc/hostname").write_text("srv1\n")
    return root


def changing(
    monkeypatch: pytest.MonkeyPatch, path: Path, change: Callable[[Path], object], times: int
) -> None:
    """Let the process in the tree change a file, so many times, when it has read the first piece for the archive."""
    real, left, inode = os.pread, [None] * times, path.stat().st_ino

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        piece = real(descriptor, count, offset)
        if left and offset == 0 and os.fstat(descriptor).st_ino == inode:
            left.pop()
            change(Path("/etc", path.name))
        return piece

    monkeypatch.setattr(os, "pread", pread)


@contextmanager
def captured(
    root: Path, workers: int = 2, *, sealed: bool = False
) -> Iterator[tuple[Captured, Tree, dict[bytes, Entry]]]:
    """What a capture says, keeps and lists."""
    with ExitStack() as files:
        payload, listing, *spools = (
            files.enter_context(tempfile.TemporaryFile()) for _ in range(2 + workers)
        )
        system = System(str(root), CloneIdentity("", ()), frozenset(), str(root))
        key = pyrage.x25519.Identity.generate()
        recipients = [str(key.to_public())] if sealed else []
        told = capture_system(
            system, SCOPE, payload, listing, recipients=recipients, aids=Aids(spools)
        )
        opened = [
            BytesIO(pyrage.decrypt(each.read(), [key]) if sealed else each.read())
            for each in (payload, listing)
        ]
        held = files.enter_context(read_payload(opened[0], SCOPE))
        yield told, held.tree, {entry.path: entry for entry in inventory.read(opened[1])}


def listed(tree: Tree) -> dict[bytes, Entry]:
    """What an inventory has words for."""
    return {path: replace(entry, xattrs=(), link_to=None) for path, entry in tree.items()}


def rewrite(path: Path) -> None:
    """Another content of the same size, and the same time of it."""
    before = path.stat()
    path.write_bytes(bytes([path.read_bytes()[0] + 1]) * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_changes_and_stops_is_kept_and_listed_as_it_then_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    changing(monkeypatch, root / "etc/busy", rewrite, times=2)
    with captured(root, workers) as (told, kept, inventoried):
        assert not told.warnings
        assert {path: inventoried[path] for path in kept} == listed(kept)
        assert kept[b"/etc/busy"].sha256 == hashlib.sha256(b"c" * 2 * MIB).hexdigest()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_never_stops_is_told_once_and_kept_and_listed_alike(
    root: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    changing(monkeypatch, root / "etc/busy", rewrite, times=99)
    with captured(root, workers) as (told, kept, inventoried):
        assert told.warnings == ("/etc/busy changed while it was read",)
        assert {path: inventoried[path] for path in kept} == listed(kept)


def become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("hostname")


@pytest.mark.parametrize("sealed", [False, True])
def test_what_vanishes_is_scanned_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, sealed: bool
) -> None:
    """A file that came and went, as editors make them, does not make the capture fail."""
    changing(monkeypatch, root / "etc/busy", Path.unlink, times=1)
    with captured(root, sealed=sealed) as (told, kept, _):
        assert not told.warnings
        assert list(kept) == [b"/etc", b"/etc/hostname"]


def test_what_becomes_a_link_is_kept_as_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changing(monkeypatch, root / "etc/busy", become_link, times=1)
    with captured(root) as (told, kept, inventoried):
        assert not told.warnings
        assert kept[b"/etc/busy"].target == b"hostname"
        assert {path: inventoried[path] for path in kept} == listed(kept)


def test_what_comes_and_goes_all_the_time_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there whenever it is scanned, and gone when it is to be archived."""

    def write(out: BinaryIO, top: str, tree: Tree, *, spool: BinaryIO) -> Archived:
        Path("/etc/busy").unlink()
        try:
            return write_payload(out, top, tree, spool=spool)
        finally:
            Path("/etc/busy").write_text("there again")

    monkeypatch.setattr("etsclone.commands.brd.capture.write_payload", write)
    with pytest.raises(SourceChanged, match="/etc/busy vanished"), captured(root):
        pass
