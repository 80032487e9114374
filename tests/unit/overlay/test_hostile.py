"""Attacks on whole overlays: what anybody can do to the file, and what only the owner of a trusted key can.

Each is refused as early as it can be. Of a file without a trusted signature nothing is parsed, copied or decompressed;
of one with a signature, where the owner of the key is the enemy, nothing is used. That `etsclone rebuild` then leaves
the disk as it is, byte by byte, is tested with loop devices.
"""

import io
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest
from attacks import (
    HEADER,
    HOSTILE_PATH,
    HOSTILE_SCOPE,
    LISTING,
    LISTINGS,
    MEMBERS,
    OUTSIDE,
    PAYLOADS,
    ROOT,
    SCOPE,
    Enemy,
    make_foreign,
    parts,
    watching,
)
from payloads import ETC, HOST, file, frame, packed
from stores import etsclone

from etsclone.errors import VerificationFailed
from etsclone.model.brd import Header
from etsclone.model.tree import twins
from etsclone.overlay.apply import apply_plan
from etsclone.overlay.container import measure, open_verified, write_overlay
from etsclone.overlay.header import SEALED_MEMBERS
from etsclone.overlay.payload import read_payload
from etsclone.overlay.scan import scan
from etsclone.overlay.sealing import sealing
from etsclone.overlay.signing import SigningKey
from etsclone.overlay.trust import Trust
from etsclone.plan.tree import plan_tree
from etsclone.units import MIB


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_foreign(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def enemy(
    header: Header, key: SigningKey, other_key: SigningKey, foreign: dict[str, Path]
) -> Enemy:
    return Enemy(header, key, other_key, foreign)


@pytest.fixture
def trust(enemy: Enemy) -> Trust:
    return Trust.parse(enemy.signers)


# --- what anybody can do to the file -------------------------------------------------------------------------------


def test_of_a_sound_one_all_is_reached(enemy: Enemy, trust: Trust) -> None:
    """So what is not reached below could have been noticed."""
    with (
        watching() as reached,
        open_verified(io.BytesIO(enemy.overlay), trust, role="primary") as overlay,
    ):
        assert set(reached) == MEMBERS
        read_payload(overlay.payload(), SCOPE).__exit__(None, None, None)
    assert set(reached) == MEMBERS | {"zstd"}


@pytest.mark.parametrize("attack", OUTSIDE)
def test_a_tampered_file_is_refused_before_it_is_used(
    attack: str, enemy: Enemy, trust: Trust
) -> None:
    asked = OUTSIDE[attack]
    data = asked.make(enemy)
    with watching() as reached, pytest.raises(VerificationFailed, match=asked.says):
        open_verified(io.BytesIO(data), trust, role="primary", pair="ets")
    assert set(reached) <= asked.reaches


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_openssh_itself_would_take_the_keys_of_other_kinds(
    kind: str, enemy: Enemy, tmp_path: Path
) -> None:
    found = parts(enemy.signed_by_foreign(kind))[1]
    (tmp_path / "sig").write_bytes(found[512:].rstrip(b"\0"))
    (tmp_path / "signers").write_text(enemy.signers)
    words = ("-n", "brd@etsclone", "-I", "primary", "-f", tmp_path / "signers")
    argv: list[str | Path] = ["ssh-keygen", "-Y", "verify", *words, "-s", tmp_path / "sig"]
    subprocess.run(argv, input=enemy.signed_bytes, capture_output=True, check=True)


def test_truncated_at_each_boundary(enemy: Enemy, trust: Trust) -> None:
    ends = [0]
    for part in parts(enemy.overlay):
        ends += [ends[-1] + 512, ends[-1] + len(part)]
    near = {end + step for end in ends for step in (-1, 0, 1)}
    for length in sorted(near & set(range(len(enemy.overlay)))):
        with watching() as reached, pytest.raises(VerificationFailed, match="truncated"):
            open_verified(io.BytesIO(enemy.overlay[:length]), trust)
        assert set(reached) <= (MEMBERS if length >= ends[4] else set())


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"role": "secondary"}, id="another-role"),
        pytest.param({"pair": "other"}, id="another-pair"),
        pytest.param({"generation": 1}, id="an-older-generation"),
    ],
)
def test_a_genuine_overlay_in_anothers_place(
    asked: dict[str, str | int], enemy: Enemy, trust: Trust
) -> None:
    with (
        watching() as reached,
        pytest.raises(VerificationFailed, match="the overlay is generation"),
    ):
        open_verified(io.BytesIO(enemy.overlay), trust, **asked)  # type: ignore[arg-type]
    assert set(reached) == HEADER


# --- as `brd verify` meets them ------------------------------------------------------------------------------------

IDENTITY = pyrage.x25519.Identity.generate()


def sealed(plain: bytes) -> bytes:
    out = io.BytesIO()
    with sealing(out, [str(IDENTITY.to_public())]) as file:
        file.write(plain)
    return out.getvalue()


def sealed_overlay(enemy: Enemy, payload: bytes, listing: bytes = LISTING) -> bytes:
    contents = sealed(payload), sealed(listing)
    streams = [io.BytesIO(each) for each in contents]
    members = tuple(measure(*each) for each in zip(SEALED_MEMBERS, streams, strict=True))
    header = replace(enemy.header, scope=SCOPE, members=members)
    out = io.BytesIO()
    write_overlay(out, header, enemy.key.sign, *(io.BytesIO(each) for each in contents))
    return out.getvalue()


def brd_verify(data: bytes, enemy: Enemy, folder: Path) -> tuple[int, str, frozenset[str]]:
    """Exit code, what it says, and what it reached, of the command with an overlay file."""
    for name, content in (("x.brd", data), ("signers", enemy.signers.encode())):
        (folder / name).write_bytes(content)
    (folder / "identity").write_text(f"{IDENTITY}\n")
    words = ("--trust", folder / "signers", "--identity", folder / "identity")
    with watching() as reached:
        done = etsclone("brd", "verify", folder / "x.brd", *words)
    assert (folder / "x.brd").read_bytes() == data
    return done.code, done.out + done.err, frozenset(reached)


def test_brd_verify_reaches_all_of_a_sound_one(enemy: Enemy, tmp_path: Path) -> None:
    code, said, reached = brd_verify(enemy.overlay, enemy, tmp_path)
    assert (code, reached) == (0, MEMBERS | {"zstd"})
    assert "contents read" in said
    code, said, reached = brd_verify(sealed_overlay(enemy, packed(ETC)), enemy, tmp_path)
    assert (code, reached) == (0, MEMBERS | {"age", "zstd"})
    assert "contents read" in said


@pytest.mark.parametrize("attack", OUTSIDE)
@pytest.mark.parametrize("contents", ["plain", "sealed"])
def test_brd_verify_opens_nothing_of_a_tampered_one(
    attack: str, contents: str, enemy: Enemy, tmp_path: Path
) -> None:
    asked = OUTSIDE[attack]
    if contents == "sealed":
        enemy = replace(enemy, overlay=sealed_overlay(enemy, packed(ETC, HOST)))
    code, said, reached = brd_verify(asked.make(enemy), enemy, tmp_path)
    assert code == 4
    if contents == "plain":
        assert asked.says in said
    assert reached <= asked.reaches


@pytest.mark.parametrize("attack", PAYLOADS)
def test_brd_verify_refuses_a_signed_payload(attack: str, enemy: Enemy, tmp_path: Path) -> None:
    code, said, reached = brd_verify(enemy.signed(PAYLOADS[attack]()), enemy, tmp_path)
    assert (code, reached) == (4, MEMBERS | {"zstd"})
    assert "hint: " in said


@pytest.mark.parametrize("attack", LISTINGS)
def test_brd_verify_refuses_a_signed_inventory(attack: str, enemy: Enemy, tmp_path: Path) -> None:
    data = enemy.signed(packed(ETC, HOST), LISTINGS[attack]())
    code, said, _ = brd_verify(data, enemy, tmp_path)
    assert code == 4
    assert "archive" not in said


def test_brd_verify_ends_on_a_signed_scope_of_many_wildcards(enemy: Enemy, tmp_path: Path) -> None:
    data = enemy.signed(packed(ETC, HOST, file(HOSTILE_PATH)), scope=HOSTILE_SCOPE)
    code, said, _ = brd_verify(data, enemy, tmp_path)
    assert code == 4
    assert "scope" in said


def test_brd_diff_ends_on_a_signed_scope_of_many_wildcards(enemy: Enemy, tmp_path: Path) -> None:
    line = b".%b type=dir mode=0755 uid=0 gid=0 time=0.000000000\n"
    listing = frame(b"#mtree\n" + ROOT + line % b"/srv" + line % HOSTILE_PATH)
    (tmp_path / "signers").write_text(enemy.signers)
    for name, listed in (("old", LISTING), ("new", listing)):
        data = enemy.signed(packed(ETC, HOST), listed, scope=HOSTILE_SCOPE)
        (tmp_path / f"{name}.brd").write_bytes(data)
    words = ("--trust", tmp_path / "signers")
    done = etsclone("brd", "diff", tmp_path / "old.brd", tmp_path / "new.brd", *words)
    assert "+ /srv (folder, 2 paths)" in done.out, done.err


# --- from the file to a tree ---------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    for name in ("etc/hostname", "etc/fstab", "etc/shadow", "root/x", "usr/x"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def test_a_rebuild_ends_on_a_signed_scope_of_many_wildcards(
    enemy: Enemy, trust: Trust, clone: Path
) -> None:
    for path in (os.fsdecode(HOSTILE_PATH[1:]), "srv" + "/a" * 60 + "/c"):
        (clone / path).mkdir(parents=True)
    rebuild(enemy.signed(packed(ETC, HOST), scope=HOSTILE_SCOPE), trust, clone)
    assert (clone / "etc/hostname").read_text() == "x"
    assert (clone / os.fsdecode(HOSTILE_PATH[1:])).is_dir()


def rebuild(data: bytes, trust: Trust, root: Path, limit: int = 8 * MIB) -> None:
    """From the file to the clone, as production does it."""
    with open_verified(io.BytesIO(data), trust, role="primary") as overlay:
        scope = overlay.header.scope
        with read_payload(overlay.payload(), scope, limit=limit) as payload:
            seen = scan(str(root), scope)
            plan = plan_tree(seen.scope, payload.tree, scope, seen.outside)
            apply_plan(str(root), plan, payload)


def test_the_same_way_a_sound_one_is_applied(enemy: Enemy, trust: Trust, clone: Path) -> None:
    rebuild(enemy.signed(packed(ETC, HOST, file(b"/etc/shadow", b"new"))), trust, clone)
    assert (clone / "etc/hostname").read_text() == "x"
    assert (clone / "etc/shadow").read_text() == "new"


# --- twins ---------------------------------------------------------------------------------------------------------

TWINS = {
    "case": (b"/etc/Hosts", b"/etc/hosts"),
    "case-of-a-folder": (b"/etc/A", b"/etc/a"),
    "unicode-composed": ("/etc/caf\u00e9".encode(), "/etc/cafe\u0301".encode()),
    "unicode-sharp-s": (b"/etc/STRASSE", "/etc/stra\u00dfe".encode()),
    "unicode-kelvin": (b"/etc/k", "/etc/\u212a".encode()),
}


@pytest.mark.parametrize("pair", TWINS)
def test_twins_are_two_where_the_filesystem_tells_them_apart(
    pair: str, enemy: Enemy, trust: Trust, clone: Path
) -> None:
    one, another = sorted(TWINS[pair])
    rebuild(enemy.signed(packed(ETC, file(one, b"one"), file(another, b"other"))), trust, clone)
    assert Path(os.fsdecode(os.fsencode(clone) + one)).read_bytes() == b"one"
    assert Path(os.fsdecode(os.fsencode(clone) + another)).read_bytes() == b"other"
    assert any("differs from" in warning for warning in scan(str(clone), SCOPE).warnings)


def test_what_is_no_twin() -> None:
    assert not twins([b"/a/x", b"/b/x", b"/a", b"/a.", b"/\xff", b"/\xfe", b"/a/y"])
    assert twins([b"/a/x", b"/A/x"]) == [(b"/a/x", b"/A/x")]
