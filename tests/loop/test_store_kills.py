"""Capture, prune and copy, killed before each of their changes and at random moments: nothing is ever lost."""

import fcntl
import importlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from stores import (
    START,
    Made,
    contents,
    etsclone,
    flaws,
    generation,
    make,
    make_keys,
    prune,
)

from etsclone.overlay.checked import Check, open_check
from etsclone.overlay.trust import Trust
from loop.killing import run_killed, run_killed_after, run_timed
from loop.small_system import mounted_system, write_tree

pytestmark = pytest.mark.loop

KILLED = -signal.SIGKILL
CHECKED = "primary/primary.checked"
LATER = START + timedelta(hours=1)


@dataclass(frozen=True)
class Story:
    """A command, what it begins with, what must hold however it ended, and how often it is killed with --full."""

    words: tuple[str | Path, ...]
    begin: Callable[[], None]
    check: Callable[[], None]
    check_done: Callable[[], None]
    moments: int = 200


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Import the commands once, not in every process that is to be killed: its moments are for its work."""
    for name in ("capture", "copy", "prune", "verify"):
        importlib.import_module(f"etsclone.commands.brd.{name}")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store with six generations of the primary and two of the secondary, both found unchanged since."""
    folder = tmp_path_factory.mktemp("kills")
    made = make(folder / "store", make_keys(folder))
    for number in range(6):
        made.capture("primary", content=os.urandom(200_000 + number))
    for _ in range(2):
        made.capture("secondary")
    for role in ("primary", "secondary"):
        made.check(role, LATER)
    return made


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Path]:
    """A system to capture."""
    with mounted_system(tmp_path / "system") as tree:
        yield tree


def verified(path: Path, trust: Path, folder: Path, *more: str | Path) -> None:
    """The store verifies, for a machine that has not seen it before; or there is no store or generation yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETSCLONE_STATE", str(folder / "nothing seen"))
        result = etsclone("brd", "verify", path, "--trust", trust, "--json", *more)
        shutil.rmtree(folder / "nothing seen", ignore_errors=True)
    if result.code != 0:
        assert not list(path.glob("*/*.brd")), result
        assert not (path / "brd.toml").exists() or "holds no overlay yet" in result.err


def none_left_aside(path: Path) -> None:
    assert [name for name in contents(path) if name.endswith(".new")] == []


def overlays(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(path).items() if name.endswith(".brd")}


def others(path: Path) -> dict[str, bytes]:
    """All of a store but overlays, the primary's check record, and what killed writers left."""
    found = contents(path).items()
    return {name: data for name, data in found if not name.endswith((".brd", ".new", CHECKED))}


def checked(store: Path, trust: Path) -> Check:
    """The primary's check record, which verifies."""
    believed = Trust.parse(trust.read_text())
    return open_check(store / CHECKED, believed, pair="ets", role="primary")


def as_now(store: Path) -> Callable[[], None]:
    """What brings back the store, and what this machine remembers, as they are now; or are not."""
    folders = (store, Path(os.environ["ETSCLONE_STATE"]))
    pairs = [(folder, folder.with_name(f"{folder.name}.kept")) for folder in folders]
    for folder, kept in pairs:
        if folder.exists():
            shutil.copytree(folder, kept)

    def begin() -> None:
        wait_for_writers(store)
        for folder, kept in pairs:
            shutil.rmtree(folder, ignore_errors=True)
            if kept.exists():
                shutil.copytree(kept, folder)

    return begin


def capture(store: Path, key: Path, system: Path) -> tuple[str | Path, ...]:
    return ("brd", "capture", store, "--role", "primary", "--key", key, "--root", system)


@pytest.fixture
def captured(pristine: Made, tmp_path: Path, system: Path) -> Story:
    store = Path(shutil.copytree(pristine.path, tmp_path / "store"))
    before, rest = overlays(store), others(store)

    def check() -> None:
        wait_for_writers(store)
        after = overlays(store)
        assert before.items() <= after.items()
        assert len(after) - len(before) <= 2
        assert others(store) == rest
        assert checked(store, pristine.trust).generation in (6, 7)
        verified(store, pristine.trust, tmp_path)

    def check_done() -> None:
        check()
        none_left_aside(store)
        # Killed after the generation had its name, but before this machine had noted it, it is captured once more.
        assert 1 <= len(overlays(store)) - len(before) <= 2

    words = capture(store, pristine.path.parent / "primary", system)
    return Story(words, as_now(store), check, check_done)


@pytest.fixture
def unchanged(pristine: Made, tmp_path: Path, system: Path) -> Story:
    """A capture that finds what this machine has captured before, and says so in place of an older word of it."""
    there = pristine.at(Path(shutil.copytree(pristine.path, tmp_path / "store")))
    store, words = there.path, capture(there.path, pristine.path.parent / "primary", system)
    assert run_killed(0, *words) == 0
    there.check("primary", LATER)
    before, rest, old = overlays(store), others(store), checked(store, pristine.trust)
    assert old.generation == 7

    def check() -> None:
        wait_for_writers(store)
        assert (overlays(store), others(store)) == (before, rest)
        found = checked(store, pristine.trust)
        assert (found.generation, found.digest) == (old.generation, old.digest)
        assert found.checked >= old.checked
        verified(store, pristine.trust, tmp_path)

    def check_done() -> None:
        check()
        none_left_aside(store)
        assert checked(store, pristine.trust).checked > old.checked

    return Story(words, as_now(store), check, check_done, moments=50)


@pytest.fixture
def sealed(pristine: Made, tmp_path: Path, system: Path) -> Story:
    """A capture into a store with a recipient, who opens every generation and reads it to its end."""
    key, recovery = pristine.path.parent / "primary", tmp_path / "recovery"
    made = make(tmp_path / "store", pristine.keys)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", recovery], check=True)
    assert etsclone("brd", "recipients", made.path, "--add", f"{recovery}.pub").code == 0
    store, words = made.path, capture(made.path, key, system)
    assert run_killed(0, *words) == 0
    write_tree(system, {"etc/hosts": "127.0.0.1 changed\n"})
    before, rest = overlays(store), others(store)

    def check() -> None:
        wait_for_writers(store)
        after = overlays(store)
        assert before.items() <= after.items()
        assert others(store) == rest
        assert not any(b"payload.tar.zst.age" not in data for data in after.values())
        verified(store, pristine.trust, tmp_path, "--identity", recovery)

    def check_done() -> None:
        check()
        none_left_aside(store)
        assert 1 <= len(overlays(store)) - len(before) <= 2

    return Story(words, as_now(store), check, check_done, moments=50)


@pytest.fixture
def pruned(pristine: Made, tmp_path: Path) -> Story:
    store = Path(shutil.copytree(pristine.path, tmp_path / "store"))
    before = contents(pristine.path)
    stays = {name for name in before if not name.endswith(".brd")}
    stays |= {"primary/primary-000005.brd", "primary/primary-000006.brd"}
    stays |= {"secondary/secondary-000001.brd", "secondary/secondary-000002.brd"}

    def check() -> None:
        after = contents(store)
        for name, data in before.items():
            if name in stays or name in after:
                assert after[name] == data
            else:
                header = after[name.replace(".brd", ".header")]
                assert data.startswith(header)
        verified(store, pristine.trust, tmp_path)

    def check_done() -> None:
        check()
        none_left_aside(store)
        assert set(overlays(store)) == {name for name in stays if name.endswith(".brd")}
        assert all(path.stat().st_size < 10_000 for path in store.glob("*/*.header"))

    words = ("brd", "prune", store, "--keep-last", "2", "--trust", pristine.trust, "--yes")
    return Story(words, as_now(store), check, check_done)


@pytest.fixture
def copied(pristine: Made, tmp_path: Path) -> Story:
    target = tmp_path / "target"
    before = contents(pristine.path)
    records = {name for name in before if name.endswith(".checked")}

    def check() -> None:
        assert contents(pristine.path) == before
        after = contents(target) if target.exists() else {}
        for name in records | overlays(pristine.path).keys():
            assert after.get(name, before[name]) == before[name]
        verified(target, pristine.trust, tmp_path)

    def check_done() -> None:
        assert contents(target) == before
        check()

    words = ("brd", "copy", pristine.path, target, "--trust", pristine.trust)
    return Story(words, as_now(target), check, check_done)


@pytest.fixture
def mended(pristine: Made, tmp_path: Path) -> Story:
    """A copy into a store that was pruned, has lost a generation, lacks the newest, and has older settings."""
    there = pristine.at(Path(shutil.copytree(pristine.path, tmp_path / "target")))
    source, target = contents(pristine.path), there.path
    assert prune(there, "--keep-last", "4", "--yes").code == 0
    generation(there, 4).unlink()
    generation(there, 2, "secondary").unlink()
    for role in ("primary", "secondary"):
        there.check(role, START)
    there.trust.write_text(there.trust.read_text() + "# as it was\n")
    before = contents(target)
    gone = {f"primary/primary-00000{number}.brd" for number in (1, 2)}
    done = {name: data for name, data in (before | source).items() if name not in gone}

    def check() -> None:
        assert contents(pristine.path) == source
        after = {name: data for name, data in contents(target).items() if ".new" not in name}
        assert before.keys() <= after.keys() <= done.keys()
        assert all(data in (before.get(name), done[name]) for name, data in after.items())
        found = etsclone("brd", "verify", target, "--trust", pristine.trust, "--json")
        assert flaws(found) in ([], [("gap", "primary", 4)])

    def check_done() -> None:
        assert contents(target) == done
        check()
        verified(target, pristine.trust, tmp_path)

    words = ("brd", "copy", pristine.path, target, "--take-settings", "--trust", pristine.trust)
    return Story(words, as_now(target), check, check_done, moments=50)


@pytest.fixture(params=["captured", "unchanged", "sealed", "pruned", "copied", "mended"])
def story(request: pytest.FixtureRequest) -> Story:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Story)
    return found


def test_killed_before_every_change(story: Story) -> None:
    moment = 1
    story.begin()
    while (code := run_killed(moment, *story.words)) == KILLED:
        story.check()
        assert run_killed(0, *story.words) == 0
        story.check_done()
        story.begin()
        moment += 1
    assert code == 0
    assert moment > 8
    story.check_done()


@pytest.mark.timeout(1200)
def test_killed_at_random_moments(story: Story, full: bool) -> None:
    wanted = story.moments if full else story.moments // 4
    story.begin()
    seconds = run_timed(*story.words)
    moments = random.Random(seconds)
    killed = 0
    while killed < wanted:
        story.begin()
        code = run_killed_after(moments.uniform(0, seconds), *story.words)
        assert code in (0, KILLED)
        killed += code == KILLED
        story.check()
        assert run_killed(0, *story.words) == 0
        story.check_done()


def test_killed_again_and_again_it_gets_done(copied: Story) -> None:
    copied.begin()
    while (code := run_killed(25, *copied.words)) == KILLED:
        copied.check()
    assert code == 0
    copied.check_done()


def wait_for_writers(store: Path) -> None:
    """The process inside the captured system ends soon after its killed parent; until then it has the lock."""
    if not store.exists():
        return
    with open(store / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
