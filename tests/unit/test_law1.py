"""Law 1: a rebuild makes the scope of any clone equal to the overlay, and changes nothing outside of it."""

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from oracle import STATE_FLAGS, Sight, acl, inode_flags, links, look

from etsclone.errors import ScopeConflict, UnsafePath
from etsclone.model.scope import Scope
from etsclone.model.tree import ancestors
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.kept import commit, kept_folders, undo
from etsclone.overlay.payload import Payload, read_payload, write_payload
from etsclone.overlay.scan import scan
from etsclone.plan.tree import plan_tree

# Few names, so that trees and scopes meet; odd ones, since names are bytes.
NAMES = [
    b"a",
    b"b",
    b"a.b",
    b"-rf",
    b"new\nline",
    b"\xff\xfe",
    "é".encode(),
    b" sp=a#ce",
    b"n" * 130,
]
DEEP = [(b"a",) * 8, (b"a", b"b") * 6]
TIMES = [
    0,
    1,
    1_700_000_000_123_456_789,
    1_700_000_001_000_000_000,
    -1_500_000_000,
    4_000_000_000_000_000_001,
]
CONTENTS = [b"", b"a", b"b", b"line\n" * 300, os.urandom(5000)]
TARGETS = [b"a", b"/a", b"../../..", b"/etc/hostname", b"\xff", b"t" * 200]
# Only root may give attributes to a file that nobody may write.
READ_ONLY = 0o440 if os.geteuid() == 0 else 0o640
OWNERS = [0, 0, 7, 3_000_000] if os.geteuid() == 0 else [os.geteuid()]
# What root alone may give, and not on every filesystem that the tests may run on.
ATTRIBUTES = ["user.etsclone=%test"]
FLAGS = [0]
if os.geteuid() == 0:
    ATTRIBUTES += ["trusted.etsclone", "security.selinux"]
    FLAGS += [0, 0, 0, STATE_FLAGS["i"], STATE_FLAGS["a"] | STATE_FLAGS["d"], STATE_FLAGS["A"]]
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@dataclass(frozen=True)
class Node:
    """Something to stand at a path of a random tree."""

    kind: str
    content: bytes = b""
    mode: int = 0o644
    owner: int = OWNERS[0]
    mtime_ns: int = 0
    attribute: bytes | None = None
    attribute_name: str = ATTRIBUTES[0]
    flags: int = 0
    acl_user: int | None = None
    default_acl: int | None = None


Recipe = list[tuple[tuple[bytes, ...], Node]]

common = {
    "owner": st.sampled_from(OWNERS),
    "mtime_ns": st.sampled_from(TIMES),
    "attribute": st.sampled_from([None, None, b"", b"\x00\xff=\n"]),
    "attribute_name": st.sampled_from(ATTRIBUTES),
    "flags": st.sampled_from(FLAGS),
    "acl_user": st.sampled_from([None, None, 7, 1000]),
}
file_modes = st.sampled_from([0o644, 0o600, 0o755, 0o4755, READ_ONLY])
nodes = st.one_of(
    st.builds(Node, st.just("file"), st.sampled_from(CONTENTS), file_modes, **common),
    st.builds(Node, st.just("sparse"), st.sampled_from(CONTENTS), file_modes, **common),
    st.builds(
        Node,
        st.just("folder"),
        st.just(b""),
        st.sampled_from([0o755, 0o700, 0o1777, 0o2755]),
        default_acl=st.sampled_from([None, None, 7, 1000]),
        **common,
    ),
    st.builds(Node, st.just("symlink"), st.sampled_from(TARGETS), st.just(0o777), **common),
    st.builds(Node, st.just("fifo"), st.just(b""), file_modes, **common),
    st.builds(Node, st.just("hard link")),
    st.builds(Node, st.just("socket"), st.just(b""), file_modes, **common),
)
if os.geteuid() == 0:
    nodes |= st.builds(Node, st.just("capable"), st.sampled_from(CONTENTS), file_modes, **common)
    nodes |= st.builds(Node, st.sampled_from(["char", "block"]), st.just(b""), file_modes, **common)
names = st.sampled_from([b"a", b"b"]) | st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=4).map(tuple)
recipes = st.lists(st.tuples(paths | paths | st.sampled_from(DEEP), nodes), min_size=2, max_size=12)

components = st.sampled_from(["a", "b", "*"]) | st.sampled_from(
    [*map(os.fsdecode, NAMES), "**", "?", "[ab]"]
)
patterns = st.lists(components, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
scopes = st.builds(
    Scope,
    role=st.lists(patterns, min_size=1, max_size=3).map(tuple),
    disk=st.lists(patterns, max_size=2).map(tuple),
    volatile=st.lists(patterns, max_size=1).map(tuple),
)


def build(root: Path, recipe: Recipe) -> None:
    """Make the tree of a recipe; what cannot be made (below a file, on top of something) is left out."""
    linkable: list[bytes] = []
    made: list[tuple[bytes, Node]] = []
    folders: list[tuple[bytes, Node]] = [(os.fsencode(root), Node("folder", mode=0o755))]
    for parts, node in recipe:
        path = os.path.join(os.fsencode(root), *parts)
        ways = [os.path.join(os.fsencode(root), *parts[:depth]) for depth in range(1, len(parts))]
        if os.path.lexists(path) or any(
            os.path.lexists(way) and not _is_folder(way) for way in ways
        ):
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _make(path, node, linkable)
        if node.kind == "folder":
            folders.append((path, node))
        if node.kind in ("folder", "file", "sparse", "capable"):
            made.append((path, node))
    for path, node in sorted(folders, key=lambda item: item[0], reverse=True):
        _finish(path, node)
    # Last: nothing can be made in what is immutable, nor linked to it.
    for path, node in made:
        if node.flags:
            inode_flags(path, node.flags)


def _is_folder(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _make(path: bytes, node: Node, made: list[bytes]) -> None:
    if node.kind == "folder":
        os.mkdir(path)
        return
    if node.kind == "hard link":
        if made:
            os.link(made[-1], path, follow_symlinks=False)
        return
    if node.kind == "symlink":
        os.symlink(node.content, path)
    elif node.kind in SPECIAL:
        os.mknod(path, SPECIAL[node.kind] | 0o600, os.makedev(259, 70000))
    else:
        _make_file(path, node)
    _finish(path, node)
    made.append(path)


SPECIAL = {
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}


def _make_file(path: bytes, node: Node) -> None:
    with open(path, "xb") as file:
        if node.kind == "sparse":
            file.truncate(3 << 16)
            file.seek(1 << 16)
        file.write(node.content)


def _finish(path: bytes, node: Node) -> None:
    os.chown(path, node.owner, os.getegid(), follow_symlinks=False)
    if node.kind != "symlink":
        os.chmod(path, node.mode)
    # Those of users are for files and folders alone.
    has_users = node.kind in ("file", "sparse", "capable", "folder")
    if node.attribute is not None and (has_users or not node.attribute_name.startswith("user.")):
        os.setxattr(path, node.attribute_name, node.attribute, follow_symlinks=False)
    if node.default_acl is not None:
        os.setxattr(path, "system.posix_acl_default", acl(node.default_acl, 5, node.mode))
    if has_users:
        if node.kind == "capable":
            os.setxattr(path, "security.capability", CAPABILITY)
        if node.acl_user is not None:
            os.setxattr(path, "system.posix_acl_access", acl(node.acl_user, 4, node.mode))
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)


def overlay(root: Path, scope: Scope) -> Payload:
    """What capture and rebuild do between two trees, without the signed envelope."""
    packed = io.BytesIO()
    archived = write_payload(packed, str(root), scan(str(root), scope).scope)
    packed.seek(0)
    payload = read_payload(packed, scope)
    assert payload.tree == archived.tree
    return payload


def rebuild(root: Path, payload: Payload, scope: Scope) -> None:
    seen = scan(str(root), scope)
    plan = plan_tree(seen.scope, payload.tree, scope, seen.outside)
    for action in {change.action for change in plan.changes}:
        event(f"plan with {action.value}")
    apply_plan(str(root), plan, payload)
    verify_scope(str(root), payload.tree, scope)
    if plan.changes:
        commit(str(root))


def within(sight: Sight, scope: Scope) -> Sight:
    """What an overlay keeps: all but sockets."""
    return {
        path: seen for path, seen in sight.items() if path in scope and not stat.S_ISSOCK(seen.mode)
    }


def without(sight: Sight, scope: Scope) -> Sight:
    return {path: seen for path, seen in sight.items() if path not in scope}


def link_sets(root: Path, scope: Scope, *, in_scope: bool) -> set[frozenset[bytes]]:
    """Which names share an inode, when only names of the scope, or only the others, are looked at."""
    sets = (
        frozenset(path for path in group if (path in scope) == in_scope) for group in links(root)
    )
    return {group for group in sets if group}


def unlock(top: Path) -> None:
    """Let everything be removed again."""
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder, name)
            if (path.is_dir() or path.is_file()) and not path.is_symlink() and inode_flags(path):
                inode_flags(path, 0)


def check_law(clone: Path, role: Path, scope: Scope) -> None:
    """rebuild(clone, overlay(role)) equals role over the scope, and nothing else changes; or it is refused whole."""
    before, wanted = look(clone), look(role)
    outer_links = link_sets(clone, scope, in_scope=False)
    with overlay(role, scope) as payload:
        try:
            rebuild(clone, payload, scope)
        except (ScopeConflict, UnsafePath) as refusal:
            event(f"refused: {type(refusal).__name__}")
            assert look(clone) == before
            return
        after = look(clone)
        assert within(after, scope) == within(wanted, scope)
        assert not [path for path in after if path in scope and path not in within(after, scope)]
        assert link_sets(clone, scope, in_scope=True) == link_sets(role, scope, in_scope=True)
        assert link_sets(clone, scope, in_scope=False) == outer_links
        ways = {folder for path in within(wanted, scope) for folder in ancestors(path)}
        made = without(after, scope).keys() - before.keys()
        assert made <= ways
        assert {path: after[path] for path in without(after, scope).keys() - made} == without(
            before, scope
        )
        seen = scan(str(clone), scope)
        assert not plan_tree(seen.scope, payload.tree, scope, seen.outside).changes
        event("rebuilt")
    assert look(role) == wanted


def check_undo(clone: Path, role: Path, scope: Scope) -> None:
    """undo(rebuild(clone)) is the clone, in everything that can be seen of a tree; twice, one on top of the other."""
    before, names = look(clone), links(clone)
    applied = 0
    with overlay(role, scope) as payload, overlay(clone, scope) as own:
        for wanted in (payload, own):
            seen = scan(str(clone), scope)
            with suppress(ScopeConflict, UnsafePath):
                plan = plan_tree(
                    seen.scope, wanted.tree, scope, seen.outside, kept_folders(str(clone))
                )
                apply_plan(str(clone), plan, wanted)
                applied += bool(plan.changes)
    event(f"undone {applied} times")
    for _ in range(applied):
        undo(str(clone))
    assert look(clone) == before
    assert links(clone) == names


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """Durability is not what is tested here, and most of the time would go there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr("etsclone.overlay.payload.LEVEL", 1)
        yield


@pytest.mark.timeout(1800)
@given(primary=recipes, secondary=recipes, scope=scopes)
def test_role_inversion(tmp_path: Path, primary: Recipe, secondary: Recipe, scope: Scope) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder, ExitStack() as cleanup:
        cleanup.callback(unlock, Path(folder))
        trees = {name: Path(folder, name) for name in ("p", "s", "p2", "s2")}
        for name, tree in trees.items():
            tree.mkdir()
            build(tree, primary if name.startswith("p") else secondary)
        check_law(trees["p2"], trees["s"], scope)
        check_law(trees["s2"], trees["p"], scope)


@pytest.mark.timeout(1800)
@given(primary=recipes, secondary=recipes, scope=scopes)
def test_undo_is_the_way_back(
    tmp_path: Path, primary: Recipe, secondary: Recipe, scope: Scope
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder, ExitStack() as cleanup:
        cleanup.callback(unlock, Path(folder))
        trees = {"p": Path(folder, "p"), "s": Path(folder, "s")}
        for name, tree in trees.items():
            tree.mkdir()
            build(tree, primary if name == "p" else secondary)
        check_undo(trees["p"], trees["s"], scope)
