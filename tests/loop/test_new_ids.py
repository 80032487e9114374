"""`clone --new-ids`: a clone that can stay attached beside its source. The tools of others judge it."""

import contextlib
import json
import os
import random
import shutil
import signal
from pathlib import Path

import cpio
import pytest
from grubs import installed
from oracle import look

from etsclone.boot.initramfsnames import telling_files

from . import disks, identified
from .conftest import Cli, Stop
from .disks import MIB, Sample, loop_device, mounted, node, tool
from .identified import identifiers, make_system, numbers
from .killing import run_killed_after, run_timed

pytestmark = pytest.mark.loop

SCRIPTS = {"gpt": identified.GPT, "dos": identified.MBR}
KILL = signal.SIGKILL.value
ORIGINS = {b"/var/lib/etsclone", b"/var/lib/etsclone/cloned-from"}
FOLLOWING = {b"/etc/fstab", b"/etc/initramfs-tools/conf.d/resume", b"/grub/grub.cfg"}


@pytest.fixture(scope="session")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("systems")
    (folder / "mnt").mkdir()
    return {
        label: make_system(folder / f"{label}.img", script, folder / "mnt")
        for label, script in SCRIPTS.items()
    }


def check_sound(image: Path, label: str) -> None:
    with loop_device(image, read_only=True) as device:
        for kind, number in numbers(label).items():
            if kind == "vfat":
                continue  # mtools judge it
            tool(*disks.CHECK[kind], node(device, number))
        tool("mdir", "-i", node(device, numbers(label)["vfat"]))
    if label == "gpt":
        assert disks.is_sound_gpt(image)


def check_identified(source: Path, clone: Path, label: str, scratch: Path) -> None:
    """No identifier in common, files that follow, everything else equal, and both mounted side by side."""
    old, new = identifiers(source), identifiers(clone)
    assert old.keys() == new.keys()
    assert not set(old.values()) & set(new.values())
    assert len(set(new.values())) == len(new)
    check_sound(clone, label)
    mapping = {old[key]: new[key] for key in old}
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(loop_device(source))
        second = stack.enter_context(loop_device(clone))
        for kind, number in numbers(label).items():
            if kind in {"vfat", "swap"}:
                continue
            sides = [
                stack.enter_context(
                    mounted(node(device, number), scratch.with_name(f"{name}{number}"))
                )
                for name, device in (("a", first), ("b", second))
            ]
            trees = [look(side) for side in sides]
            for path in FOLLOWING:
                here, there = (side / path.decode().lstrip("/") for side in sides)
                if here.exists():
                    text = here.read_text()
                    for key, value in mapping.items():
                        text = text.replace(key, value).replace(key.upper(), value.upper())
                    assert there.read_text() == text
                    assert here.stat().st_mode == there.stat().st_mode
            compare(*trees)


def compare(before: object, after: object) -> None:
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    # The list of what it was cloned from, where the root is.
    assert after.keys() - before.keys() <= ORIGINS
    assert before.keys() <= after.keys()
    changed = {path for path in before if before[path] != after[path]}
    assert changed <= FOLLOWING, changed


@pytest.mark.parametrize("label", SCRIPTS)
def test_all_identifiers_differ_and_the_files_follow(
    label: str, systems: dict[str, Path], etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    source, target = systems[label], tmp_path / "clone.img"
    before = identifiers(source)
    result = etsclone("clone", source, target, "--yes", "--new-ids", "--json")
    assert result.code == 0, result.err
    check_identified(source, target, label, scratch)
    assert identifiers(source) == before


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system on an ext4 alone, and swap space: the quickest that has files which follow."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "mnt").mkdir()
    return identified.make_small(folder / "small.img", folder / "mnt")


MOMENTS = {
    "as the record forgets": "window:1",
    "before the first": "change:1",
    "between two": "change:2",
    "before the files": "in_chroot:1",
    "as the last is checked": "check:2",
    "before the backup table": "write_bytes:1",
    "before the table": "write_bytes:3",
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("again", ["--new-ids", "--verify=full"])
def test_killed_at_any_moment_resuming_ends_right(
    moment: str,
    again: str,
    stopped: Stop,
    etsclone: Cli,
    small: Path,
    tmp_path: Path,
    scratch: Path,
) -> None:
    target = disks.blank(tmp_path / "target.img", small.stat().st_size)
    disks.scrawl(target, 0, target.stat().st_size)
    words = ("clone", small, target, "--yes")
    assert stopped(moment, KILL, *words, "--new-ids").code == -KILL
    assert disks.looks_unfinished(target)
    disks.await_free(target)
    assert etsclone(*words, "--resume", again).code == 0
    if again == "--new-ids":
        check_small(small, target, scratch)
    else:
        assert etsclone("verify", small, target).code == 0


@pytest.mark.parametrize("moment", ["change:1", "in_chroot:1", "check:1"])
def test_an_interrupt_ends_in_order(
    moment: str, stopped: Stop, etsclone: Cli, small: Path, tmp_path: Path, scratch: Path
) -> None:
    target = tmp_path / "target.img"
    words = ("clone", small, target, "--yes", "--new-ids")
    result = stopped(moment, signal.SIGINT.value, *words)
    assert result.code == 130
    assert "--resume to go on" in result.err
    assert disks.looks_unfinished(target)
    assert not disks.loops_of(tmp_path)
    assert etsclone(*words, "--resume").code == 0
    check_small(small, target, scratch)


def check_small(source: Path, clone: Path, scratch: Path) -> None:
    old, new = identifiers(source), identifiers(clone)
    assert old.keys() == new.keys()
    assert not set(old.values()) & set(new.values())
    with loop_device(clone, read_only=True) as device:
        tool("e2fsck", "-f", "-n", node(device, 1))
        with mounted(node(device, 1), scratch, "ro", "noload") as root:
            fstab = (root / "etc/fstab").read_text()
    assert not [each for each in old.values() if each in fstab]
    assert new["content 1"] in fstab
    assert new["content 2"] in fstab


def test_killed_at_random_moments(
    etsclone: Cli, small: Path, tmp_path: Path, scratch: Path
) -> None:
    target = tmp_path / "target.img"
    words = ("clone", small, target, "--yes", "--new-ids")
    whole = run_timed(*words)
    rng = random.Random(5)
    ended = set()
    for _ in range(12):
        code = run_killed_after(rng.uniform(0, whole * 1.1), *words)
        ended.add(code)
        disks.await_free(target)
        if not target.stat().st_size:  # killed as it was emptied
            target.unlink()
            continue
        # As it was before anything was written, unfinished, or whole.
        if any(disks.part_of(target, 0, 4096)):
            check_small(small, target, scratch)
        else:
            assert disks.looks_unfinished(target)
    assert -KILL in ended
    assert etsclone(*words).code == 0
    check_small(small, target, scratch)


def test_refreshed_with_and_without(
    etsclone: Cli, small: Path, tmp_path: Path, scratch: Path
) -> None:
    target = tmp_path / "target.img"
    words = ("clone", small, target, "--yes")
    assert etsclone(*words, "--new-ids").code == 0
    first = identifiers(target)
    assert etsclone(*words, "--new-ids", "--refresh").code == 0
    check_small(small, target, scratch)
    assert not set(first.values()) & set(identifiers(target).values())
    refused = etsclone("verify", small, target)
    assert refused.code == 3
    assert "identifiers of its own" in refused.err
    assert etsclone(*words, "--refresh").code == 0
    assert etsclone("verify", small, target).code == 0


def test_grown_and_in_quarantine_too(
    etsclone: Cli, small: Path, tmp_path: Path, scratch: Path
) -> None:
    target = disks.blank(tmp_path / "target.img", small.stat().st_size + 40 * MIB)
    words = ("--grow", "--new-ids", "--quarantine")
    assert etsclone("clone", small, target, "--yes", *words).code == 0
    assert not disks.signatures(target)
    assert etsclone("release", target, "--yes").code == 0
    check_small(small, target, scratch)
    assert disks.is_sound_gpt(target)


def test_the_plan_and_the_receipt_name_them(etsclone: Cli, small: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.img"
    shown = etsclone("clone", small, target, "--dry-run", "--new-ids")
    assert shown.code == 0
    old = identifiers(small)
    for each in old.values():
        assert f" {each} -> ".lower() in shown.out.lower()
    assert not target.exists()
    facts = etsclone("clone", small, target, "--yes", "--new-ids", "--json").facts
    new = {each["old"].lower(): each["new"].lower() for each in facts["new_ids"]}
    after = identifiers(target)
    assert new == {old[key].lower(): after[key].lower() for key in old}
    assert facts["followed"]["changed"] == ["/etc/fstab", "/etc/initramfs-tools/conf.d/resume"]
    receipt = json.loads(Path(facts["receipt"]).read_text())
    assert receipt["new_ids"] == facts["new_ids"]


UPDATE = r"""#!/usr/bin/sh
read line < /etc/initramfs-tools/conf.d/resume
sed -i "s/RESUME=UUID=[0-9a-f-]*/$line/" /boot/initrd.img-6.1
echo "$@" > /boot/arguments
"""


@pytest.mark.parametrize("program", [True, False])
def test_an_initramfs_that_names_the_old_swap(
    program: bool, etsclone: Cli, small: Path, tmp_path: Path, scratch: Path
) -> None:
    source = Path(shutil.copy(small, tmp_path / "source.img"))
    resume = f"RESUME=UUID={identifiers(source)['content 2']}\n".encode()
    with loop_device(source) as device, mounted(node(device, 1), scratch) as root:
        identified.add_programs(root, "sh", "sed")
        (root / "boot").mkdir()
        inside = cpio.archive(("conf/conf.d/resume", resume), ("init", b"#!/bin/sh\n"))
        (root / "boot/initrd.img-6.1").write_bytes(inside)
        if program:
            (root / "usr/sbin/update-initramfs").write_text(UPDATE)
            (root / "usr/sbin/update-initramfs").chmod(0o755)
    target = tmp_path / "target.img"
    result = etsclone("clone", source, target, "--yes", "--new-ids")
    assert result.code == 0, result.err
    warned = "/boot/initrd.img-6.1 names old identifiers, make it again" in result.out
    assert warned == (not program)
    with loop_device(target) as device, mounted(node(device, 1), scratch, "ro") as root:
        made = (root / "boot/initrd.img-6.1").read_bytes()
        assert (resume in made) == (not program)
        if program:
            assert f"RESUME=UUID={identifiers(target)['content 2']}\n".encode() in made
            assert (root / "boot/arguments").read_text() == "-u -k all\n"


def test_an_initramfs_that_no_program_makes_names_the_new_swap_at_its_end(
    etsclone: Cli, small: Path, tmp_path: Path, scratch: Path
) -> None:
    source = Path(shutil.copy(small, tmp_path / "source.img"))
    resume = f"RESUME=UUID={identifiers(source)['content 2']}\n".encode()
    files = (("conf/initramfs.conf", b""), ("conf/conf.d/resume", resume), ("init", b"#!/bin/sh\n"))
    before = cpio.archive(*files)
    with loop_device(source) as device, mounted(node(device, 1), scratch) as root:
        (root / "boot").mkdir()
        (root / "boot/initrd.img-6.1").write_bytes(before)
        (root / "boot/initrd.img-6.1").chmod(0o600)
    target = tmp_path / "target.img"
    facts = etsclone("clone", source, target, "--yes", "--new-ids", "--json").facts
    assert "/boot/initrd.img-6.1" in facts["followed"]["changed"]
    assert facts["followed"]["notes"] == []
    now = f"RESUME=UUID={identifiers(target)['content 2']}\n".encode()
    with loop_device(target) as device, mounted(node(device, 1), scratch, "ro") as root:
        image = root / "boot/initrd.img-6.1"
        assert image.stat().st_mode & 0o777 == 0o600
        assert image.read_bytes().startswith(before)
        assert telling_files(os.fsencode(image)) == {b"conf/conf.d/resume": now}


def test_a_journal_that_is_not_replayed(
    etsclone: Cli, tmp_path: Path, scratch: Path, systems: dict[str, Path]
) -> None:
    """As after a power cut: a copy of mounted filesystems, frozen so that their logs are not empty."""
    source = Path(shutil.copy(systems["gpt"], tmp_path / "source.img"))
    taken = tmp_path / "taken.img"
    parts = numbers("gpt")
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(loop_device(source))
        for kind in ("ext4", "xfs", "btrfs"):
            where = scratch.with_name(f"dirty-{kind}")
            stack.enter_context(mounted(node(device, parts[kind]), where))
            (where / "late").write_bytes(b"late" * 1000)
            descriptor = os.open(where / "late", os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        tool("blockdev", "--flushbufs", device)
        shutil.copy(source, taken)
    target = tmp_path / "target.img"
    result = etsclone("clone", taken, target, "--yes", "--new-ids")
    assert result.code == 0, result.err
    check_sound(target, "gpt")
    assert not set(identifiers(taken).values()) & set(identifiers(target).values())


def test_what_cannot_be_changed_is_refused_before_anything_is_written(
    etsclone: Cli, bare_disk: Sample, tmp_path: Path
) -> None:
    target = tmp_path / "target.img"
    result = etsclone("clone", bare_disk.image, target, "--yes", "--new-ids")
    assert result.code == 3
    assert "has no partition table" in result.err
    assert not target.exists()


def test_the_files_of_more_than_one_system_cannot_follow(
    etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    source, target = (
        identified.make_two_roots(tmp_path / "source.img", scratch),
        tmp_path / "target.img",
    )
    words = ("clone", source, target, "--yes")
    result = etsclone(*words, "--new-ids")
    assert result.code == 4
    assert "more than one system" in result.err
    assert "--resume without --new-ids" in result.err
    assert disks.looks_unfinished(target)
    assert etsclone(*words, "--resume").code == 0
    assert etsclone("verify", source, target).code == 0


def test_a_disk_of_data_alone_has_no_files_that_follow(
    etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    source, target = (
        identified.make_two_roots(tmp_path / "source.img", scratch),
        tmp_path / "target.img",
    )
    with loop_device(source) as device:
        for number in (1, 2):
            with mounted(node(device, number), scratch) as root:
                (root / "etc/passwd").unlink()
    result = etsclone("clone", source, target, "--yes", "--new-ids")
    assert result.code == 0, result.err
    assert "no file follows: no root of a system was found" in result.out


def test_a_boot_loader_that_names_an_old_identifier(
    etsclone: Cli, small: Path, tmp_path: Path
) -> None:
    source, target = Path(shutil.copy(small, tmp_path / "source.img")), tmp_path / "target.img"
    words = ("clone", source, target, "--new-ids")
    assert "GRUB" not in etsclone(*words, "--dry-run").out
    uuid = identifiers(source)["content 1"]
    with source.open("r+b") as file:
        for lba, sector in installed("/boot/grub", f"search.fs_uuid {uuid} root \n", 40).items():
            file.seek(lba * 512)
            file.write(sector if lba else sector[:440])
    shown = etsclone(*words, "--dry-run")
    assert "warning: GRUB in the boot sector looks for its files by an old identifier" in shown.out
    assert uuid in shown.out.split("GRUB in the boot sector", 1)[1]
    done = etsclone(*words, "--yes", "--json").facts
    assert done["followed"]["notes"][0].startswith("GRUB in the boot sector")
    assert done["new_ids_warnings"] == done["followed"]["notes"][:1]
