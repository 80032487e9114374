"""`--grow`: the last partition and its filesystem fill a larger target, and nothing else changes."""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from etsclone.disk.resize import obstacle

from . import disks
from .conftest import BIOS_BOOT, ETSCLONE, Cli, Result, Stop, make
from .disks import MIB, Sample, loop_device, node, tool
from .lvm import linear, lvm

pytestmark = pytest.mark.loop

KILL = signal.SIGKILL.value
MINIMUM = {"xfs": 300, "btrfs": 210}
NUMBER = r"(?m)^{}[:\s]+(\d+)"


MadeWith = Callable[[str], Sample]


@pytest.fixture(scope="module")
def disk_with(workshop: Path) -> MadeWith:
    """Make a disk with a root of some kind, and swap space behind it."""

    @functools.cache
    def made(kind: str) -> Sample:
        size = MINIMUM.get(kind, 32)
        script = (
            f"label: gpt\nsize=1MiB, type={BIOS_BOOT}\nsize={size}MiB, type=linux, name=root\n"
            "size=8MiB, type=swap, name=paging\n"
        )
        return make(workshop, f"grow-{kind}", (size + 12) * MIB, script, {2: kind, 3: "swap"})

    return made


@pytest.fixture(scope="module")
def ext4_disk(disk_with: MadeWith) -> Sample:
    """The quickest of them."""
    return disk_with("ext4")


@pytest.fixture
def target(tmp_path: Path, ext4_disk: Sample) -> Path:
    """A larger disk that was in use."""
    path = disks.blank(tmp_path / "target.img", ext4_disk.size + 40 * MIB)
    disks.scrawl(path, 0, path.stat().st_size)
    return path


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entries(path: Path) -> list[dict[str, object]]:
    """The partitions that sfdisk finds: sizes and starts in sectors."""
    rows = json.loads(tool("sfdisk", "--json", path))["partitiontable"]["partitions"]
    return [{key: row[key] for key in row if key != "node"} for row in rows]


def identity(device: Path) -> dict[str, str]:
    """UUIDs and labels that blkid finds."""
    lines = tool("blkid", "--probe", "--output", "export", device).splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    wanted = ("TYPE", "UUID", "LABEL", "UUID_SUB", "PART_ENTRY_UUID", "PART_ENTRY_NAME")
    return {name: fields[name] for name in wanted if name in fields}


def filesystem_size(device: Path, kind: str) -> int:
    """What a filesystem thinks of its size."""
    if kind.startswith("ext"):
        text = tool("dumpe2fs", "-h", device)
        names = ("Block count", "Block size")
    elif kind == "xfs":
        text = tool("xfs_db", "-r", "-c", "sb 0", "-c", "print dblocks blocksize", device)
        text = text.replace(" =", ":")
        names = ("dblocks", "blocksize")
    else:
        text = tool("btrfs", "inspect-internal", "dump-super", device) + "unit 1\n"
        names = ("total_bytes", "unit")
    found = [re.search(NUMBER.format(name), text) for name in names]
    assert all(found), text
    first, second = (int(match[1]) for match in found if match)
    return first * second


def check_grown(sample: Sample, clone: Path, scratch: Path, number: int = 2) -> None:
    """Judge a grown clone: sound, all files equal, all identities kept, no space left."""
    disks.check_clone(sample, clone, scratch)
    kind, sector = sample.kinds[number], sample.sector_size
    with (
        loop_device(sample.image, sector_size=sector, read_only=True) as old,
        loop_device(clone, sector_size=sector, read_only=True) as new,
    ):
        assert "No errors detected" in tool("sfdisk", "--verify", new)
        before, after = entries(old), entries(new)
        end = (clone.stat().st_size - MIB) // sector
        assert int(str(after[-1]["start"])) + int(str(after[-1]["size"])) == end
        for row, other in zip(before, after, strict=True):
            changes = {"start", "size"}
            assert {k: row[k] for k in row.keys() - changes} == {
                k: other[k] for k in other.keys() - changes
            }
        for each in sample.kinds:
            assert identity(node(new, each)) == identity(node(old, each))
        size = int(tool("blockdev", "--getsize64", node(new, number)))
        assert size > int(tool("blockdev", "--getsize64", node(old, number))) + 20 * MIB
        assert size - filesystem_size(node(new, number), kind) < 64 * 1024


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        *((kind, "image") for kind in ("ext2", "ext3", "ext4", "xfs", "btrfs")),
        ("ext4", "device"),
        ("btrfs", "device"),
    ],
)
def test_it_fills_the_target_and_swap_moves(
    where: str, kind: str, etsclone: Cli, disk_with: MadeWith, tmp_path: Path, scratch: Path
) -> None:
    sample = disk_with(kind)
    target = disks.blank(tmp_path / "target.img", sample.size + 60 * MIB)
    before = digest(sample.image)
    if where == "image":
        result = etsclone("clone", sample.image, target, "--yes", "--grow")
        assert (result.code, result.err) == (0, "")
        assert re.search(r"partition 2 \(\w+\) is enlarged from \S+ MiB to \S+ MiB", result.out)
        assert "partition 3 (swap) moves from byte " in result.out
    else:
        with loop_device(sample.image) as first, loop_device(target) as second:
            # The kernel knows the source's btrfs by name.
            tool("btrfs", "device", "scan", node(first, 2), accept=(0, 1))
            assert etsclone("clone", first, second, "--yes", "--grow").code == 0
            assert node(second, 3).exists()
    check_grown(sample, target, scratch)
    assert disks.is_sound_gpt(target)
    assert digest(sample.image) == before


def test_the_facts(etsclone: Cli, ext4_disk: Sample, target: Path) -> None:
    before = digest(target)
    facts = etsclone("clone", ext4_disk.image, target, "--grow", "--dry-run", "--json").facts
    end = target.stat().st_size - MIB
    assert facts["grow"] == {
        "partition": 2,
        "content": "ext4",
        "start": 2 * MIB,
        "old_size": 32 * MIB,
        "new_size": end - 8 * MIB - 2 * MIB,
        "moved": {
            "partition": 3,
            "old_start": 34 * MIB,
            "new_start": end - 8 * MIB,
            "size": 8 * MIB,
        },
    }
    assert facts["steps"] == ["Erase", "Copy", "Grow", "Seal"]
    assert digest(target) == before
    plain = etsclone("clone", ext4_disk.image, target, "--dry-run", "--json").facts
    assert plain["grow"] is None
    assert plain["steps"] == ["Erase", "Copy", "Seal"]


@pytest.mark.parametrize("unused", ["--wipe", "--discard"])
def test_with_unused_space_cleared(
    unused: str, etsclone: Cli, ext4_disk: Sample, target: Path, scratch: Path
) -> None:
    assert etsclone("clone", ext4_disk.image, target, "--yes", "--grow", unused).code == 0
    check_grown(ext4_disk, target, scratch)


def test_a_filesystem_at_the_end_of_a_disk_with_many(
    etsclone: Cli, gpt_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    target = disks.blank(tmp_path / "target.img", gpt_disk.size + 60 * MIB)
    assert etsclone("clone", gpt_disk.image, target, "--yes", "--grow").code == 0
    check_grown(gpt_disk, target, scratch, number=5)


def test_sectors_of_4096_bytes(
    etsclone: Cli, four_k_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    target = disks.blank(tmp_path / "target.img", four_k_disk.size + 60 * MIB)
    with loop_device(target, sector_size=4096) as device:
        assert etsclone("clone", four_k_disk.image, device, "--yes", "--grow").code == 0
    check_grown(four_k_disk, target, scratch, number=1)


MBR = {
    "a primary": (
        "1: start=1MiB, size=20MiB, type=83\n2: start=21MiB, size=20MiB, type=83, bootable\n",
        {1: "ext4", 2: "ext4"},
        2,
    ),
    "a logical": (
        (
            "1: start=1MiB, size=20MiB, type=83\n2: start=21MiB, size=50MiB, type=5\n"
            "5: start=22MiB, size=20MiB, type=83\n6: start=44MiB, size=20MiB, type=83\n"
        ),
        {1: "ext4", 5: "ext4", 6: "ext4"},
        6,
    ),
    "a logical before swap": (
        (
            "1: start=1MiB, size=20MiB, type=83\n2: start=21MiB, size=30MiB, type=f\n"
            "3: start=60MiB, size=8MiB, type=82\n5: start=22MiB, size=20MiB, type=83\n"
        ),
        {1: "ext4", 3: "swap", 5: "ext4"},
        5,
    ),
    "a primary before a frame with swap": (
        (
            "1: start=1MiB, size=20MiB, type=83\n2: start=21MiB, size=30MiB, type=5\n"
            "5: start=22MiB, size=8MiB, type=82\n"
        ),
        {1: "ext4", 5: "swap"},
        1,
    ),
}


@pytest.mark.parametrize(("script", "kinds", "number"), MBR.values(), ids=MBR)
def test_mbr(
    script: str,
    kinds: dict[int, str],
    number: int,
    etsclone: Cli,
    tmp_path: Path,
    scratch: Path,
) -> None:
    sample = make(tmp_path, "mbr", 80 * MIB, f"label: dos\n{script}", kinds)
    target = disks.blank(tmp_path / "target.img", 128 * MIB)
    result = etsclone("clone", sample.image, target, "--yes", "--grow")
    assert (result.code, result.err) == (0, "")
    disks.check_clone(sample, target, scratch)
    assert "No errors detected" in tool("sfdisk", "--verify", target)
    with loop_device(sample.image) as old, loop_device(target, read_only=True) as new:
        assert [row["type"] for row in entries(new)] == [row["type"] for row in entries(old)]
        for each in kinds:
            assert identity(node(new, each)) == identity(node(old, each))
        assert filesystem_size(node(new, number), "ext4") > 60 * MIB


def test_an_mbr_with_sectors_of_4096_bytes(etsclone: Cli, tmp_path: Path, scratch: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 80 * MIB)
    script, kinds, _ = MBR["a logical"]
    with loop_device(image, sector_size=4096) as device:
        tool("sfdisk", "--quiet", device, typed=f"label: dos\n{script}", accept=(0, 1))
    sample = disks.furnish(image, kinds, scratch, sector_size=4096)
    target = disks.blank(tmp_path / "target.img", 128 * MIB)
    with (
        loop_device(image, sector_size=4096, read_only=True) as source,
        loop_device(target, sector_size=4096) as clone,
    ):
        assert etsclone("clone", source, clone, "--yes", "--grow").code == 0
        assert "No errors detected" in tool("sfdisk", "--verify", clone)
        disks.check_clone(sample, clone, scratch)
        assert filesystem_size(node(clone, 6), "ext4") > 60 * MIB


def test_a_physical_volume(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "lvm.img", 64 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=1MiB\nsize=60MiB, type=lvm\n")
    with loop_device(image) as device:
        physical = node(device, 2)
        lvm("pvcreate", physical, devices=[physical])
        lvm("vgcreate", "grown", physical, devices=[physical])
        linear("root", "grown", "--size", "32M", devices=[physical])
        disks.scrawl(physical, MIB, 32 * MIB)
    target = disks.blank(tmp_path / "target.img", 128 * MIB)
    with loop_device(image) as source, loop_device(target) as clone:
        # Both twins are there, and none is confused with the other.
        before = digest(source)
        result = etsclone("clone", source, clone, "--yes", "--grow")
        assert (result.code, result.err) == (0, "")
        assert "no logical volume grows with it" in result.out
        assert digest(source) == before
        physical = node(clone, 2)
        show = ("--noheadings", "--units", "m", "--nosuffix", "--options", "pv_size,pv_free")
        size, free = map(float, lvm("pvs", *show, physical, devices=[physical]).split()[-2:])
        assert (size, free) == (124.0, 92.0)
        lvm("pvck", physical, devices=[physical])
        assert disks.part_of(physical, MIB, 33 * MIB) == disks.part_of(
            node(source, 2), MIB, 33 * MIB
        )


def test_a_group_on_several_disks_is_refused(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "lvm.img", 64 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=30MiB\nsize=30MiB, type=lvm\n")
    with loop_device(image) as device:
        both = [node(device, 1), node(device, 2)]
        for physical in both:
            lvm("pvcreate", physical, devices=both)
        lvm("vgcreate", "wide", *both, devices=both)
    refused(etsclone, image, tmp_path, "its volume group wide has 2 physical volumes")


def refused(etsclone: Cli, source: Path, folder: Path, message: str) -> None:
    with source.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
    target = disks.blank(folder / "target.img", size + 40 * MIB)
    disks.scrawl(target, 0, 4 * MIB)
    before = digest(target)
    result = etsclone("clone", source, target, "--yes", "--grow")
    assert result.code == 3
    assert message in result.err
    assert "clone without --grow" in result.err
    assert digest(target) == before
    assert etsclone("clone", source, target, "--dry-run", "--grow").code == 3


@pytest.mark.parametrize(
    ("command", "content"),
    [
        (("mkfs.vfat",), "vfat"),
        (("mkfs.f2fs", "-q", "-f"), "f2fs"),
        (("mkntfs", "-Q", "-F"), "ntfs"),
        (("mkfs.exfat",), "exfat"),
        (("true",), "something unknown"),
    ],
)
def test_what_cannot_grow_is_refused(
    command: tuple[str, ...], content: str, etsclone: Cli, tmp_path: Path
) -> None:
    image = disks.blank(tmp_path / "source.img", 64 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=60MiB\n")
    with loop_device(image) as device:
        tool(*command, node(device, 1))
    refused(etsclone, image, tmp_path, f"partition 1, the last, holds {content}, which cannot")


def test_without_a_table_it_is_refused(etsclone: Cli, bare_disk: Sample, tmp_path: Path) -> None:
    refused(etsclone, bare_disk.image, tmp_path, "has no partition table")


def test_a_mounted_btrfs_is_refused(
    etsclone: Cli, disk_with: MadeWith, tmp_path: Path, scratch: Path
) -> None:
    image = Path(shutil.copy(disk_with("btrfs").image, tmp_path / "source.img"))
    with (
        loop_device(image, read_only=True) as device,
        disks.mounted(node(device, 2), scratch, "ro"),
    ):
        refused(etsclone, device, tmp_path, "a btrfs with its UUID is mounted")
    with (
        loop_device(Path(shutil.copy(image, tmp_path / "twin.img"))) as twin,
        disks.mounted(node(twin, 2), scratch),
    ):
        refused(etsclone, image, tmp_path, "a btrfs with its UUID is mounted")


def test_an_ext4_with_errors_is_refused(etsclone: Cli, ext4_disk: Sample, tmp_path: Path) -> None:
    image = Path(shutil.copy(ext4_disk.image, tmp_path / "source.img"))
    with loop_device(image) as device:
        tool("debugfs", "-w", "-R", "ssv state 2", node(device, 2))
    refused(etsclone, image, tmp_path, "it is marked as having errors")


def test_an_ext3_ends_at_16_tib(ext4_disk: Sample, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "plain.img", 64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^64bit", image)
    sixteen = 16 * 1024 * 1024 * MIB
    assert obstacle(str(image), "ext4", "", sixteen - MIB) == ""
    assert (
        obstacle(str(image), "ext4", "", sixteen)
        == "without the feature 64bit it cannot have 16.0 TiB"
    )
    with loop_device(ext4_disk.image, read_only=True) as device:
        assert obstacle(str(node(device, 2)), "ext4", "", sixteen) == ""


def test_a_btrfs_that_stays_small_is_refused(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 130 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=120MiB\n")
    with loop_device(image) as device:
        tool("mkfs.btrfs", "-q", node(device, 1))
    refused(etsclone, image, tmp_path, "btrfs can only be enlarged to 256 MiB or more")


def test_a_btrfs_of_several_devices_is_refused(etsclone: Cli, tmp_path: Path) -> None:
    image = disks.blank(tmp_path / "source.img", 260 * MIB)
    tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=128MiB\nsize=128MiB\n")
    with loop_device(image) as device:
        tool("mkfs.btrfs", "-q", "-d", "raid0", node(device, 1), node(device, 2))
        tool("btrfs", "device", "scan", "--forget", accept=(0, 1))
    refused(etsclone, image, tmp_path, "its btrfs has 2 devices")


def test_a_missing_program_is_told_before_anything_is_written(
    etsclone: Cli, ext4_disk: Sample, target: Path
) -> None:
    before = digest(target)
    bind = (
        "unshare",
        "--mount",
        "sh",
        "-ec",
        'mount --bind /dev/null /usr/sbin/resize2fs; exec "$@"',
        "sh",
    )
    result = etsclone("clone", ext4_disk.image, target, "--yes", "--grow", before=bind)
    assert result.code == 3
    assert "resize2fs is not installed" in result.err
    assert "apt install e2fsprogs" in result.err
    assert digest(target) == before


def test_without_room_it_is_a_plain_clone(
    etsclone: Cli, small_disk: Sample, tmp_path: Path
) -> None:
    target = tmp_path / "new.img"
    result = etsclone("clone", small_disk.image, target, "--yes", "--grow")
    assert result.code == 0
    assert "partition 2: nothing grows: there is no room behind it on the target" in result.out
    assert etsclone("verify", small_disk.image, target).code == 0


def test_verify_does_not_compare_blocks_that_cannot_be_equal(
    etsclone: Cli, ext4_disk: Sample, target: Path
) -> None:
    assert etsclone("clone", ext4_disk.image, target, "--yes", "--grow").code == 0
    result = etsclone("verify", ext4_disk.image, target)
    assert result.code == 3
    assert f"partition 2 of {target} was enlarged" in result.err


MOMENTS = {
    "as the record forgets": "window:1",
    "before the check that resizing needs": "run:2",  # the first one looked at the source
    "before the resizing": "run:3",
    "after the resizing": "check:1",
    "before the backup table": "write_bytes:1",
    "before the table": "write_bytes:3",
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("again", ["--grow", "--verify=full"])
def test_killed_at_any_moment_resuming_ends_right(
    moment: str,
    again: str,
    stopped: Stop,
    etsclone: Cli,
    ext4_disk: Sample,
    target: Path,
    scratch: Path,
) -> None:
    words = ("clone", ext4_disk.image, target, "--yes", "--grow")
    assert stopped(moment, KILL, *words).code == -KILL
    assert disks.looks_unfinished(target)
    facts = etsclone(*words[:4], "--json", "--resume", again).facts
    # The partition is copied again, and what nobody changed is not.
    assert 0 < facts["written"] < facts["bytes"]
    if again == "--grow":
        check_grown(ext4_disk, target, scratch)
    else:
        assert etsclone("verify", ext4_disk.image, target).code == 0


def test_killed_between_the_tables_of_logical_partitions(
    stopped: Stop, etsclone: Cli, tmp_path: Path
) -> None:
    script, kinds, _ = MBR["a logical"]
    sample = make(tmp_path, "mbr", 80 * MIB, f"label: dos\n{script}", kinds)
    target = disks.blank(tmp_path / "target.img", 128 * MIB)
    words = ("clone", sample.image, target, "--yes")
    assert stopped("write_bytes:3", KILL, *words, "--grow").code == -KILL
    assert disks.looks_unfinished(target)
    assert etsclone(*words, "--resume").code == 0
    assert etsclone("verify", sample.image, target).code == 0


@pytest.mark.parametrize("moment", ["run:3", "check:1"])
def test_an_interrupt_ends_in_order(
    moment: str, stopped: Stop, etsclone: Cli, ext4_disk: Sample, target: Path, scratch: Path
) -> None:
    words = ("clone", ext4_disk.image, target, "--yes", "--grow")
    result = stopped(moment, signal.SIGINT.value, *words)
    assert result.code == 130
    assert "--resume to go on" in result.err
    assert disks.looks_unfinished(target)
    assert etsclone(*words, "--resume").code == 0
    check_grown(ext4_disk, target, scratch)


def shadow(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str, script: str) -> Path:
    """Put a program of one's own before another one."""
    path = folder / "bin" / program
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}:/usr/sbin")
    return path


def kill_when(mark: Path, *words: str | Path) -> None:
    """Kill etsclone as soon as a file appears."""
    process = subprocess.Popen([*ETSCLONE, *map(str, words)], stdout=subprocess.DEVNULL)
    try:
        while not mark.exists():
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("where", ["image", "device"])
def test_killed_while_a_filesystem_is_mounted(
    where: str,
    etsclone: Cli,
    disk_with: MadeWith,
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = disk_with("xfs")
    image = disks.blank(tmp_path / "target.img", sample.size + 60 * MIB)
    mark = tmp_path / "mark"
    slow = f'touch {mark}\nsleep 2\nexec /usr/sbin/xfs_growfs "$@"'
    shadow(tmp_path, monkeypatch, "xfs_growfs", slow)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(loop_device(image)) if where == "device" else image
        words = ("clone", sample.image, target, "--yes", "--grow")
        kill_when(mark, *words)
        # Nobody else sees the mount, and the target is not written to as long as it is there.
        window = tool("losetup", "--associated", target).split(":")[0]
        assert window
        assert window not in tool("findmnt", "--list", "--output", "SOURCE").split()
        result = etsclone(*words, "--resume")
        assert result.code == 3
        assert "is held by another device" in result.err
        assert f"{target} held {window}" in result.err
        until = time.monotonic() + 20
        while tool("losetup", "--associated", target) and time.monotonic() < until:
            time.sleep(0.05)
        assert disks.looks_unfinished(target)
        assert etsclone(*words, "--resume").code == 0
    check_grown(sample, image, scratch)


@pytest.mark.parametrize(
    ("program", "script"),
    [
        ("resize2fs", "echo no space for it >&2; exit 1"),
        (
            "e2fsck",
            'case "$*" in *-n*) echo still broken >&2; exit 4;; esac; exec /usr/sbin/e2fsck "$@"',
        ),
    ],
)
def test_a_filesystem_that_cannot_grow_makes_no_clone(
    program: str,
    script: str,
    etsclone: Cli,
    ext4_disk: Sample,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("clone", ext4_disk.image, target, "--yes")
    with monkeypatch.context() as patch:
        shadow(tmp_path, patch, program, script)
        result = etsclone(*words, "--grow")
    assert result.code == 4
    assert f"partition 2 of {target} could not be enlarged: {program} failed" in result.err
    assert disks.looks_unfinished(target)
    assert etsclone(*words, "--resume").code == 0
    assert etsclone("verify", ext4_disk.image, target).code == 0


def test_a_filesystem_that_somebody_else_took_makes_no_clone(
    etsclone: Cli,
    ext4_disk: Sample,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As udev may do with a volume group that it finds: something opens the window and keeps it open.
    keep = '(exec 9< "$device"; exec sleep 8 < /dev/null > /dev/null 2>&1) &'
    script = (
        f'for device; do :; done\ncase "$*" in *-n*) {keep} ;; esac\nexec /usr/sbin/e2fsck "$@"'
    )
    with monkeypatch.context() as patch:
        shadow(tmp_path, patch, "e2fsck", script)
        result = etsclone("clone", ext4_disk.image, target, "--yes", "--grow")
    assert result.code == 4
    assert f"a part of {target}, is in use by somebody else" in result.err
    assert disks.looks_unfinished(target)
    until = time.monotonic() + 20
    while disks.loops_of(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert etsclone("clone", ext4_disk.image, target, "--yes", "--resume").code == 0


def change(image: Path, scratch: Path) -> None:
    with loop_device(image) as device, disks.mounted(node(device, 2), scratch) as root:
        (root / "new").write_bytes(os.urandom(MIB))
        (root / "small7").unlink()


@pytest.mark.parametrize("sampled", [True, False])
def test_refreshed_again_and_again(
    sampled: bool,
    etsclone: Cli,
    stopped: Stop,
    ext4_disk: Sample,
    target: Path,
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Path(shutil.copy(ext4_disk.image, tmp_path / "source.img"))
    if not sampled:
        monkeypatch.setenv("BELIEVE", "yes")

    def sample() -> Sample:
        with loop_device(source, read_only=True) as device:
            trees = {2: disks.sight(device, 2, "ext4", scratch)}
        return Sample(source, ext4_disk.kinds, trees)

    def refresh(*words: str) -> Result:
        return stopped(
            "never:1", 0, "clone", source, target, "--yes", "--json", "--refresh", *words
        )

    assert etsclone("clone", source, target, "--yes").code == 0
    change(source, scratch)
    assert refresh("--grow").code == 0
    check_grown(sample(), target, scratch)
    again = refresh("--grow").facts
    # What grew is not the source's any more: all of it is written anew, and nothing else.
    assert 0 < again["written"] < again["bytes"]
    check_grown(sample(), target, scratch)
    assert refresh().code == 0
    assert etsclone("verify", source, target).code == 0
    assert refresh().facts["written"] == 0
