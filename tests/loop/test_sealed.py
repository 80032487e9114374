"""Sealed overlays as a user meets them: a server that cannot open what it sealed, and a recovery key that can."""

import contextlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from agents import add, ssh_agent
from oracle import look

from loop.small_system import common_files, etsclone, make_image, role_files, write_tree
from loop.test_by_hand import types
from loop.test_rebuild import Pair, content, is_claimed, mounted, ok, rebuild, refuses

pytestmark = pytest.mark.loop

ZSTD = bytes.fromhex("28b52ffd")
"""What every zstd frame begins with (RFC 8878)."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A pair of which the primary is captured, sealed to a key of age and to one of OpenSSH."""
    pair = Pair(tmp_path_factory.mktemp("sealed"))
    make_identity(pair.folder / "recovery.txt")
    recovery = pair.folder / "recovery"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", recovery], check=True)
    words = ("--pair", "school", "--profile", "ltsp-isc-dhcp")
    recipients = (
        "--recipient",
        public_key(pair.folder / "recovery.txt"),
        "--recipient",
        pair.folder / "recovery.pub",
    )
    ok("brd", "init", pair.store, *words, *recipients)
    for role in ("primary", "secondary"):
        tree = pair.folder / role
        write_tree(tree, common_files() | role_files(role))
        make_image(pair.disk(role), tree)
    key = pair.folder / "primary.key"
    ok("brd", "keygen", key, "--no-passphrase")
    ok("brd", "trust", pair.store, "--role", "primary", f"{key}.pub")
    assert "only a recovery key opens it" in capture(pair)
    shutil.copy(pair.store / "allowed_signers", pair.trust)
    return pair


@pytest.fixture
def pair(made: Pair, tmp_path: Path) -> Pair:
    """A pair of one's own."""
    shutil.copytree(made.folder, tmp_path / "pair")
    return Pair(tmp_path / "pair")


def make_identity(path: Path) -> Path:
    subprocess.run(["age-keygen", "-o", path], check=True)
    return path


def public_key(identity: Path) -> str:
    done = subprocess.run(
        ["age-keygen", "-y", identity], capture_output=True, text=True, check=True
    )
    return str(done.stdout).strip()


def capture_words(pair: Pair) -> tuple[str | Path, ...]:
    key = pair.folder / "primary.key"
    return (
        "brd",
        "capture",
        pair.store,
        "--role",
        "primary",
        "--key",
        key,
        "--disk",
        pair.disk("primary"),
    )


def capture(pair: Pair) -> str:
    return ok(*capture_words(pair))


@pytest.mark.parametrize("identity", ["recovery.txt", "recovery"])
def test_each_recovery_key_brings_the_role_back(pair: Pair, identity: str) -> None:
    original, clone = content(pair.disk("primary")), pair.disk("secondary")
    done = rebuild(pair, clone, "primary", "--identity", pair.folder / identity)
    assert done.returncode == 0, done.stderr
    after = content(clone)
    assert {path: seen for path, seen in after.items() if is_claimed(path)} == {
        path: seen for path, seen in original.items() if is_claimed(path)
    }


def test_without_the_recovery_key_nothing_changes(pair: Pair) -> None:
    clone = pair.disk("secondary")
    before = content(clone)
    make_identity(pair.folder / "other.txt")
    refuses(rebuild(pair, clone, "primary"), 3, "is sealed")
    other = rebuild(pair, clone, "primary", "--identity", pair.folder / "other.txt")
    refuses(other, 3, "no given identity opens payload.tar.zst.age")
    signing_key = rebuild(pair, clone, "primary", "--identity", pair.folder / "primary.key")
    refuses(signing_key, 3, "no given identity opens payload.tar.zst.age")
    assert content(clone) == before


def test_a_passphrase_is_asked_for(pair: Pair) -> None:
    path = pair.folder / "recovery"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", path], check=True)
    words = ("brd", "verify", pair.overlay("primary"), "--trust", pair.trust, "--identity", path)
    argv = ["-m", "etsclone", *map(str, words)]
    terminal = pexpect.spawn(sys.executable, argv, encoding="utf-8", timeout=60)
    terminal.expect_exact(f"passphrase of {path}: ")
    terminal.sendline("open sesame")
    said = terminal.read()
    terminal.close()
    assert terminal.exitstatus == 0, said
    assert "open sesame" not in said
    assert "contents read" in said


def test_verify_tells_how_far_it_looked(pair: Pair) -> None:
    capture(pair)
    words = ("brd", "verify", pair.store, "--trust", pair.trust)
    assert ok(*words).count("verified (contents sealed)") == 2
    facts = json.loads(ok(*words, "--json", "--identity", pair.folder / "recovery.txt"))
    assert [row["contents"] for row in facts["overlays"]] == ["read", "read"]
    make_identity(pair.folder / "other.txt")
    done = etsclone(*words, "--identity", pair.folder / "other.txt")
    refuses(done, 4, "does not verify")
    assert done.stdout.count("no given identity opens") == 2
    assert "--identity" in done.stderr


def test_what_is_sealed_is_found_unchanged_without_opening_it(pair: Pair) -> None:
    capture(pair)
    assert "primary is unchanged since generation 2" in capture(pair)
    with mounted(pair.disk("primary")) as root:
        (root / "etc/hosts").write_text("127.0.0.1 changed\n")
    assert "generation 3 of primary" in capture(pair)
    ok("brd", "verify", pair.store, "--trust", pair.trust, "--identity", pair.folder / "recovery")


def test_a_changed_recipient_counts_from_the_next_generation_on(pair: Pair) -> None:
    make_identity(pair.folder / "new.txt")
    new, old = (public_key(pair.folder / name) for name in ("new.txt", "recovery.txt"))
    said = ok("brd", "recipients", pair.store, "--add", new, "--remove", old)
    assert "can still be opened by whom you removed" in said
    capture(pair)
    words = ("brd", "verify", pair.store, "--trust", pair.trust, "--json", "--identity")
    for identity, sealed in (("recovery.txt", 2), ("new.txt", 1), ("recovery", None)):
        done = etsclone(*words, pair.folder / identity)
        problems = {
            row["generation"]: row["problem"] for row in json.loads(done.stdout)["overlays"]
        }
        assert {number for number, problem in problems.items() if problem} == {sealed} - {None}
        assert (done.returncode == 0) == (sealed is None)


def test_a_revoked_key_is_not_believed(pair: Pair) -> None:
    revoked = pair.folder / "revoked"
    shutil.copy(pair.folder / "primary.key.pub", revoked)
    identity = ("--identity", pair.folder / "recovery")
    before = content(pair.disk("secondary"))
    done = rebuild(pair, pair.disk("secondary"), "primary", "--revoked", revoked, *identity)
    refuses(done, 4, "signed by a revoked key")
    assert content(pair.disk("secondary")) == before
    words = ("brd", "verify", pair.store, "--trust", pair.trust, "--revoked")
    refuses(etsclone(*words, revoked), 4, "does not verify")
    assert etsclone(*words, pair.folder / "none").returncode == 3
    revoked.write_text("# nobody\n")
    assert etsclone(*words, revoked).returncode == 0


def test_a_clones_own_list_of_revoked_keys_counts(pair: Pair) -> None:
    """Where the rescue system has no list of trusted keys, the clone's own is taken, and so is what it revokes."""
    clone = pair.disk("secondary")
    own = "etc/etsclone"
    with mounted(clone) as root:
        (root / own).mkdir()
        shutil.copy(pair.trust, root / own / "allowed_signers")
        shutil.copy(pair.folder / "primary.key.pub", root / own / "revoked_keys")
    words = ("rebuild", clone, "--store", pair.store, "--role", "primary", "--yes")
    identity = ("--identity", pair.folder / "recovery")
    refuses(etsclone(*words, *identity), 4, "signed by a revoked key")
    with mounted(clone) as root:
        (root / own / "revoked_keys").unlink()
    done = etsclone(*words, *identity)
    assert done.returncode == 0, done.stderr


def test_an_agent_signs_a_capture(pair: Pair, tmp_path: Path) -> None:
    key = pair.folder / "primary.key"
    with ssh_agent(tmp_path) as agent:
        add(agent, key)
        key.unlink()
        done = etsclone(*capture_words(pair), SSH_AUTH_SOCK=str(agent))
        assert done.returncode == 0, done.stderr
    refuses(etsclone(*capture_words(pair), SSH_AUTH_SOCK=""), 3, "nobody holds the private part")
    ok("brd", "verify", pair.store, "--trust", pair.trust)
    assert [path.name for path in sorted((pair.store / "primary").iterdir())] == [
        "primary-000001.brd",
        "primary-000002.brd",
    ]


def test_the_readmes_commands_open_it_by_hand(pair: Pair, tmp_path: Path) -> None:
    work = tmp_path / "by-hand"
    work.mkdir()
    shutil.copy(pair.overlay("primary"), work)
    shutil.copy(pair.trust, work / "allowed_signers")
    shutil.copy(pair.folder / "recovery.txt", work)
    twin = Path(shutil.copy(pair.disk("secondary"), tmp_path / "twin.raw"))
    with mounted(twin) as root:
        _, complaints = types(work, root, sealed=True)
        by_hand = look(root)
    assert not complaints
    opened = [work / "overlay" / name for name in ("payload.tar.zst", "inventory.mtree.zst")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in opened] == [0o600, 0o600]
    assert by_hand[b"/etc/hostname"].content == b"primary\n"
    rebuild(pair, pair.disk("secondary"), "primary", "--identity", work / "recovery.txt")
    assert by_hand.keys() == content(pair.disk("secondary")).keys()


# --- no plain text on any disk --------------------------------------------------------------------------------------


@contextmanager
def temporary_disk(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A filesystem for temporary files that can be looked at block by block: its image, and where it is mounted.

    What is written there is on it at once: else files that are gone soon would never have been.
    """
    image, mount = folder / "temporary.img", folder / "temporary"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop,sync", image, mount], check=True)
    try:
        yield image, mount
    finally:
        subprocess.run(["umount", mount], check=True)


def frames(image: Path) -> int:
    """How many blocks of the image begin as a zstd frame does."""
    data = image.read_bytes()
    return sum(data[place : place + 4] == ZSTD for place in range(0, len(data), 1024))


def test_no_plain_text_touches_a_disk(pair: Pair, tmp_path: Path) -> None:
    with temporary_disk(tmp_path) as (image, folder):
        done = etsclone(*capture_words(pair), TMPDIR=str(folder))
        assert done.returncode == 0, done.stderr
        identity = ("--identity", pair.folder / "recovery")
        words = (
            "--store",
            pair.store,
            "--role",
            "primary",
            "--trust",
            pair.trust,
            "--yes",
            *identity,
        )
        done = etsclone("rebuild", pair.disk("secondary"), *words, TMPDIR=str(folder))
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in folder.iterdir()) == ["lost+found"]
    assert frames(image) == 0
    assert b"key of primary" not in image.read_bytes()


def test_a_capture_that_is_not_sealed_would_be_found(pair: Pair, tmp_path: Path) -> None:
    """What the test above looks for is there when nothing is sealed: so it would have been found."""
    text = (pair.store / "brd.toml").read_text()
    (pair.store / "brd.toml").write_text(text[: text.index("recipients")])
    with temporary_disk(tmp_path) as (image, folder):
        done = etsclone(*capture_words(pair), TMPDIR=str(folder))
        assert done.returncode == 0, done.stderr
    assert frames(image) == 2


def test_a_killed_capture_leaves_nothing(pair: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    before = pair.overlay("primary").read_bytes()
    moments = random.Random(4)
    with mounted(pair.disk("primary"), "ro") as root:
        words = [*map(str, capture_words(pair)[:-2]), "--root", str(root)]
        for _ in range(8):
            process = subprocess.Popen(
                [sys.executable, "-m", "etsclone", *words], env=os.environ | {"TMPDIR": str(folder)}
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.05, 0.6))
            process.kill()
            process.wait()
            assert list(folder.iterdir()) == []
        assert ok(*words)
    assert pair.overlay("primary").read_bytes() == before


def test_sealed_overlays_are_compared_with_a_recovery_key(pair: Pair) -> None:
    sides = (f"{pair.store}:primary", pair.disk("secondary"))
    words = ("brd", "diff", *sides, "--trust", pair.trust)
    refuses(etsclone(*words), 3, "--identity")
    shown = ok(*words, "--identity", pair.folder / "recovery.txt")
    assert "etc/hostname" in shown
    log = ("brd", "log", pair.store, "--role", "primary", "--trust", pair.trust)
    assert "the first that is kept" in ok(*log, "--identity", pair.folder / "recovery.txt")


def test_a_server_that_cannot_open_says_who_can_compare(pair: Pair) -> None:
    words = (
        "--role",
        "primary",
        "--key",
        pair.folder / "primary.key",
        "--disk",
        pair.disk("primary"),
    )
    assert "sealed: `etsclone brd diff --identity` tells what is unclaimed" in ok(
        "brd", "capture", pair.store, *words
    )
