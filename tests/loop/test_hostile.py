"""`etsclone rebuild` on what an enemy made of an overlay: refused, and the disk is as it was, byte by byte.

The attacks are those that `brd verify` meets in the unit tests. The owner of a trusted key signs payloads and
inventories that no capture writes; everybody else can change the file.
"""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from attacks import (
    HOSTILE_PATH,
    HOSTILE_SCOPE,
    LISTINGS,
    MEMBERS,
    OUTSIDE,
    PAYLOADS,
    Enemy,
    make_foreign,
    watching,
)
from payloads import ETC, file, packed
from stores import Result, contents, etsclone

from etsclone.overlay.container import read_envelope
from etsclone.overlay.header import decode
from etsclone.overlay.signing import generate_key, load_private_key
from loop.small_system import common_files, make_image, role_files, write_tree
from loop.test_rebuild import Pair, loop_devices, mounted, ok

pytestmark = pytest.mark.loop

SOUND = packed(
    ETC, file(b"/etc/hostname", b"new\n"), file(b"/etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The primary's overlay in a store, and the secondary's disk."""
    pair = Pair(tmp_path_factory.mktemp("pair"))
    ok("brd", "init", pair.store, "--pair", "school", "--profile", "ltsp-isc-dhcp")
    for role in ("primary", "secondary"):
        write_tree(pair.folder / role, common_files() | role_files(role))
        make_image(pair.disk(role), pair.folder / role)
    key = pair.folder / "primary.key"
    ok("brd", "keygen", key, "--no-passphrase")
    ok("brd", "trust", pair.store, "--role", "primary", f"{key}.pub")
    ok(
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
    return pair


@pytest.fixture(scope="module")
def enemy(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Enemy:
    folder = tmp_path_factory.mktemp("keys")
    generate_key(folder / "other")
    mine = load_private_key(pair.folder / "primary.key", bytes)
    other = load_private_key(folder / "other", bytes)
    header = decode(read_envelope(pair.overlay("primary")).header)
    made = Enemy(header, mine, other, make_foreign(folder))
    pair.trust.write_text(made.signers)
    return made


def rebuilt(pair: Pair, disk: Path, data: bytes) -> tuple[Result, frozenset[str]]:
    """The command, with a forged file in place of the overlay; and what it reached."""
    pair.overlay("primary").write_bytes(data)
    words = ("--store", pair.store, "--role", "primary", "--trust", pair.trust, "--yes")
    with watching() as reached:
        done = etsclone("rebuild", disk, *words)
    assert not loop_devices(disk)
    return done, frozenset(reached)


def refused(pair: Pair, data: bytes, state: Path) -> tuple[str, frozenset[str]]:
    """What the command says that leaves the disk, the store and what this machine remembers as they were."""
    disk = pair.disk("secondary")
    before, store = digest(disk), contents(pair.store)
    done, reached = rebuilt(pair, disk, data)
    assert done.code == 4, done.err
    assert "hint: " in done.err
    assert digest(disk) == before
    assert contents(pair.store) == store | {"primary/primary-000001.brd": data}
    assert not list(state.rglob("*.json"))
    return done.err, reached


def digest(disk: Path) -> str:
    with disk.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_a_sound_one_is_applied(pair: Pair, enemy: Enemy, tmp_path: Path) -> None:
    """The same way, in the same scope, with the same keys: so nothing else than the attack is what is refused."""
    disk = Path(shutil.copy(pair.disk("secondary"), tmp_path / "secondary.raw"))
    before = digest(disk)
    done, reached = rebuilt(pair, disk, enemy.signed(SOUND))
    assert done.code == 0, done.err
    assert reached == MEMBERS | {"zstd"}
    assert digest(disk) != before
    with mounted(disk, "ro") as root:
        assert sorted(os.listdir(root / "etc")) == ["fstab", "hostname", "passwd"]
        assert (root / "etc/hostname").read_text() == "new\n"


@pytest.mark.parametrize("attack", OUTSIDE)
def test_a_tampered_file_changes_nothing(
    attack: str, pair: Pair, enemy: Enemy, state_folder: Path
) -> None:
    said, reached = refused(pair, OUTSIDE[attack].make(enemy), state_folder)
    assert OUTSIDE[attack].says in said
    assert reached <= OUTSIDE[attack].reaches


@pytest.mark.parametrize("attack", PAYLOADS)
def test_a_signed_payload_changes_nothing(
    attack: str, pair: Pair, enemy: Enemy, state_folder: Path
) -> None:
    _, reached = refused(pair, enemy.signed(PAYLOADS[attack]()), state_folder)
    assert reached == MEMBERS | {"zstd"}


@pytest.mark.parametrize("attack", LISTINGS)
def test_a_signed_inventory_changes_nothing(
    attack: str, pair: Pair, enemy: Enemy, state_folder: Path
) -> None:
    """Its payload is sound: if the inventory were not read before the disk is written to, the role would change."""
    said, _ = refused(pair, enemy.signed(SOUND, LISTINGS[attack]()), state_folder)
    assert "archive" not in said


def test_a_signed_scope_of_many_wildcards_changes_nothing(
    pair: Pair, enemy: Enemy, state_folder: Path
) -> None:
    data = enemy.signed(packed(ETC, file(HOSTILE_PATH)), scope=HOSTILE_SCOPE)
    said, _ = refused(pair, data, state_folder)
    assert "scope" in said
