"""`brd init --recipient`, `brd recipients` and `brd show`, as they are typed."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_commands import run_cli

from etsclone.commands.brd import recipients
from etsclone.commands.brd.recipients import site_checked
from etsclone.errors import KeyRefused, StoreRefused
from etsclone.model.brd import CloneIdentity, Header
from etsclone.model.scope import Scope
from etsclone.overlay.container import measure, write_overlay
from etsclone.overlay.header import SEALED_MEMBERS
from etsclone.overlay.signing import generate_key, load_private_key
from etsclone.store.folder import Store, open_store

AGE = "age1qvr3y2l0e0ec2cekkke2zxce75wg2mkrxcwp0p07q8a8trghafkqg9pvcv"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICk113kggmCce96wcJSJxHX6XE6q4pXTaQAINM8qlCKJ the safe"
SSH_KEY = SSH.removesuffix(" the safe")
OTHER = "age1lfuctsul7jq4va80lawa4vyesf6tedd7ztn6ksjzc40a5tl9sp3qty9c5h"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list of this server, which does not exist yet."""
    path = tmp_path / "site-recipients"
    monkeypatch.setattr(recipients, "SITE_RECIPIENTS", path)
    return path


@pytest.fixture
def init(tmp_path: Path, site: Path) -> Callable[..., Store]:
    """Make a store with these options."""
    assert not site.exists()

    def make(*options: str) -> Store:
        words = ("brd", "init", str(tmp_path / "store"), "--pair", "ets")
        assert run_cli(*words, "--profile", "ltsp-isc-dhcp", *options) == 0
        return open_store(tmp_path / "store")

    return make


def test_a_store_seals_to_keys_and_to_files_of_keys(
    init: Callable[..., Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").write_text(f"# two\n{AGE}\n\n{SSH}\n")
    store = init("--recipient", OTHER, "--recipient", str(tmp_path / "keys"), "--recipient", AGE)
    assert store.recipients == (OTHER, AGE, SSH)
    said = capsys.readouterr().out
    assert all(f"sealed to {line}\n" in said for line in store.recipients)


def test_a_store_without_recipients_says_so(
    init: Callable[..., Store], capsys: pytest.CaptureFixture[str]
) -> None:
    assert init().recipients == ()
    assert "is not sealed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ("ssh-rsa AAAAB3NzaC1yc2E", 3, "only ssh-ed25519"),
        ("ecdsa-sha2-nistp256 AAAA", 3, "only ssh-ed25519"),
        ("age1", 3, "can be sealed to"),
        ("AGE-SECRET-KEY-1QQQ", 3, "a secret key was given"),
        (
            "/nowhere/keys",
            2,
            "cannot read recipients from /nowhere/keys: it does not exist\nhint: ",
        ),
    ],
)
def test_a_bad_recipient_makes_no_store(
    value: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("brd", "init", str(tmp_path / "store"), "--pair", "ets", "--profile", "ltsp-isc-dhcp")
    assert run_cli(*words, "--recipient", value) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_recipients_are_listed_added_and_removed(
    init: Callable[..., Store], capsys: pytest.CaptureFixture[str]
) -> None:
    store = init("--recipient", AGE)
    words = ("brd", "recipients", str(store.path))
    assert run_cli(*words, "--add", SSH, "--add", OTHER, "--remove", AGE) == 0
    assert open_store(store.path).recipients == (SSH, OTHER)
    capsys.readouterr()
    assert run_cli(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"recipients": [SSH, OTHER]}
    assert run_cli(*words, "--remove", SSH_KEY) == 0  # its comment does not matter
    assert open_store(store.path).recipients == (OTHER,)


def test_the_last_recipient_stays(
    init: Callable[..., Store], capsys: pytest.CaptureFixture[str]
) -> None:
    store = init("--recipient", AGE)
    words = ("brd", "recipients", str(store.path), "--remove")
    assert run_cli(*words, AGE) == 3
    assert "the last recipient cannot be removed" in capsys.readouterr().err
    assert run_cli(*words, OTHER) == 2
    assert f"nothing is sealed to {OTHER}" in capsys.readouterr().err
    assert open_store(store.path).recipients == (AGE,)


def test_what_a_change_does_not_change_is_told(
    init: Callable[..., Store], capsys: pytest.CaptureFixture[str]
) -> None:
    store = init()
    with store.new_overlay("primary") as new:
        new.commit()
    words = ("brd", "recipients", str(store.path))
    capsys.readouterr()
    assert run_cli(*words) == 0
    assert "not sealed" in capsys.readouterr().out
    assert run_cli(*words, "--add", AGE) == 0
    assert (
        "nothing is sealed of the 1 generation so far, and that stays so" in capsys.readouterr().out
    )
    assert run_cli(*words, "--add", OTHER, "--remove", AGE) == 0
    said = capsys.readouterr().out
    assert "can still be opened by whom you removed" in said
    assert "cannot be opened by whom you added" in said


def test_this_servers_own_list_is_out_of_the_stores_reach(
    init: Callable[..., Store], site: Path
) -> None:
    sealing = init("--recipient", SSH)
    assert site_checked(sealing) == (SSH,)
    site.write_text(f"# ours\n{SSH_KEY} another comment\n{AGE}\n")
    assert site_checked(sealing) == (SSH,)
    with pytest.raises(StoreRefused, match=f"the store seals to {OTHER}"):
        site_checked(replace(sealing, recipients=(SSH, OTHER)))
    with pytest.raises(StoreRefused, match="the store seals to nobody"):
        site_checked(replace(sealing, recipients=()))
    site.write_text("# nothing\n")
    with pytest.raises(KeyRefused, match="no public key in it"):
        site_checked(sealing)


def test_show_tells_what_it_can_without_the_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate_key(tmp_path / "key")
    path = tmp_path / "primary-000001.brd"
    contents = [b"sealed payload", b"sealed inventory"]
    members = (
        measure(name, io.BytesIO(data)) for name, data in zip(SEALED_MEMBERS, contents, strict=True)
    )
    header = Header(
        pair="ets",
        role="primary",
        host="srv1",
        profile="p",
        profile_sha256="0" * 64,
        scope=Scope(("/etc/hostname",)),
        generation=1,
        created=datetime.now(UTC).replace(microsecond=0) - timedelta(days=3, hours=2),
        previous=None,
        clone=CloneIdentity(),
        members=tuple(members),
    )
    with path.open("wb") as file:
        key = load_private_key(tmp_path / "key", bytes)
        write_overlay(file, header, key.sign, *(io.BytesIO(data) for data in contents))
    assert run_cli("brd", "show", str(path), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["role"], facts["generation"], facts["sealed"]) == ("primary", 1, True)
    assert 0 <= facts["age"] - (3 * 24 + 2) * 3600 < 3600
    assert facts["size"] == path.stat().st_size
    assert [(each["name"], each["size"]) for each in facts["members"]] == [
        ("payload.tar.zst.age", 14),
        ("inventory.mtree.zst.age", 16),
    ]
    assert run_cli("brd", "show", str(path)) == 0
    said = capsys.readouterr().out
    assert "age  3 days, 2:0" in said
    assert "sealed  yes: a recovery key opens it" in said
    assert "payload.tar.zst.age 14" in said
