"""The plan of a rebuild: what is changed, in which order, and what is refused."""

from dataclasses import replace

import pytest

from etsclone.errors import ScopeConflict, UnsafePath
from etsclone.model.scope import Scope
from etsclone.model.tree import STAGING, Entry, Kind, Tree
from etsclone.plan.steps import Handover, handovers
from etsclone.plan.tree import differences, plan_tree

SCOPE = Scope(("/etc", "/var/lib/role"), ("/etc/fstab", "/etc/grub.d"))


def tree(*entries: Entry) -> Tree:
    return {entry.path: entry for entry in entries}


def file(path: str, content: str = "a", **changes: object) -> Entry:
    entry = Entry(path.encode(), Kind.FILE, 0o644, 0, 0, 0, size=1, sha256=content)
    return replace(entry, **changes)  # type: ignore[arg-type]


def folder(path: str, **changes: object) -> Entry:
    return replace(Entry(path.encode(), Kind.FOLDER, 0o755, 0, 0, 0), **changes)  # type: ignore[arg-type]


def link(path: str, target: str = "/x") -> Entry:
    return Entry(path.encode(), Kind.SYMLINK, 0o777, 0, 0, 0, target=target.encode())


ETC = folder("/etc")
AROUND = tree(folder("/"), folder("/var"), folder("/var/lib"))


def planned(current: Tree, wanted: Tree, outside: Tree = AROUND) -> list[str]:
    return str(plan_tree(current, wanted, SCOPE, outside)).splitlines()


def test_equal_trees_need_nothing() -> None:
    here = tree(ETC, file("/etc/a"), link("/etc/b"))
    assert planned(here, here) == []
    assert differences(here, here) == []


def test_names_of_owners_do_not_count_and_ids_do() -> None:
    here, there = tree(ETC, file("/etc/a")), tree(ETC, file("/etc/a", uname="root"))
    assert planned(here, there) == []
    assert planned(here, tree(ETC, file("/etc/a", gid=7))) == ["replace /etc/a  (owner 0:0 to 0:7)"]


def test_order_and_reasons() -> None:
    current = tree(
        folder("/etc", mode=0o700),
        folder("/etc/becomes-file"),
        file("/etc/becomes-file/x"),
        file("/etc/becomes-folder"),
        folder("/etc/deep", mtime_ns=1),
        file("/etc/gone"),
        file("/etc/link"),
        file("/etc/same"),
        file("/etc/text", "old", mode=0o600),
    )
    wanted = tree(
        ETC,
        file("/etc/becomes-file"),
        folder("/etc/becomes-folder"),
        file("/etc/becomes-folder/x"),
        folder("/etc/deep"),
        link("/etc/link"),
        file("/etc/same"),
        file("/etc/text", "new"),
        folder("/var/lib/role"),
    )
    assert planned(current, wanted, tree(folder("/"))) == [
        "remove  /etc/gone  (not in the overlay)",
        "remove  /etc/becomes-folder  (file becomes dir)",
        "remove  /etc/becomes-file/x  (not in the overlay)",
        "remove  /etc/becomes-file  (dir becomes file)",
        "create  /etc/becomes-file  (dir becomes file)",
        "create  /etc/becomes-folder  (file becomes dir)",
        "create  /etc/becomes-folder/x  (missing)",
        "replace /etc/link  (file becomes link)",
        "replace /etc/text  (content, mode 0600 to 0644)",
        "parent  /var  (missing folder outside of the scope)",
        "parent  /var/lib  (missing folder outside of the scope)",
        "create  /var/lib/role  (missing)",
        "retouch /etc/deep  (time)",
        "retouch /etc  (mode 0700 to 0755)",
    ]
    assert differences(current, wanted)[:2] == [
        "/etc: mode 0700 to 0755",
        "/etc/becomes-file: dir becomes file",
    ]


def test_every_name_of_a_hard_link_is_replaced() -> None:
    def group(content: str) -> list[Entry]:
        return [file("/etc/a", content), file("/etc/c", content, link_to=b"/etc/a")]

    assert planned(tree(ETC, *group("old")), tree(ETC, *group("new"))) == [
        "replace /etc/a  (content)",
        "replace /etc/c  (content)",
    ]
    # The old inode may have a name outside of the scope, which must not become a name of this file.
    apart = tree(ETC, file("/etc/a"), file("/etc/c"))
    assert planned(apart, tree(ETC, *group("a"))) == [
        "replace /etc/a  (another name of a file that is replaced)",
        "replace /etc/c  (hard link)",
    ]
    assert planned(tree(ETC, *group("a")), apart) == ["replace /etc/c  (hard link)"]


def test_sockets_of_an_overlay_mean_nothing_and_those_on_the_disk_go() -> None:
    socket = Entry(b"/etc/socket", Kind.SOCKET, 0o755, 0, 0, 0)
    assert planned(tree(ETC), tree(ETC, socket)) == []
    assert planned(tree(ETC, socket), tree(ETC)) == ["remove  /etc/socket  (not in the overlay)"]


def test_a_folder_that_holds_something_else_cannot_go() -> None:
    outside = {**AROUND, **tree(folder("/etc/grub.d"), file("/etc/fstab"))}
    with pytest.raises(ScopeConflict, match="/etc, but it holds /etc/fstab"):
        planned(tree(ETC, file("/etc/a")), {}, outside)
    with pytest.raises(ScopeConflict, match="/etc, but it holds"):
        planned(tree(ETC), tree(file("/etc")), outside)
    assert planned(tree(ETC, file("/etc/a")), tree(folder("/etc", mode=0o700)), outside) == [
        "remove  /etc/a  (not in the overlay)",
        "retouch /etc  (mode 0755 to 0700)",
    ]


@pytest.mark.parametrize("obstacle", [link("/var"), file("/var"), link("/var/lib", "../..")])
def test_the_way_must_be_folders(obstacle: Entry) -> None:
    outside = {**tree(folder("/"), folder("/var")), **tree(obstacle)}
    with pytest.raises(UnsafePath, match=f"/var/lib/role leads through {obstacle.path.decode()}, "):
        planned({}, tree(folder("/var/lib/role")), outside)
    assert planned({}, {}, outside) == []


def test_what_is_mounted_inside_the_scope_is_in_the_way() -> None:
    with pytest.raises(ScopeConflict, match="mounted at /etc/mnt"):
        planned(tree(ETC), tree(ETC, folder("/etc/mnt")), {**AROUND, **tree(folder("/etc/mnt"))})


def test_an_interrupted_rebuild_is_cleared_first() -> None:
    left = folder("/" + STAGING.decode())
    assert planned(tree(ETC), tree(ETC), {**AROUND, **tree(left)}) == [
        "clear   /.etsclone-staging  (left by an interrupted rebuild)"
    ]
    in_scope = folder("/etc/" + STAGING.decode())
    assert len(planned(tree(ETC), {}, {**AROUND, **tree(in_scope)})) == 2


def test_what_only_goes_goes_first_and_folders_with_all_they_hold() -> None:
    """So `Hosts` comes when `hosts` is gone, on a filesystem that takes them for one."""
    here = tree(ETC, file("/etc/a"), file("/etc/hosts"), folder("/etc/old"), file("/etc/old/x"))
    there = tree(ETC, file("/etc/Hosts"), file("/etc/a", "b"), folder("/etc/n"), file("/etc/n/x"))
    plan = plan_tree(here, there, SCOPE, AROUND)
    assert handovers(plan, [b"/boot/edited"]) == (
        Handover(b"/etc/hosts", old=True, new=False),
        Handover(b"/etc/old", old=True, new=False),
        Handover(b"/boot/edited", old=True, new=True),
        Handover(b"/etc/Hosts", old=False, new=True),
        Handover(b"/etc/a", old=True, new=True),
        Handover(b"/etc/n", old=False, new=True),
    )


def test_a_printed_path_cannot_write_to_the_terminal() -> None:
    assert planned(
        {}, tree(file("/etc/\x1b[2J\n\udcff".encode("utf-8", "surrogateescape").decode("latin-1")))
    )[0] == ("create  /etc/\\x1b[2J\\nÿ  (missing)")
