"""A system small enough to be made in a moment: a GPT disk image with one ext4 root that a profile has a scope for."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECTION = 1 << 20
ROOT_SIZE = 48 << 20


def etsclone(
    *words: str | Path, answer: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the real command line; `answer` is typed at its prompts."""
    return subprocess.run(
        [sys.executable, "-m", "etsclone", *map(str, words)],
        input=answer,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


def write_tree(root: Path, files: dict[str, str]) -> None:
    """Make the files (path: content) beneath `root`."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)


def common_files() -> dict[str, str]:
    """What both servers of the pair have."""
    return {
        "etc/fstab": "UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
        "etc/group": "root:x:0:\n",
        "etc/os-release": "ID=debian\n",
        "etc/ssh/moduli": "not of the role\n",
        "var/log/syslog": "volatile\n",
        "usr/bin/tool": "the same everywhere\n",
    }


def role_files(role: str) -> dict[str, str]:
    """What makes a server `role`."""
    return {
        "etc/hostname": f"{role}\n",
        "etc/hosts": f"127.0.0.1 {role}\n",
        "etc/dhcp/dhcpd.conf": f"failover peer is {role}\n",
        f"etc/ssh/ssh_host_ed25519_{role}": f"key of {role}\n",
        "etc/machine-id": f"{role:0<32.32}\n",
    }


def make_image(image: Path, tree: Path, uuid: str = "11111111-2222-3333-4444-555555555555") -> None:
    """A disk image whose one partition holds a copy of `tree`."""
    with image.open("wb") as file:
        file.truncate(ROOT_SIZE + 2 * SECTION)
    subprocess.run(
        ["sfdisk", "--quiet", image],
        input=f"label: gpt\nlabel-id: {uuid}\nstart=2048, size={ROOT_SIZE // 512}\n",
        text=True,
        check=True,
    )
    options = ["-q", "-F", "-U", uuid, "-d", str(tree), "-E", f"offset={SECTION},root_owner=0:0"]
    subprocess.run(["mkfs.ext4", *options, str(image), f"{ROOT_SIZE // 1024}k"], check=True)


@contextmanager
def mounted_system(tree: Path, role: str = "primary") -> Iterator[Path]:
    """A system without a disk, mounted on `tree`, which is made: `brd capture --root` takes it."""
    tree.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "system", tree], check=True)
    try:
        write_tree(tree, common_files() | role_files(role))
        for folder in ("boot", "dev", "proc", "sys", "run", "tmp", "home"):
            (tree / folder).mkdir(exist_ok=True)
        yield tree
    finally:
        subprocess.run(["umount", tree], check=True)
