"""The whole way on small disks, as a user types it: capture both roles, rebuild each from the other's clone."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from oracle import Sight, look

from loop.small_system import common_files, etsclone, make_image, role_files, write_tree

pytestmark = pytest.mark.loop

ROLES = ("primary", "secondary")
OTHER = {"primary": "secondary", "secondary": "primary"}
CHANGED = {"primary": 1_000_000_000, "secondary": 1_000_000_001}
KEPT = b"/.etsclone-staging"
CLAIMED = (
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/dhcp",
    b"/etc/ssh/ssh_host_",
    b"/etc/machine-id",
)


@dataclass(frozen=True)
class Pair:
    """Two disk images, a store with both roles captured, and whom to trust."""

    folder: Path

    def disk(self, role: str) -> Path:
        return self.folder / f"{role}.raw"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def trust(self) -> Path:
        return self.folder / "trusted"

    def overlay(self, role: str) -> Path:
        return self.store / role / f"{role}-000001.brd"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pair = Pair(tmp_path_factory.mktemp("pair"))
    ok("brd", "init", pair.store, "--pair", "school", "--profile", "ltsp-isc-dhcp")
    for role in ROLES:
        tree = pair.folder / role
        write_tree(tree, common_files() | role_files(role))
        # mkfs.ext4 keeps whole seconds: left to themselves, both roles' folders are of one time on a fast machine.
        os.utime(tree / "etc/dhcp", times=(CHANGED[role], CHANGED[role]))
        make_image(pair.disk(role), tree)
        key = pair.folder / f"{role}.key"
        ok("brd", "keygen", key, "--no-passphrase")
        ok("brd", "trust", pair.store, "--role", role, f"{key}.pub")
        ok("brd", "capture", pair.store, "--role", role, "--key", key, "--disk", pair.disk(role))
    shutil.copy(pair.store / "allowed_signers", pair.trust)
    return pair


@pytest.fixture
def pair(made: Pair, tmp_path: Path) -> Pair:
    """A pair of one's own."""
    shutil.copytree(made.folder, tmp_path / "pair")
    return Pair(tmp_path / "pair")


def ok(*words: str | Path) -> str:
    done = etsclone(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rebuild(
    pair: Pair, disk: Path, role: str, *more: str | Path
) -> subprocess.CompletedProcess[str]:
    options = ("--store", pair.store, "--role", role, "--trust", pair.trust, "--yes")
    return etsclone("rebuild", disk, *options, *more)


@contextmanager
def mounted(image: Path, *options: str) -> Iterator[Path]:
    folder = image.with_suffix(".mnt")
    folder.mkdir()
    words = ",".join(("loop", f"offset={1 << 20}", *options))
    subprocess.run(["mount", "-o", words, image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()
        # The kernel gives a loop device back a moment later, and mount(8) refuses an image that still has one.
        for _ in range(500):
            if not loop_devices(image):
                break
            time.sleep(0.01)


def content(image: Path) -> Sight:
    """The system of a disk, without what a rebuild keeps to be undone."""
    with mounted(image, "ro") as root:
        return {path: seen for path, seen in look(root).items() if not path.startswith(KEPT)}


def is_claimed(path: bytes) -> bool:
    return path.startswith(CLAIMED)


def loop_devices(image: Path) -> str:
    words = ["losetup", "--list", "--noheadings", "--associated", str(image)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def refuses(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_each_role_comes_back_from_the_others_clone(pair: Pair, role: str) -> None:
    original, before = content(pair.disk(role)), content(pair.disk(OTHER[role]))
    done = rebuild(pair, pair.disk(OTHER[role]), role, "--json")
    after = content(pair.disk(OTHER[role]))
    assert done.returncode == 0, done.stderr
    assert {path: seen for path, seen in after.items() if is_claimed(path)} == {
        path: seen for path, seen in original.items() if is_claimed(path)
    }
    assert {path: seen for path, seen in after.items() if not is_claimed(path)} == {
        path: seen for path, seen in before.items() if not is_claimed(path)
    }
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["verified"]
    assert json.loads(Path(facts["receipt"]).read_text())["role"] == role
    assert Path(facts["receipt"]).parent == pair.store / "receipts"
    assert not loop_devices(pair.disk(OTHER[role]))


def test_a_second_rebuild_has_nothing_to_do(pair: Pair) -> None:
    assert rebuild(pair, pair.disk("secondary"), "primary").returncode == 0
    again = rebuild(pair, pair.disk("secondary"), "primary")
    assert again.returncode == 0
    assert "equals the overlay already" in again.stdout


def test_a_mounted_tree_is_rebuilt_in_place(pair: Pair) -> None:
    with mounted(pair.disk("secondary")) as root:
        options = ("--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes")
        done = etsclone("rebuild", "--root", root, *options)
        assert done.returncode == 0, done.stderr
        assert (root / "etc/hostname").read_text() == "primary\n"


def test_a_dry_run_changes_no_byte(pair: Pair) -> None:
    before = pair.disk("secondary").read_bytes()
    done = rebuild(pair, pair.disk("secondary"), "primary", "--dry-run")
    assert done.returncode == 0
    assert "replace /etc/hostname" in done.stdout
    assert pair.disk("secondary").read_bytes() == before


def test_trust_is_taken_from_the_clone_when_the_rescue_system_has_none(pair: Pair) -> None:
    with mounted(pair.disk("secondary")) as root:
        write_tree(root, {"etc/etsclone/allowed_signers": pair.trust.read_text()})
    options = ("--store", pair.store, "--role", "primary", "--yes")
    done = etsclone("rebuild", pair.disk("secondary"), *options)
    assert done.returncode == 0, done.stderr


def test_the_second_generation_names_the_first(pair: Pair) -> None:
    capture = (
        "brd",
        "capture",
        pair.store,
        "--role",
        "primary",
        "--key",
        pair.folder / "primary.key",
    )
    with mounted(pair.disk("primary")) as root:
        write_tree(root, {"etc/hosts": "127.0.0.1 changed\n"})
    ok(*capture, "--disk", pair.disk("primary"))
    listed = json.loads(ok("brd", "list", pair.store, "--json"))
    assert [row["generation"] for row in listed["overlays"] if row["role"] == "primary"] == [1, 2]
    ok("brd", "verify", pair.store, "--trust", pair.trust)
    assert rebuild(pair, pair.disk("secondary"), "primary", "--generation", "1").returncode == 0
    pair.overlay("primary").unlink()
    gap = etsclone("brd", "verify", pair.store, "--trust", pair.trust)
    refuses(gap, 4, "does not verify")


def test_an_unchanged_capture_writes_no_generation(pair: Pair) -> None:
    key, disk = pair.folder / "primary.key", pair.disk("primary")
    words = ("brd", "capture", pair.store, "--role", "primary", "--key", key, "--disk", disk)
    # This machine has never captured the role, so it cannot tell; what it captures now it knows.
    assert not json.loads(ok(*words, "--json"))["unchanged"]
    assert json.loads(ok(*words, "--json"))["unchanged"]
    assert len(list((pair.store / "primary").glob("*.brd"))) == 2
    assert "primary was last found unchanged at" in ok("brd", "list", pair.store)
    ok("brd", "verify", pair.store, "--trust", pair.trust)
    ok("brd", "check", pair.store, "--role", "primary", "--max-age", "1d", "--trust", pair.trust)
    with mounted(disk) as root:
        os.utime(root / "usr/bin/tool", (1, 1))
        (root / "var/log/syslog").write_text("volatile still\n")
    assert json.loads(ok(*words, "--json"))["unchanged"]
    with mounted(disk) as root:
        (root / "usr/bin/tool").write_text("outside of the scope\n")
    assert not json.loads(ok(*words, "--json"))["unchanged"]
    with mounted(disk) as root:
        os.utime(root / "etc/hostname", (1, 1))
    assert not json.loads(ok(*words, "--json"))["unchanged"]


def test_an_unchanged_system_is_captured_anew_when_its_overlay_is_damaged(pair: Pair) -> None:
    key, disk = pair.folder / "primary.key", pair.disk("primary")
    words = ("brd", "capture", pair.store, "--role", "primary", "--key", key, "--disk", disk)
    ok(*words)
    newest = pair.store / "primary" / "primary-000002.brd"
    os.truncate(newest, newest.stat().st_size - 1)
    assert not json.loads(ok(*words, "--json"))["unchanged"]


def test_a_store_that_was_set_back_is_refused_unless_it_is_asked_for(
    pair: Pair, tmp_path: Path
) -> None:
    ok("brd", "verify", pair.store, "--trust", pair.trust)
    shutil.copytree(pair.store, tmp_path / "older")
    key = pair.folder / "primary.key"
    capture = ("--role", "primary", "--key", key, "--disk", pair.disk("primary"))
    ok("brd", "capture", pair.store, *capture)
    shutil.rmtree(pair.store)
    (tmp_path / "older").rename(pair.store)
    before = pair.disk("secondary").read_bytes()
    done = rebuild(pair, pair.disk("secondary"), "primary")
    refuses(done, 3, "has seen generation 2, the newest one here is 1")
    accept = f"`etsclone brd verify {pair.store} --accept --trust {pair.trust}`; to take this one"
    assert accept in done.stderr
    assert pair.disk("secondary").read_bytes() == before
    assert rebuild(pair, pair.disk("secondary"), "primary", "--generation", "1").returncode == 0
    done = etsclone("brd", "capture", pair.store, *capture)
    assert done.returncode == 0
    assert "is not up to date for role primary" in done.stderr


def test_what_was_rebuilt_is_the_newest_that_this_machine_has_seen(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pair.store, tmp_path / "older")
    key = pair.folder / "primary.key"
    capture = ("--role", "primary", "--key", key, "--disk", pair.disk("primary"))
    ok("brd", "capture", pair.store, *capture)
    # From here on it is the rescue system, which captured nothing; a dry run leaves no memory.
    monkeypatch.setenv("ETSCLONE_STATE", str(tmp_path / "rescue"))
    clone = pair.disk("secondary")
    assert rebuild(pair, clone, "primary", "--dry-run").returncode == 0
    assert not (tmp_path / "rescue" / "roles").exists()
    assert rebuild(pair, clone, "primary").returncode == 0
    shutil.rmtree(pair.store)
    (tmp_path / "older").rename(pair.store)
    before = clone.read_bytes()
    refuses(rebuild(pair, clone, "primary"), 3, "has seen generation 2, the newest one here is 1")
    assert clone.read_bytes() == before
    # Going back on purpose is not forgotten either.
    assert rebuild(pair, clone, "primary", "--generation", "1").returncode == 0
    refuses(rebuild(pair, clone, "primary"), 3, "has seen generation 2, the newest one here is 1")


# --- refusals: exit code, message, hint; and the disk is as it was ---------------------------------------------------


@pytest.fixture
def untouched(pair: Pair) -> Iterator[Path]:
    """The secondary's disk, which must not change in this test."""
    disk = pair.disk("secondary")
    before = disk.read_bytes()
    yield disk
    assert disk.read_bytes() == before


def test_another_pairs_store_is_refused(pair: Pair, untouched: Path) -> None:
    config = pair.store / "brd.toml"
    config.write_text(config.read_text().replace('"school"', '"office"'))
    refuses(rebuild(pair, untouched, "primary"), 4, "of pair school")


def test_a_disk_of_another_pair_is_refused(pair: Pair, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.raw"
    files = common_files() | {"etc/fstab": ""} | role_files("primary")
    write_tree(tmp_path / "stranger", files)
    make_image(stranger, tmp_path / "stranger", uuid="99999999-2222-3333-4444-555555555555")
    refuses(rebuild(pair, stranger, "primary"), 3, "no clone of pair school")


def test_an_unknown_role_is_refused(pair: Pair, untouched: Path) -> None:
    refuses(rebuild(pair, untouched, "tertiary"), 3, "has no role 'tertiary'")


def test_an_overlay_of_another_role_is_refused(pair: Pair, untouched: Path) -> None:
    shutil.copy(pair.overlay("secondary"), pair.overlay("primary"))
    refuses(rebuild(pair, untouched, "primary"), 4, "of role secondary")


def test_a_key_of_another_role_is_refused(pair: Pair, untouched: Path) -> None:
    lines = pair.trust.read_text().splitlines()
    pair.trust.write_text(
        "\n".join(line.replace("primary", "secondary", 1) for line in lines) + "\n"
    )
    refuses(rebuild(pair, untouched, "primary"), 4, "not for primary")


def test_a_key_that_is_not_trusted_for_the_role_captures_nothing(pair: Pair) -> None:
    capture = (
        "brd",
        "capture",
        pair.store,
        "--role",
        "primary",
        "--key",
        pair.folder / "secondary.key",
    )
    refuses(etsclone(*capture, "--disk", pair.disk("primary")), 3, "not for primary")
    assert len(list((pair.store / "primary").glob("*.brd"))) == 1


def test_without_a_statement_of_trust_nothing_is_believed(pair: Pair, untouched: Path) -> None:
    options = ("--store", pair.store, "--role", "primary", "--yes")
    refuses(etsclone("rebuild", untouched, *options), 3, "nothing to trust")


@pytest.mark.parametrize("place", [0.001, 0.2, 0.5, 0.999])
def test_a_changed_byte_is_refused(pair: Pair, untouched: Path, place: float) -> None:
    overlay = pair.overlay("primary")
    data = bytearray(overlay.read_bytes())
    data[int(len(data) * place)] ^= 1
    overlay.write_bytes(data)
    refuses(rebuild(pair, untouched, "primary"), 4, "")


def test_a_truncated_overlay_is_refused(pair: Pair, untouched: Path) -> None:
    os.truncate(pair.overlay("primary"), pair.overlay("primary").stat().st_size - 512)
    refuses(rebuild(pair, untouched, "primary"), 4, "")


def test_a_wrong_name_at_the_prompt_changes_nothing(pair: Pair, untouched: Path) -> None:
    options = ("--store", pair.store, "--role", "primary", "--trust", pair.trust)
    done = etsclone("rebuild", untouched, *options, answer="primary.raw\n")
    refuses(done, 3, "not confirmed")


def test_a_disk_that_is_in_use_is_refused(pair: Pair) -> None:
    with mounted(pair.disk("secondary")):
        refuses(rebuild(pair, pair.disk("secondary"), "primary"), 3, "held by another device")


def test_the_running_system_is_refused(pair: Pair) -> None:
    options = ("--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes")
    refuses(etsclone("rebuild", "--root", "/", *options), 3, "root of the running system")


def test_a_folder_where_nothing_is_mounted_is_refused(pair: Pair, tmp_path: Path) -> None:
    options = ("--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes")
    refuses(etsclone("rebuild", "--root", tmp_path, *options), 3, "nothing is mounted")
    capture = (
        "brd",
        "capture",
        pair.store,
        "--role",
        "primary",
        "--key",
        pair.folder / "primary.key",
    )
    refuses(etsclone(*capture, "--root", tmp_path), 3, "nothing is mounted")
    refuses(etsclone(*capture, "--root", tmp_path / "none"), 3, f"{tmp_path}/none does not exist")


def test_a_disk_without_a_system_is_refused(pair: Pair, tmp_path: Path) -> None:
    empty = tmp_path / "empty.raw"
    (tmp_path / "tree").mkdir()
    make_image(empty, tmp_path / "tree")
    refuses(rebuild(pair, empty, "primary"), 3, "no root of a system")


def test_root_rights_are_needed(pair: Pair) -> None:
    # The rights are dropped late: somebody else may not be able to read this interpreter and these modules.
    program = (
        "import os, etsclone.cli as cli, etsclone.commands.rebuild; os.setuid(65534); cli.main()"
    )
    words = ["rebuild", "x.raw", "--store", str(pair.store), "--role", "primary"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    refuses(done, 3, "root rights are needed")


def test_a_symbolic_link_on_the_way_is_refused(pair: Pair, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    write_tree(canary, {"ssh_host_ed25519_secondary": "of the rescue system\n"})
    with mounted(pair.disk("secondary")) as root:
        shutil.rmtree(root / "etc/ssh")
        (root / "etc/ssh").symlink_to(canary)
    refuses(rebuild(pair, pair.disk("secondary"), "primary"), 3, "/etc/ssh")
    assert [path.name for path in canary.iterdir()] == ["ssh_host_ed25519_secondary"]


def test_an_interrupted_rebuild_is_completed_by_the_next(pair: Pair) -> None:
    original = content(pair.disk("primary"))
    with mounted(pair.disk("secondary")) as root:
        # What a rebuild that was cut from power has left behind.
        write_tree(root, {".etsclone-staging/0": "half", "etc/hostname": "primary\n"})
    done = rebuild(pair, pair.disk("secondary"), "primary")
    assert done.returncode == 0, done.stderr
    after = content(pair.disk("secondary"))
    with mounted(pair.disk("secondary")) as root:
        assert os.listdir(root / ".etsclone-staging") == ["000001"]
    assert after[b"/etc/hostname"] == original[b"/etc/hostname"]


# --- what is remembered of the last capture --------------------------------------------------------------------------


def captured(pair: Pair, root: Path, *options: str) -> dict[str, object]:
    """Capture a mounted system, so that its files stay what they are to the kernel."""
    key = pair.folder / "primary.key"
    words = ("brd", "capture", pair.store, "--role", "primary", "--key", key, "--root", root)
    facts: dict[str, object] = json.loads(ok(*words, *options, "--json"))
    return facts


def test_a_second_capture_reads_what_changed(pair: Pair, state_folder: Path) -> None:
    remembered = state_folder / "listings" / "school-primary"
    with mounted(pair.disk("primary")) as root:
        (root / "usr/new").write_text("old enough to be remembered\n")
        time.sleep(2.5)
        first = captured(pair, root)
        assert int(str(first["read"])) > 10
        assert remembered.stat().st_mode & 0o777 == 0o600
        assert captured(pair, root)["read"] == 0
        (root / "usr/new").write_text("another\n")
        assert captured(pair, root)["read"] == 1
        assert captured(pair, root, "--full")["read"] == first["read"]
        time.sleep(2.5)
        assert captured(pair, root)["read"] in (0, 1)
        remembered.write_bytes(remembered.read_bytes()[:-1])
        assert captured(pair, root)["read"] == first["read"]
        assert captured(pair, root)["read"] == 0
    ok("brd", "verify", pair.store, "--trust", pair.trust)


def test_a_state_folder_that_cannot_be_written_is_no_obstacle(
    pair: Pair, state_folder: Path
) -> None:
    state_folder.write_text("in the way")
    with mounted(pair.disk("primary")) as root:
        assert int(str(captured(pair, root)["read"])) > 10


def test_an_older_overlay_under_a_newer_name_is_refused(pair: Pair) -> None:
    """Who can only add files to a store cannot bring an old state back."""
    old = pair.overlay("primary")
    shutil.copy(old, old.with_name("primary-000009.brd"))
    clone = pair.disk("secondary")
    before = content(clone)
    refuses(rebuild(pair, clone, "primary"), 4, "generation")
    assert content(clone) == before


def test_a_revoked_key_captures_nothing(pair: Pair, tmp_path: Path) -> None:
    """`/etc/etsclone/revoked_keys` of the server counts; here that is an /etc that nobody else sees."""
    for name in ("upper/etsclone", "work"):
        (tmp_path / "etc" / name).mkdir(parents=True)
    shutil.copy(pair.folder / "primary.key.pub", tmp_path / "etc/upper/etsclone/revoked_keys")
    layers = f"lowerdir=/etc,upperdir={tmp_path}/etc/upper,workdir={tmp_path}/etc/work"
    key = pair.folder / "primary.key"
    words = ("--role", "primary", "--key", key, "--disk", pair.disk("primary"))
    script = 'mount -t overlay overlay -o "$0" /etc && exec "$@"'
    argv = [sys.executable, "-m", "etsclone", "brd", "capture", pair.store, *words]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, layers, *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
    )
    refuses(done, 3, "revoked")
    assert not (pair.overlay("primary").parent / "primary-000002.brd").exists()
