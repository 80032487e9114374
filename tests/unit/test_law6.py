"""Law 6: whatever a scope holds, its overlay is verified, opened and unpacked by the commands of docs/brd-format.md."""

import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from documents import FORMAT, commands, needs, section, typed
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from oracle import STATE_FLAGS, Seen, look
from test_law1 import Recipe, build, link_sets, recipes, scopes, unlock, within

from etsclone.model.brd import CloneIdentity, Header
from etsclone.model.scope import Scope
from etsclone.overlay.container import measure, write_overlay
from etsclone.overlay.header import MEMBERS, SEALED_MEMBERS
from etsclone.overlay.inventory import writing_lines
from etsclone.overlay.listing import list_tree
from etsclone.overlay.payload import write_payload
from etsclone.overlay.scan import scan
from etsclone.overlay.sealing import sealing
from etsclone.overlay.signing import load_private_key, sign

GOLDEN = Path(__file__).parents[1] / "golden/v1"
RECIPIENT = "age1kus9x94jaq9hu9rzt98rmtu58tcvjwuw0nx3etmf6hhyvf94pcvqpm74ae"
VERIFY, OPEN, UNPACK = commands(section(FORMAT, "By hand"))

KINDS = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "link": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "socket": stat.S_IFSOCK,
}
LETTERS = {"sappnd": "a", "schg": "i", "nodump": "d", "noatime": "A", "dirsync": "D", "sync": "S"}

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""An example runs eight programs."""

# A header holds only what people can read.
printable_scopes = scopes.filter(
    lambda scope: "".join((*scope.role, *scope.disk, *scope.volatile)).isprintable()
)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etsclone.overlay.payload.LEVEL", 1)
        yield


@pytest.fixture(scope="module")
def keyfile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    shutil.copy(GOLDEN / "test_key", path)
    path.chmod(0o600)
    return path


def capture(root: Path, scope: Scope, keyfile: Path, recipients: list[str]) -> bytes:
    """What `brd capture` writes of a tree."""
    payload, listing, overlay = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with sealing(payload, recipients) as sealed:
        write_payload(sealed, str(root), scan(str(root), scope).scope)
    with sealing(listing, recipients) as sealed, writing_lines(sealed) as write:
        list_tree(str(root), scope, write, started_ns=0)
    names = SEALED_MEMBERS if recipients else MEMBERS
    header = Header(
        pair="ets",
        role="primary",
        host="srv1",
        profile="ltsp-isc-dhcp",
        profile_sha256="0" * 64,
        scope=scope,
        generation=3,
        created=datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC),
        previous="0" * 64,
        clone=CloneIdentity(),
        members=(
            measure(names[0], io.BytesIO(payload.getvalue())),
            measure(names[1], io.BytesIO(listing.getvalue())),
        ),
    )
    signer = partial(sign, key=load_private_key(keyfile, bytes))
    contents = (io.BytesIO(payload.getvalue()), io.BytesIO(listing.getvalue()))
    write_overlay(overlay, header, signer, *contents)
    return overlay.getvalue()


def by_hand(overlay: bytes, root: Path, mnt: Path) -> None:
    """All that the document tells a person to type."""
    root.mkdir()
    mnt.mkdir()
    (root / "primary-000003.brd").write_bytes(overlay)
    shutil.copy(GOLDEN / "allowed_signers", root)
    said = typed(VERIFY.replace("/root", str(root)), root)
    assert 'Good "brd@etsclone" signature for primary' in said
    told = re.findall(r'"sha256": "([0-9a-f]{64})"', said)
    assert re.findall(r"^([0-9a-f]{64})  ", said, re.MULTILINE) == told
    folder = root / "overlay"
    if list(folder.glob("*.age")):
        shutil.copy(GOLDEN / "test_identity", folder / "recovery.txt")
        typed(OPEN, folder)
    typed(UNPACK.replace("/mnt", str(mnt)), folder)


@needs("ssh-keygen", "tar", "zstd")
def test_a_name_between_a_folder_and_what_it_holds(tmp_path: Path, keyfile: Path) -> None:
    """What the words for times of folders in the command are for; random trees seldom have it."""
    tree, mnt = tmp_path / "tree", tmp_path / "mnt"
    for folder in ("etc/a/x/y", "etc/a.b/y", "etc/a/x.d/z"):
        (tree / folder).mkdir(parents=True)
    for path in tree.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    by_hand(capture(tree, Scope(("/etc",)), keyfile, []), tmp_path / "root", mnt)
    assert {seen.mtime_ns for path, seen in look(mnt).items() if path != b"/"} == {10**18}


# --- mtree(5), read with nothing of etsclone -------------------------------------------------------------------------


def plain(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)


def listed(packed: Path) -> dict[bytes, Seen]:
    """What an inventory says of each path; for the content of a file stands its digest."""
    text = subprocess.run(["zstd", "-dc", packed], capture_output=True, check=True).stdout
    first, *lines = text.splitlines()
    assert first == b"#mtree"
    found = {}
    for line in lines:
        path, *rest = line.split(b" ")
        found[plain(path)[1:] or b"/"] = seen_in(dict(word.split(b"=", 1) for word in rest))
    return found


def seen_in(words: dict[bytes, bytes]) -> Seen:
    kind = words[b"type"].decode()
    seconds, nanoseconds = map(int, words[b"time"].split(b"."))
    content: bytes | int = words.get(b"sha256digest", plain(words.get(b"link", b"")))
    if kind in ("char", "block"):
        _, major, minor = words[b"device"].split(b",")
        content = os.makedev(int(major), int(minor))
    flags = filter(None, words.get(b"flags", b"").decode().split(","))
    return Seen(
        KINDS[kind] | int(words[b"mode"], 8),
        int(words[b"uid"]),
        int(words[b"gid"]),
        seconds * 10**9 + nanoseconds,
        content,
        (),
        sum(STATE_FLAGS[LETTERS[flag]] for flag in flags),
    )


def as_listed(seen: Seen) -> Seen:
    """What an inventory has words for."""
    content: bytes | int = seen.content
    if stat.S_ISREG(seen.mode):
        assert isinstance(seen.content, bytes)
        content = hashlib.sha256(seen.content).hexdigest().encode()
    elif not stat.S_ISLNK(seen.mode) and not seen.content:
        content = b""
    return replace(seen, content=content, attributes=())


# --------------------------------------------------------------------------------------------------------------------


@needs("ssh-keygen", "tar", "zstd", "age")
@pytest.mark.skipif(os.geteuid() != 0, reason="by hand it is done as root")
@pytest.mark.timeout(1800)
@settings(phases=NO_SHRINKING)
@given(recipe=recipes, scope=printable_scopes, sealed=st.booleans())
def test_every_overlay_is_unpacked_by_hand(
    tmp_path: Path, keyfile: Path, recipe: Recipe, scope: Scope, sealed: bool
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as name, ExitStack() as cleanup:
        folder = Path(name)
        tree, root, mnt = folder / "tree", folder / "root", folder / "mnt"
        cleanup.callback(unlock, folder)
        tree.mkdir()
        build(tree, recipe)
        by_hand(capture(tree, scope, keyfile, [RECIPIENT] if sealed else []), root, mnt)
        role = look(tree)
        wanted = {path: replace(seen, flags=0) for path, seen in within(role, scope).items()}
        assert within(look(mnt), scope) == wanted
        assert link_sets(mnt, scope, in_scope=True) == link_sets(tree, scope, in_scope=True)
        everything = listed(root / "overlay/inventory.mtree.zst")
        assert everything == {path: as_listed(role[path]) for path in everything}
        assert wanted.keys() <= everything.keys()
        event("sealed" if sealed else "not sealed")
        event(f"{min(len(wanted), 5)} paths or more")
