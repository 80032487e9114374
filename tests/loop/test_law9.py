"""Law 9: secrets stay secret, whatever a system holds: in the store, in what a machine remembers, and in every log."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import stores
import zstandard
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from loop.small_system import etsclone, role_files
from loop.test_rebuild import ROLES, Pair, made, pair

__all__ = ["made", "pair"]

pytestmark = pytest.mark.loop

RECIPIENT = "age1kus9x94jaq9hu9rzt98rmtu58tcvjwuw0nx3etmf6hhyvf94pcvqpm74ae"
IDENTITY = Path(__file__).parents[1] / "golden/v1/test_identity"
ZSTD = bytes.fromhex("28b52ffd")

secrets = st.text("abcdefghijkmnpqrstuvwxyz23456789", min_size=20, max_size=20)
folders = st.sampled_from(["etc/dhcp", "etc/ssh", "etc", "home/me", "usr/share", "var/lib/x"])
modes = st.sampled_from([0o600, 0o640, 0o644, 0o4755])


@dataclass(frozen=True)
class Hidden:
    """Where a secret is: in the content of a file, among other text, or in its attributes, or in a symbolic link."""

    folder: str
    kind: str
    mode: int
    around: str


hidden = st.builds(
    Hidden,
    folders,
    st.sampled_from(["content", "attribute", "target", "name"]),
    modes,
    st.sampled_from(["{}", "password = {}\n", "{}\n" * 100, "\0{}\xff"]),
)


@contextmanager
def mounted_tree(folder: Path) -> Iterator[Path]:
    """The root of a mounted system."""
    root = folder / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", root], check=True)
    try:
        for path, text in (("etc/hostname", "srv1\n"), ("etc/fstab", ""), ("etc/passwd", "")):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


def hide(root: Path, places: dict[str, Hidden]) -> None:
    """Put each secret in its place."""
    for number, (secret, place) in enumerate(places.items()):
        name = secret if place.kind == "name" else f"{number}.conf"
        path = root / place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        text = place.around.replace("{}", secret)
        if place.kind == "target":
            path.symlink_to(text.replace("\0", "-")[:200])
            continue
        path.write_text(text if place.kind == "content" else "")
        path.chmod(place.mode)
        if place.kind == "attribute":
            os.setxattr(path, "trusted.token", text.encode()[:1000])


class Server:
    """A system that is captured, its store, and all that was said on the way."""

    def __init__(self, folder: Path, root: Path, *recipients: str) -> None:
        self.store, self.state, self.root = folder / "store", folder / "state", root
        self.key, self.said = folder / "key", ""
        init = [word for each in recipients for word in ("--recipient", each)]
        commands: tuple[tuple[str | Path, ...], ...] = (
            ("init", self.store, "--pair", "ets", "--profile", "ltsp-isc-dhcp", *init),
            ("keygen", self.key, "--no-passphrase"),
            ("trust", self.store, "--role", "primary", f"{self.key}.pub"),
        )
        for words in commands:
            assert stores.etsclone("brd", *words).code == 0

    def types(self, *words: str | Path) -> None:
        done = etsclone("-vv", *words, ETSCLONE_STATE=str(self.state))
        assert done.returncode == 0, done.stderr
        self.said += done.stdout + done.stderr

    def captures(self) -> None:
        key = ("--role", "primary", "--key", self.key)
        self.types("brd", "capture", self.store, *key, "--root", self.root)

    def looks(self, *more: str | Path) -> None:
        trust = ("--trust", self.store / "allowed_signers")
        self.types("brd", "verify", self.store, *trust, *more)
        self.types("brd", "list", self.store)


def open_to_others(top: Path) -> list[Path]:
    """The files of a folder that others than their owner may read."""
    return [path for path in files(top) if path.stat().st_mode & 0o077]


def files(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file()]


def readable(top: Path) -> bytes:
    """All that can be read in the files of a folder: as it is, and what can be decompressed."""
    found = b""
    for path in files(top):
        data = path.read_bytes()
        found += os.fsencode(path) + data
        for match in re.finditer(re.escape(ZSTD), data):
            with suppress(zstandard.ZstdError):
                found += (
                    zstandard.ZstdDecompressor().decompressobj().decompress(data[match.start() :])
                )
    return found


def shown(places: dict[str, Hidden], text: str | bytes) -> list[Hidden]:
    text = text.encode() if isinstance(text, str) else text
    return [place for secret, place in places.items() if secret.encode() in text]


NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""An example takes seconds."""

CANARY = ("thisisknowntobecaptured", Hidden("etc/dhcp", "content", 0o600, "{}"))
hoards = st.dictionaries(secrets, hidden, min_size=1, max_size=5)


@pytest.mark.parametrize("sealed", [False, True])
@settings(max_examples=3, phases=NO_SHRINKING)
@given(first=hoards, then=hoards)
def test_what_is_captured_stays_secret(
    tmp_path: Path, sealed: bool, first: dict[str, Hidden], then: dict[str, Hidden]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as name, mounted_tree(Path(name)) as root:
        first = dict((CANARY, *first.items()))
        hide(root, first)
        server = Server(Path(name), root, *([RECIPIENT] if sealed else []))
        server.captures()
        server.captures()
        hide(root, then)
        server.captures()
        identity: tuple[str | Path, ...] = ("--identity", IDENTITY) if sealed else ()
        server.looks(*identity)
        assert not open_to_others(server.store)
        assert not open_to_others(server.state)
        secret = first | then
        contents = {
            word: place for word, place in secret.items() if place.kind in ("content", "attribute")
        }
        assert not shown(contents, server.said)
        assert not shown(contents, readable(server.state))
        in_store = shown(secret, readable(server.store))
        assert (in_store == []) if sealed else (CANARY[1] in in_store)


def test_no_word_of_a_rebuild_shows_what_files_hold(pair: Pair, tmp_path: Path) -> None:
    clone, trust = pair.disk("secondary"), ("--trust", pair.trust)
    contents = [
        text.strip()
        for role in ROLES
        for path, text in role_files(role).items()
        if path.startswith(("etc/dhcp", "etc/ssh"))
    ]
    said = ""
    for words in (
        ("clone", pair.disk("primary"), tmp_path / "clone.raw", "--yes"),
        ("rebuild", clone, "--store", pair.store, "--role", "primary", "--yes", *trust),
        ("rebuild", clone, "--undo", "--yes"),
        ("brd", "diff", pair.store, "--brief", *trust),
        ("brd", "log", pair.store, "--role", "primary", *trust),
    ):
        done = etsclone("-vv", *words)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    assert "run: " in said  # it is as talkative as it can be
    assert not [text for text in contents if text in said]
    told = etsclone("brd", "diff", pair.store, *trust).stdout
    assert all(
        text in told for text in contents
    )  # who asks for it gets it: these are no secrets by name or mode
