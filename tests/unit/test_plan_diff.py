"""What differences mean, and how few lines tell them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.model.diff import Change, Comparison, Course, Difference, Meaning
from etsclone.model.packages import Package
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind, Tree
from etsclone.plan import diff
from etsclone.plan.diff import compare, unlisted, what_differs
from etsclone.plan.versions import package_changes, sort_key

SCOPE = Scope(("/etc/hosts", "/etc/dhcp"), ("/etc/fstab",), ("/var/log", "/opt/t/cache"))
OLD = [Package("dhcpd", "amd64", "1.0-1"), Package("tool", "all", "1")]
NEW = [Package("dhcpd", "amd64", "1.0-2"), Package("tool", "all", "1")]


def file(path: str, content: str = "a", *, mtime_ns: int = 0, package: str = "") -> Entry:
    digest = content.encode().hex().ljust(64, "0")
    return Entry(
        path.encode(), Kind.FILE, 0o644, 0, 0, mtime_ns, size=1, sha256=digest, package=package
    )


def folder(path: str, *, package: str = "") -> Entry:
    return Entry(path.encode(), Kind.FOLDER, 0o755, 0, 0, 0, package=package)


def pairs(
    before: Iterable[Entry], after: Iterable[Entry]
) -> list[tuple[Entry | None, Entry | None]]:
    left, right = ({entry.path: entry for entry in side} for side in (before, after))
    return [(left.get(path), right.get(path)) for path in sorted(left | right)]


def compared(before: list[Entry], after: list[Entry]) -> Comparison:
    return compare(pairs(before, after), [SCOPE])


def lines(comparison: Comparison, meaning: Meaning) -> dict[bytes, tuple[str, int]]:
    return {each.path: (each.change.value, each.paths) for each in comparison.differences[meaning]}


@pytest.mark.parametrize(
    ("path", "meaning"),
    [
        ("/etc/hosts", Meaning.SCOPE),
        ("/etc/dhcp/a/b", Meaning.SCOPE),
        ("/etc/fstab", Meaning.DISK),
        ("/var/log/x", Meaning.VOLATILE),
        ("/etc/login.defs", Meaning.UNCLAIMED),
    ],
)
def test_a_difference_means_what_the_scope_says(path: str, meaning: Meaning) -> None:
    for found in (
        compared([file(path)], [file(path, "b")]),
        compared([], [file(path)]),
        compared([file(path)], []),
    ):
        assert found.paths == {each: int(each is meaning) for each in Meaning}
    assert found.unclaimed == (meaning is Meaning.UNCLAIMED)


@pytest.mark.parametrize("path", ["/etc/hosts", "/etc/fstab", "/etc/login.defs"])
def test_time_alone_is_nothing_to_claim(path: str) -> None:
    found = compared([file(path)], [file(path, mtime_ns=1)])
    assert found.paths[Meaning.TIME] == 1
    assert found.unclaimed == 0
    both = compared([file(path)], [file(path, "b", mtime_ns=1)])
    assert both.paths[Meaning.TIME] == 0


def test_what_only_one_scope_claims_is_not_kept_by_both() -> None:
    other = Scope(("/etc/hosts",), (), ("/etc/dhcp/x",))
    both = [(file(path), file(path, "b")) for path in ("/etc/dhcp/a", "/etc/dhcp/x", "/etc/fstab")]
    found = compare(both, [SCOPE, other])
    assert {each.path for each in found.differences[Meaning.UNCLAIMED]} == {b"/etc/dhcp/a"}
    assert {each.path for each in found.differences[Meaning.VOLATILE]} == {b"/etc/dhcp/x"}
    assert {each.path for each in found.differences[Meaning.DISK]} == {b"/etc/fstab"}


def test_words_of_what_differs() -> None:
    before = Entry(b"/x", Kind.FILE, 0o644, 0, 0, 0, size=1)
    after = Entry(b"/x", Kind.FILE, 0o755, 1, 2, 3, "me", "us", size=2, package="p")
    assert what_differs(before, after) == ("content", "mode", "owner", "group", "time")
    assert what_differs(before, Entry(b"/x", Kind.FIFO, 0o644, 0, 0, 0)) == ("kind",)
    links = [Entry(b"/x", Kind.SYMLINK, 0o777, 0, 0, 0, target=target) for target in (b"a", b"b")]
    assert what_differs(*links) == ("target",)
    assert what_differs(file("/x", package="p"), file("/x", package="q")) == ()


def test_a_whole_new_folder_is_one_line() -> None:
    paths = ["/opt/t/a", "/opt/t/b", "/opt/t/cache/x", "/opt/t/d/e"]
    after = [folder("/opt/t"), folder("/opt/t/d"), folder("/opt/t/cache"), *map(file, paths)]
    found = compared([file("/opt/t.conf")], [*after, file("/opt/t.conf", "b")])
    assert lines(found, Meaning.UNCLAIMED) == {
        b"/opt/t": ("added", 5),
        b"/opt/t.conf": ("changed", 1),
    }
    assert lines(found, Meaning.VOLATILE) == {b"/opt/t/cache": ("added", 2)}
    assert lines(compared(after, []), Meaning.UNCLAIMED) == {b"/opt/t": ("removed", 5)}


def test_in_scope_every_path_has_its_line() -> None:
    after = [folder("/etc/dhcp"), file("/etc/dhcp/a"), file("/etc/dhcp/b")]
    assert len(lines(compared([], after), Meaning.SCOPE)) == 3


def test_a_changed_package_accounts_for_its_paths() -> None:
    both = pairs(
        [
            file("/usr/sbin/dhcpd", package="dhcpd"),
            file("/usr/bin/tool", package="tool"),
            file("/var/lib/dpkg/info/dhcpd:amd64.md5sums"),
            file("/var/lib/dpkg/info/tool.md5sums"),
            file("/var/lib/dpkg/status"),
        ],
        [
            file("/usr/sbin/dhcpd", "b", package="dhcpd"),
            folder("/usr/lib/dhcpd"),
            file("/usr/lib/dhcpd/new", package="dhcpd"),
            file("/usr/bin/tool", "b", package="tool"),
            file("/var/lib/dpkg/info/dhcpd:amd64.md5sums", "b"),
            file("/var/lib/dpkg/info/tool.md5sums", "b"),
            file("/var/lib/dpkg/status", "b"),
        ],
    )
    found = compare(both, [SCOPE], OLD, NEW)
    (package,) = found.packages
    assert (package.name, package.course, package.paths) == ("dhcpd", Course.UPGRADED, 3)
    assert lines(found, Meaning.UNCLAIMED) == {
        b"/usr/bin/tool": ("changed", 1),
        b"/var/lib/dpkg/info/tool.md5sums": ("changed", 1),
    }
    assert found.unclaimed == 3
    assert len(lines(compare(both, [SCOPE]), Meaning.UNCLAIMED)) == 6


def test_too_many_lines_are_told_by_their_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "MANY", 50)
    paths = [f"/srv/{top}/{number:03}" for top in "ab" for number in range(100)]
    found = compared([file(path) for path in paths], [file(path, "b") for path in paths])
    assert found.paths[Meaning.UNCLAIMED] == 200
    assert lines(found, Meaning.UNCLAIMED) == {
        b"/srv/a": ("beneath", 100),
        b"/srv/b": ("beneath", 100),
    }


names = st.sampled_from(["a", "b", "a.b", "a-"])
trees = st.lists(st.lists(names, min_size=1, max_size=4).map("/".join), max_size=12)


def grown(paths: Iterable[str], content: str) -> list[Entry]:
    """A tree with these files, where no other file is in the way, and their folders."""
    files = {"/" + path for path in paths}
    folders = {
        "/" + "/".join(path.split("/")[1:depth])
        for path in files
        for depth in range(2, path.count("/") + 1)
    }
    return [*map(folder, folders), *(file(path, content) for path in files - folders)]


@given(trees, trees, st.sampled_from("xy"))
def test_no_difference_is_lost(left: list[str], right: list[str], content: str) -> None:
    before, after = grown(left, "x"), grown(right, content)
    scope = Scope(("/a/a", "/b"), ("/a/b",), ("/**/a.b",))
    different = [pair for pair in pairs(before, after) if pair[0] != pair[1]]
    found = compare(different, [scope])
    assert sum(found.paths.values()) == len(different)
    # A line stands for itself and for what lies beneath.
    for one in (one or other for one, other in different):
        assert one is not None
        meaning = diff.meaning_of(one.path, [scope])
        assert any(
            one.path == each.path or one.path.startswith(each.path + b"/")
            for each in found.differences[meaning]
        )


# --- what no inventory tells ---------------------------------------------------------------------------------------

ACL = (("system.posix_acl_access", b"\2\0\0\0"),)


def held(*entries: Entry) -> Tree:
    return {entry.path: entry for entry in entries}


def words(comparison: Comparison, meaning: Meaning) -> dict[bytes, tuple[str, ...]]:
    return {each.path: each.what for each in comparison.differences[meaning]}


def test_attributes_are_told_of_paths_with_equal_lines_too() -> None:
    payloads = held(file("/etc/hosts")), held(replace(file("/etc/hosts"), xattrs=ACL))
    found = compare([], [SCOPE], held=payloads)
    assert words(found, Meaning.SCOPE) == {b"/etc/hosts": ("attributes",)}
    assert found.paths[Meaning.SCOPE] == 1


def test_a_word_is_added_to_the_others_of_a_path() -> None:
    before = [file("/etc/dhcp/a"), file("/etc/hosts")]
    after = [file("/etc/dhcp/a", mtime_ns=1), file("/etc/hosts", "b")]
    payloads = held(*before), held(*(replace(entry, xattrs=ACL) for entry in after))
    found = compare(pairs(before, after), [SCOPE], held=payloads)
    assert words(found, Meaning.SCOPE) == {
        b"/etc/dhcp/a": ("time", "attributes"),
        b"/etc/hosts": ("content", "attributes"),
    }
    assert found.paths[Meaning.TIME] == 0


def test_all_names_of_a_file_tell_of_its_links() -> None:
    alone = held(file("/a"), file("/b"), file("/c"))
    linked = {**alone, b"/c": replace(file("/c"), link_to=b"/a")}
    assert unlisted(alone, linked) == {b"/a": ("links",), b"/c": ("links",)}
    without_first = held(file("/b"), file("/c"), replace(file("/d"), link_to=b"/c"))
    with_first = held(*(replace(file(path), link_to=b"/a") for path in ("/c", "/d")), file("/a"))
    assert unlisted(with_first, without_first) == {b"/c": ("links",), b"/d": ("links",)}


def test_what_became_something_else_has_no_other_words() -> None:
    other = replace(folder("/etc/hosts"), xattrs=ACL)
    assert unlisted(held(file("/etc/hosts")), held(other)) == {}


@pytest.mark.parametrize("path", ["/etc/dhcp/socket", "/etc/login.defs"])
def test_a_socket_in_scope_is_kept_by_no_overlay(path: str) -> None:
    socket = Entry(path.encode(), Kind.SOCKET, 0o755, 0, 0, 0)
    expected = Meaning.VOLATILE if "dhcp" in path else Meaning.UNCLAIMED
    for before, after in (
        ([socket], []),
        ([], [socket]),
        ([socket], [replace(socket, mode=0o700)]),
    ):
        assert compared(before, after).paths == {each: int(each is expected) for each in Meaning}


def test_a_file_that_became_a_socket_was_kept() -> None:
    socket = Entry(b"/etc/hosts", Kind.SOCKET, 0o755, 0, 0, 0)
    assert compared([file("/etc/hosts")], [socket]).paths[Meaning.SCOPE] == 1


def payload(groups: Mapping[str, int], marked: Iterable[str]) -> Tree:
    """Files by name, those of one group as names of one file; some have an attribute."""
    leaders: dict[int, bytes] = {}
    tree: dict[bytes, Entry] = {}
    for name, group in sorted(groups.items()):
        path = f"/etc/dhcp/{name}".encode()
        leader = leaders.setdefault(group, path)
        xattrs = tree[leader].xattrs if leader != path else ACL if name in marked else ()
        tree[path] = replace(
            file(path.decode()), xattrs=xattrs, link_to=None if leader == path else leader
        )
    return tree


payloads = st.builds(
    payload,
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 3)),
    st.sets(st.sampled_from("abcde")),
)


def names_of(tree: Tree, path: bytes) -> set[bytes]:
    leader = tree[path].link_to or path
    return {name for name, entry in tree.items() if (entry.link_to or name) == leader}


@given(payloads, payloads)
def test_exactly_what_differs_unlisted_is_told(before: Tree, after: Tree) -> None:
    both = before.keys() & after.keys()
    expected = {
        "attributes": {path for path in both if before[path].xattrs != after[path].xattrs},
        "links": {path for path in both if names_of(before, path) != names_of(after, path)},
    }
    found = unlisted(before, after)
    assert {
        word: {path for path, told in found.items() if word in told} for word in expected
    } == expected
    assert unlisted(after, before) == found
    told = compare(pairs(before.values(), after.values()), [SCOPE], held=(before, after))
    assert told.paths[Meaning.SCOPE] == len(found) + len(before.keys() ^ after.keys())


# --- versions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+b"),
        ("9", "1:1"),
        ("1.0-1", "1.0-1+deb12u1"),
        ("1.0-1~bpo", "1.0-1"),
        ("4.4.3-P1-2", "4.4.3-P1-10"),
        ("1.0", "1.0-1"),
    ],
)
def test_versions_sort_as_dpkg_sorts_them(older: str, newer: str) -> None:
    assert sort_key(older) < sort_key(newer)


def test_what_became_of_packages() -> None:
    before = [Package("a", "all", "2"), Package("b", "all", "1"), Package("k", "x86_64", "1")]
    after = [
        Package("a", "all", "1"),
        Package("c", "all", "1"),
        Package("k", "x86_64", "1"),
        Package("k", "x86_64", "2"),
    ]
    assert [(each.name, each.course.value) for each in package_changes(before, after)] == [
        ("a", "downgraded"),
        ("b", "removed"),
        ("c", "installed"),
        ("k", "upgraded"),
    ]
    assert package_changes(before, before) == ()


def test_a_package_has_words_that_a_package_can_have() -> None:
    for words in (("", "all", "1"), ("a b", "all", "1"), ("a", "all", "1\n2"), ("a:b", "x", "1")):
        with pytest.raises(ValueError, match="of a package"):
            Package(*words)


def test_a_difference_is_one_path_unless_told_otherwise() -> None:
    assert Difference(b"/x", Change.ADDED, Kind.FILE).paths == 1
