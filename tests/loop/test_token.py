"""A server whose key is in a hardware token, without an agent: its captures, as a user types them."""

from pathlib import Path

import pytest
from agents import SoftToken, plugged_in, write_token_key

from etsclone.overlay.trust import public_key_line
from loop.small_system import etsclone
from loop.test_rebuild import Pair, content, made, ok, pair, rebuild, refuses

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop


def test_a_token_signs_captures_and_checks(pair: Pair, tmp_path: Path) -> None:
    token, key = SoftToken(), tmp_path / "id_ed25519_sk"
    write_token_key(key, token)
    public = key.with_suffix(".pub")
    public.write_text(public_key_line(token.public_key, "a token"))
    ok("brd", "trust", pair.store, "--role", "primary", public)
    pair.trust.write_bytes((pair.store / "allowed_signers").read_bytes())
    where = ("--role", "primary", "--disk", pair.disk("primary"))
    with plugged_in(tmp_path, token) as environment:
        for named, said in ((key, "generation 2 of primary"), (public, "is unchanged since")):
            done = etsclone("brd", "capture", pair.store, *where, "--key", named, **environment)
            assert done.returncode == 0, done.stderr
            assert said in done.stdout
            assert "touch it if it blinks" in done.stderr
    assert token.counter == 43, "it signed twice"
    before = sorted(path.name for path in (pair.store / "primary").iterdir())
    refuses(
        etsclone("brd", "capture", pair.store, *where, "--key", key, **environment),
        3,
        "did not sign",
    )
    assert sorted(path.name for path in (pair.store / "primary").iterdir()) == before
    ok("brd", "verify", pair.store, "--trust", pair.trust)
    ok("brd", "check", pair.store, "--role", "primary", "--max-age", "1h", "--trust", pair.trust)
    done = rebuild(pair, pair.disk("secondary"), "primary")
    assert done.returncode == 0, done.stderr
    assert content(pair.disk("secondary"))[b"/etc/hostname"].content == b"primary\n"
