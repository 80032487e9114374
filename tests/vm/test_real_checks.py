"""The profile's checks with the real programs of a Debian server: each passes a sound role, and fails a broken one.

No machine is started, but it takes the disk of one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .servers import etsclone, make_store
from .test_boot import Pair, mounted_root

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

BROKEN = {
    "SSH server": ("etc/ssh/sshd_config", "NoSuchOption yes\n"),
    "DHCP configuration": ("etc/dhcp/dhcpd.conf", "subnet 10.0.0.0 {\n"),
    "DHCP configuration without a partner": ("etc/dhcp/dhcpd.conf.singleserver", "range 1;\n"),
    "firewall": ("etc/nftables.conf", "table inet {\n"),
    "Samba configuration": ("etc/samba/smb.conf", "[without an end\n"),
    "clock configuration": ("etc/chrony/chrony.conf", "nosuchdirective\n"),
    "NFS exports": ("etc/exports", "/srv *(nosuchoption)\n"),
    "units of systemd": (
        "etc/systemd/system/multi-user.target.d/odd.conf",
        "[Unit]\nRequires=gone.service\n",
    ),
}
"""A check: a file that it reads, and a line that does not belong there."""


@pytest.fixture
def server(server_image: Path, tmp_path: Path) -> Pair:
    made = Pair(tmp_path)
    etsclone("clone", server_image, made.disk("primary"), "--yes")
    make_store(tmp_path)
    return made


def verdicts(server: Pair) -> tuple[int, dict[str, str]]:
    """Capture the primary, rebuild it on its own disk: the exit code, and what each check said."""
    words = (
        "brd",
        "capture",
        server.store,
        "--role",
        "primary",
        "--key",
        server.folder / "primary.key",
    )
    etsclone(*words, "--disk", server.disk("primary"))
    argv = [
        "rebuild",
        str(server.disk("primary")),
        "--store",
        str(server.store),
        "--role",
        "primary",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "etsclone", *argv, "--trust", server.trust, "--yes", "--json"],
        stdout=subprocess.PIPE,
        check=False,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (facts,) = (event for event in events if event["event"] == "done")
    return done.returncode, {each["name"]: each["verdict"] for each in facts["health"]["checks"]}


def test_each_check_tells_sound_from_broken(server: Pair, tmp_path: Path) -> None:
    code, found = verdicts(server)
    assert code == 0
    assert found.pop("rights of sudo") == "nothing to check"  # it is not installed
    assert set(found) == set(BROKEN)
    assert set(found.values()) == {"ok"}
    with mounted_root(server.disk("primary"), tmp_path / "root") as root:
        for file, line in BROKEN.values():
            (root / file).parent.mkdir(exist_ok=True)
            with (root / file).open("a") as opened:
                opened.write(line)
    code, found = verdicts(server)
    assert code == 1
    assert {name for name, verdict in found.items() if verdict == "failed"} == set(BROKEN)
