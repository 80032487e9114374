"""Whether a rebuilt disk is sound: filesystems with real damage, and checks of the profile that fail."""

import json
import shutil
import subprocess
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etsclone.commands.health import check_services
from etsclone.commands.system import System
from etsclone.disk.images import attached
from etsclone.disk.luks import Keys
from etsclone.execute.health import check_filesystems, run_checks
from etsclone.model.brd import CloneIdentity
from etsclone.model.health import Finding, Health, Verdict
from etsclone.model.profile import Check
from etsclone.overlay.container import read_envelope
from etsclone.overlay.header import decode
from loop.test_rebuild import Pair, made, mounted, pair, rebuild

from . import disks
from .conftest import MadeWith

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

SECTION = 1 << 20
UNSOUND = 1


def filesystems(image: Path) -> tuple[Finding, ...]:
    with attached(str(image), writable=False) as disk:
        found, missing = check_filesystems(disk, Keys())
        assert missing == ()
        return found


def debugfs(image: Path, *commands: str) -> None:
    """Change the ext4 in the first partition."""
    for command in commands:
        argv = ["debugfs", "-w", "-R", command, f"{image}?offset={SECTION}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert "error" not in done.stderr.lower()


def install(pair: Pair, programs: dict[str, str]) -> None:
    """Give the secondary's disk a shell, and scripts for it."""
    listed = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in listed.split() if word.startswith("/")]
    with mounted(pair.disk("secondary")) as root:
        for file in ("/bin/sh", *libraries):
            (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / file[1:])
        for folder in ("proc", "dev", "tmp"):
            (root / folder).mkdir(exist_ok=True)
        (root / "usr/sbin").mkdir(exist_ok=True)
        for name, script in programs.items():
            program = root / "usr/sbin" / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)


def health_of(
    pair: Pair, *options: str, disk: Path | None = None
) -> tuple[int, dict[str, Any], str]:
    """Exit code, health as the receipt has it, and what was printed."""
    done = rebuild(pair, disk or pair.disk("secondary"), "primary", *options)
    assert "receipt" in done.stdout, done.stderr
    (receipt,) = (pair.store / "receipts").glob("rebuild-*.json")
    health: dict[str, Any] = json.loads(receipt.read_text())["health"]
    return done.returncode, health, done.stdout + done.stderr


def verdicts(health: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["verdict"] for each in health["checks"]}


# --- filesystems ---------------------------------------------------------------------------------------------------


def test_a_sound_disk(pair: Pair) -> None:
    code, health, said = health_of(pair)
    assert code == 0
    assert health["healthy"] is None  # of its services, nothing was looked at
    assert "DHCP configuration: dhcpd is not installed there" in health["unchecked"]
    assert health["filesystems"] == [{"name": "ext4 on partition 1", "verdict": "ok", "why": ""}]
    assert set(verdicts(health).values()) == {"skipped", "nothing to check"}
    assert "filesystem ext4 on partition 1: ok\n" in said
    assert "check DHCP configuration: skipped, dhcpd is not installed there\n" in said


def test_healthy_is_what_was_looked_at_as_a_whole(pair: Pair) -> None:
    programs = ("sshd", "visudo", "systemd-analyze", "dhcpd", "testparm", "chronyd", "exportfs")
    install(pair, dict.fromkeys((*programs, "grep"), "exit 0") | {"grep": "exit 1"})
    code, health, _ = health_of(pair)
    assert (code, health["healthy"], health["unchecked"]) == (0, True, [])
    assert verdicts(health)["firewall"] == "nothing to check"
    assert verdicts(health)["clock configuration"] == "ok"


def test_damage_is_found_after_the_role_was_applied_and_recorded(pair: Pair) -> None:
    debugfs(pair.disk("secondary"), "set_inode_field /usr/bin/tool links_count 5")
    code, health, said = health_of(pair)
    assert code == UNSOUND
    assert not health["healthy"]
    assert health["filesystems"][0]["verdict"] == "failed"
    assert "secondary.raw is primary, but it is not healthy: ext4 on partition 1: e2fsck" in said
    with mounted(pair.disk("secondary"), "ro") as root:
        assert (root / "etc/hostname").read_text() == "primary\n"


def test_a_journal_that_is_to_be_replayed_is_no_damage(pair: Pair) -> None:
    disk = pair.disk("secondary")
    debugfs(disk, "feature needs_recovery")
    before = disk.read_bytes()
    (found,) = filesystems(disk)
    assert found == Finding(
        "ext4 on partition 1", Verdict.SKIPPED, "a mount must replay its journal first"
    )
    assert disk.read_bytes() == before


def test_a_rebuild_has_its_journal_replayed_before_it_is_checked(pair: Pair) -> None:
    debugfs(pair.disk("secondary"), "feature needs_recovery")
    with disks.loop_device(pair.disk("secondary")) as device:
        code, health, _ = health_of(pair, disk=device)
    assert (code, health["filesystems"][0]["verdict"]) == (0, "ok")


LUKS = b"LUKS\xba\xbe\0\2"
"""How a volume of LUKS2 begins; nothing else of its header is there."""


def test_what_cannot_be_opened_hides_no_damage(disk_with: MadeWith, tmp_path: Path) -> None:
    image = tmp_path / "mixed.img"
    shutil.copy(disk_with("ext4").image, image)
    with disks.loop_device(image) as device:
        root, paging = disks.node(device, 2), disks.node(device, 3)
        disks.tool("debugfs", "-w", "-R", "set_inode_field <2> links_count 77", root)
        disks.tool("dd", f"of={paging}", "if=/dev/zero", "bs=1M", "count=8", "status=none")
        Path(paging).write_bytes(LUKS)
    with attached(str(image), writable=False) as disk:
        found, missing = check_filesystems(disk, Keys((b"key",)))
    assert [(each.name, each.verdict) for each in found] == [
        ("ext4 on partition 2", Verdict.FAILED)
    ]
    assert len(missing) == 1
    assert missing[0].startswith("partition 3 is encrypted, and was not opened: ")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_each_kind_of_filesystem(disk_with: MadeWith, kind: str) -> None:
    sample = disk_with(kind)
    before = disks.part_of(sample.image, 0, sample.image.stat().st_size)
    assert filesystems(sample.image) == (Finding(f"{kind} on partition 2", Verdict.OK),)
    assert disks.part_of(sample.image, 0, sample.image.stat().st_size) == before


def test_damage_of_xfs(disk_with: MadeWith, tmp_path: Path) -> None:
    image = tmp_path / "xfs.img"
    shutil.copy(disk_with("xfs").image, image)
    with disks.loop_device(image) as device:
        words = ("-x", "-c", "sb 0", "-c", "write -d fdblocks 12345")
        disks.tool("xfs_db", *words, disks.node(device, 2))
    (found,) = filesystems(image)
    assert found.verdict is Verdict.FAILED


def test_damage_of_btrfs(disk_with: MadeWith, tmp_path: Path) -> None:
    image = tmp_path / "btrfs.img"
    shutil.copy(disk_with("btrfs").image, image)
    with disks.loop_device(image) as device:
        part = disks.node(device, 2)
        shown = disks.tool("btrfs", "inspect-internal", "dump-super", part)
        root = next(line.split()[1] for line in shown.splitlines() if line.startswith("root\t"))
        copies = disks.tool("btrfs-map-logical", "-l", root, part)
        for line in copies.splitlines():
            disks.scrawl(part, int(line.split()[5]), 4096)
    (found,) = filesystems(image)
    assert found.verdict is Verdict.FAILED


def test_what_is_not_checked_is_said(tmp_path: Path) -> None:
    image = tmp_path / "x.img"
    disks.blank(image, 64 << 20)
    disks.tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=40MiB\nsize=8MiB\n")
    with disks.loop_device(image) as device:
        disks.tool("mkfs.exfat", disks.node(device, 1))
        disks.tool("mkswap", disks.node(device, 2))
    assert filesystems(image) == (
        Finding("exfat on partition 1", Verdict.SKIPPED, "no program is known that checks exfat"),
    )


# --- FAT: what is changed lies where fatgen103 says (sectors of 512 bytes, 32 of them reserved in FAT32) --------------

DIRTY = "its dirty bit is set: it was not unmounted before the machine stopped"
COPY = "the copy of its boot sector differs"
COUNT = "its count of free clusters is not up to date"


def esp(image: Path, size: int, changes: dict[int, bytes]) -> Finding:
    """What is found of an EFI system partition of FAT with a loader, some bytes of which are others."""
    disks.blank(image, 80 << 20)
    disks.tool("sfdisk", "--quiet", image, typed="label: gpt\nsize=70MiB, type=uefi\n")
    loader = image.with_name("loader")
    loader.write_bytes(b"MZ" * 50_000)
    disks.tool("mkfs.vfat", "-F", str(size), "--offset=2048", image, str(64 << 10))
    there = f"{image}@@{SECTION}"
    disks.tool("mmd", "-i", there, "::/EFI")
    disks.tool("mcopy", "-i", there, loader, "::/EFI/BOOTX64.EFI")
    with image.open("r+b") as file:
        for place, content in changes.items():
            file.seek(SECTION + place)
            file.write(content)
    before = image.read_bytes()
    (found,) = filesystems(image)
    assert image.read_bytes() == before
    return found


@pytest.mark.parametrize("size", [12, 16, 32])
def test_a_sound_fat(tmp_path: Path, size: int) -> None:
    assert esp(tmp_path / "x.img", size, {}) == Finding("vfat on partition 1", Verdict.OK)


@pytest.mark.parametrize(
    ("size", "changes", "why"),
    [
        (12, {37: b"\1"}, DIRTY),
        (16, {37: b"\1"}, DIRTY),
        (32, {65: b"\1"}, f"{DIRTY}; {COPY}"),
        (32, {6 * 512 + 3: b"XYZ"}, COPY),
        (32, {512 + 488: b"\1\2\0\0"}, COUNT),
        (32, {512 + 488: b"\xff" * 4}, COUNT),
    ],
)
def test_what_an_unclean_end_leaves_of_a_fat_is_no_damage(
    tmp_path: Path, size: int, changes: dict[int, bytes], why: str
) -> None:
    found = esp(tmp_path / "x.img", size, changes)
    assert found == Finding("vfat on partition 1", Verdict.OK, why)


@pytest.mark.parametrize(
    ("size", "changes", "words"),
    [
        # The chain of a file ends at once in the first FAT: in FAT32 the root is cluster 2, /EFI 3, the loader 4.
        (32, {32 * 512 + 4 * 4: b"\xff\xff\xff\x0f"}, "FATs differ"),
        (32, {32 * 512 + 4 * 4: b"\xff\xff\xff\x0f", 65: b"\1"}, "FATs differ"),
    ],
)
def test_damage_of_fat(tmp_path: Path, size: int, changes: dict[int, bytes], words: str) -> None:
    found = esp(tmp_path / "x.img", size, changes)
    assert found.verdict is Verdict.FAILED
    assert words in found.why


# --- the profile's checks ------------------------------------------------------------------------------------------


def test_checks_run_in_the_rebuilt_clone(pair: Pair) -> None:
    install(pair, {"dhcpd": 'read line < "$3"; [ "$line" = "failover peer is primary" ] || exit 9'})
    code, health, said = health_of(pair)
    assert code == UNSOUND  # there is no dhcpd.conf.singleserver
    assert verdicts(health)["DHCP configuration"] == "ok"
    assert verdicts(health)["DHCP configuration without a partner"] == "failed"
    assert "check DHCP configuration: ok\n" in said


def test_a_check_that_fails_is_named_after_the_receipt_is_written(pair: Pair) -> None:
    install(
        pair,
        {"dhcpd": "exit 0", "testparm": "echo 'bad \033[2Jline: password = s3cret' >&2; exit 2"},
    )
    code, health, said = health_of(pair)
    assert code == UNSOUND
    assert "not healthy: Samba configuration: testparm ended with status 2\n" in said
    assert "hint: " in said
    assert "check Samba configuration: failed, testparm ended with status 2\n  | bad " in said
    assert "\033" not in said
    assert "s3cret" not in json.dumps(health)
    with mounted(pair.disk("secondary"), "ro") as root:
        assert (root / "etc/hostname").read_text() == "primary\n"


def test_programs_are_told_the_output_too(pair: Pair) -> None:
    install(pair, {"chronyd": "echo why; exit 1"})
    done = rebuild(pair, pair.disk("secondary"), "primary", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["event"] for each in events[-2:]] == ["done", "error"]
    (failed,) = (each for each in events[-2]["health"]["checks"] if each["verdict"] == "failed")
    assert failed["name"] == "clock configuration"
    assert failed["output"] == ["why"]


def test_what_a_check_needs_may_not_be_there(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    install(pair, {"tool": "exit 1"})
    needs = ("/etc/dangling", "/etc/none", str(tmp_path / "here"))
    with mounted(pair.disk("secondary")) as root:
        (root / "etc/dangling").symlink_to("nowhere")
        checks = [Check(each, ("tool",), needs=(each,)) for each in needs]
        found = run_checks(str(root), checks, 10)
    assert found == (
        Finding(needs[0], Verdict.FAILED, "tool ended with status 1"),
        Finding(needs[1], Verdict.NOTHING, "there is no /etc/none"),
        Finding(needs[2], Verdict.NOTHING, f"there is no {needs[2]}"),
    )


def test_a_check_that_hangs(pair: Pair) -> None:
    install(pair, {"testparm": "while :; do :; done"})
    _, health, said = health_of(pair, "--check-timeout", "0.5")
    assert verdicts(health)["Samba configuration"] == "failed"
    assert "testparm did not end within 0.5 seconds" in said


def test_checks_cannot_write_to_the_clone(pair: Pair) -> None:
    install(pair, {"dhcpd": "echo hacked > /etc/hostname; echo hacked > /new; exit 0"})
    code, _, _ = health_of(pair)
    assert code == 0
    with mounted(pair.disk("secondary"), "ro") as root:
        assert (root / "etc/hostname").read_text() == "primary\n"
        assert not (root / "new").exists()


def test_no_checks(pair: Pair) -> None:
    install(pair, {"testparm": "exit 2"})
    debugfs(pair.disk("secondary"), "set_inode_field /usr/bin/tool links_count 5")
    code, health, said = health_of(pair, "--no-checks")
    assert code == 0
    assert health["checks"] == health["filesystems"] == []
    assert health["healthy"] is None
    assert health["unchecked"] == ["no checks were run, as was asked for"]
    assert "note: no checks were run, as was asked for\n" in said


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "nan", "1e9"])
def test_a_timeout_is_a_number_of_seconds(pair: Pair, seconds: str) -> None:
    done = rebuild(pair, pair.disk("secondary"), "primary", f"--check-timeout={seconds}")
    assert done.returncode == 2
    assert "argument --check-timeout: not a number of seconds up to 86400: " in done.stderr


def test_a_mounted_tree_has_its_checks_but_not_its_filesystems(pair: Pair) -> None:
    install(pair, {"testparm": "echo x > /etc/hacked; exit 2"})
    with mounted(pair.disk("secondary")) as root:
        options = ("--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes")
        from loop.small_system import etsclone

        done = etsclone("rebuild", "--root", root, *options)
        assert done.returncode == UNSOUND
        assert "Samba configuration: testparm ended with status 2" in done.stderr
        assert "note: the filesystems are mounted and were not checked" in done.stdout
        assert not (root / "etc/hacked").exists()


def test_the_checks_are_those_of_the_profile_that_is_installed_here(pair: Pair) -> None:
    install(pair, {"testparm": "exit 2"})
    arguments = Namespace(no_checks=False, check_timeout=10.0)
    header = decode(read_envelope(pair.overlay("primary")).header)
    with mounted(pair.disk("secondary"), "ro") as root:
        system = System(str(root), CloneIdentity(), frozenset(), "x.raw")
        as_captured = check_services(header, system, arguments)
        changed = check_services(replace(header, profile_sha256="0" * 64), system, arguments)
        unknown = check_services(replace(header, profile="nope"), system, arguments)
    assert [each.name for each in as_captured.failed] == ["Samba configuration"]
    assert as_captured.notes == ()
    assert changed.failed == as_captured.failed
    assert changed.notes == (
        "the checks are those of profile ltsp-isc-dhcp as it is here; it was another one at the capture",
    )
    assert unknown == Health(
        unseen=("the profile's checks were not run: there is no profile nope",)
    )
