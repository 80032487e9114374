"""Law 6: the README's commands, run as they stand there, do without etsclone what `rebuild` does."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from oracle import look

from loop.small_system import etsclone
from loop.test_rebuild import Pair, made, mounted, pair, rebuild

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

README = Path(__file__).resolve().parents[2] / "README.md"


def commands(root: Path, *, sealed: bool = False) -> list[str]:
    """The blocks of the section, with the mount point of this test; that for sealed overlays only if it is one."""
    section = README.read_text().split("## By hand")[1].split("\n## ")[0]
    return [
        block.replace("/mnt", str(root))
        for block in re.findall(r"```(?:ba)?sh\n(.*?)```", section, re.DOTALL)
        if sealed or "age -d" not in block
    ]


def test_the_readmes_commands_rebuild_a_role(pair: Pair, tmp_path: Path) -> None:
    work = tmp_path / "by-hand"
    work.mkdir()
    shutil.copy(pair.overlay("primary"), work)
    shutil.copy(pair.trust, work / "allowed_signers")
    twin = tmp_path / "twin.raw"
    shutil.copy(pair.disk("secondary"), twin)
    with mounted(twin) as root:
        said = [
            subprocess.run(
                ["bash", "-c", block], cwd=work, capture_output=True, text=True, check=True
            ).stdout
            for block in commands(root)
        ]
        by_hand = look(root)
    assert 'Good "brd@etsclone" signature for primary' in said[0]
    assert said[0].count(": OK") == 2
    assert said[1] == "etc/ssh/ssh_host_ed25519_secondary\n"
    assert rebuild(pair, pair.disk("secondary"), "primary").returncode == 0
    assert etsclone("rebuild", pair.disk("secondary"), "--commit", "--yes").returncode == 0
    with mounted(pair.disk("secondary"), "ro") as root:
        by_etsclone = look(root)
    folders = {path for path, seen in by_hand.items() if seen.mode & 0o170000 == 0o040000}
    assert by_hand.keys() == by_etsclone.keys()
    # tar cannot know that the times of folders outside of the scope matter.
    assert {path for path in by_hand if by_hand[path] != by_etsclone[path]} <= folders
