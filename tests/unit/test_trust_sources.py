"""Where trust comes from, and where revocations do."""

from pathlib import Path

import pytest

from etsclone.commands import trust
from etsclone.commands.trust import load_trust
from etsclone.errors import TrustRefused

FIRST = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICk113kggmCce96wcJSJxHX6XE6q4pXTaQAINM8qlCKJ"
SECOND = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH2LZqDPQk7lFHnqDFk8aOlBHsju5uhu+qB3CGQA4r13"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this system's lists; both are missing yet."""
    monkeypatch.setattr(trust, "SITE_SIGNERS", tmp_path / "allowed_signers")
    monkeypatch.setattr(trust, "SITE_REVOKED", tmp_path / "revoked_keys")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.usefixtures("site")
def test_without_any_list_nobody_is_trusted() -> None:
    with pytest.raises(TrustRefused, match="nothing to trust"):
        load_trust(None)


def test_this_systems_lists_count(site: Path) -> None:
    write(site / "allowed_signers", f"primary {FIRST}\n")
    assert not load_trust(None).revoked
    write(site / "revoked_keys", f"{SECOND} stolen\n")
    found = load_trust(None)
    assert (len(found.listings), len(found.revoked)) == (1, 1)
    # Its revocations count whoever else says whom to trust.
    named = write(site / "named", f"secondary {SECOND}\n")
    assert load_trust(named).revoked == found.revoked
    assert [listing.principals for listing in load_trust(named).listings] == ["secondary"]


def test_a_named_list_of_revoked_keys_takes_the_place_of_this_systems(site: Path) -> None:
    write(site / "allowed_signers", f"primary {FIRST}\n")
    write(site / "revoked_keys", "nonsense\n")
    with pytest.raises(TrustRefused, match="/revoked_keys: line 1 of the revoked keys"):
        load_trust(None)
    assert len(load_trust(None, revoked=write(site / "mine", f"{FIRST}\n{SECOND}")).revoked) == 2
    with pytest.raises(TrustRefused, match="no list of revoked keys"):
        load_trust(None, revoked=site / "none")


def test_a_clones_lists_count_only_without_one_of_this_system(site: Path) -> None:
    inside = (f"primary {FIRST}\n", f"{SECOND}\n")
    assert len(load_trust(None, inside=inside).revoked) == 1
    write(site / "revoked_keys", f"{FIRST}\n")
    both = load_trust(None, inside=inside)
    assert (len(both.listings), len(both.revoked)) == (1, 2)
    write(site / "allowed_signers", f"secondary {FIRST}\n")
    own = load_trust(None, inside=inside)
    assert [listing.principals for listing in own.listings] == ["secondary"]
    assert len(own.revoked) == 1


def test_a_list_that_cannot_be_used_is_named(site: Path) -> None:
    bad = write(site / "bad", f"# mine\nprimary {FIRST[:40]}\n")
    with pytest.raises(TrustRefused, match="/bad: line 2 of the allowed signers") as caught:
        load_trust(bad)
    assert caught.value.hint
    with pytest.raises(TrustRefused, match="in the clone: line 2 of the allowed signers"):
        load_trust(None, inside=(bad.read_text(), ""))
    bad.write_bytes(b"\xff")
    with pytest.raises(TrustRefused, match="/bad: it is no text"):
        load_trust(bad)


def test_a_list_that_cannot_be_read_is_no_empty_one(site: Path) -> None:
    write(site / "allowed_signers", f"primary {FIRST}\n")
    (site / "revoked_keys").write_bytes(b"SSHKRL\n\0\xff\xfe")
    with pytest.raises(TrustRefused, match="cannot read the list of revoked keys") as caught:
        load_trust(None)
    assert "KRL" in caught.value.hint
    (site / "revoked_keys").unlink()
    (site / "revoked_keys").mkdir()
    with pytest.raises(TrustRefused, match="cannot read the list of revoked keys"):
        load_trust(None)
