"""Folders of very many names, which are listed part by part: the same lines, in little memory."""

import io
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etsclone.model.scope import Scope
from etsclone.overlay import look, names
from etsclone.overlay.inventory import entry_of
from etsclone.overlay.listing import NO_AIDS, list_tree, tree_listing
from etsclone.overlay.payload import write_payload
from etsclone.overlay.scan import scan
from etsclone.units import MIB

from .test_listing import LATER, NOTHING, Memory, build, listed, put, trees
from .test_listing import names as some_names

TICK = 0.02
MANY = 5_000


@pytest.fixture
def at_most(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many names a part has."""

    def setting(most: int) -> None:
        for module in (names, look):
            monkeypatch.setattr(module, "MOST", most)

    return setting


@settings(max_examples=25)
@given(
    before=trees,
    after=trees,
    gone=st.sets(st.integers(0, 60)),
    volatile=st.lists(some_names, max_size=1),
    most=st.integers(1, 3),
    workers=st.integers(0, 1),
)
def test_parts_say_what_the_whole_says(
    at_most: Callable[[int], None],
    before: list[tuple[bytes, ...]],
    after: list[tuple[bytes, ...]],
    gone: set[int],
    volatile: list[bytes],
    most: int,
    workers: int,
) -> None:
    """Also where they are remembered, whatever changes; and how they were cut before does not show."""
    scope = Scope(
        (), (), tuple(f"/**/{name.decode('utf-8', 'surrogateescape')}" for name in volatile)
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        memory = Memory(Path(folder, "memory"), frozenset({root.stat().st_dev}))
        build(root, before)
        at_most(most)
        time.sleep(TICK)
        listed(root, scope, memory, workers=workers)
        for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
            if number in gone:
                path.rename(path.with_name(f"{path.name}, renamed"))
        build(root, after)
        time.sleep(TICK)
        changed, told = listed(root, scope, memory, workers=workers)
        again, remembered = listed(root, scope, memory, workers=workers)
        fresh, told_fresh = listed(root, scope)
        at_most(1000)
        whole, told_whole = listed(root, scope)
        assert changed == again == fresh == whole
        assert told.digest == remembered.digest == told_fresh.digest
        assert told.paths == told_whole.paths
        assert remembered.read == 0


@pytest.mark.parametrize("quick", [False, True])
def test_of_a_large_folder_only_a_part_is_held(
    tmp_path: Path, at_most: Callable[[int], None], quick: bool
) -> None:
    """As a whole these names would take more than 5 MiB. First, again, and when one has come that sorts before all."""
    root = tmp_path / "root"
    (root / "many").mkdir(parents=True)
    for number in range(MANY):
        (root / "many" / f"file-{number}").touch()
    at_most(200)
    memory = Memory(tmp_path / "memory")
    for new in (None, None, "a"):
        if new:
            put(root / "many" / new)
        tracemalloc.start()
        try:
            with memory.aids(0) as aids:
                told = list_tree(
                    str(root),
                    NOTHING,
                    lambda _: None,
                    started_ns=LATER,
                    aids=NO_AIDS if quick else aids,
                    quick=quick,
                )
            assert tracemalloc.get_traced_memory()[1] < 2 * MIB
        finally:
            tracemalloc.stop()
        assert told.paths == MANY + 2 + bool(new)


def test_a_folder_that_belongs_into_a_later_part_is_followed_there(
    tmp_path: Path, at_most: Callable[[int], None]
) -> None:
    """Its name sorts before `a-1`, what is in it behind; also when only the folder changes, and not that part."""
    root, memory = tmp_path / "root", Memory(tmp_path / "memory")
    for name in ("a", "a-1", "a-2", "a-3", "a.4", "b/in"):
        put(root / name)
    at_most(2)
    time.sleep(TICK)

    def paths() -> list[bytes]:
        text, told = listed(root, memory=memory)
        assert text == listed(root)[0]
        assert told.warnings == []
        return [entry_of(line).path for line in text.splitlines()][1:]

    outside = [b"/a", b"/a-1", b"/a-2", b"/a-3", b"/a.4", b"/b", b"/b/in"]
    inside = [b"/a/in", b"/a/in-2", b"/a/in-3"]
    assert paths() == outside
    (root / "a").unlink()
    for path in inside:
        put(root / path.decode()[1:])
    assert paths() == sorted(outside + inside)
    assert paths() == sorted(outside + inside)
    shutil.rmtree(root / "a")
    put(root / "a")
    assert paths() == outside


def test_a_folder_that_goes_while_it_is_listed_is_told_and_met_again(
    tmp_path: Path, at_most: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the payload holds of it is listed all the same: a rebuild brings it."""
    root, scope = tmp_path / "root", Scope(("/x",))
    for name in ("x/a/b/in", "x/b", "x/c"):
        put(root / name)
    at_most(1)
    monkeypatch.setattr(look, "_OPEN", 0)  # it is opened anew for its second part
    payload = write_payload(io.BytesIO(), str(root), scan(str(root), scope).scope).tree
    memory = Memory(tmp_path / "memory", frozenset({root.stat().st_dev}))
    lines: list[bytes] = []

    def write(text: bytes) -> None:
        lines.append(text)
        if text.startswith(b"./x/a/b/in "):
            (root / "x").rename(tmp_path / "gone")

    with (
        memory.aids(0) as aids,
        tree_listing(str(root), scope, started_ns=LATER, aids=aids) as put_out,
    ):
        told = put_out(write, payload)
    found = [entry_of(line).path for line in b"".join(lines).splitlines()]
    assert found == [b"/", *payload]
    assert told.warnings == ["/x changed while it was read"]
    (tmp_path / "gone").rename(root / "x")
    assert listed(root, scope, memory)[0] == listed(root, scope)[0]
