"""The pair's servers: their BRD store, and what each must be when it runs, whichever disk it was booted from."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .qemu import BOOT_TIMEOUT, Console

HOST_NAMES = {"primary": "ets1", "secondary": "ets2"}
ADDRESSES = {"primary": "192.168.67.1/24", "secondary": "192.168.67.2/24"}
SERVICES = (
    *("ssh", "isc-dhcp-server", "nfs-server", "smbd", "nmbd", "tftpd-hpa"),
    *("chrony", "nftables", "systemd-networkd", "cron"),
)
SSH_KEYS = "/etc/ssh/ssh_host_*_key.pub"
MACHINE_ID = "/etc/machine-id"


@dataclass(frozen=True, slots=True)
class Identity:
    """What no two servers share: the machine-id, and the public host keys (`ssh-ed25519 AAAA...`)."""

    machine_id: str
    host_keys: frozenset[str]


def etsclone(*arguments: str | Path) -> None:
    """Run the command line of this checkout here."""
    subprocess.run([sys.executable, "-m", "etsclone", *arguments], check=True)


def make_store(folder: Path) -> None:
    """A folder with an empty store of the pair (store), its signers (trusted), and a key of each role (ROLE.key)."""
    store = folder / "store"
    etsclone("brd", "init", store, "--pair", "ets", "--profile", "ltsp-isc-dhcp")
    for role in HOST_NAMES:
        key = folder / f"{role}.key"
        etsclone("brd", "keygen", key, "--no-passphrase")
        etsclone("brd", "trust", store, "--role", role, f"{key}.pub")
    (folder / "trusted").write_bytes((store / "allowed_signers").read_bytes())


def parse_identity(text: str) -> Identity:
    """Read what `cat MACHINE_ID SSH_KEYS` prints."""
    machine_id, *keys = text.splitlines()
    return Identity(machine_id, frozenset(" ".join(key.split()[:2]) for key in keys))


def identity_under(root: Path) -> Identity:
    """The identity of a server whose root is mounted here."""
    files = [root / MACHINE_ID[1:], *root.glob(SSH_KEYS[1:])]
    return parse_identity("".join(file.read_text() for file in files))


def assert_is(console: Console, role: str, identity: Identity) -> None:
    """Log in to a server that boots: it has the role's name, address and keys, and all that it is for has started."""
    assert console.log_in() == HOST_NAMES[role]
    assert console.run("hostname").output.strip() == HOST_NAMES[role]
    state = console.run("systemctl is-system-running --wait", BOOT_TIMEOUT)
    failed = console.run("systemctl --failed --no-legend")
    assert state.output.strip() == "running", failed.output
    services = console.run(f"systemctl is-active {' '.join(SERVICES)}")
    assert dict(zip(SERVICES, services.output.split(), strict=True)) == dict.fromkeys(
        SERVICES, "active"
    )
    half = console.run(f"grep -cx '    {role};' /etc/dhcp/dhcpd.conf")
    assert half.output.strip() == "1"
    addresses = console.run("ip -oneline -4 address show dev eth0").output
    assert f" inet {ADDRESSES[role]} " in addresses
    # The keys that the server shows to who connects, not only those in its files.
    shown = console.run(
        "ssh-keyscan -T 240 127.0.0.1 2> /dev/null | grep -v '^#' | cut -d ' ' -f 2-"
    )
    # Whoever else writes to the console may leave blanks before the first of them.
    keys = frozenset(line.strip() for line in shown.output.split("\n"))
    assert keys - {""} == identity.host_keys, shown.output
    assert console.run(f"cat {MACHINE_ID}").output.strip() == identity.machine_id
