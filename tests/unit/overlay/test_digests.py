"""The digests of a few files, out of an inventory and from the tree."""

import hashlib
import io
from pathlib import Path

import pytest

from etsclone.errors import HostilePayload
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import inventory
from etsclone.overlay.digests import read_digests, recorded_digests

DIGEST = hashlib.sha256(b"content").hexdigest()


def entry(path: bytes, sha256: str | None = DIGEST) -> Entry:
    return Entry(path, Kind.FILE, 0o644, 0, 0, 0, size=7, sha256=sha256)


def packed(*entries: Entry) -> bytes:
    out = io.BytesIO()
    inventory.write(entries, out)
    return out.getvalue()


def test_only_those_that_are_asked_for_are_taken_from_an_inventory() -> None:
    data = packed(entry(b"/a"), entry(b"/a b\n"), entry(b"/unread", None))
    wanted = {b"/a b\n", b"/unread", b"/missing"}
    assert recorded_digests(io.BytesIO(data), wanted) == {b"/a b\n": DIGEST}


def test_a_damaged_inventory_is_refused() -> None:
    with pytest.raises(HostilePayload):
        recorded_digests(io.BytesIO(packed(entry(b"/a"))[:-3]), {b"/a"})


def test_files_are_read_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("etc")
    (tmp_path / "etc/other").symlink_to("file")
    asked = [b"/etc/file", b"/link/file", b"/etc/other", b"/etc", b"/etc/missing"]
    assert read_digests(str(tmp_path), asked) == {b"/etc/file": DIGEST}
