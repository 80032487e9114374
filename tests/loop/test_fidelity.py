"""What a rebuild tells of all that is outside the scope, on small disks, as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loop.small_system import write_tree
from loop.test_diff import capture, dpkg_files
from loop.test_rebuild import Pair, made, mounted, ok, pair, rebuild, refuses

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

DAY = 24 * 3600
BUT = ", but for attributes, ACLs and hard links, which inventories do not hold"
IFCFG = "etc/sysconfig/network-scripts/ifcfg-eth1"
OLD, NEW = "52:54:00:aa:bb:02", "0c:c4:7a:00:00:0f"


@pytest.fixture
def upgraded(pair: Pair) -> Pair:
    """The primary was upgraded 41 days after it was cloned, and captured; the secondary's disk is the old clone."""
    for role, version, age in (("secondary", "1", 41), ("primary", "2", 0)):
        with mounted(pair.disk(role)) as root:
            write_tree(root, dpkg_files(version))
            times = (10**9 - age * DAY,) * 2
            os.utime(root / "var/lib/dpkg/status", times)
    capture(pair, "primary")
    return pair


def facts_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def test_an_exact_clone(pair: Pair) -> None:
    done = rebuild(pair, pair.disk("secondary"), "primary")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("outside the scope: exact by size, time, mode and owner") == 2


def test_an_older_clone_is_told_by_its_packages(upgraded: Pair) -> None:
    with mounted(upgraded.disk("secondary")) as root:
        write_tree(root, {"etc/rc.local": "by hand\n"})
    done = rebuild(upgraded, upgraded.disk("secondary"), "primary", "--no-checks")
    assert done.returncode == 0, done.stderr
    assert (
        "outside the scope: the clone is 41 days older: 1 package, 4 files, 1 unclaimed configuration file\n"
        "  package dhcpd 1, captured with 2 (4 paths)\n"
        "  configuration /etc/rc.local is only here\n"
    ) in done.stdout


def test_the_facts_are_in_the_receipt(upgraded: Pair) -> None:
    facts = facts_of(
        rebuild(upgraded, upgraded.disk("secondary"), "primary", "--json", "--no-checks")
    )
    receipt = json.loads(Path(facts["receipt"]).read_text())
    assert receipt["fidelity"] == facts["fidelity"]
    assert receipt["fidelity"]["exact"] is False
    assert receipt["fidelity"]["older_seconds"] == 41 * DAY
    assert [each["name"] for each in receipt["fidelity"]["packages"]] == ["dhcpd"]


def test_exact_is_required_before_anything_is_written(upgraded: Pair) -> None:
    before = upgraded.disk("secondary").read_bytes()
    done = rebuild(upgraded, upgraded.disk("secondary"), "primary", "--require-exact")
    refuses(done, 3, "41 days older: 1 package, 4 files")
    assert upgraded.disk("secondary").read_bytes() == before


def test_an_exact_clone_passes_the_full_comparison(pair: Pair) -> None:
    done = rebuild(pair, pair.disk("secondary"), "primary", "--require-exact")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"outside the scope: exact{BUT}\n") == 2


@pytest.fixture
def bound(pair: Pair) -> Pair:
    """A pair with a file that names an interface, outside the scope and on both disks."""
    for role in ("primary", "secondary"):
        with mounted(pair.disk(role)) as root:
            write_tree(root, {IFCFG: f"HWADDR={OLD}\nONBOOT=yes\n"})
    capture(pair, "primary")
    return pair


@pytest.mark.parametrize("how", [(), ("--require-exact",)])
def test_what_the_rebuild_edits_is_no_difference_of_the_clone(
    bound: Pair, how: tuple[str, ...]
) -> None:
    words = ("--map-nic", f"{OLD}={NEW}", *how)
    done = rebuild(bound, bound.disk("secondary"), "primary", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("outside the scope: exact") == 2
    assert f"  /{IFCFG} is edited by the rebuild\n" in done.stdout
    with mounted(bound.disk("secondary"), "ro") as root:
        assert NEW in (root / IFCFG).read_text()
    (receipt,) = (bound.store / "receipts").glob("rebuild-*.json")
    found = json.loads(receipt.read_text())["fidelity"]
    assert (found["exact"], found["older_seconds"], found["configuration"]) == (True, None, [])
    assert found["edited"] == [f"/{IFCFG}"]
    assert "hard links" in found["not_compared"]


def test_what_the_rebuild_edits_tells_no_age(upgraded: Pair) -> None:
    with mounted(upgraded.disk("primary")) as root:
        write_tree(root, {IFCFG: f"HWADDR={OLD}\n", "etc/z": "a"})
        for name in (IFCFG, "etc/z"):
            os.utime(root / name, (10**9, 10**9))
    capture(upgraded, "primary")
    with mounted(upgraded.disk("primary")) as root:
        write_tree(root, {IFCFG: f"HWADDR={OLD}\nMTU=9000\n", "etc/z": "b"})
        for name in (IFCFG, "etc/z"):
            os.utime(root / name, (10**9 - 3 * DAY,) * 2)
    words = ("--map-nic", f"{OLD}={NEW}", "--json", "--no-checks")
    found = facts_of(rebuild(upgraded, upgraded.disk("primary"), "primary", *words))["fidelity"]
    assert [each["path"] for each in found["configuration"]] == [f"/{IFCFG}", "/etc/z"]
    assert "the clone is 3 days older" in found["summary"]


HOOK = """
import sys
from etsclone.cli import main
from etsclone.commands import rebuild
real = rebuild.execute_rebuild
def hooked(root, *positional, **named):
    real(root, *positional, **named)
    with open(f"{root}/usr/bin/tool", "a") as file:
        file.write("by somebody else")
rebuild.execute_rebuild = hooked
main(sys.argv[1:])
"""


def test_exact_is_required_after_the_rebuild_too(pair: Pair) -> None:
    words = ("--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes")
    argv = ("rebuild", pair.disk("secondary"), *words, "--require-exact")
    done = subprocess.run(
        [sys.executable, "-c", HOOK, *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=120,
    )
    assert f"outside the scope: exact{BUT}\n" in done.stdout
    refuses(done, 4, "secondary.raw is primary, but it is not known to be what was captured: ")
    (receipt,) = (pair.store / "receipts").glob("rebuild-*.json")
    assert json.loads(receipt.read_text())["fidelity"]["exact"] is False


def test_only_the_full_comparison_sees_a_content_of_the_same_size_and_time(pair: Pair) -> None:
    with mounted(pair.disk("primary"), "ro") as root:
        changed_ns = (root / "usr/bin/tool").stat().st_mtime_ns
    with mounted(pair.disk("secondary")) as root:
        tool = root / "usr/bin/tool"
        tool.write_text(tool.read_text().upper())
        os.utime(tool, ns=(changed_ns, changed_ns))
    done = rebuild(pair, pair.disk("secondary"), "primary", "--require-exact")
    refuses(done, 3, "not exact: 1 file")
    assert "/usr/bin/tool differs in content" in done.stdout
    done = rebuild(pair, pair.disk("secondary"), "primary")
    assert "outside the scope: exact by size" in done.stdout


def test_a_file_of_another_time_is_read(pair: Pair) -> None:
    def told(content: str) -> str:
        with mounted(pair.disk("secondary")) as root:
            (root / "usr/bin/tool").write_text(content)
            os.utime(root / "usr/bin/tool", (5, 5))
        return rebuild(pair, pair.disk("secondary"), "primary", "--dry-run").stdout

    assert "outside the scope: exact by size" in told("the same everywhere\n")
    assert "/usr/bin/tool differs in content" in told("the same everywhere?")


def test_modes_and_owners_count(pair: Pair) -> None:
    with mounted(pair.disk("secondary")) as root:
        (root / "usr/bin/tool").chmod(0o4755)
        os.chown(root / "etc/passwd", 7, 8)
    done = rebuild(pair, pair.disk("secondary"), "primary", "--dry-run")
    assert "configuration /etc/passwd differs in owner, group\n" in done.stdout
    assert "  /usr/bin/tool differs in mode\n" in done.stdout


def test_a_mounted_tree_is_measured_too(upgraded: Pair) -> None:
    with mounted(upgraded.disk("secondary")) as root:
        options = ("--store", upgraded.store, "--role", "primary", "--trust", upgraded.trust)
        assert "41 days older" in ok("rebuild", "--root", root, *options, "--dry-run")
