"""How a rebuild's fidelity is judged, and the words in which people and programs are told."""

import hashlib
import json
from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from stores import make, make_keys

from etsclone.commands.fidelity import (
    add_require_exact,
    fidelity_facts,
    fidelity_lines,
    headline,
    measured,
    not_exact_now,
    require_exact,
)
from etsclone.commands.system import System
from etsclone.commands.trust import load_trust
from etsclone.errors import NotExact
from etsclone.model.brd import CloneIdentity
from etsclone.model.diff import Course
from etsclone.model.edit import Edit
from etsclone.model.fidelity import Fidelity
from etsclone.model.packages import Package
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay.container import open_verified
from etsclone.plan.fidelity import (
    Pair,
    edited_outside,
    judge,
    suspects,
    with_digests,
    without_edits,
)

SCOPE = Scope(("/etc/hosts", "/etc/dhcp"), ("/etc/fstab", "/boot"), ("/var/log",))
DAY = 24 * 3600 * 10**9
BUT = ", but for attributes, ACLs and hard links, which inventories do not hold"
UNLISTED = ["extended attributes", "ACLs", "capabilities", "hard links"]
COMMON = Package("tool", "all", "1")
CAPTURED = [Package("dhcpd", "amd64", "4.4.3-4"), Package("new", "all", "2"), COMMON]
HERE = [Package("dhcpd", "amd64", "4.4.3-2"), Package("old", "all", "0.9"), COMMON]


def file(path: str, content: str = "a", *, day: float = 0, package: str = "") -> Entry:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Entry(
        path.encode(),
        Kind.FILE,
        0o644,
        0,
        0,
        int(day * DAY),
        size=len(content),
        sha256=digest,
        package=package,
    )


def folder(path: str) -> Entry:
    return Entry(path.encode(), Kind.FOLDER, 0o755, 0, 0, 0)


def pairs(captured: Iterable[Entry], here: Iterable[Entry]) -> list[Pair]:
    left, right = ({entry.path: entry for entry in side} for side in (captured, here))
    return [(left.get(path), right.get(path)) for path in sorted(left | right)]


def judged(captured: list[Entry], here: list[Entry], *, full: bool = True) -> Fidelity:
    return judge(pairs(captured, here), SCOPE, full=full)


@pytest.fixture
def older() -> Fidelity:
    """A clone that missed an upgrade, and that two people have worked on."""
    captured = [
        folder("/etc"),
        file("/etc/hosts", "of the role"),
        file("/etc/login.defs", "umask 027", day=99),
        file("/opt/site.sh", "one", day=1),
        file("/usr/sbin/dhcpd", "four", package="dhcpd", day=30),
        file("/usr/share/new/a", "a", package="new", day=3),
        file("/usr/share/new/b", "b", package="new", day=3),
        file("/var/lib/dpkg/info/dhcpd.md5sums", "4", day=90),
        file("/var/lib/dpkg/status", "later", day=90.5),
    ]
    here = [
        folder("/etc"),
        file("/etc/fstab", "of the disk"),
        file("/etc/hosts", "of another role"),
        file("/etc/login.defs", "umask 022", day=10),
        file("/etc/rc.local", "by hand", day=200),
        file("/opt/site.sh", "two", day=1),
        file("/usr/bin/old", "0", package="old", day=2),
        file("/usr/sbin/dhcpd", "two", package="dhcpd", day=25),
        file("/var/lib/dpkg/info/dhcpd.md5sums", "2", day=49),
        file("/var/lib/dpkg/status", "earlier", day=49.4),
        file("/var/log/syslog", "volatile"),
    ]
    return judge(pairs(captured, here), SCOPE, CAPTURED, HERE, full=True)


def test_what_only_the_scope_the_disk_and_time_change_is_exact() -> None:
    captured = [
        file("/etc/hosts"),
        file("/etc/dhcp/a"),
        file("/etc/fstab"),
        file("/usr/bin/x", day=1),
    ]
    here = [file("/etc/hosts", "b"), file("/boot/vmlinuz"), file("/usr/bin/x", day=2)]
    found = judged(captured, here)
    assert found.exact
    assert found.older is None
    assert found.touched == 1
    assert headline(found) == f"exact{BUT}"
    assert fidelity_lines(found) == [f"outside the scope: exact{BUT}"]


def test_a_quick_look_says_what_it_did_not_look_at() -> None:
    found = judged([], [], full=False)
    assert headline(found) == f"exact by size, time, mode and owner of every file{BUT}"
    assert fidelity_facts(found)["not_compared"] == [
        "contents of files of the same size and time",
        "file flags",
        *UNLISTED,
    ]


def test_what_no_inventory_holds_is_said_to_whoever_requires_it() -> None:
    parser = ArgumentParser()
    add_require_exact(parser)
    told = " ".join(parser.format_help().split())
    assert "but not attributes, ACLs and hard links, which inventories do not hold" in told
    assert fidelity_facts(judged([], []))["not_compared"] == UNLISTED
    assert fidelity_facts(judged([], [file("/srv/x")]))["not_compared"] == UNLISTED


def edited(path: str, before: str, after: str) -> Edit:
    return Edit(path.encode(), before.encode(), after.encode(), ("because",))


def judged_with(
    captured: list[Entry], here: list[Entry], *edits: Edit, full: bool = True
) -> Fidelity:
    return judge(without_edits(pairs(captured, here), edits), SCOPE, full=full)


@pytest.mark.parametrize("content", ["old", "newer"])
def test_what_the_rebuild_edits_is_no_difference_whether_it_did_so_already(content: str) -> None:
    captured = [file("/etc/x", "old", day=5)]
    edit = edited("/etc/x", "old", "newer")
    assert judged_with(captured, [file("/etc/x", content, day=9000)], edit).exact
    changed = judged_with(captured, [replace(file("/etc/x", content), mode=0o600)], edit)
    assert [each.what for each in changed.configuration] == [("mode", "time")]


@pytest.mark.parametrize("content", ["other", "newer"])
def test_what_was_different_before_it_is_edited_stays_so(content: str) -> None:
    captured, here = [file("/etc/x", "old")], [file("/etc/x", content), file("/etc/y", content)]
    edits = edited("/etc/x", "other", "newer"), edited("/etc/y", "other", "newer")
    found = judged_with(captured, here, *edits)
    assert [each.path for each in found.configuration] == [b"/etc/x", b"/etc/y"]


@pytest.mark.parametrize("content", ["other", "old"])
def test_what_an_edit_makes_as_captured_is_so(content: str) -> None:
    captured, edit = [file("/etc/x", "old")], edited("/etc/x", "other", "old")
    assert judged_with(captured, [file("/etc/x", content)], edit).exact


def test_an_edit_of_what_is_a_file_no_more_hides_nothing() -> None:
    found = judged_with([file("/etc/x")], [folder("/etc/x")], edited("/etc/x", "a", "b"))
    assert not found.exact
    assert not judged_with([file("/etc/x")], [], edited("/etc/x", "a", "b")).exact


def test_edited_files_are_read_in_a_quick_look_too() -> None:
    found = pairs([file("/etc/x", day=1), file("/y")], [file("/etc/x", "bc", day=2), file("/y")])
    assert suspects(found) == frozenset()
    assert suspects(found, (b"/etc/x",)) == {b"/etc/x"}


def test_edits_are_told_unless_they_are_of_the_scope_or_the_disk() -> None:
    paths = edited_outside(
        [edited(each, "a", "b") for each in ("/etc/x", "/etc/fstab", "/etc/hosts")], SCOPE
    )
    assert paths == (b"/etc/x",)
    found = Fidelity(full=True, edited=paths)
    assert found.exact
    assert fidelity_lines(found)[1:] == ["  /etc/x is edited by the rebuild"]
    assert fidelity_facts(found)["edited"] == ["/etc/x"]


@pytest.mark.parametrize(
    "found",
    [
        None,
        Fidelity(full=True, before=True),
        judge([(None, file("/srv/x"))], SCOPE, full=True),
    ],
)
def test_exact_has_to_be_seen_after_the_rebuild(found: Fidelity | None) -> None:
    assert not_exact_now(Fidelity(full=True), "x.raw is primary") is None
    error = not_exact_now(found, "x.raw is primary")
    assert error is not None
    assert error.exit_code == 4
    assert error.message.startswith("x.raw is primary, but it is not known to be what was captured")


def test_packages_explain_their_paths(older: Fidelity) -> None:
    assert [(each.name, each.course, each.paths) for each in older.packages] == [
        ("dhcpd", Course.DOWNGRADED, 2),
        ("new", Course.REMOVED, 2),
        ("old", Course.INSTALLED, 1),
    ]
    assert [each.path for each in older.configuration] == [b"/etc/login.defs", b"/etc/rc.local"]
    assert [each.path for each in older.others] == [b"/opt/site.sh"]
    assert older.files == 6
    assert not older.exact


@pytest.mark.parametrize("day", [2**63 // 86400, -(2**63) // 86400])
def test_an_age_that_no_calendar_has_is_told_too(day: int) -> None:
    captured = file("/etc/login.defs", "a", day=0)
    here = replace(file("/etc/login.defs", "b"), mtime_ns=day * DAY)
    for found in (judged([captured], [here]), judged([here], [captured])):
        assert found.older
        assert abs(found.older) == timedelta(days=999_999_999)
        assert "the clone is " in headline(found)


def test_the_age_is_that_of_the_package_records_where_they_differ(older: Fidelity) -> None:
    assert older.older == timedelta(days=41.1)


def test_the_report(older: Fidelity) -> None:
    assert (
        "\n".join(fidelity_lines(older))
        == """\
outside the scope: the clone is 41 days older: 3 packages, 6 files, 2 unclaimed configuration files
  package dhcpd 4.4.3-2, captured with 4.4.3-4 (2 paths)
  package new 2 is missing (2 paths)
  package old 0.9 is only here (1 path)
  configuration /etc/login.defs differs in content
  configuration /etc/rc.local is only here
  /opt/site.sh differs in content"""
    )


@pytest.mark.parametrize(("older", "seconds"), [(None, None), (timedelta(), 0)])
def test_no_age_and_none_that_is_known(older: timedelta | None, seconds: int | None) -> None:
    facts = fidelity_facts(Fidelity(full=False, older=older))
    assert json.loads(json.dumps(facts))["older_seconds"] == seconds


def test_the_facts(older: Fidelity) -> None:
    facts = fidelity_facts(older)
    assert facts["exact"] is False
    assert facts["older_seconds"] == 411 * 24 * 360
    assert facts["packages"] == [
        {
            "name": name,
            "arch": arch,
            "captured": captured,
            "here": here,
            "paths": paths,
        }
        for name, arch, captured, here, paths in (
            ("dhcpd", "amd64", ["4.4.3-4"], ["4.4.3-2"], 2),
            ("new", "all", ["2"], [], 2),
            ("old", "all", [], ["0.9"], 1),
        )
    ]
    assert facts["configuration"] == [
        {
            "path": "/etc/login.defs",
            "change": "changed",
            "kind": "file",
            "what": ["content", "time"],
            "paths": 1,
        },
        {
            "path": "/etc/rc.local",
            "change": "only here",
            "kind": "file",
            "what": [],
            "paths": 1,
        },
    ]


@pytest.mark.parametrize(
    ("captured", "here", "words"),
    [
        (9.0, 12.0, "the clone is 3 days newer"),
        (12.0, 9.0, "the clone is 3 days older"),
        (1.0, 0.0, "the clone is 24 hours older"),
        (0.01, 0.0, "the clone is 14 minutes older"),
        (0.0001, 0.0, "not exact"),
    ],
)
def test_without_packages_the_newest_file_tells_the_age(
    captured: float, here: float, words: str
) -> None:
    found = judged([file("/etc/x", "1", day=captured)], [file("/etc/x", "2", day=here)])
    assert headline(found) == f"{words}: 1 unclaimed configuration file"


def test_what_one_side_lacks_tells_no_age() -> None:
    found = judged([], [file("/etc/x", day=1)])
    assert found.older is None
    assert headline(found) == "not exact: 1 unclaimed configuration file"


def test_without_the_packages_of_one_side_nothing_is_explained_by_them() -> None:
    both = pairs([file("/usr/sbin/dhcpd", package="dhcpd")], [file("/usr/sbin/dhcpd", "b")])
    found = judge(both, SCOPE, CAPTURED, (), full=True)
    assert not found.packages
    assert [each.path for each in found.others] == [b"/usr/sbin/dhcpd"]


@pytest.mark.parametrize(
    ("path", "configuration"),
    [
        ("/etc/x", True),
        ("/usr/local/etc/a/b", True),
        ("/opt/etc/a", True),
        ("/opt/vendor/tool/etc/a", True),
        ("/usr/share/etc/a", False),
        ("/etcetera", False),
        ("/srv/etc/a", False),
    ],
)
def test_what_counts_as_configuration(path: str, configuration: bool) -> None:
    found = judged([file(path)], [])
    assert [bool(found.configuration), bool(found.others)] == [configuration, not configuration]


def test_what_etsclone_itself_keeps_on_a_clone_does_not_count() -> None:
    assert judged([], [file("/.etsclone-staging/0"), file("/var/.etsclone-x")]).exact


def test_many_other_files_are_told_by_their_number() -> None:
    found = judged([], [file(f"/srv/{number:03}") for number in range(30)])
    lines = fidelity_lines(found)
    assert lines[0] == "outside the scope: not exact: 30 files"
    assert len(lines) == 22
    assert lines[-1] == "  and 10 more: --json tells them all"


def test_names_cannot_write_to_a_terminal() -> None:
    assert "\x1b" not in "".join(fidelity_lines(judged([], [file("/etc/\x1b[2J")])))


def test_an_overlay_without_an_inventory() -> None:
    assert fidelity_lines(None) == [
        "outside the scope: unknown: the overlay was captured without an inventory"
    ]
    assert fidelity_facts(None)["exact"] is None
    with pytest.raises(NotExact, match="without an inventory"):
        require_exact(None, "x.raw")


def test_an_empty_inventory_is_none(tmp_path: Path) -> None:
    made = make(tmp_path / "store", make_keys(tmp_path))
    trust = load_trust(made.trust)
    with open_verified(made.capture(), trust, role="primary", pair="ets") as overlay:
        system = System(str(tmp_path), CloneIdentity(), frozenset(), "x.raw")
        assert measured(overlay, system, full=False) is None


def test_exact_may_be_required(older: Fidelity) -> None:
    require_exact(judged([], []), "x.raw")
    with pytest.raises(NotExact, match=r"x\.raw .* 41 days older: 3 packages") as caught:
        require_exact(older, "x.raw")
    assert caught.value.exit_code == 3


def test_files_of_the_same_size_and_another_time_are_suspect() -> None:
    captured = [file("/a", day=1), file("/b"), file("/c", "long", day=1), folder("/d")]
    here = [file("/a", "b", day=2), file("/b", "b"), file("/c", "longer", day=2), file("/d", "")]
    found = pairs(captured, here)
    assert suspects(found) == {b"/a"}
    known = {
        before.path: after.sha256
        for before, after in with_digests(found, {b"/a": "1" * 64}, {b"/a": "2" * 64})
        if before and after
    }
    assert known[b"/a"] == "2" * 64
    assert known[b"/c"] == file("/c", "longer").sha256
