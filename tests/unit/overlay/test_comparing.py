"""Inventories side by side: what is passed over as equal, what differs, and what is refused."""

import hashlib
import io
from functools import partial
from typing import BinaryIO

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from payloads import frame

from etsclone.errors import HostilePayload
from etsclone.model.packages import Installed, Package
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import comparing, inventory
from etsclone.overlay.comparing import Listing, differing
from etsclone.overlay.compression import Unpacked

PACKAGES = (Package("a", "all", "1:2~b"), Package("a", "amd64", "1"), Package("b+", "all", "1"))
Tree = dict[bytes, Entry]


ROOT = Entry(b"/", Kind.FOLDER, 0o755, 0, 0, 0)


def packed(tree: Tree, installed: Installed = Installed()) -> Listing:  # noqa: B008 - it is frozen
    """The listing of a tree, and its root."""
    out = io.BytesIO()
    with inventory.writing(out, installed) as add:
        add(ROOT)
        for path in sorted(tree):
            add(tree[path])
    return Listing(io.BytesIO(out.getvalue()))


def text(lines: bytes) -> Listing:
    return Listing(io.BytesIO(frame(lines)))


def naive(left: Tree, right: Tree) -> list[tuple[Entry | None, Entry | None]]:
    pairs = ((left.get(path), right.get(path)) for path in sorted(left.keys() | right.keys()))
    return [pair for pair in pairs if pair[0] != pair[1]]


entries = st.builds(
    lambda path, size: Entry(path, Kind.FILE, 0o644, 0, 0, 0, size=size),
    st.binary(min_size=1, max_size=3)
    .filter(lambda name: name not in {b".", b".."} and not {0, ord("/")} & set(name))
    .map(b"/".__add__),
    st.integers(0, 3),
)
trees = st.lists(entries, max_size=30).map(lambda found: {entry.path: entry for entry in found})


class InPieces(Unpacked):
    """As if the buffer were small."""

    def __init__(self, size: int, stream: BinaryIO, limit: int) -> None:
        super().__init__(stream, limit)
        self._size = size

    def readinto(self, buffer: bytearray | memoryview) -> int:
        return super().readinto(memoryview(buffer)[: self._size])


@given(trees, trees, st.integers(1, 300))
def test_it_finds_what_comparing_each_path_finds(left: Tree, right: Tree, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "Unpacked", partial(InPieces, window))
        assert list(differing(packed(left), packed(right))) == naive(left, right)


@pytest.mark.parametrize("changed", [(), (0,), (4999,), (7, 8, 2500), tuple(range(5000))])
def test_many_lines(changed: tuple[int, ...]) -> None:
    def tree(words: str) -> Tree:
        found = {}
        for number in range(5000):
            content = f"{words if number in changed else ''}{number}".encode()
            path = b"/srv/%05d" % number
            digest = hashlib.sha256(content).hexdigest()
            found[path] = Entry(path, Kind.FILE, 0o644, 0, 0, 0, size=1, sha256=digest)
        return found

    left, right = tree("left"), tree("right")
    found = list(differing(packed(left), packed(right)))
    assert found == naive(left, right)
    assert len(found) == len(changed)
    assert list(differing(packed(left), packed({}))) == naive(left, {})


def test_packages_are_kept_with_who_brought_what() -> None:
    tree = {path: Entry(path, Kind.FILE, 0o644, 0, 0, 0) for path in (b"/x", b"/y")}
    installed = Installed(PACKAGES, {b"/y": "b+"})
    found = packed(tree, installed)
    assert found.packages == PACKAGES
    assert [found.take().package for _ in (ROOT, *tree)] == ["", "", "b+"]
    assert found.at_end()
    # Who brought a path is no difference of the path.
    assert [
        one and one.state
        for pair in differing(packed(tree), packed(tree, installed))
        for one in pair
    ] == [tree[b"/y"].state] * 2


def test_other_readers_pass_over_packages() -> None:
    out = io.BytesIO()
    with inventory.writing(out, Installed(PACKAGES, {b"/y": "b+"})) as add:
        add(ROOT)
        add(Entry(b"/y", Kind.FILE, 0o644, 0, 0, 0))
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(out.getvalue())
    assert plain.decode().splitlines() == [
        "#mtree",
        "# package: a 1:2~b all",
        "# package: a 1 amd64",
        "# package: b+ 1 all",
        ". type=dir mode=0755 uid=0 gid=0 time=0.000000000",
        "./y type=file mode=0644 uid=0 gid=0 tags=b+ time=0.000000000 size=0",
    ]
    (_, entry) = inventory.read(io.BytesIO(out.getvalue()))
    assert entry.package == "b+"


TOP = b". type=dir mode=0755 uid=0 gid=0 time=0.000000000\n"
LINE = b"./%s type=file mode=0644 uid=0 gid=0 time=0.000000000 size=0\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"#mtree",
        b"# package: a 1 all\n",
        b"#mtree\n",
        b"#mtree\n" + LINE % b"a",
        b"#mtree\n# package: a 1 all\n" + LINE % b"a",
        b"#mtree\n# package: a 1\n",
        b"#mtree\n# package: a 1 all more\n",
        b"#mtree\n# package:  1 all\n",
        b"#mtree\n# package: b 1 all\n# package: a 1 all\n",
        b"#mtree\n# package: a 1 all\n# package: a 1 all\n",
        b"#mtree\n# package: a \\0121 all\n",
        b"#mtree\n# package: \\377 1 all\n",
        b"#mtree\n" + TOP + LINE % b"a" + b"# package: a 1 all\n",
        b"#mtree\n# anything\n",
        b"#mtree\n" + TOP + LINE % b"b" + LINE % b"a",
        b"#mtree\n" + TOP + LINE % b"a" + LINE % b"a",
        b"#mtree\n" + TOP + LINE % (b"x" * 70_000),
        b"#mtree\n" + TOP + LINE % b"a" + b"./b",
    ],
)
def test_it_refuses_what_no_capture_writes(lines: bytes) -> None:
    with pytest.raises(HostilePayload):
        list(differing(text(lines), text(b"#mtree\n" + TOP)))
    if b"package" in lines or b"#mtree\n#" in lines:
        with pytest.raises(HostilePayload):
            list(inventory.read(io.BytesIO(frame(lines))))
