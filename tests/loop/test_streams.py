"""Nobody reads what is printed any more: a capture and a rebuild are done all the same, and told to be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loop.test_rebuild import Pair, made, ok, pair

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop


def unread(*words: str | Path) -> int:
    """The exit code with a stdout and a stderr that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "etsclone", *map(str, words)]
    try:
        done = subprocess.run(argv, stdout=writer, stderr=writer, check=False, timeout=120)
    finally:
        os.close(writer)
    return done.returncode


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_what_nobody_reads_of_is_done(pair: Pair, more: tuple[str, ...]) -> None:
    clone, key = pair.disk("secondary"), pair.folder / "primary.key"
    store = ("--store", pair.store, "--role", "primary", "--trust", pair.trust)
    assert unread("-v", "-v", "rebuild", clone, *store, "--yes", *more) == 0
    assert "primary" in ok("check", clone, *store)
    ok("brd", "init", pair.folder / "new", "--pair", "school", "--profile", "ltsp-isc-dhcp")
    ok("brd", "trust", pair.folder / "new", "--role", "primary", f"{key}.pub")
    capture = ("capture", pair.folder / "new", "--role", "primary", "--key", key, "--disk", clone)
    assert unread("-v", "-v", "brd", *capture, *more) == 0
    assert (pair.folder / "new/primary/primary-000001.brd").exists()
