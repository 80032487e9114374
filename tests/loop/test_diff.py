"""`brd diff`, `brd log` and what a capture warns of, on small disks, as a user types it."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

from loop.small_system import common_files, etsclone, make_image, role_files, write_tree
from loop.test_rebuild import Pair, made, mounted, ok, pair

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nwhat {} knows\n"
STATUS = """\
Package: dhcpd
Status: install ok installed
Architecture: amd64
Version: {version}
Conffiles:
 /etc/default/dhcpd 00000000000000000000000000000000

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def dpkg_files(version: str) -> dict[str, str]:
    """A package with a program, a library of its version, and a configuration file."""
    library = f"usr/lib/libdhcp-{version}.so"
    return {
        "var/lib/dpkg/status": STATUS.format(version=version),
        "var/lib/dpkg/info/dhcpd.list": f"/.\n/usr\n/usr/sbin/dhcpd\n/{library}\n/etc/default/dhcpd\n",
        "usr/sbin/dhcpd": f"program {version}",
        library: "",
    }


def capture(pair: Pair, role: str, *more: str | Path) -> dict[str, object]:
    words = ("--role", role, "--key", pair.folder / f"{role}.key", "--disk", pair.disk(role))
    facts: dict[str, object] = json.loads(
        ok("brd", "capture", pair.store, *words, "--trust", pair.trust, "--json", *more)
    )
    return facts


def diff(pair: Pair, *words: str | Path) -> str:
    return ok("brd", "diff", *words, "--trust", pair.trust)


def facts_of(pair: Pair, *words: str | Path) -> dict[str, dict[str, object]]:
    """The differences by path."""
    found = json.loads(diff(pair, *words, "--json"))["differences"]
    return {each["path"]: each for each in found}


def meanings(pair: Pair, *words: str | Path) -> dict[str, str]:
    return {path: str(each["meaning"]) for path, each in facts_of(pair, *words).items()}


def change(pair: Pair, role: str, files: dict[str, str]) -> None:
    with mounted(pair.disk(role)) as root:
        write_tree(root, files)


def test_a_fresh_pair_differs_in_its_scope_alone(pair: Pair) -> None:
    found = meanings(pair, pair.store)
    assert {path for path, meaning in found.items() if meaning == "in scope"} == {
        "/etc/dhcp/dhcpd.conf",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/machine-id",
        "/etc/ssh/ssh_host_ed25519_primary",
        "/etc/ssh/ssh_host_ed25519_secondary",
    }
    assert set(found.values()) <= {"in scope", "time only"}


def test_text_in_scope_is_shown_as_a_unified_diff(pair: Pair) -> None:
    shown = diff(pair, pair.store)
    assert (
        "--- primary-1/etc/hostname\n+++ secondary-1/etc/hostname\n@@ -1 +1 @@\n"
        "-primary\n+secondary\n"
    ) in shown
    assert "failover peer is secondary" in shown
    assert "+++" not in diff(pair, pair.store, "--brief")


def test_secrets_are_shown_to_who_asks_only(pair: Pair) -> None:
    for role in ("primary", "secondary"):
        change(pair, role, {"etc/ssh/ssh_host_rsa_key": KEY.format(role)})
        capture(pair, role)
    for words in ((), ("--json",)):
        shown = diff(pair, pair.store, *words)
        assert "what primary knows" not in shown
        assert "/etc/ssh/ssh_host_rsa_key" in shown
    assert "-what primary knows\n+what secondary knows" in diff(pair, pair.store, "--show-secrets")


@pytest.mark.parametrize("folder", ["etc/dhcp", "etc"])
def test_what_stands_in_a_folder_that_keeps_others_out_is_secret(pair: Pair, folder: str) -> None:
    with mounted(pair.disk("secondary")) as root:
        (Path(root) / folder).chmod(0o700)
    capture(pair, "secondary")
    shown = diff(pair, pair.store)
    assert "/etc/dhcp/dhcpd.conf is secret and differs" in shown
    assert "failover peer is secondary" not in shown
    assert ("-primary\n+secondary\n" in shown) == (folder == "etc/dhcp")
    assert "failover peer is secondary" in diff(pair, pair.store, "--show-secrets")


def test_what_does_not_differ_is_told(pair: Pair) -> None:
    assert "nothing differs\n" in diff(pair, f"{pair.store}:primary", f"{pair.store}:primary")
    assert "nothing differs" not in diff(pair, pair.store)


def test_a_capture_of_the_other_server_is_told_of(pair: Pair) -> None:
    shutil.copy(pair.disk("secondary"), pair.disk("primary"))
    warned = capture(pair, "primary")["warnings"]
    assert isinstance(warned, list)
    assert any(
        "calls itself secondary, as that of generation 1 of secondary" in text for text in warned
    )


def test_what_no_list_claims_is_named_and_a_capture_warns(pair: Pair) -> None:
    change(pair, "secondary", {"etc/login.defs": "secondary", "opt/tool/a": "", "opt/tool/b/c": ""})
    warned = capture(pair, "secondary")["warnings"]
    assert isinstance(warned, list)
    against, since = (text for text in warned if "unclaimed" in text)
    assert "against generation 1 of primary" in against
    assert "since generation 1" in since
    assert "+ /etc/login.defs" in against
    assert "+ /opt (folder, 5 paths)" in since
    for note in (against, since):
        command = shlex.split(note.split("`")[1])
        assert command[-2:] == ["--trust", str(pair.trust)]
        ok(*command[1:])
    found = facts_of(pair, pair.store)
    assert found["/opt"] == {
        "path": "/opt",
        "meaning": "unclaimed",
        "change": "added",
        "kind": "dir",
        "what": [],
        "paths": 5,
    }
    assert found["/etc/login.defs"]["meaning"] == "unclaimed"
    assert json.loads(diff(pair, pair.store, "--json"))["unclaimed"] == 6


def test_a_capture_without_trust_says_that_it_did_not_look(pair: Pair) -> None:
    words = (
        "--role",
        "primary",
        "--key",
        pair.folder / "primary.key",
        "--disk",
        pair.disk("primary"),
    )
    said = ok("brd", "capture", pair.store, *words)
    assert said.count("were not looked for: there is nothing to trust") == 2


def test_a_suggestion_is_ready_for_a_profile(pair: Pair) -> None:
    change(pair, "secondary", {"etc/login.defs": "x", "opt/t/a": "", "etc/tool.pid": "7"})
    capture(pair, "secondary")
    lines = diff(pair, pair.store, "--suggest")
    assert tomllib.loads(lines) == {
        "role": ["/etc/login.defs", "/opt"],
        "volatile": ["/etc/tool.pid"],
    }


def test_another_profile_sorts_otherwise(pair: Pair) -> None:
    assert meanings(pair, pair.store)["/etc/dhcp/dhcpd.conf"] == "in scope"
    other = meanings(pair, pair.store, "--profile", "base-debian")
    assert other["/etc/dhcp/dhcpd.conf"] == "unclaimed"
    assert other["/etc/hosts"] == "in scope"


def test_generations_trees_and_disks_are_compared_alike(pair: Pair) -> None:
    change(pair, "primary", {"etc/hosts": "changed", "etc/login.defs": "x", "var/log/new": "y"})
    capture(pair, "primary")
    first = f"{pair.store}:primary:1"
    expected = meanings(pair, first, f"{pair.store}:primary")
    assert expected["/etc/hosts"] == "in scope"
    assert expected["/etc/login.defs"] == "unclaimed"
    overlay = pair.store / "primary/primary-000002.brd"
    assert meanings(pair, first, overlay) == expected
    assert meanings(pair, first, pair.disk("primary")) == expected
    with mounted(pair.disk("primary"), "ro") as root:
        assert meanings(pair, first, root) == expected
        assert "+changed" in diff(pair, first, root)
        assert meanings(pair, root, pair.disk("primary"), "--profile", "ltsp-isc-dhcp") == {}
    assert "/var/log/new" not in expected


def test_two_trees_need_a_profile(pair: Pair) -> None:
    done = etsclone("brd", "diff", pair.disk("primary"), pair.disk("secondary"))
    assert done.returncode == 2
    assert "neither side has a scope" in done.stderr


def test_a_disk_is_not_written_to(pair: Pair) -> None:
    before = pair.disk("secondary").read_bytes()
    diff(pair, f"{pair.store}:primary", pair.disk("secondary"))
    assert pair.disk("secondary").read_bytes() == before


def test_an_overlay_that_does_not_verify_is_not_compared(pair: Pair) -> None:
    overlay = pair.overlay("secondary")
    data = bytearray(overlay.read_bytes())
    data[-2000] ^= 1
    overlay.write_bytes(data)
    done = etsclone("brd", "diff", pair.store, "--trust", pair.trust)
    assert done.returncode == 4
    assert done.stdout == ""


def test_what_no_inventory_tells_is_told_of_the_scope(pair: Pair) -> None:
    linked = "etc/dhcp/linked"
    change(pair, "primary", {linked: "one or two files", f"{linked}.too": "one or two files"})
    then = (1_700_000_000_000_000_000, 1_700_000_000_000_000_000)
    with mounted(pair.disk("primary")) as root:
        for path in (root / "etc/dhcp", *(root / "etc/dhcp").iterdir()):
            os.utime(path, ns=then)
    assert capture(pair, "primary")["generation"] == 2
    with mounted(pair.disk("primary")) as root:
        os.setxattr(root / "etc/hosts", "user.note", b"new")
        os.setxattr(root / "etc/hostname", "user.note", b"new")
        os.utime(root / "etc/hostname")
        (root / f"{linked}.too").unlink()
        os.link(root / linked, root / f"{linked}.too")
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(root / "etc/dhcp/door"))
        os.utime(root / "etc/dhcp", ns=then)
    assert capture(pair, "primary")["generation"] == 3
    expected = {
        "/etc/hosts": ("in scope", ["attributes"]),
        "/etc/hostname": ("in scope", ["time", "attributes"]),
        f"/{linked}": ("in scope", ["links"]),
        f"/{linked}.too": ("in scope", ["links"]),
        "/etc/dhcp/door": ("volatile", []),
    }
    second = f"{pair.store}:primary:2"
    for side in (f"{pair.store}:primary", pair.disk("primary")):
        found = facts_of(pair, second, side)
        assert {path: (each["meaning"], each["what"]) for path, each in found.items()} == expected
    log = ("brd", "log", pair.store, "--role", "primary", "--last", "1", "--trust", pair.trust)
    shown = ok(*log).splitlines()
    assert "  in scope, kept by the overlays: 4 paths" in shown
    assert "    ~ /etc/hosts (attributes)" in shown
    assert f"    ~ /{linked} (links)" in shown
    (generation,) = json.loads(ok(*log, "--json"))["generations"]
    assert generation["paths"]["in scope"] == 4


@pytest.fixture
def upgraded(pair: Pair, tmp_path: Path) -> Pair:
    """A pair whose primary has a package that is upgraded between its generations 2 and 3."""
    for version in ("4.4.3-P1-2", "4.4.3-P1-10"):
        tree = tmp_path / version
        files = common_files() | role_files("primary") | dpkg_files(version)
        write_tree(tree, files | {"etc/default/dhcpd": version})
        make_image(pair.disk("primary"), tree)
        capture(pair, "primary")
    return pair


def test_a_package_is_told_by_its_name_not_by_its_paths(upgraded: Pair) -> None:
    store = upgraded.store
    shown = ok("brd", "log", store, "--role", "primary", "--trust", upgraded.trust)
    paragraphs = [text.splitlines() for text in shown.split("\n\n")]
    assert [lines[0].split(" (")[0] for lines in paragraphs[:3]] == [
        f"generation {number} of primary" for number in (3, 2, 1)
    ]
    assert "    package dhcpd upgraded 4.4.3-P1-2 -> 4.4.3-P1-10 (4 paths)" in paragraphs[0]
    assert not any("/usr/sbin/dhcpd" in line or "/var/lib/dpkg" in line for line in paragraphs[0])
    # Configuration is its administrator's, whatever package it came with.
    assert "    ~ /etc/default/dhcpd (content)" in paragraphs[0]
    assert paragraphs[2][1] == "  the first that is kept"


def test_a_log_for_programs(upgraded: Pair) -> None:
    words = ("--role", "primary", "--trust", upgraded.trust, "--json", "--last", "1")
    facts = json.loads(ok("brd", "log", upgraded.store, *words))
    (generation,) = facts["generations"]
    assert (generation["generation"], generation["since"]) == (3, 2)
    assert generation["packages"] == [
        {
            "name": "dhcpd",
            "arch": "amd64",
            "change": "upgraded",
            "before": ["4.4.3-P1-2"],
            "after": ["4.4.3-P1-10"],
            "paths": 4,
        }
    ]


def test_a_gap_is_bridged(upgraded: Pair) -> None:
    (upgraded.store / "primary/primary-000002.brd").unlink()
    shown = ok("brd", "log", upgraded.store, "--role", "primary", "--trust", upgraded.trust)
    assert "since generation 1" in shown


SPEC = """\
Name: tool
Version: {version}
Release: 1
Summary: a tool
License: none
BuildArch: noarch
%description
A tool.
%install
mkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc
echo {version} > %{{buildroot}}/usr/bin/tool
echo {version} > %{{buildroot}}/etc/tool.conf
%files
/usr/bin/tool
%config(noreplace) /etc/tool.conf
"""


def test_rpm_systems_too(pair: Pair, tmp_path: Path) -> None:
    for version in ("1.0", "1.2"):
        tree = tmp_path / version
        write_tree(tree, common_files() | role_files("primary"))
        (tmp_path / "tool.spec").write_text(SPEC.format(version=version))
        build: list[str | Path] = [
            "rpmbuild",
            "-bb",
            "--define",
            f"_topdir {tmp_path}/build",
            tmp_path / "tool.spec",
        ]
        subprocess.run(build, check=True, capture_output=True)
        package = tmp_path / f"build/RPMS/noarch/tool-{version}-1.noarch.rpm"
        install: list[str | Path] = [
            "rpm",
            "--root",
            tree,
            "--dbpath",
            "/var/lib/rpm",
            "--nodeps",
            "-i",
            package,
        ]
        subprocess.run(install, check=True, capture_output=True)
        make_image(pair.disk("primary"), tree)
        capture(pair, "primary")
        shutil.rmtree(tree)
    words = (f"{pair.store}:primary:2", f"{pair.store}:primary:3")
    shown = diff(pair, *words)
    assert "package tool upgraded 1.0-1 -> 1.2-1" in shown
    assert "/usr/bin/tool" not in shown
    assert "~ /etc/tool.conf (content)" in shown
