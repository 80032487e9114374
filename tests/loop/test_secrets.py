"""What is printed and logged: never what a file holds that is nobody else's business, however much is asked for."""

import json
import subprocess
from pathlib import Path

import pytest

from loop.small_system import common_files, etsclone, make_image, role_files, write_tree
from loop.test_rebuild import Pair, made, ok, pair

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

SECRET = "kohlrabi"
VERBOSE = ("-v", "-v")


def secret_files(role: str) -> dict[str, str]:
    """Files that a server has, each with something in it that nobody should read in a log."""
    word = f"{SECRET}-{role}"
    nas = f"//nas/share /mnt/nas cifs username=u,password={word},nofail 0 0\n"
    return {
        "etc/ssh/ssh_host_rsa_key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{word}\n",
        "etc/shadow": f"root:{word}:1:0:99999:7:::\n",
        "etc/dhcp/dhcpd.conf": f'failover peer is {role}\nkey omapi {{ secret "{word}"; }}\n',
        "etc/network/interfaces": f"iface eth0 inet dhcp\n  wpa-psk {word}\n",
        "etc/fstab": common_files()["etc/fstab"] + nas,
        "etc/crypttab": f"data UUID=1111-2222 /etc/{word}.key luks\n",
        "etc/login.defs": f"unclaimed {word}\n",
    }


@pytest.fixture
def secretive(pair: Pair, tmp_path: Path) -> Pair:
    """The pair, with secrets on both disks, and nothing captured of them yet."""
    for role in ("primary", "secondary"):
        tree = tmp_path / role
        write_tree(tree, common_files() | role_files(role) | secret_files(role))
        (tree / "etc/shadow").chmod(0o600)
        (tree / "etc/ssh/ssh_host_rsa_key").chmod(0o600)
        make_image(pair.disk(role), tree)
    return pair


def capture(pair: Pair, role: str, *more: str | Path) -> subprocess.CompletedProcess[str]:
    words = ("--role", role, "--key", pair.folder / f"{role}.key", "--disk", pair.disk(role))
    return etsclone(*VERBOSE, "brd", "capture", pair.store, *words, "--trust", pair.trust, *more)


def test_nothing_that_a_file_holds_is_logged(secretive: Pair) -> None:
    pair, trust = secretive, ("--trust", secretive.trust)
    clone = pair.disk("secondary")
    target = (clone, "--store", pair.store, "--role", "primary", *trust)
    said = [
        *(capture(pair, role) for role in ("primary", "secondary")),
        capture(pair, "primary", "--full"),  # unchanged
        *(
            etsclone(*VERBOSE, *words)
            for words in (
                ("brd", "diff", pair.store, *trust),
                ("brd", "diff", f"{pair.store}:primary", clone, *trust),
                ("brd", "log", pair.store, "--role", "primary", *trust),
                ("brd", "verify", pair.store, *trust),
                ("brd", "show", pair.overlay("primary")),
                ("rebuild", *target, "--dry-run"),
                ("rebuild", *target, "--yes"),
                ("rebuild", *target, "--yes", "--json"),
                ("rebuild", clone, "--undo", "--yes"),
            )
        ),
    ]
    for done in said:
        assert done.returncode == 0, done.stderr[-1500:]
        assert SECRET not in done.stdout + done.stderr, done.args
    # They did tell what they run, those that run anything.
    assert sum("etsclone: run: " in done.stderr for done in said) >= 7
    receipts = [path.read_text() for path in (pair.store / "receipts").iterdir()]
    assert len(receipts) >= 2
    assert not any(SECRET in text for text in receipts)


def test_a_failure_tells_nothing_either(secretive: Pair) -> None:
    pair = secretive
    assert capture(pair, "primary").returncode == 0
    newest = pair.store / "primary" / "primary-000002.brd"
    data = bytearray(newest.read_bytes())
    data[-2000] ^= 1
    newest.write_bytes(data)
    done = etsclone(*VERBOSE, "brd", "diff", f"{pair.store}:primary", pair.disk("primary"))
    assert done.returncode == 3
    target = ("--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes")
    done = etsclone(*VERBOSE, "rebuild", pair.disk("secondary"), *target)
    assert done.returncode == 4
    assert SECRET not in done.stdout + done.stderr


def test_programs_are_given_masked_lines_too(secretive: Pair) -> None:
    pair = secretive
    for role in ("primary", "secondary"):
        assert capture(pair, role).returncode == 0
    words = ("brd", "diff", pair.store, "--trust", pair.trust, "--json")
    texts = {each["path"]: each for each in json.loads(ok(*words))["texts"]}
    assert texts["/etc/dhcp/dhcpd.conf"] == {
        "path": "/etc/dhcp/dhcpd.conf",
        "shown": "text",
        "lines": [
            "--- primary-2/etc/dhcp/dhcpd.conf",
            "+++ secondary-2/etc/dhcp/dhcpd.conf",
            "@@ -1,2 +1,2 @@",
            "-failover peer is primary",
            "-key omapi { secret ********",
            "+failover peer is secondary",
            "+key omapi { secret ********",
        ],
    }
    assert texts["/etc/ssh/ssh_host_rsa_key"]["shown"] == "secret"
    assert texts["/etc/network/interfaces"]["lines"][-1] == "+  wpa-psk ********"
    assert f'+key omapi {{ secret \\"{SECRET}-secondary\\"; }}' in ok(*words, "--show-secrets")
