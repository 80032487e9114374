"""What changes between the listing of a tree and the archive of its scope: both say the same of what is archived."""

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from etsclone.model.packages import Installed, Package
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Tree
from etsclone.overlay import inventory, look, names
from etsclone.overlay.brought import Brought
from etsclone.overlay.listing import NO_AIDS, Aids, Listing, list_tree, tree_listing
from etsclone.overlay.payload import write_payload
from etsclone.overlay.scan import scan

SCOPE = Scope(("/etc", "/srv/only"), volatile=("/etc/volatile",))
OWNED = Installed((Package("conf", "all", "1"),), {b"/etc/busy": "conf"})
LATER = 10**20


@pytest.fixture(autouse=True, params=[names.MOST, 1], ids=["whole", "in parts"])
def _in_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (names, look):
        monkeypatch.setattr(module, "MOST", request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("etc/busy", "etc/a.b", "etc/a/below", "etc/volatile/x", "srv/only", "srv/other"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "etc/link").symlink_to("busy")
    os.link(root / "etc/busy", root / "etc/name")
    return root


def archived(root: Path) -> Tree:
    return write_payload(io.BytesIO(), str(root), scan(str(root), SCOPE).scope).tree


def listed(root: Path, payload: Tree, aids: Aids = NO_AIDS) -> tuple[dict[bytes, Entry], Listing]:
    lines: list[bytes] = []
    listing = tree_listing(str(root), SCOPE, started_ns=LATER, brought=Brought.by(OWNED), aids=aids)
    with listing as put_out:
        told = put_out(lines.append, payload)
    entries = [inventory.entry_of(line) for line in b"".join(lines).splitlines()]
    paths = [entry.path for entry in entries]
    assert paths == sorted(set(paths))
    return dict(zip(paths, entries, strict=True)), told


def as_listed(entry: Entry) -> Entry:
    """What an inventory has words for."""
    package = OWNED.owners.get(entry.path, "")
    return replace(entry, xattrs=(), link_to=None, package=package)


def become(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "content": lambda path: path.write_text("another"),
    "mode": lambda path: path.chmod(0o600),
    "gone": Path.unlink,
    "symbolic link": lambda path: become(path, lambda each: each.symlink_to("/")),
    "fifo": lambda path: become(path, os.mkfifo),
}


@pytest.mark.parametrize("what", CHANGES)
def test_lines_say_what_the_payload_holds(root: Path, what: str) -> None:
    """Also of the folder, whose time changes with what is in it, and of what is no longer there."""
    payload = archived(root)
    CHANGES[what](root / "etc/busy")
    (root / "etc/new").write_text("came later")
    found, _ = listed(root, payload)
    assert {path: found[path] for path in payload} == {
        path: as_listed(entry) for path, entry in payload.items()
    }
    assert b"/etc/new" in found
    assert b"/srv/other" in found
    assert b"/etc/volatile" not in found


def test_what_agrees_is_taken_as_it_is(root: Path) -> None:
    alone, told = listed(root, {})
    both, told_too = listed(root, archived(root))
    assert (alone, told) == (both, told_too)


@pytest.mark.parametrize("becomes", ["folder", "file"])
def test_a_folder_that_was_listed_with_what_is_in_it_stays_one(root: Path, becomes: str) -> None:
    path = root / ("etc/busy" if becomes == "folder" else "etc/a")
    payload = archived(root)
    if becomes == "folder":
        path.unlink()
        (path / "below").mkdir(parents=True)
    else:
        (path / "below").unlink()
        path.rmdir()
        path.write_text("a file")
    found, _ = listed(root, payload)
    if becomes == "folder":
        assert found[b"/etc/busy"].kind.value == "dir"
        assert b"/etc/busy/below" in found
    else:
        assert found[b"/etc/a"] == as_listed(payload[b"/etc/a"])


def test_what_the_payload_said_is_not_remembered(root: Path, tmp_path: Path) -> None:
    """The next listing is of the files as they are, not as they were archived the last time."""
    payload = archived(root)
    (root / "etc/busy").write_text("another")
    memory = tmp_path / "memory"
    with memory.open("wb") as keep:
        first, told = listed(root, payload, Aids(keep=keep))
    assert first[b"/etc/busy"] == as_listed(payload[b"/etc/busy"])
    with memory.open("rb") as old:
        second, told_again = listed(root, {}, Aids(remembered=old))
    lines: list[bytes] = []
    list_tree(str(root), SCOPE, lines.append, started_ns=LATER, brought=Brought.by(OWNED))
    assert second == {
        entry.path: entry for entry in map(inventory.entry_of, b"".join(lines).splitlines())
    }
    assert told.digest != told_again.digest
    assert told_again.read == 2  # its two names


def test_the_digest_tells_what_the_lines_say(root: Path) -> None:
    """By it a capture knows that nothing is new."""
    payload = archived(root)
    _, before = listed(root, payload)
    (root / "etc/busy").write_text("another")
    _, still = listed(root, payload)
    _, after = listed(root, archived(root))
    assert before.digest == still.digest != after.digest
