"""`etsclone check`: what a rebuild would give, and whether the clone is sound, with nothing changed."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loop.small_system import etsclone
from loop.test_diff import capture
from loop.test_fidelity import upgraded
from loop.test_health import debugfs, install
from loop.test_rebuild import Pair, made, mounted, ok, pair, refuses

__all__ = ["made", "pair", "upgraded"]

pytestmark = pytest.mark.loop


def check(pair: Pair, *more: str | Path) -> "subprocess.CompletedProcess[str]":
    options = ("--store", pair.store, "--trust", pair.trust, "--role", "primary")
    return etsclone("check", *more, *options)


@pytest.fixture
def clone(pair: Pair) -> Iterator[Path]:
    """The secondary's disk, which no check may change."""
    disk = pair.disk("secondary")
    states = []
    for _ in range(2):
        states.append(disk.read_bytes())
        if len(states) == 1:
            yield disk
    assert states[0] == states[1]


def test_a_clone_that_will_do(pair: Pair, clone: Path) -> None:
    done = check(pair, clone)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "secondary.raw: a rebuild as primary changes 7 paths\n"
        "outside the scope: exact by size, time, mode and owner of every file, but for attributes, ACLs and hard links,"
        " which inventories do not hold\n"
        "boot     nothing on this disk boots it as it is\n"
        "         there is neither boot code in the first sector nor an EFI system partition\n"
        "           `etsclone rebuild --bootloader` installs the boot loader again\n"
        "filesystem ext4 on partition 1: ok\n"
        "check SSH server: skipped, sshd is not installed there\n"
    )
    assert done.stdout.endswith("whether it is sound is not known: not all of it was looked at\n")
    assert "outside the scope: exact, but for" in check(pair, clone, "--full").stdout


def test_a_disk_that_is_the_role(pair: Pair) -> None:
    done = check(pair, pair.disk("primary"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("primary.raw: is primary\n")


def test_a_disk_that_may_not_be_written_is_checked_all_the_same(pair: Pair, clone: Path) -> None:
    clone.chmod(0o444)
    assert check(pair, clone).returncode == 0


def test_an_older_clone(upgraded: Pair, clone: Path) -> None:
    done = check(upgraded, clone, "--no-checks")
    refuses(done, 4, "secondary.raw: outside the scope: the clone is 41 days older: 1 package")
    assert "package dhcpd 1, captured with 2" in done.stdout


def test_damage(pair: Pair) -> None:
    debugfs(pair.disk("secondary"), "set_inode_field /usr/bin/tool links_count 5")
    refuses(check(pair, pair.disk("secondary")), 4, "ext4 on partition 1: e2fsck failed")


def test_a_journal_is_not_replayed(pair: Pair) -> None:
    debugfs(pair.disk("secondary"), "feature needs_recovery")
    before = pair.disk("secondary").read_bytes()
    done = check(pair, pair.disk("secondary"))
    assert done.returncode == 0, done.stderr
    assert "ext4 on partition 1: skipped, a mount must replay its journal first\n" in done.stdout
    assert pair.disk("secondary").read_bytes() == before


def test_the_facts(pair: Pair) -> None:
    install(pair, {"testparm": "echo why; exit 2"})
    capture(pair, "primary")
    done = check(pair, pair.disk("secondary"), "--json")
    assert done.returncode == 4
    facts = json.loads(done.stdout)
    assert (facts["target"], facts["role"], facts["due"]) == ("secondary.raw", "primary", 7)
    assert facts["fidelity"]["exact"] is False
    (failed,) = (each for each in facts["health"]["checks"] if each["verdict"] == "failed")
    assert failed["output"] == ["why"]


def test_a_mounted_tree(pair: Pair, clone: Path) -> None:
    with mounted(clone, "ro") as root:
        done = check(pair, "--root", root)
    assert done.returncode == 0, done.stderr
    assert "note: the filesystems are mounted and were not checked" in done.stdout


def test_what_cannot_be_checked(pair: Pair) -> None:
    assert check(pair).returncode == 2
    refuses(check(pair, "--root", "/"), 3, "root of the running system")
    with mounted(pair.disk("secondary")):
        refuses(check(pair, pair.disk("secondary")), 3, "held by another device")


def test_a_sealed_overlay_needs_its_key(pair: Pair, tmp_path: Path) -> None:
    recovery = tmp_path / "recovery"
    ok("brd", "keygen", recovery, "--no-passphrase")
    ok("brd", "recipients", pair.store, "--add", f"{recovery}.pub")
    ok(
        "brd",
        "capture",
        pair.store,
        "--role",
        "primary",
        "--key",
        pair.folder / "primary.key",
        "--disk",
        pair.disk("primary"),
    )
    refuses(check(pair, pair.disk("secondary")), 3, "sealed")
    done = check(pair, pair.disk("secondary"), "--identity", recovery)
    assert done.returncode == 0, done.stderr
