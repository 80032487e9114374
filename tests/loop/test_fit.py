"""Clones onto smaller disks: nothing of any file is lost, and whatever goes wrong, the target is no finished clone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle import Sight, links, look

from . import disks, nasty
from .conftest import BIOS_BOOT, ETSCLONE, Cli, Result, Stop
from .disks import MIB, loop_device, mounted, node, tool

pytestmark = pytest.mark.loop

KINDS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-L", "root", "-m", "1", "-e", "remount-ro"),
    "ext4 of 1 KiB": ("mkfs.ext4", "-q", "-F", "-b", "1024", "-i", "4096"),
    "ext4 of old": ("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum,^64bit,^huge_file,uninit_bg", "-I", "128"),
    "ext4 of new": ("mkfs.ext4", "-q", "-F", "-O", "inline_data,metadata_csum_seed,large_dir,ea_inode,orphan_file"),
    "ext4 with options": ("mkfs.ext4", "-q", "-F"),
    "ext3": ("mkfs.ext3", "-q", "-F", "-E", "hash_seed=00112233-4455-6677-8899-aabbccddeeff"),
    "ext2": ("mkfs.ext2", "-q", "-F", "-L", "second"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-L", "data"),
    "xfs of old": ("mkfs.xfs", "-q", "-f", "-m", "finobt=0,reflink=0,inobtcount=0", "-i", "size=1024,sparse=0",
                   "-n", "size=8192"),
    "xfs of 1 KiB": ("mkfs.xfs", "-q", "-f", "-b", "size=1024", "-m", "reflink=1,rmapbt=1,bigtime=0"),
}  # fmt: skip
TUNED = {
    "ext4 with options": (
        ("tune2fs", "-o", "journal_data_writeback,discard,^acl"),
        (
            "debugfs",
            "-w",
            "-R",
            "set_super_value mount_opts stripe=32,inode_readahead_blks=16",
        ),
    )
}
QUIET = {"ext2": "ro", "ext3": "ro,noload", "ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"}
SIZES = {"ext2": 160 * MIB, "ext3": 160 * MIB, "ext4": 160 * MIB, "xfs": 480 * MIB}


def make_disk(image: Path, kind: str, scratch: Path, label: str = "gpt", sector: int = 512) -> Path:
    """A boot partition, a filesystem with a nasty tree, swap space, and something unknown behind it."""
    family, boot = kind.split(maxsplit=1)[0], f", type={BIOS_BOOT}" if label == "gpt" else ""
    count = (SIZES[family] // sector, 32 * MIB // sector, 2 * MIB // sector)
    script = (
        f"label: {label}\nsize={MIB // sector}{boot}\nsize={count[0]}\nsize={count[1]},"
        f" type=swap\nsize={count[2]}\n"
    )
    disks.blank(image, SIZES[family] + 40 * MIB)
    with loop_device(image, sector_size=sector) as device:
        tool("sfdisk", "--quiet", device, typed=script, accept=(0, 1))
        disks.know_partitions(device)
        for number, size in ((1, MIB), (4, 2 * MIB)):
            disks.scrawl(node(device, number), 0, size)
        for words in (KINDS[kind], *TUNED.get(kind, ())):
            tool(*words, node(device, 2))
        tool("mkswap", "--label", "paging", node(device, 3))
        with mounted(node(device, 2), scratch):
            nasty.fill(scratch)
    return image


def seen(
    image: Path, kind: str, scratch: Path, sector: int = 512
) -> tuple[Sight, set[frozenset[bytes]], dict[str, str]]:
    """All that is in the tree, by the oracle and by lsattr."""
    with (
        loop_device(image, sector_size=sector, read_only=True) as device,
        mounted(node(device, 2), scratch, QUIET[kind.split(maxsplit=1)[0]]),
    ):
        return look(scratch), links(scratch), nasty.flags(scratch)


def features(image: Path, kind: str, sector: int = 512) -> list[str]:
    """What a filesystem's own tools tell of it, without what its size and age make of it."""
    with loop_device(image, sector_size=sector, read_only=True) as device:
        part = node(device, 2)
        if kind.startswith("ext"):
            lines = tool("dumpe2fs", "-h", part).splitlines()
            names = ("volume name", "UUID", "features", "ount options", "Errors", "Block size", "Inode size",
                     "Maximum mount", "Check interval", "Hash Seed", "extra isize", "blocks uid")  # fmt: skip
            return [line for line in lines if any(name in line for name in names)]
        sized = r"/dev/\S+|(agcount|agsize|blocks|rtextents|imaxpct|sunit)=\d+( blks)?"
        text = re.sub(sized, "", tool("xfs_info", part))
        return [re.sub(r"\s+", " ", text), tool("xfs_admin", "-l", "-u", part)]


def identities(image: Path, sector: int = 512) -> list[str]:
    """Types, UUIDs and labels of all partitions and of what is in them."""
    place = re.compile(
        r" (PART_ENTRY_(OFFSET|SIZE|DISK)|BLOCK_SIZE|FSSIZE|FSLASTBLOCK)=\S+|^/dev/\S+"
    )
    with loop_device(image, sector_size=sector, read_only=True) as device:
        found = [tool("blkid", "-p", node(device, each), accept=(0, 2)) for each in (1, 2, 3, 4)]
    return [place.sub("", line) for line in found]


def block_partitions(image: Path) -> list[bytes]:
    """The bytes of the boot partition and of the unknown one."""
    starts = re.findall(r"start= *(\d+), size= *(\d+)", tool("sfdisk", "--dump", image))
    places = [starts[0], starts[3]]
    return [disks.part_of(image, int(s) * 512, (int(s) + int(n)) * 512) for s, n in places]


def check(source: Path, target: Path, kind: str, scratch: Path, sector: int = 512) -> None:
    """Judge a fitted clone."""
    assert seen(target, kind, scratch, sector) == seen(source, kind, scratch, sector)
    assert features(target, kind, sector) == features(source, kind, sector)
    assert identities(target, sector) == identities(source, sector)
    with loop_device(target, sector_size=sector, read_only=True) as device:
        judge = ("xfs_repair", "-n") if kind.startswith("xfs") else ("e2fsck", "-f", "-n")
        tool(*judge, node(device, 2))
    if sector == 512:
        assert block_partitions(target) == block_partitions(source)


@pytest.fixture(scope="module")
def source(workshop: Path) -> Path:
    """The disk that most tests fit."""
    return make_disk(workshop / "fit.img", "ext4", workshop / "mnt")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A smaller disk that was in use: with a table, and with other things in its middle."""
    path = disks.blank(tmp_path / "target.img", 110 * MIB)
    tool("sfdisk", "--quiet", path, typed="label: gpt\nsize=20MiB, name=old\n")
    disks.scrawl(path, MIB, 8 * MIB)
    return path


def fit(etsclone: Cli, source: Path, target: Path, *words: str) -> Result:
    return etsclone("clone", source, target, "--fit", "--yes", *words)


@pytest.mark.parametrize("kind", KINDS)
def test_every_filesystem_comes_over_with_everything(
    kind: str, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    source = make_disk(tmp_path / "source.img", kind, scratch)
    before = source.read_bytes() if kind == "ext4" else b""
    target = disks.blank(tmp_path / "target.img", source.stat().st_size - 60 * MIB)
    result = fit(etsclone, source, target)
    assert (result.code, result.err) == (0, "")
    check(source, target, kind, scratch)
    assert disks.is_sound_gpt(target)
    assert not before or source.read_bytes() == before


@pytest.mark.parametrize(("label", "sector"), [("dos", 512), ("gpt", 4096)])
def test_other_tables_and_sectors(
    label: str, sector: int, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    source = make_disk(tmp_path / "source.img", "ext4", scratch, label, sector)
    target = disks.blank(tmp_path / "target.img", 120 * MIB)
    with (
        loop_device(source, sector_size=sector) as one,
        loop_device(target, sector_size=sector) as other,
    ):
        assert fit(etsclone, one, other).code == 0
        assert node(other, 4).exists()
    check(source, target, "ext4", scratch, sector)


def test_a_folder_that_a_new_filesystem_has_and_the_source_has_not(
    etsclone: Cli, source: Path, target: Path, tmp_path: Path, scratch: Path
) -> None:
    without = Path(shutil.copy(source, tmp_path / "without.img"))
    with loop_device(without) as device, mounted(node(device, 2), scratch):
        (scratch / "lost+found").rmdir()
    assert fit(etsclone, without, target).code == 0
    assert seen(target, "ext4", scratch) == seen(without, "ext4", scratch)


def test_a_used_target_holds_nothing_of_its_own_afterwards(
    etsclone: Cli, source: Path, target: Path, scratch: Path
) -> None:
    assert fit(etsclone, source, target).code == 0
    check(source, target, "ext4", scratch)
    assert "name=" not in tool("sfdisk", "--dump", target)


def test_the_smallest_layout_is_exact_and_holds_the_data(
    etsclone: Cli, source: Path, tmp_path: Path, scratch: Path
) -> None:
    target = disks.blank(tmp_path / "target.img", 8 * MIB)
    refused = fit(etsclone, source, target)
    match = re.search(r"\((\d+) bytes are missing\)", refused.err)
    assert refused.code == 3
    assert match is not None
    os.truncate(target, 8 * MIB + int(match[1]) - 512)
    assert "(512 bytes are missing)" in fit(etsclone, source, target).err
    assert disks.part_of(target, 0, 8 * MIB) == bytes(8 * MIB)
    os.truncate(target, 8 * MIB + int(match[1]))
    assert fit(etsclone, source, target).code == 0
    check(source, target, "ext4", scratch)


CROWDED = {"ext4": (60, 160), "ext4 of 1 KiB": (60, 160), "ext2": (60, 160), "xfs": (290, 480)}


@pytest.mark.parametrize("kind", CROWDED)
def test_the_smallest_layout_holds_a_lot_of_data_and_many_files(
    kind: str, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    source = make_disk(tmp_path / "source.img", kind, scratch)
    block = os.urandom(MIB)
    with loop_device(source) as device, mounted(node(device, 2), scratch):
        for number in range(CROWDED[kind][0]):
            (scratch / f"large{number}").write_bytes(block)
        for number in range(6000):
            (scratch / f"small{number}").write_bytes(block[: number % 3000])
    target = disks.blank(tmp_path / "target.img", 8 * MIB)
    match = re.search(r"\((\d+) bytes are missing\)", fit(etsclone, source, target).err)
    assert match is not None
    smallest = 8 * MIB + int(match[1])
    # Not much more than the data: that is what "smallest" promises.
    assert smallest < CROWDED[kind][1] * MIB
    os.truncate(target, smallest)
    assert fit(etsclone, source, target).code == 0
    with loop_device(target, read_only=True) as device:
        judge = ("xfs_repair", "-n") if kind == "xfs" else ("e2fsck", "-f", "-n")
        tool(*judge, node(device, 2))


def test_the_plan_is_shown_and_nothing_done(etsclone: Cli, source: Path, target: Path) -> None:
    before = target.read_bytes()
    shown = etsclone("clone", source, target, "--fit", "--dry-run")
    assert shown.code == 0
    rows = [line.split() for line in shown.out.splitlines() if re.match(r"\d ", line)]
    assert [row[-2:] for row in rows] == [
        ["by", "blocks"],
        ["by", "file"],
        ["anew,", "empty"],
        ["by", "blocks"],
    ]
    facts = etsclone("clone", source, target, "--fit", "--dry-run", "--json").facts
    how = [each["how"] for each in facts["partitions"]]
    assert how == ["by blocks", "file by file", "made anew, empty", "by blocks"]
    assert facts["steps"][0] == "Erase"
    assert facts["steps"][-1] == "Seal"
    assert target.read_bytes() == before


def test_the_receipt(etsclone: Cli, source: Path, target: Path, state_folder: Path) -> None:
    facts = fit(etsclone, source, target, "--json").facts
    assert facts["mode"] == "fit"
    assert facts["lost"] == []
    assert Path(facts["receipt"]).parent == state_folder / "receipts"


def test_a_clone_that_is_not_smaller_is_a_plain_one(
    etsclone: Cli, source: Path, tmp_path: Path
) -> None:
    assert fit(etsclone, source, tmp_path / "same.img").code == 0
    assert etsclone("verify", source, tmp_path / "same.img").code == 0


@pytest.mark.parametrize("option", ["--resume", "--refresh", "--grow", "--wipe", "--verify=none"])
def test_options_that_mean_nothing_beside_it(
    option: str, etsclone: Cli, source: Path, target: Path
) -> None:
    before = target.read_bytes()
    result = fit(etsclone, source, target, option)
    assert result.code == 2
    assert "--fit" in result.err
    assert "hint: " in result.err
    assert target.read_bytes() == before


def test_without_fit_the_hint_names_it(etsclone: Cli, source: Path, target: Path) -> None:
    result = etsclone("clone", source, target, "--yes")
    assert result.code == 3
    assert "or try --fit, which makes filesystems smaller" in result.err


def test_a_filesystem_that_was_not_unmounted_keeps_its_size_and_that_is_told(
    etsclone: Cli, source: Path, target: Path, tmp_path: Path
) -> None:
    dirty = Path(shutil.copy(source, tmp_path / "dirty.img"))
    with loop_device(dirty) as device:
        tool("debugfs", "-w", "-R", "feature needs_recovery", node(device, 2))
    before = target.read_bytes()
    result = fit(etsclone, dirty, target)
    assert result.code == 3
    assert "partition 2 keeps its size: it was not cleanly unmounted" in result.err
    assert target.read_bytes() == before


MOMENTS = {
    "while the source is looked at": "run:1",
    "while blocks are copied": "copy_extents:1",
    "before the filesystem is made": "run:2",
    "as it is tuned": "run:3",
    "before the files are copied": "run:4",
    "before the check": "run:5",
    "before the table": "write_bytes:1",
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_interrupted_it_leaves_nothing_behind_and_can_be_repeated(
    moment: str, stopped: Stop, etsclone: Cli, source: Path, target: Path, scratch: Path
) -> None:
    words = ("clone", source, target, "--fit", "--yes")
    result = stopped(moment, str(signal.SIGINT.value), *words)
    assert result.code == 130
    if moment != "run:1":  # nothing was written yet
        assert "with --fit it begins anew" in result.err
        assert disks.looks_unfinished(target)
    assert fit(etsclone, source, target).code == 0
    check(source, target, "ext4", scratch)


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A script to write that runs in place of cp; the folders are its last two words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "cp"  # type: ignore[return-value]


def write_script(path: Path, *lines: str) -> None:
    head = ("#!/bin/bash", "source=${*: -2:1} target=${*: -1}", "real=/bin/cp")
    path.write_text("\n".join((*head, *lines)) + "\n")
    path.chmod(0o755)


def test_control_c_while_files_are_copied(
    instead: Path, source: Path, target: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "copying"
    write_script(instead, '$real "$@"', f"touch {mark}", "sleep 60")
    argv = [*ETSCLONE, "clone", str(source), str(target), "--fit", "--yes"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not mark.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=disks.SECONDS)
    assert process.returncode == 130
    assert "run the same command again: with --fit it begins anew" in said
    assert disks.looks_unfinished(target)


def test_a_full_target_is_told(instead: Path, etsclone: Cli, source: Path, target: Path) -> None:
    write_script(
        instead,
        'dd if=/dev/zero of="$target/junk" bs=1M 2>/dev/null; chattr +i "$target/junk"',
        'exec $real "$@"',
    )
    result = fit(etsclone, source, target)
    assert (result.code, result.err) == (
        1,
        "etsclone: the files do not fit into the new filesystem\nhint: use a larger disk\n",
    )
    assert disks.looks_unfinished(target)


DAMAGES = {
    "content": ('f="$target/files/large"; t=$(stat -c %y "$f"); printf x 1<>"$f"; touch -d "$t" "$f"', "(content)"),
    "mode": ('chmod 4750 "$target/files/large"', "files/large' (mode)"),
    "owner": ('chown 5 "$target/files/large"', "files/large' (owner)"),
    "time": ('touch -d 2001-01-01 "$target/files/large"', "files/large' (time)"),
    "attribute": ('setfattr -n user.colour -v red "$target/attributes/file"', "attributes/file' (attributes)"),
    "capability": ('setfattr -x security.capability "$target/attributes/capable"', "capable' (attributes)"),
    "hard link": ('$real -a --remove-destination "$source/links/two" "$target/links/two"', "(links)"),
    "lost": ('rm "$target/files/empty"', "there is not the same file"),
    "more": ('touch -d @1 "$target/zzz"', "(there is not the same file)"),
    "device": ('rm "$target/specials/disk"; mknod -m 660 "$target/specials/disk" b 8 1', "specials/disk' ("),
    "flag": ('chattr +s "$target/files/large"', "files/large' (flags)"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_the_copy_loses_is_found_before_the_table_is_written(
    damage: str, instead: Path, etsclone: Cli, source: Path, target: Path
) -> None:
    script, told = DAMAGES[damage]
    write_script(instead, '$real "$@" || exit', script)
    result = fit(etsclone, source, target)
    assert result.code == 4
    assert result.err.startswith(
        "etsclone: partition 2: what was copied differs from the source in"
    )
    assert told in result.err
    assert disks.looks_unfinished(target)
