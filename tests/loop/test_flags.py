"""Flags of chattr(1): kept, applied last, and no obstacle. On real filesystems, as root."""

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from etsclone.errors import ScopeConflict
from etsclone.model.edit import Edit
from etsclone.model.scope import Scope
from etsclone.model.tree import FLAGS
from etsclone.overlay import inventory
from etsclone.overlay import swapping as swapping_module
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.flags import read_flags, write_flags
from etsclone.overlay.kept import kept_folders, settle, undo
from etsclone.overlay.listing import list_tree
from etsclone.overlay.payload import Payload, read_payload, write_payload
from etsclone.overlay.rounds import unfinished_rebuild
from etsclone.overlay.scan import scan
from etsclone.plan.tree import TreePlan, plan_tree
from etsclone.units import MIB

pytestmark = pytest.mark.loop

SCOPE = Scope(("/etc", "/srv/role"), ("/etc/fstab",))
LETTERS = dict(zip("aidADS", FLAGS, strict=True))


def run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def lsattr(path: Path) -> set[str]:
    """What e2fsprogs says of a path, in libarchive's words."""
    shown = subprocess.run(
        ["lsattr", "-d", path], capture_output=True, text=True, check=True
    ).stdout
    return {LETTERS[letter] for letter in shown.split()[0] if letter in LETTERS}


def chattr(flags: str, *paths: Path) -> None:
    run("chattr", flags, *paths)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem for both trees."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    with image.open("xb") as file:
        file.truncate(64 * MIB)
    run("mkfs.ext4", "-q", image)
    folder.mkdir()
    run("mount", "-o", "loop", image, folder)
    yield folder
    run("chattr", "-R", "-ai", folder)
    run("umount", folder)


@pytest.fixture
def role(disk: Path) -> Path:
    root = disk / "role"
    (root / "etc/locked").mkdir(parents=True)
    (root / "etc/resolv.conf").write_text("nameserver 10.0.0.1\n")
    (root / "etc/locked/inner").write_text("inner")
    (root / "etc/journal").write_text("only grows\n")
    (root / "srv").mkdir()
    os.link(root / "etc/resolv.conf", root / "srv/role")
    chattr("+i", root / "etc/resolv.conf")
    chattr("+adAS", root / "etc/journal")
    chattr("+iD", root / "etc/locked")
    return root


@pytest.fixture
def clone(disk: Path) -> Path:
    """Everything that is to change is locked; so is a folder outside of the scope that holds some of it."""
    root = disk / "clone"
    (root / "etc/gone/deep").mkdir(parents=True)
    (root / "etc/gone/deep/file").write_text("x")
    (root / "etc/resolv.conf").write_text("nameserver 10.0.0.2\n")
    (root / "etc/fstab").write_text("own")
    (root / "srv").mkdir()
    (root / "srv/role").write_text("y")
    (root / "usr").mkdir()
    os.link(root / "etc/resolv.conf", root / "usr/same-inode")
    chattr("+i", root / "etc/gone/deep/file", root / "etc/resolv.conf", root / "srv/role")
    chattr("+a", root / "etc/gone")
    chattr("+i", root / "etc/gone/deep", root / "srv", root / "etc")
    return root


def capture(root: Path) -> tuple[Payload, bytes]:
    packed = io.BytesIO()
    write_payload(packed, str(root), scan(str(root), SCOPE).scope)
    return read_payload(io.BytesIO(packed.getvalue()), SCOPE), packed.getvalue()


def plan(root: Path, payload: Payload) -> TreePlan:
    seen = scan(str(root), SCOPE)
    return plan_tree(seen.scope, payload.tree, SCOPE, seen.outside, kept_folders(str(root)))


def test_flags_come_over_and_are_no_obstacle(role: Path, clone: Path) -> None:
    times = (clone / "srv").stat().st_mtime_ns
    with capture(role)[0] as payload:
        made = plan(clone, payload)
        apply_plan(str(clone), made, payload)
        verify_scope(str(clone), payload.tree, SCOPE)
        assert not plan(clone, payload).changes
    for name in ("etc/resolv.conf", "etc/journal", "etc/locked", "etc/locked/inner", "etc"):
        assert lsattr(clone / name) == lsattr(role / name), name
    assert lsattr(clone / "etc/journal") == {"sappnd", "nodump", "noatime", "sync"}
    assert lsattr(clone / "etc/locked") == {"schg", "dirsync"}
    assert (clone / "srv/role").samefile(clone / "etc/resolv.conf")
    assert not (clone / "etc/gone").exists()
    # Outside of the scope: the folder is locked again, and so is the old inode under its other name.
    assert lsattr(clone / "srv") == {"schg"}
    assert (clone / "srv").stat().st_mtime_ns == times
    assert lsattr(clone / "usr/same-inode") == {"schg"}
    assert (clone / "usr/same-inode").read_text() == "nameserver 10.0.0.2\n"


def test_a_difference_of_flags_alone_is_a_change(role: Path, clone: Path) -> None:
    with capture(role)[0] as payload:
        apply_plan(str(clone), plan(clone, payload), payload)
        chattr("-i", clone / "etc/resolv.conf", clone / "etc/locked")
        assert str(plan(clone, payload)).splitlines() == [
            "replace /etc/resolv.conf  (flags none to schg)",
            "replace /srv/role  (flags none to schg)",
            "retouch /etc/locked  (flags dirsync to schg,dirsync)",
        ]
        apply_plan(str(clone), plan(clone, payload), payload)
        verify_scope(str(clone), payload.tree, SCOPE)


def test_stopped_before_the_flags_it_is_mended(
    role: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with capture(role)[0] as payload:
        with monkeypatch.context() as patch:
            patch.setattr(swapping_module, "write_flags", killed)
            with pytest.raises(Killed):
                apply_plan(str(clone), plan(clone, payload), payload)
        assert unfinished_rebuild(str(clone)) is not None
        settle(str(clone))
        verify_scope(str(clone), payload.tree, SCOPE)
    assert lsattr(clone / "etc/resolv.conf") == {"schg"}


def test_bsdtar_restores_and_writes_the_same(role: Path, disk: Path) -> None:
    payload, packed = capture(role)
    with payload:
        wanted = payload.tree
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    by_hand = disk / "by-hand"
    by_hand.mkdir()
    subprocess.run(["bsdtar", "-xpf", "-"], input=plain, cwd=by_hand, check=True)
    found = scan(str(by_hand), SCOPE).scope
    assert {path: entry.flags for path, entry in found.items()} == {
        path: entry.flags for path, entry in wanted.items()
    }
    theirs = subprocess.run(
        ["bsdtar", "--format", "pax", "-cf", "-", "etc"], cwd=role, capture_output=True, check=True
    ).stdout
    for record in (b"SCHILY.fflags=sappnd,nodump,noatime,sync\n", b"SCHILY.fflags=schg,dirsync\n"):
        assert record in theirs
        assert record in plain


def test_the_inventory_says_it_as_bsdtar_does(role: Path) -> None:
    lines: list[bytes] = []
    list_tree(str(role), Scope(()), lines.append, started_ns=0)
    text = b"".join(lines)
    theirs = subprocess.run(
        ["bsdtar", "--format", "mtree", "--options", "mtree:flags", "-cf", "-", "etc/journal"],
        cwd=role,
        capture_output=True,
        check=True,
    ).stdout
    assert b"flags=sappnd,nodump,noatime,sync" in theirs
    flags = {entry.path: entry.flags for entry in map(inventory.entry_of, text.splitlines())}
    assert flags[b"/etc/journal"] == ("sappnd", "nodump", "noatime", "sync")
    assert flags[b"/etc/locked"] == ("schg", "dirsync")
    assert flags[b"/etc/locked/inner"] == ()


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_alone_and_none(disk: Path, flag: str) -> None:
    path = disk / "x"
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    before = os.fstat(descriptor).st_mtime_ns
    assert write_flags(descriptor, (flag,))
    assert read_flags(descriptor) == (flag,)
    assert lsattr(path) == {flag}
    assert not write_flags(descriptor, (flag,))
    assert write_flags(descriptor, ())
    assert lsattr(path) == set()
    assert os.fstat(descriptor).st_mtime_ns == before
    os.close(descriptor)


def test_twins_on_exfat_are_refused_before_anything_is_written(tmp_path: Path, role: Path) -> None:
    """It knows neither owners nor flags nor case: the overlay is refused for the last, and nothing was tried."""
    image, root = tmp_path / "exfat", tmp_path / "stick"
    with image.open("xb") as file:
        file.truncate(16 * MIB)
    run("mkfs.exfat", image)
    chattr("-i", role / "srv/role")
    (role / "srv/role").unlink()
    (role / "srv/role").mkdir()
    for name in ("Hosts", "hosts"):
        (role / "srv/role" / name).write_text(name)
    root.mkdir()
    (root / "etc").mkdir()
    (root / "srv").mkdir()
    loop = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        run("mount.exfat-fuse", loop, root / "srv")
        with capture(role)[0] as payload:
            made = plan(root, payload)
            with pytest.raises(
                ScopeConflict, match=r"/srv/role/Hosts and /srv/role/hosts would be one"
            ):
                apply_plan(str(root), made, payload)
        assert not list((root / "srv").iterdir())
        assert not list((root / "etc").iterdir())
    finally:
        subprocess.run(["umount", root / "srv"], check=False)
        run("losetup", "--detach", loop)


# --- projects: the flag P, which lets in only what has the folder's project ------------------------------------------


@pytest.mark.parametrize("old_project", ["0", "5"])
def test_a_folder_that_gives_its_project_is_refused_before_anything_changed(
    tmp_path: Path, old_project: str
) -> None:
    """Nothing can be renamed into it: a rebuild would have stopped half way, and could neither go on nor back."""
    image, root = tmp_path / "projects", tmp_path / "root"
    with image.open("xb") as file:
        file.truncate(320 * MIB)
    run("mkfs.xfs", "-q", image)
    root.mkdir()
    run("mount", "-o", "loop", image, root)
    try:
        (root / "etc").mkdir()
        (root / "etc/hostname").write_text("old")
        run("chattr", "-p", old_project, root / "etc/hostname")
        run("chattr", "-p", "5", "+P", root / "etc")
        edit = Edit(b"/etc/hostname", b"old", b"new", ())
        payload, _ = capture(root)
        with payload:
            with pytest.raises(ScopeConflict, match=r"/etc/hostname is in a folder whose project"):
                apply_plan(str(root), TreePlan(()), payload, [edit])
            assert os.listdir(root / "etc") == ["hostname"]
            assert not (root / ".etsclone-staging").exists()
            # Where the whole filesystem is of that project, so is what is prepared.
            run(
                *("chattr", "-p", "5", "+P", root)
                if old_project == "5"
                else ("chattr", "-P", root / "etc")
            )
            apply_plan(str(root), TreePlan(()), payload, [edit])
        assert (root / "etc/hostname").read_text() == "new"
        undo(str(root))
        assert (root / "etc/hostname").read_text() == "old"
    finally:
        run("umount", root)
