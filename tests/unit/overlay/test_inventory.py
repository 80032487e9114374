"""The inventory: what other programs read in it, and what the reader refuses."""

import io
import os
import subprocess
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from payloads import frame

from etsclone.errors import HostilePayload
from etsclone.model.packages import Package
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import inventory
from etsclone.overlay.comparing import Listing
from etsclone.overlay.listing import list_tree
from etsclone.overlay.scan import scan
from etsclone.units import MIB

DIGEST = "ab" * 32
ENTRIES = [
    Entry(b"/", Kind.FOLDER, 0o755, 0, 0, 10**18, "root", "root"),
    Entry(b"/a\nb", Kind.FILE, 0o644, 0, 0, -1, size=1 << 40),
    Entry(
        b"/a b",
        Kind.FILE,
        0o4755,
        1,
        2,
        1_700_000_000_000_000_001,
        "me",
        "a b",
        size=7,
        sha256=DIGEST,
    ),
    Entry(b"/b", Kind.BLOCK_DEVICE, 0o600, 0, 0, -1_500_000_000, device=(8, 0)),
    Entry(b"/fifo", Kind.FIFO, 0, 4_000_000_000, 0, 0),
    Entry(b"/socket", Kind.SOCKET, 0o1777, 0, 0, 0),
    Entry(b"/\xc3\xa9", Kind.CHAR_DEVICE, 0o600, 0, 0, 0, device=(259, 70000)),
    Entry(b"/\xff=#*\\", Kind.SYMLINK, 0o777, 0, 0, 0, target=b" \xff=\n"),
]


def packed(entries: list[Entry]) -> bytes:
    out = io.BytesIO()
    inventory.write(entries, out)
    return out.getvalue()


def unpacked(data: bytes, limit: int = inventory.INVENTORY_LIMIT) -> list[Entry]:
    return list(inventory.read(io.BytesIO(data), limit=limit))


def test_reads_what_it_wrote() -> None:
    assert unpacked(packed(ENTRIES)) == ENTRIES


@given(st.sets(st.sampled_from([entry.path for entry in ENTRIES])), st.booleans())
def test_single_paths_are_found_without_the_rest(wanted: set[bytes], missing: bool) -> None:
    asked = wanted | ({b"/no such"} if missing else set())
    found = inventory.listed(io.BytesIO(packed(ENTRIES)), asked)
    assert found == {entry.path: entry for entry in ENTRIES if entry.path in wanted}


def test_text() -> None:
    plain = (
        zstandard.ZstdDecompressor().decompressobj().decompress(packed([*ENTRIES[:3], ENTRIES[-1]]))
    )
    file = r"./a\040b type=file mode=4755 uid=1 gid=2 uname=me gname=a\040b"
    assert plain.decode().splitlines() == [
        "#mtree",
        ". type=dir mode=0755 uid=0 gid=0 uname=root gname=root time=1000000000.000000000",
        r"./a\012b type=file mode=0644 uid=0 gid=0 time=-1.999999999 size=1099511627776",
        f"{file} time=1700000000.000000001 size=7 sha256digest={DIGEST}",
        r"./\377\075\043\052\134 type=link mode=0777 uid=0 gid=0 time=0.000000000 link=\040\377\075\012",
    ]


def test_a_whole_tree(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/x").write_text("x")
    out = io.BytesIO()
    with inventory.writing_lines(out) as write:
        list_tree(str(tmp_path), Scope(()), write, started_ns=0)
    found = scan(str(tmp_path), Scope(("/etc/x",)))
    entries = unpacked(out.getvalue())
    assert [entry.path for entry in entries] == [b"/", b"/etc", b"/etc/x"]
    assert entries[2] == found.scope[b"/etc/x"]


def test_bsdtar_reads_it(tmp_path: Path) -> None:
    named = [
        Entry(b"/", Kind.FOLDER, 0o755, 0, 0, 0),
        Entry(b"/a b", Kind.FILE, 0o4755, 1, 2, 10**9, "me", "you", sha256=DIGEST),
        Entry(b"/[x]*", Kind.FILE, 0o644, 1, 2, 10**9),
        Entry(b"/disk", Kind.BLOCK_DEVICE, 0o600, 0, 6, 0, device=(8, 1)),
        Entry(b"/link", Kind.SYMLINK, 0o777, 0, 0, 0, target=b"/to there"),
    ]
    listing = tmp_path / "listing.mtree"
    listing.write_bytes(zstandard.ZstdDecompressor().decompressobj().decompress(packed(named)))
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    shown = subprocess.run(
        ["bsdtar", "-tvf", listing], capture_output=True, text=True, check=True, env=environment
    ).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert [line[0] for line in lines] == [
        "drwxr-xr-x",
        "-rwsr-xr-x",
        "-rw-r--r--",
        "brw-------",
        "lrwxrwxrwx",
    ]
    assert [" ".join(line[8:]) for line in lines] == [
        ".",
        "./a b",
        "./[x]*",
        "./disk",
        "./link -> /to there",
    ]
    assert lines[1][2:4] == ["me", "you"]
    assert lines[3][4] == "8,1"


ROOT = b". type=dir mode=0755 uid=0 gid=0 time=0.000000000\n"
FILE = b"./x type=file mode=0644 uid=7 gid=0 uname=u tags=t time=0.000000000 size=1 flags=sync\n"
LINK = b"./y type=link mode=0777 uid=0 gid=0 time=0.000000000 link=a\\040b\n"


def test_a_line_has_one_form() -> None:
    assert len(unpacked(frame(b"#mtree\n" + ROOT + FILE + LINK))) == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"uid=7", b"uid=07"),
        (b"uid=7", b"uid=+7"),
        (b"uid=7", b"uid=\xd9\xa7"),
        (b"size=1", b"size=01"),
        (b" size=1", b""),
        (b"size=1", b"size="),
        (b"time=0.", b"time=00."),
        (b"time=0.", b"time=-0."),
        (b"mode=0644", b"mode=644"),
        (b"mode=0644", b"mode=00644"),
        (b"mode=0644 uid=7", b"uid=7 mode=0644"),
        (b"uname=u", b"uname="),
        (b"uname=u", b"uname=\\165"),
        (b"uname=u", b"uname=u uname=u"),
        (b"uname=u tags=t", b"tags=t uname=u"),
        (b"tags=t", b"tags=a=b"),
        (b"type=file", b"type=file  "),
        (b"type=file", b"type=file type=file"),
        (b"flags=sync", b"flags=sync,sync"),
        (b"flags=sync", b"flags="),
        (b"flags=sync", b"flags=sync "),
        (b"./x", b"./\\170"),
        (b"./x", b"./x\\"),
        (b"./x", b"./x\\08"),
        (b"./x", b"./x\\777"),
        (b"./x", b"./\xe9"),
        (b"./x", b"./x#"),
        (b"./x", b"./x/"),
        (b"./x", b"/x"),
        (b"a\\040b", b"a=b"),
        (b"a\\040b", b"a\\000b\\"),
        (b"link=a\\040b", b"link="),
        (b"./y", b"./x"),
        (b"./y", b"./a"),
        (FILE, LINK),
        (ROOT, b""),
        (ROOT, b"./" + ROOT),
        (ROOT, ROOT + ROOT),
        (ROOT + FILE + LINK, b""),
    ],
)
def test_any_other_is_refused(old: bytes, new: bytes) -> None:
    text = b"#mtree\n" + ROOT + FILE + LINK
    assert old in text
    with pytest.raises(HostilePayload):
        unpacked(frame(text.replace(old, new, 1)))


def test_no_capture_writes_more() -> None:
    packages = [
        Package(f"p{number:06}", "all", "1") for number in range(inventory.MOST_PACKAGES + 1)
    ]
    assert inventory.head(packages).count(b"\n") == 1
    assert inventory.head(packages[1:]).count(b"\n") == len(packages)


@pytest.mark.parametrize("count", [inventory.MOST_PACKAGES, inventory.MOST_PACKAGES + 1])
def test_there_are_no_more_packages_than_any_system_has(count: int) -> None:
    packages = b"".join(b"# package: p%06d 1 all\n" % number for number in range(count))
    data = frame(b"#mtree\n" + packages + ROOT)
    if count == inventory.MOST_PACKAGES:
        assert len(unpacked(data)) == 1
        assert len(Listing(io.BytesIO(data)).packages) == count
    else:
        for reader in (unpacked, lambda data: Listing(io.BytesIO(data))):
            with pytest.raises(HostilePayload, match="more than 65536 packages"):
                reader(data)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"#mtree",
        b"#mtree2\n",
        b"#mtree\n. type=dir mode=0755 uid=0 gid=0 time=0.000000000",
        b"#mtree\n. type=dir mode=0755 uid=0 gid=0 time=0.0\n",
        b"#mtree\n. type=dir mode=0755 uid=0 gid=0 time=0.000000000 extra=1\n",
        b"#mtree\n. type=dir mode=0755 uid=0 gid=0 time=0.000000000 optional\n",
        b"#mtree\n. type=door mode=0755 uid=0 gid=0 time=0.000000000\n",
        b"#mtree\n. mode=0755 uid=0 gid=0 time=0.000000000\n",
        b"#mtree\n. type=dir mode=10000 uid=0 gid=0 time=0.000000000\n",
        b"#mtree\netc type=dir mode=0755 uid=0 gid=0 time=0.000000000\n",
        b"#mtree\n./x type=link mode=0755 uid=0 gid=0 time=0.000000000\n",
        b"#mtree\n./x type=char mode=0755 uid=0 gid=0 time=0.000000000 device=linux,1\n",
        b"#mtree\n./" + b"x" * 70_000 + b" type=dir mode=0755 uid=0 gid=0 time=0.000000000\n",
    ],
)
def test_refuses_what_it_would_not_write(text: bytes) -> None:
    with pytest.raises(HostilePayload):
        unpacked(frame(text))


def test_a_bomb_is_bounded() -> None:
    with pytest.raises(HostilePayload):
        unpacked(frame(b"#mtree\n" + b"\n" * (64 * MIB)), limit=MIB)


def test_refuses_any_truncation() -> None:
    sound = packed(ENTRIES)
    for size in range(len(sound)):
        with pytest.raises(HostilePayload):
            unpacked(sound[:size])
