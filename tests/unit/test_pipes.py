"""What somebody names on the command line may be a pipe: read to its end, once, and no more of it than of a file."""

import os
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etsclone.commands.brd.recipients import given_recipients
from etsclone.commands.trust import load_revoked, load_trust
from etsclone.commands.unlock import given_keys
from etsclone.errors import EtscloneError, TrustRefused
from etsclone.overlay.heldkey import load_key
from etsclone.overlay.sealing import load_identities
from etsclone.overlay.signing import generate_key
from etsclone.regular import UnfitFileError, read_given

GOLDEN = Path(__file__).parents[1] / "golden/v1"
TRUSTED = GOLDEN / "allowed_signers"


@contextmanager
def piped(data: bytes) -> Iterator[Path]:
    """A pipe without a name that holds some bytes, as a shell makes one of `<(...)`."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    try:
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)


def test_a_pipe_is_read_once_and_remembered() -> None:
    with piped(b"12345") as path:
        assert [read_given(path, 5) for _ in range(2)] == [b"12345"] * 2


def test_for_what_is_written_into_a_pipe_with_a_name_is_waited(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[b"12345"])
    writer.start()
    assert read_given(tmp_path / "pipe", 5) == b"12345"
    writer.join()


def test_an_endless_pipe_ends_at_the_limit() -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout
        with pytest.raises(UnfitFileError, match="it has more than 100000 bytes"):
            read_given(Path(f"/dev/fd/{endless.stdout.fileno()}"), 100_000)
        endless.kill()


def test_nothing_else_is_read(tmp_path: Path) -> None:
    keyboard, terminal = os.openpty()
    try:
        for device in ("/dev/zero", "/dev/null", f"/dev/fd/{terminal}"):
            with pytest.raises(UnfitFileError, match="it is a device"):
                read_given(Path(device), 5)
    finally:
        os.close(keyboard)
        os.close(terminal)
    with pytest.raises(UnfitFileError, match="it is a folder"):
        read_given(tmp_path, 5)
    (tmp_path / "link").symlink_to(TRUSTED)
    assert read_given(tmp_path / "link", 10_000) == TRUSTED.read_bytes()


READERS: dict[str, tuple[Callable[[Path], object], Path]] = {
    "--trust": (load_trust, TRUSTED),
    "--identity": (lambda path: len(load_identities(path, bytes).keys), GOLDEN / "test_identity"),
    "--key-file": (lambda path: given_keys(Namespace(key_file=path)).given, TRUSTED),
}


@pytest.mark.parametrize("option", READERS)
def test_what_is_given_by_a_pipe_is_as_from_a_file(option: str) -> None:
    read, file = READERS[option]
    with piped(file.read_bytes()) as path:
        assert read(path) == read(file)
    with pytest.raises(EtscloneError, match="it is a device"):
        read(Path("/dev/zero"))


def test_keys_are_read_from_pipes(tmp_path: Path) -> None:
    line = generate_key(tmp_path / "key")
    with piped((tmp_path / "key").read_bytes()) as path:
        assert load_key(path, bytes).public_key == load_key(tmp_path / "key", bytes).public_key
    with piped(line.encode()) as path:
        assert len(load_revoked(path)) == 1
    with piped(line.encode()) as path:
        assert given_recipients([str(path)]) == (line.strip(),)


def test_nobody_waits_for_a_pipe_in_a_store(tmp_path: Path) -> None:
    (tmp_path / "brd.toml").touch()
    os.mkfifo(tmp_path / "allowed_signers")
    for named in (tmp_path / "allowed_signers", tmp_path / "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("allowed_signers")
        with pytest.raises(TrustRefused, match="it is a named pipe"):
            load_trust(named)
        with pytest.raises(TrustRefused, match="it is a named pipe"):
            load_revoked(named)


@pytest.mark.parametrize(
    "line",
    [
        '"$@" --trust <(cat "$trusted") --revoked <(true)',
        'cat "$trusted" | "$@" --trust /dev/stdin',
        '"$@" --trust /dev/stdin < "$trusted"',
    ],
)
def test_as_typed(line: str) -> None:
    """Both sides of a comparison are held against the list."""
    sides = (GOLDEN / "primary-000003.brd", GOLDEN / "whole-primary-000006.brd")
    words: list[str | Path] = [sys.executable, "-m", "etsclone", "brd", "diff", *sides]
    done = subprocess.run(
        ["bash", "-c", line, "bash", *words],
        env=os.environ | {"trusted": str(TRUSTED)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
