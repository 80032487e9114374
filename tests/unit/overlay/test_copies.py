"""What programs change afterwards is a copy: the very files come back, with all that they are."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from killed import killed_before
from oracle import Sight, acl, inode_flags, links, look

from etsclone.errors import NothingKept, TargetRefused
from etsclone.model.edit import Edit
from etsclone.model.keep import BootCode, Keep, WriteCode
from etsclone.model.tree import STAGING
from etsclone.overlay.apply import apply_plan
from etsclone.overlay.kept import look_kept, settle, undo
from etsclone.overlay.payload import Payload
from etsclone.overlay.rounds import unfinished_rebuild
from etsclone.plan.tree import TreePlan

from .systems import payload_of

KEPT = b"/" + STAGING
NODUMP = 0x40
KEEP = Keep((b"/boot/[odd]*", b"/boot/efi", b"/boot/grub"), lost=("the rest",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "system"
    modules = root / "boot/grub/modules"
    modules.mkdir(parents=True)
    (root / "boot/[odd]*").write_text("image")
    (root / "boot/oddly").write_text("another")
    (root / "boot/grub/grub.cfg").write_text("old names")
    os.link(root / "boot/grub/grub.cfg", root / "boot/grub/second")
    os.link(root / "boot/grub/grub.cfg", root / "outside")
    os.setxattr(modules, "system.posix_acl_access", acl(77, 5, 0o755))
    (modules / "empty").touch(0o600)
    (modules / "sparse").touch()
    os.truncate(modules / "sparse", 5 << 20)
    (modules / "link").symlink_to("../grub.cfg")
    inode_flags(modules / "empty", NODUMP)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(1, 10**18 + number), follow_symlinks=False)
    return root


@pytest.fixture
def payload(tmp_path: Path) -> Iterator[Payload]:
    (tmp_path / "role").mkdir()
    with payload_of(tmp_path / "role") as payload:
        yield payload


def system(root: Path) -> tuple[Sight, set[frozenset[bytes]]]:
    seen = {path: each for path, each in look(root).items() if not path.startswith(KEPT)}
    names = {frozenset(p for p in each if not p.startswith(KEPT)) for each in links(root)}
    return seen, names - {frozenset()}


def test_copies_are_all_that_their_originals_are_and_these_come_back(
    root: Path, payload: Payload
) -> None:
    before = system(root)
    numbers = {path: path.lstat().st_ino for path in root.rglob("*")}
    edit = Edit(b"/boot/grub/grub.cfg", b"old names", b"new", ("why",))
    apply_plan(str(root), TreePlan(()), payload, [edit], keep=KEEP)

    grub = root / "boot/grub"
    assert (grub / "grub.cfg").read_text() == "new"
    assert (grub / "second").read_text() == (root / "outside").read_text() == "old names"
    assert (root / "boot/efi").is_dir()
    now = look(root)
    for path, seen in before[0].items():
        if path not in (b"/", b"/boot/grub/grub.cfg"):
            assert now[path] == seen, path
    copied = (grub, grub / "second", grub / "modules/sparse", root / "boot/[odd]*")
    assert all(path.lstat().st_ino != numbers[path] for path in copied)
    assert (root / "boot/oddly").lstat().st_ino == numbers[root / "boot/oddly"]

    (grub / "modules/empty").write_text("program")
    (grub / "more").write_text("program")
    (root / "boot/[odd]*").unlink()
    (root / "boot/efi/EFI").mkdir()
    kept = look_kept(str(root))
    assert kept is not None
    assert kept.lost == ("the rest",)
    undo(str(root))
    assert system(root) == before
    assert {path: path.lstat().st_ino for path in root.rglob("*")} == numbers
    assert not (root / os.fsdecode(STAGING)).exists()


def test_boot_code_is_not_forgotten(root: Path, payload: Payload) -> None:
    code = (BootCode(0, b"code"), BootCode(512, b"core"))
    apply_plan(str(root), TreePlan(()), payload, keep=Keep(code=code))
    before = look(root)
    with pytest.raises(TargetRefused, match="boot code"):
        undo(str(root))
    assert look(root) == before
    written: list[BootCode] = []
    undo(str(root), written.extend)
    assert tuple(written) == code


# --- killed ----------------------------------------------------------------------------------------------------------

CODE = BootCode(3, b"code of before")
EDIT = Edit(b"/boot/grub/grub.cfg", b"old names", b"new", ("why",))


class Disk:
    """A file in a disk's place, with boot code."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(CODE.start) + CODE.before)
        self.before = path.read_bytes()

    def write(self, code: Sequence[BootCode], /) -> None:
        descriptor = os.open(self.path, os.O_WRONLY)
        for each in code:
            for at, byte in enumerate(each.before):  # so that a kill may come between any two
                os.pwrite(descriptor, bytes([byte]), each.start + at)
                os.fsync(descriptor)
        os.close(descriptor)


def rebuild(root: Path, payload: Payload) -> None:
    keep = Keep(KEEP.paths, (CODE,))
    apply_plan(str(root), TreePlan(()), payload, [EDIT], keep=keep)


def programs(root: Path, disk: Disk) -> None:
    """What the clone's programs do, as far as they come."""
    disk.path.write_bytes(bytes(CODE.start) + b"another code, and longer")
    for path in ("boot/grub/grub.cfg", "boot/grub/modules/empty", "boot/efi/loader"):
        (root / path).write_text("program")
    (root / "boot/[odd]*").unlink()


def fresh(source: Path) -> Path:
    victim = source.with_name("victim")
    shutil.rmtree(victim, ignore_errors=True)
    subprocess.run(["cp", "-a", source, victim], check=True)
    for path in source.rglob("empty"):
        inode_flags(victim / path.relative_to(source), NODUMP)  # which cp leaves out
    return victim


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves what every system call before it did: there is no need to wait for disks."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("_quick")
def test_a_kill_before_programs_run_leaves_all_or_nothing(
    root: Path, payload: Payload, tmp_path: Path, full: bool
) -> None:
    disk, before = Disk(tmp_path / "disk"), system(root)
    moment, step = 1, 1 if full else 7
    while killed_before(moment, lambda victim: rebuild(victim, payload), victim := fresh(root)):
        with suppress(NothingKept):
            undo(str(victim), disk.write)
        assert system(victim) == before, moment
        assert disk.path.read_bytes() == disk.before
        moment += step
    assert moment > 40


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("again", [undo, settle])
def test_an_undo_that_is_killed_is_done_again(
    root: Path,
    payload: Payload,
    tmp_path: Path,
    full: bool,
    again: Callable[[str, WriteCode], object],
) -> None:
    disk, before = Disk(tmp_path / "disk"), system(root)
    rebuild(root, payload)
    programs(root, disk)
    changed = disk.path.read_bytes()
    moment, step, seen = 1, 1 if full else 3, set()

    def undone(victim: Path) -> None:
        undo(str(victim), disk.write)

    while killed_before(moment, undone, victim := fresh(root)):
        seen.add(disk.path.read_bytes())
        if unfinished_rebuild(str(victim)):
            again(str(victim), disk.write)
        else:  # it had not begun, or was over
            with suppress(NothingKept):
                undo(str(victim), disk.write)
        assert system(victim) == before, moment
        assert disk.path.read_bytes().startswith(disk.before)
        disk.path.write_bytes(changed)
        moment += step
    assert moment > 30
    assert len(seen) > 2  # killed within the boot code, too
