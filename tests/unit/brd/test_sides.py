"""What a word of `brd diff` names, and how differences are written."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from stores import Made, etsclone

from etsclone.commands.brd import diff
from etsclone.commands.brd.differences import package_line, path_line, print_comparison
from etsclone.commands.brd.sides import (
    OverlayPlace,
    Side,
    TreePlace,
    find_place,
    payloads_of,
)
from etsclone.errors import StoreRefused, UsageError
from etsclone.model.diff import Change, Course, Difference, PackageChange
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.plan.diff import compare
from etsclone.store.folder import create


@pytest.fixture
def store(tmp_path: Path) -> Path:
    create(tmp_path / "store", "school", "base-debian", ("primary", "secondary"))
    for number in (1, 2):
        (tmp_path / f"store/primary/primary-00000{number}.brd").write_bytes(b"header.json")
    return tmp_path / "store"


def test_places_in_a_store(store: Path) -> None:
    newest = find_place(f"{store}:primary")
    assert isinstance(newest, OverlayPlace)
    assert newest.path == store / "primary/primary-000002.brd"
    first = find_place(f"{store}:primary:1")
    assert isinstance(first, OverlayPlace)
    assert (first.path.name, first.role, first.generation) == ("primary-000001.brd", "primary", 1)
    assert first.pair == "school"
    file = find_place(str(store / "primary/primary-000001.brd"))
    assert isinstance(file, OverlayPlace)
    assert (file.signers, file.role) == (store / "allowed_signers", None)


@pytest.mark.parametrize("what", ["primary:3", "tertiary", "secondary"])
def test_what_a_store_does_not_have(store: Path, what: str) -> None:
    with pytest.raises(StoreRefused):
        find_place(f"{store}:{what}")


def test_show_takes_a_place_in_a_store(made: Made) -> None:
    for place, number in ((":primary", 5), (":primary:2", 2)):
        shown = etsclone("brd", "show", f"{made.path}{place}", "--json").facts
        there = etsclone("brd", "show", made.store.overlay("primary", number), "--json").facts
        assert (shown["generation"], shown["digest"]) == (number, there["digest"])
    assert etsclone("brd", "show", f"{made.path}:primary:9").code == 3
    several = etsclone("brd", "show", made.path)
    assert (several.code, "name a role" in several.err) == (2, True)


def test_trees_and_disks(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(512))
    (tmp_path / "a:b").mkdir()
    assert find_place(str(tmp_path / "disk.raw")) == TreePlace(f"{tmp_path}/disk.raw", disk=True)
    assert find_place(str(tmp_path / "a:b")) == TreePlace(f"{tmp_path}/a:b", disk=False)
    with pytest.raises(UsageError):
        find_place(str(tmp_path / "missing"))


def test_a_store_alone_is_no_side(store: Path) -> None:
    with pytest.raises(UsageError, match="more than one overlay"):
        find_place(str(store))
    for words in ([str(store), "x", "y"], [str(store / "primary")], []):
        with pytest.raises(UsageError):
            diff._places(words)


def test_lines() -> None:
    upgrade = PackageChange("dhcpd", "amd64", Course.UPGRADED, ("1",), ("2",), 12)
    assert package_line(upgrade) == "package dhcpd upgraded 1 -> 2 (12 paths)"
    gone = PackageChange("dhcpd", "amd64", Course.REMOVED, ("1",), ())
    assert package_line(gone) == "package dhcpd removed 1"
    words = ("content", "time")
    assert path_line(Difference(b"/x", Change.CHANGED, Kind.FILE, words)) == "~ /x (content)"
    assert path_line(Difference(b"/x", Change.CHANGED, Kind.FILE, ("time",))) == "~ /x (time)"
    assert path_line(Difference(b"/\x1b", Change.ADDED, Kind.FOLDER, (), 3)) == (
        "+ /\\x1b (folder, 3 paths)"
    )
    assert (
        path_line(Difference(b"/x", Change.BENEATH, Kind.FOLDER, (), 9)) == "~ /x (9 paths beneath)"
    )


@pytest.mark.parametrize(("everything", "count"), [(False, 102), (True, 151)])
def test_long_lists_end_somewhere(*, everything: bool, count: int) -> None:
    found = [(Entry(b"/x%03d" % number, Kind.FILE, 0, 0, 0, 0), None) for number in range(150)]
    lines: list[str] = []
    print_comparison(compare(found, [Scope(())]), everything=everything, out=lines.append)
    assert len(lines) == count
    assert lines[0] == "unclaimed, a rebuild would miss it: 150 paths"
    assert everything or lines[-1] == "  and 50 lines more: --all shows them"


def test_equal_payloads_are_not_read() -> None:
    def unread() -> BinaryIO:
        raise AssertionError("read for nothing")

    def side(payload: Callable[[], BinaryIO] | None, digest: str | None) -> Side:
        return Side("x", "x", Scope(()), "", unread, payload, digest)

    for left, right in (
        (side(unread, "a"), side(unread, "a")),
        (side(None, None), side(unread, "a")),
        (side(unread, None), side(None, None)),
    ):
        with payloads_of(left, right) as payloads:
            assert payloads is None
    for digests in (("a", "b"), (None, None), ("a", None)):
        sides = [side(unread, digest) for digest in digests]
        with pytest.raises(AssertionError, match="read for nothing"), payloads_of(*sides):
            pass
