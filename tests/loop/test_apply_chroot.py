"""Law 8: work inside a clone cannot reach the system around it. Real filesystems, a real chroot."""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from oracle import Sight, acl, look

from etsclone.chroot import in_chroot
from etsclone.commands.system import System, check_mounted_once
from etsclone.disk.mounts import second_mounts
from etsclone.errors import FormatError, NothingKept, Refused, TargetChanged, TargetFull
from etsclone.model.brd import CloneIdentity
from etsclone.model.journal import Journal, Steps, Swap, begun_line, head_line, step_lines
from etsclone.model.scope import Scope
from etsclone.model.tree import Kind
from etsclone.overlay import inventory
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.kept import commit, settle, undo
from etsclone.overlay.listing import Aids, list_tree
from etsclone.overlay.payload import Archived, Payload, read_payload, write_payload
from etsclone.overlay.scan import Scan, scan
from etsclone.plan.tree import plan_tree
from etsclone.units import MIB

pytestmark = pytest.mark.loop

SCOPE = Scope(
    ("/etc/hostname", "/etc/dhcp/dhcpd.conf", "/var/lib/role", "/root/*.key"), ("/etc/fstab",)
)


def run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def mounted_image(image: Path, folder: Path, size: int) -> None:
    with image.open("xb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", image)
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-o", "loop", image, folder)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A mounted clone with /var on a filesystem of its own."""
    root = tmp_path / "clone"
    with ExitStack() as cleanup:
        for image, folder in (("root", root), ("var", root / "var")):
            mounted_image(tmp_path / f"{image}.img", folder, 64 * MIB)
            cleanup.callback(run, "umount", folder)
        fill(root, "secondary")
        yield root


@pytest.fixture
def role(tmp_path: Path) -> Path:
    root = tmp_path / "role"
    fill(root, "primary")
    os.setxattr(root / "var/lib/role", "system.posix_acl_access", acl(7, 5, 0o755))
    os.setxattr(root / "root/host.key", "trusted.x", b"\0\xff")
    os.mknod(root / "var/lib/role/null", 0o20666, os.makedev(1, 3))
    os.chown(root / "root/host.key", 12, 34)
    return root


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A part of the host that has all that the overlay would write to."""
    root = tmp_path / "host"
    fill(root, "host")
    return root


def fill(root: Path, content: str) -> None:
    for name in (
        "etc/hostname",
        "etc/dhcp/dhcpd.conf",
        "etc/fstab",
        "var/lib/role/state",
        "root/host.key",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def capture(root: Path) -> tuple[Payload, bytes, Archived]:
    """As production does it: everything inside, into files that were opened outside."""
    with (
        open(root.parent / "payload", "w+b") as packed,
        open(root.parent / "inventory", "w+b") as listing,
        ExitStack() as files,
    ):
        spools = [files.enter_context(tempfile.TemporaryFile()) for _ in range(2)]

        def work() -> Archived:
            with inventory.writing_lines(listing) as write:
                list_tree("/", SCOPE, write, started_ns=0, aids=Aids(spools=spools))
            seen = scan("/", SCOPE)
            archived = write_payload(packed, "/", seen.scope)
            packed.flush()
            listing.flush()
            return archived

        archived = in_chroot(str(root), work)
        packed.seek(0)
        listing.seek(0)
        return read_payload(packed, SCOPE), listing.read(), archived


def rebuild(root: Path, payload: Payload, done: Callable[[], object] = lambda: commit("/")) -> None:
    def look_inside() -> Scan:
        return scan("/", SCOPE)

    seen = in_chroot(str(root), look_inside)
    plan = plan_tree(seen.scope, payload.tree, SCOPE, seen.outside)

    def work() -> None:
        apply_plan("/", plan, payload)
        verify_scope("/", payload.tree, SCOPE)
        done()

    in_chroot(str(root), work)


def scope_of(root: Path) -> Sight:
    return {path: seen for path, seen in look(root).items() if path in SCOPE}


def test_all_of_it_works_inside_a_chroot(clone: Path, role: Path) -> None:
    payload, listing, archived = capture(role)
    with payload:
        assert payload.tree == archived.tree
        kinds = {entry.path: entry.kind for entry in inventory.read(io.BytesIO(listing))}
        assert kinds[b"/etc/fstab"] is Kind.FILE
        outside = {path: seen for path, seen in look(clone).items() if path not in SCOPE}
        rebuild(clone, payload)
    assert scope_of(clone) == scope_of(role)
    assert {path: seen for path, seen in look(clone).items() if path not in SCOPE} == outside


def test_it_needs_no_module_once_inside(clone: Path, role: Path) -> None:
    """In a fresh interpreter: what the tests have imported before must not hide a late import."""
    script = f"""
import io
from etsclone.chroot import in_chroot
from etsclone.model.scope import Scope
from etsclone.overlay.apply import apply_plan, verify_scope
from etsclone.overlay.payload import read_payload, write_payload
from etsclone.overlay.scan import scan
from etsclone.overlay import inventory
from etsclone.overlay.listing import Aids, list_tree
from etsclone.plan.tree import plan_tree
import tempfile
spools = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
scope = Scope({SCOPE.role!r}, {SCOPE.disk!r})
packed, listing = open({str(role.parent / "p")!r}, "w+b"), open({str(role.parent / "i")!r}, "w+b")
def capture():
    with inventory.writing_lines(listing) as write:
        list_tree("/", scope, write, started_ns=0, aids=Aids(spools=spools))
    seen = scan("/", scope)
    archived = write_payload(packed, "/", seen.scope)
    packed.flush()
    return archived
in_chroot({str(role)!r}, capture)
packed.seek(0)
payload = read_payload(packed, scope)
def work():
    seen = scan("/", scope)
    apply_plan("/", plan_tree(seen.scope, payload.tree, scope, seen.outside), payload)
    verify_scope("/", payload.tree, scope)
    return seen
in_chroot({str(clone)!r}, work)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert scope_of(clone) == scope_of(role)


@pytest.mark.parametrize("way", ["etc", "etc/dhcp", "var", "var/lib"])
@pytest.mark.parametrize("escape", ["{canary}/{way}", "../../../../../../../../..{canary}/{way}"])
def test_a_link_out_of_the_clone_leads_nowhere(
    clone: Path, role: Path, canary: Path, way: str, escape: str
) -> None:
    if way == "var":
        run("umount", clone / "var")
    run("mv", clone / way, clone / "moved-away") if way != "var" else (clone / way).rmdir()
    (clone / way).symlink_to(escape.format(canary=canary, way=way))
    before, host = look(clone), look(canary)
    payload = capture(role)[0]
    with (
        payload,
        pytest.raises(Refused, match=f"leads through /{way}, which is no folder but a link"),
    ):
        rebuild(clone, payload)
    assert look(clone) == before
    assert look(canary) == host
    if way == "var":
        (clone / way).unlink()
        (clone / way).mkdir()
        run("mount", "-o", "loop", clone.parent / "var.img", clone / "var")


def test_a_link_in_the_scope_is_replaced_not_written_through(
    clone: Path, role: Path, canary: Path
) -> None:
    (clone / "etc/hostname").unlink()
    (clone / "etc/hostname").symlink_to(canary / "etc/hostname")
    run("rm", "-r", clone / "var/lib/role")
    (clone / "var/lib/role").symlink_to(canary / "var/lib/role")
    host = look(canary)
    with capture(role)[0] as payload:
        rebuild(clone, payload)
    assert scope_of(clone) == scope_of(role)
    assert look(canary) == host


@pytest.mark.parametrize("way", ["etc", "etc/dhcp", "var/lib"])
def test_undoing_through_a_link_out_of_the_clone_is_refused(
    clone: Path, role: Path, canary: Path, way: str
) -> None:
    """Between a rebuild and its undoing somebody else may have had the disk."""
    with capture(role)[0] as payload:
        rebuild(clone, payload, done=lambda: None)
    run("mv", clone / way, clone / "moved-away")
    (clone / way).symlink_to(canary / way)
    host = look(canary)
    with pytest.raises(Refused, match="link or no folder"):
        in_chroot(str(clone), lambda: undo("/"))
    assert look(canary) == host
    (clone / way).unlink()
    run("mv", clone / "moved-away", clone / way)
    in_chroot(str(clone), lambda: undo("/"))
    assert (clone / "etc/hostname").read_text() == "secondary"


def test_each_filesystem_keeps_its_own_and_undo_restores_both(clone: Path, role: Path) -> None:
    before = look(clone)
    with capture(role)[0] as payload:
        rebuild(clone, payload, done=lambda: None)
    assert scope_of(clone) == scope_of(role)
    for top in (clone, clone / "var"):
        assert (top / ".etsclone-staging/000001/old").is_dir()
    in_chroot(str(clone), lambda: undo("/"))
    assert look(clone) == before


def test_what_is_kept_on_a_filesystem_that_is_not_mounted_is_missed(
    clone: Path, role: Path
) -> None:
    with capture(role)[0] as payload:
        rebuild(clone, payload, done=lambda: None)
    run("umount", clone / "var")
    before = look(clone)
    for work in (undo, commit):
        with pytest.raises(Refused, match=r"/var/\.etsclone-staging/000001 is not there"):
            in_chroot(str(clone), partial(work, "/"))
    assert look(clone) == before
    run("mount", "-o", "loop", clone.parent / "var.img", clone / "var")
    in_chroot(str(clone), lambda: undo("/"))
    assert (clone / "var/lib/role/state").read_text() == "secondary"


@pytest.mark.parametrize("what", ["clone/var", "clone", "host"])
def test_a_second_mount_inside_is_no_way_around_the_scope(
    clone: Path, role: Path, canary: Path, what: str
) -> None:
    """A bind loop, or a part of the host mounted inside: the command refuses it, by the kernel's own list."""
    inner = clone / "var/lib/role/inner"
    inner.mkdir()
    source = canary if what == "host" else clone.parent / what
    run("mount", "--bind", source, inner)
    try:
        assert b"/var/lib/role/inner" in second_mounts(str(clone))
        system = System(str(clone), CloneIdentity(), frozenset(), "clone")
        with pytest.raises(Refused, match="is mounted elsewhere, too"):
            check_mounted_once(system, SCOPE)
        check_mounted_once(system, Scope(("/etc/hostname",)))
        before, host = look(clone), look(canary)
        # Even so: nothing is moved from one mount to another, and folders that something is mounted at stay.
        with (
            capture(role)[0] as payload,
            pytest.raises(Refused, match="another filesystem is mounted at"),
        ):
            rebuild(clone, payload)
        assert look(clone) == before
        assert look(canary) == host
    finally:
        run("umount", inner)


def test_a_journal_of_an_enemy_stays_in_the_clone(clone: Path, canary: Path) -> None:
    """It is no more than what the enemy could have written into the clone anyway."""
    folder = clone / ".etsclone-staging/000001"
    for name in ("new", "old", "met"):
        (folder / name).mkdir(parents=True)
    (clone / ".etsclone-staging").chmod(0o700)
    (folder / "old/000000").write_text("enemy")
    journal = Journal("", "enemy", (b"/",))
    inside = Steps((Swap(os.fsencode(canary) + b"/etc/hostname", b"/", old=True, new=False),))
    lines = head_line(journal) + step_lines(inside)
    (folder / "journal").write_bytes(lines + begun_line(lines))
    host = look(canary)
    with pytest.raises(TargetChanged, match="not what it was"):
        in_chroot(str(clone), lambda: settle("/"))
    for path in ("/../etc/hostname", "etc/hostname", "/etc/../../x"):
        lines = head_line(journal) + step_lines(
            Steps((replace(inside.swaps[0], path=path.encode()),))
        )
        (folder / "journal").write_bytes(lines + begun_line(lines))
        with pytest.raises(FormatError, match="not a plain path"):
            in_chroot(str(clone), lambda: undo("/"))
    shutil.rmtree(clone / ".etsclone-staging")
    (clone / ".etsclone-staging").symlink_to(canary)
    with pytest.raises(NothingKept):
        in_chroot(str(clone), lambda: undo("/"))
    assert look(canary) == host


def test_a_full_filesystem_changes_nothing(
    clone: Path, role: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etsclone.overlay.payload.LEVEL", 1)
    (role / "var/lib/role/large").write_bytes(os.urandom(40 * MIB))
    (clone / "var/fill").write_bytes(bytes(30 * MIB))
    before = look(clone)
    with capture(role)[0] as payload, pytest.raises(TargetFull, match="/var/lib/role/large"):
        rebuild(clone, payload)
    assert look(clone) == before
