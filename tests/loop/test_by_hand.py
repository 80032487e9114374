"""Law 6: the README's commands, run as they stand there, do without etsclone what `rebuild` does."""

import io
import os
import re
import shutil
import stat
import subprocess
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from oracle import Sight, look

from etsclone.model.brd import CloneIdentity, Header
from etsclone.model.scope import Scope
from etsclone.overlay.container import measure, write_overlay
from etsclone.overlay.header import MEMBERS
from etsclone.overlay.inventory import writing_lines
from etsclone.overlay.listing import list_tree
from etsclone.overlay.payload import write_payload
from etsclone.overlay.scan import scan
from etsclone.overlay.signing import load_private_key, sign
from loop.small_system import etsclone, write_tree
from loop.test_rebuild import Pair, made, mounted, pair, rebuild

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

README = Path(__file__).resolve().parents[2] / "README.md"
GOLDEN = Path(__file__).resolve().parents[1] / "golden/v1"


def commands(root: Path, *, sealed: bool = False) -> list[str]:
    """The blocks of the section, with the mount point of this test; that for sealed overlays only if it is one."""
    section = README.read_text().split("## By hand")[1].split("\n## ")[0]
    return [
        block.replace("/mnt", str(root))
        for block in re.findall(r"```(?:ba)?sh\n(.*?)```", section, re.DOTALL)
        if sealed or "age -d" not in block
    ]


def types(work: Path, root: Path, *, sealed: bool = False) -> tuple[list[str], str]:
    """Type all blocks into one shell; what each prints, and all complaints."""
    done = subprocess.run(
        ["bash", "-c", "echo '~~~'\n".join(commands(root, sealed=sealed))],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout.split("~~~\n"), done.stderr


def test_the_readmes_commands_rebuild_a_role(pair: Pair, tmp_path: Path) -> None:
    work = tmp_path / "by-hand"
    work.mkdir()
    shutil.copy(pair.overlay("primary"), work)
    shutil.copy(pair.trust, work / "allowed_signers")
    twin = tmp_path / "twin.raw"
    shutil.copy(pair.disk("secondary"), twin)
    with mounted(twin) as root:
        said, complaints = types(work, root)
        by_hand = look(root)
    assert not complaints
    assert 'Good "brd@etsclone" signature for primary' in said[0]
    assert said[0].count(": OK") == 2
    assert said[1] == "./etc/ssh/ssh_host_ed25519_secondary\n"
    assert rebuild(pair, pair.disk("secondary"), "primary").returncode == 0
    assert etsclone("rebuild", pair.disk("secondary"), "--commit", "--yes").returncode == 0
    with mounted(pair.disk("secondary"), "ro") as root:
        by_etsclone = look(root)
    folders = {path for path, seen in by_hand.items() if seen.mode & 0o170000 == 0o040000}
    assert by_hand.keys() == by_etsclone.keys()
    # tar cannot know that the times of folders outside of the scope matter.
    assert {path for path in by_hand if by_hand[path] != by_etsclone[path]} <= folders


# --- a clone that was made by an enemy -------------------------------------------------------------------------------


class Night:
    """A person with an overlay of a tree, a clone, and files of the rescue system that must stay as they are."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.clone = folder / "tree", folder / "mnt"
        self.work, self.host = folder / "by-hand", folder / "host"
        for each in (self.tree, self.clone, self.work, self.host):
            each.mkdir()
        (folder / "victim").write_text("beside the clone\n")  # as /victim is beside /mnt
        write_tree(self.host, {"ssh_host_victim": "of the host\n", "deep/file": "of the host\n"})

    def _look_outside(self) -> Sight:
        inside = tuple(b"/" + os.fsencode(each.name) for each in (self.work, self.clone))
        seen = look(self.clone.parent)
        return {path: each for path, each in seen.items() if not path.startswith(inside)}

    def captures(self, scope: Scope) -> None:
        payload, listing = io.BytesIO(), io.BytesIO()
        write_payload(payload, str(self.tree), scan(str(self.tree), scope).scope)
        with writing_lines(listing) as write:
            list_tree(str(self.tree), scope, write, started_ns=0)
        contents = [io.BytesIO(each.getvalue()) for each in (payload, listing)]
        header = Header(
            pair="ets",
            role="primary",
            host="srv1",
            profile="mine",
            profile_sha256="0" * 64,
            scope=scope,
            generation=1,
            created=datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC),
            previous=None,
            clone=CloneIdentity(),
            members=(measure(MEMBERS[0], contents[0]), measure(MEMBERS[1], contents[1])),
        )
        for each in contents:
            each.seek(0)
        key = self.work / "key"
        shutil.copy(GOLDEN / "test_key", key)
        key.chmod(0o600)
        signer = partial(sign, key=load_private_key(key, bytes))
        with (self.work / "primary-000001.brd").open("wb") as file:
            write_overlay(file, header, signer, *contents)
        shutil.copy(GOLDEN / "allowed_signers", self.work)

    def types(self) -> tuple[list[str], str]:
        """As above; whatever happens, nothing beside the clone changes."""
        before = self._look_outside()
        said = types(self.work, self.clone)
        assert self._look_outside() == before
        assert 'Good "brd@etsclone" signature for primary' in said[0][0]
        return said


@pytest.fixture
def night(tmp_path: Path) -> Night:
    night = Night(tmp_path)
    write_tree(night.tree, {"etc/ssh/ssh_host_primary": "key\n", "etc/cron.d/job": "x\n"})
    return night


def test_names_with_line_breaks_lead_nowhere(night: Night) -> None:
    night.captures(Scope(("/etc/cron.d",)))
    (night.clone / "etc/cron.d/x\n..").mkdir(parents=True)
    (night.clone / "etc/cron.d/x\n../victim").write_text("")
    (night.clone / "victim").write_text("not of the scope\n")
    said, complaints = night.types()
    assert not complaints
    assert (
        said[1]
        == r"""'./etc/cron.d/x'$'\n''..'
'./etc/cron.d/x'$'\n''../victim'
"""
    )
    assert sorted(look(night.clone)) == [
        b"/",
        b"/etc",
        b"/etc/cron.d",
        b"/etc/cron.d/job",
        b"/victim",
    ]


@pytest.mark.parametrize("scope", ["/etc/ssh/ssh_host_*", "/etc/ssh", "/etc/ssh/**"])
def test_links_lead_nowhere(night: Night, scope: str) -> None:
    night.captures(Scope((scope, "/etc/cron.d")))
    write_tree(night.clone, {"etc/cron.d/other": "must go, but not now\n"})
    (night.clone / "etc/ssh").symlink_to(night.host)
    before = look(night.clone)
    said, _ = night.types()
    assert said[1] == "./etc/cron.d/other\na link where a folder must be: ./etc/ssh\n"
    assert look(night.clone) == before


def test_links_deep_in_the_scope_lead_nowhere(night: Night) -> None:
    """Where no folder is to be unpacked, only the links themselves are in the scope."""
    night.captures(Scope(("/etc/cron.d", "/etc/*/*/file", "/etc/*/deep")))
    (night.clone / "etc/cron.d").mkdir(parents=True)
    for link in ("etc/away", "etc/cron.d/away"):
        (night.clone / link).symlink_to(night.host)
    (night.clone / "etc/cron.d/job").symlink_to(night.host / "ssh_host_victim")
    said, complaints = night.types()
    assert not complaints
    assert said[1] == "./etc/cron.d/away\n"
    assert (night.clone / "etc/away").is_symlink()
    assert look(night.clone)[b"/etc/cron.d/job"] == look(night.tree)[b"/etc/cron.d/job"]


def test_patterns_with_spaces_and_brackets_are_one_each(night: Night) -> None:
    outside = str(night.host / "deep")
    role = ("/etc/my dir", f"/etc/my {outside}", "/etc/[!a-m]*", "/etc/cron.d")
    night.captures(Scope(role, disk=("/etc/[x]*", "/etc/my dir/kept")))
    gone = ["etc/my dir/other", "etc/new"]
    stays = ["etc/my/file", "dir/file", "etc/my dir/kept", "etc/xyz"]
    write_tree(night.clone, dict.fromkeys(gone + stays, "x\n"))
    said, _ = night.types()
    assert said[1].splitlines() == ["'./etc/my dir'", "'./etc/my dir/other'", "./etc/new"]
    assert not [path for path in gone if (night.clone / path).exists()]
    assert not [path for path in stays if not (night.clone / path).exists()]


def test_nobody_else_reads_what_was_unpacked(night: Night) -> None:
    (night.tree / "etc/open").mkdir()
    night.captures(Scope(("/etc/open", "/etc/ssh/ssh_host_*", "/etc/cron.d")))
    night.types()
    overlay = night.work / "overlay"
    assert stat.S_IMODE(overlay.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in overlay.iterdir()}
    assert modes == {
        "header.json": 0o600,
        "header.json.sig": 0o600,
        "payload.tar.zst": 0o600,
        "inventory.mtree.zst": 0o600,
        "extra": 0o600,
        "links": 0o600,
        "new": 0o700,
    }
    # A folder that is missing on the clone, and in no scope, is one as rebuilds make it.
    assert stat.S_IMODE((night.clone / "etc/ssh").stat().st_mode) == 0o755
