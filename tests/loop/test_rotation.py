"""A key that takes the place of another: real captures with both, and rebuilds of what they signed."""

import json
import shutil
from pathlib import Path

import pytest
import stores
from stores import Result

from etsclone.commands import trust
from loop.small_system import etsclone
from loop.test_rebuild import Pair, content, made, ok, pair, rebuild, refuses

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop


def capture(pair: Pair, key: str) -> Result:
    """In this process: its lists can be others than those of this machine."""
    words = ("--role", "primary", "--key", pair.folder / key, "--disk", pair.disk("primary"))
    return stores.etsclone("brd", "capture", pair.store, *words, "--json")


@pytest.fixture
def rotated(pair: Pair) -> Pair:
    """A pair with two generations: the second was captured of the same system, with a new key."""
    assert (
        capture(pair, "primary.key").facts["generation"] == 2
    )  # this machine has not captured it before
    assert capture(pair, "primary.key").facts["unchanged"]
    ok("brd", "keygen", pair.folder / "new.key", "--no-passphrase")
    ok("brd", "trust", pair.store, "--role", "primary", pair.folder / "new.key.pub")
    third = capture(pair, "new.key")
    assert not third.facts["unchanged"], "whose key it is says what a generation is worth"
    assert third.facts["generation"] == 3
    assert capture(pair, "new.key").facts["unchanged"]
    at = third.facts["created"].translate({ord(letter): None for letter in "-:T"})
    old, new = ((pair.folder / f"{name}.key.pub").read_text() for name in ("primary", "new"))
    pair.trust.write_text(
        f'primary namespaces="brd@etsclone",valid-before="{at}" {old}'
        f'primary namespaces="brd@etsclone",valid-after="{at}" {new}'
    )
    return pair


def show(pair: Pair, number: int) -> str:
    overlay = pair.store / "primary" / f"primary-{number:06d}.brd"
    return str(json.loads(ok("brd", "show", overlay, "--json"))["signed_by"])


def test_what_both_keys_signed_comes_back(rotated: Pair) -> None:
    assert show(rotated, 2) != show(rotated, 3)
    clone = rotated.disk("secondary")
    for number in ("2", "3"):
        done = rebuild(rotated, clone, "primary", "--generation", number)
        assert done.returncode == 0, done.stderr
    assert content(clone)[b"/etc/hostname"].content == b"primary\n"


def test_after_the_old_key_is_revoked_the_new_one_stands_alone(
    rotated: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked = rotated.folder / "revoked_keys"
    shutil.copy(rotated.folder / "primary.key.pub", revoked)
    clone = rotated.disk("secondary")
    before = clone.read_bytes()
    option = ("--revoked", revoked)
    for more in (("--dry-run",), ()):
        done = rebuild(rotated, clone, "primary", "--generation", "2", *option, *more)
        refuses(done, 4, "signed by a revoked key")
    assert clone.read_bytes() == before
    verified = etsclone("brd", "verify", rotated.store, "--trust", rotated.trust, *option)
    refuses(verified, 4, "does not verify")
    assert show(rotated, 2) != show(rotated, 3)
    # The list of this system counts where nothing is named: on the server, whose captures go on.
    monkeypatch.setattr(trust, "SITE_REVOKED", Path(revoked))
    refused = capture(rotated, "primary.key")
    stores.refuses(refused, 3, "is revoked")
    assert capture(rotated, "new.key").facts["unchanged"]
    done = rebuild(rotated, clone, "primary", *option)
    assert done.returncode == 0, done.stderr
    assert content(clone)[b"/etc/hostname"].content == b"primary\n"
