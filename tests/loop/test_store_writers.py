"""Several etsclones at one store: a writer keeps other writers out, readers never wait, and nothing is lost."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from agents import SoftToken, token_agent
from stores import (
    ROLES,
    Made,
    check,
    contents,
    copy,
    etsclone,
    generation,
    make,
    make_keys,
    prune,
    refuses,
    verify,
)

from etsclone.overlay.trust import add_signer, public_key_line
from loop.small_system import mounted_system, write_tree

pytestmark = pytest.mark.loop

PATIENCE = 60


@dataclass
class WaitingToken(SoftToken):
    """A token that waits to be touched."""

    asked: threading.Event = field(default_factory=threading.Event)
    touched: threading.Event = field(default_factory=threading.Event)

    def sign(self, data: bytes) -> bytes:
        self.asked.set()
        assert self.touched.wait(PATIENCE)
        return super().sign(data)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A store with two generations of each role."""
    made = make(tmp_path / "store", make_keys(tmp_path))
    for role in ROLES:
        for _ in range(2):
            made.capture(role)
    return made


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Path]:
    with mounted_system(tmp_path / "system") as tree:
        yield tree


def capture(made: Made, role: str, key: Path, system: Path) -> tuple[str | Path, ...]:
    return ("brd", "capture", made.path, "--role", role, "--key", key, "--root", system)


def started(*words: str | Path, **environment: str) -> subprocess.Popen[str]:
    """A real etsclone, at work."""
    argv = [sys.executable, "-m", "etsclone", *map(str, words)]
    return subprocess.Popen(
        argv,
        env=os.environ | environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_while_one_captures_others_only_read(made: Made, system: Path, tmp_path: Path) -> None:
    token, key = WaitingToken(), tmp_path / "token.pub"
    key.write_text(public_key_line(token.public_key, "a token"))
    made.trust.write_text(add_signer(made.trust.read_text(), "primary", key.read_text()))
    second = made.at(Path(shutil.copytree(made.path, tmp_path / "second")))
    second.capture()
    before = contents(made.path)
    with (
        token_agent(tmp_path, token) as agent,
        started(*capture(made, "primary", key, system), SSH_AUTH_SOCK=str(agent)) as first,
    ):
        assert token.asked.wait(PATIENCE)
        for result in (
            *(etsclone(*capture(made, role, tmp_path / role, system)) for role in ROLES),
            prune(made, "--keep-last", "1", "--yes"),
            copy(second, made.path),
            etsclone("brd", "trust", made.path, "--role", "secondary", key),
        ):
            refuses(result, 3, f"another process is writing to {made.path}")
            assert "hint: run the same command again when it has finished; lslocks(8)" in result.err
            holder = subprocess.run(
                ["lslocks", "--raw"], capture_output=True, text=True, check=True
            )
            lines = [line for line in holder.stdout.splitlines() if line.endswith("store/.lock")]
            assert any(line.split()[1] == str(first.pid) for line in lines)
        written = {name: data for name, data in contents(made.path).items() if ".new" not in name}
        assert written == before
        assert verify(made).code == 0
        assert check(made, "1000w").code == 0
        assert copy(made, tmp_path / "third").code == 0
        assert contents(tmp_path / "third") == before
        # A receipt of a rebuild is kept all the same: that role may be needed now.
        made.store.write_receipt("rebuild.json", b"{}")
        token.touched.set()
        assert first.wait(PATIENCE) == 0, first.communicate()
    assert generation(made, 3).exists()
    assert verify(made).code == 0
    assert etsclone(*capture(made, "secondary", tmp_path / "secondary", system)).code == 0


def test_captures_prunings_and_copies_at_once(made: Made, system: Path, tmp_path: Path) -> None:
    words: dict[str, tuple[str | Path, ...]] = {
        role: capture(made, role, tmp_path / role, system) for role in ROLES
    }
    trust = ("--trust", made.trust)
    words["prune"] = ("brd", "prune", made.path, "--keep-last", "2", "--yes", *trust)
    words["copy"] = ("brd", "copy", made.path, tmp_path / "copy", *trust)
    captured = dict.fromkeys(ROLES, 2)
    for number in range(6):
        write_tree(system, {"etc/hosts": f"127.0.0.1 host{number}\n"})
        running = {name: started(*each) for name, each in words.items()}
        for name, process in running.items():
            _, err = process.communicate(timeout=PATIENCE)
            assert process.returncode in (0, 3), (name, err)
            assert process.returncode == 0 or "hint: " in err
            if name in ROLES:
                captured[name] += process.returncode == 0
        for role in ROLES:
            assert [item.number for item in made.store.history(role)] == [
                *range(1, captured[role] + 1)
            ]
        assert verify(made).code == 0
    assert copy(made, tmp_path / "copy").code == 0
    assert verify(made.at(tmp_path / "copy")).code == 0
