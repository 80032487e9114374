"""Capture, prune and copy, killed before each of their changes and at random moments: nothing is ever lost."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from stores import Made, contents, etsclone, make, make_keys

from loop.killing import run_killed, run_killed_after, run_timed
from loop.small_system import common_files, role_files, write_tree

pytestmark = pytest.mark.loop

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Story:
    """A command, what it begins with, and what must hold however it ended."""

    words: tuple[str | Path, ...]
    begin: Callable[[], None]
    check: Callable[[], None]
    check_done: Callable[[], None]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store with six generations of the primary and two of the secondary."""
    folder = tmp_path_factory.mktemp("kills")
    made = make(folder / "store", make_keys(folder))
    for number in range(6):
        made.capture("primary", content=os.urandom(200_000 + number))
    for _ in range(2):
        made.capture("secondary")
    return made


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Path]:
    """A system to capture."""
    tree = tmp_path / "system"
    tree.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "system", tree], check=True)
    write_tree(tree, common_files() | role_files("primary"))
    for folder in ("boot", "dev", "proc", "sys", "run", "tmp", "home"):
        (tree / folder).mkdir(exist_ok=True)
    yield tree
    subprocess.run(["umount", tree], check=True)


def verified(path: Path, trust: Path, folder: Path) -> None:
    """The store verifies, for a machine that has not seen it before; or there is no store or generation yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETSCLONE_STATE", str(folder / "nothing seen"))
        result = etsclone("brd", "verify", path, "--trust", trust, "--json")
        shutil.rmtree(folder / "nothing seen", ignore_errors=True)
    if result.code != 0:
        assert not list(path.glob("*/*.brd")), result
        assert not (path / "brd.toml").exists() or "holds no overlay yet" in result.err


def none_left_aside(path: Path) -> None:
    assert [name for name in contents(path) if name.endswith(".new")] == []


def overlays(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(path).items() if name.endswith(".brd")}


@pytest.fixture
def captured(pristine: Made, tmp_path: Path, system: Path) -> Story:
    store = tmp_path / "store"
    before = overlays(pristine.path)

    def begin() -> None:
        _wait_for_writers(store)
        shutil.rmtree(store, ignore_errors=True)
        shutil.rmtree(os.environ["ETSCLONE_STATE"], ignore_errors=True)
        shutil.copytree(pristine.path, store)

    def check() -> None:
        _wait_for_writers(store)
        after = overlays(store)
        assert before.items() <= after.items()
        assert len(after) - len(before) <= 2
        verified(store, pristine.trust, tmp_path)

    def check_done() -> None:
        check()
        none_left_aside(store)
        # Killed after the generation had its name, but before this machine had noted it, it is captured once more.
        assert 1 <= len(overlays(store)) - len(before) <= 2

    key = pristine.path.parent / "primary"
    words = ("brd", "capture", store, "--role", "primary", "--key", key, "--root", system)
    return Story(words, begin, check, check_done)


@pytest.fixture
def pruned(pristine: Made, tmp_path: Path) -> Story:
    store = tmp_path / "store"
    before = overlays(pristine.path)
    kept = {"primary/primary-000005.brd", "primary/primary-000006.brd"}
    kept |= {"secondary/secondary-000001.brd", "secondary/secondary-000002.brd"}

    def begin() -> None:
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(pristine.path, store)

    def check() -> None:
        after = contents(store)
        for name, data in before.items():
            if name in kept or name in after:
                assert after[name] == data
            else:
                header = after[name.replace(".brd", ".header")]
                assert data.startswith(header)
        verified(store, pristine.trust, tmp_path)

    def check_done() -> None:
        check()
        none_left_aside(store)
        assert set(overlays(store)) == kept
        assert all(path.stat().st_size < 10_000 for path in store.glob("*/*.header"))

    words = ("brd", "prune", store, "--keep-last", "2", "--trust", pristine.trust, "--yes")
    return Story(words, begin, check, check_done)


@pytest.fixture
def copied(pristine: Made, tmp_path: Path) -> Story:
    target = tmp_path / "target"
    before = contents(pristine.path)

    def begin() -> None:
        shutil.rmtree(target, ignore_errors=True)

    def check() -> None:
        assert contents(pristine.path) == before
        there = overlays(target) if target.exists() else {}
        assert there.items() <= overlays(pristine.path).items()
        verified(target, pristine.trust, tmp_path)

    def check_done() -> None:
        assert contents(target) == before
        check()

    words = ("brd", "copy", pristine.path, target, "--trust", pristine.trust)
    return Story(words, begin, check, check_done)


@pytest.fixture(params=["captured", "pruned", "copied"])
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


def test_killed_at_random_moments(story: Story, full: bool) -> None:
    story.begin()
    seconds = run_timed(*story.words)
    moments = random.Random(seconds)
    killed = 0
    while killed < (200 if full else 20):
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


def _wait_for_writers(store: Path) -> None:
    """The process inside the captured system ends soon after its killed parent; until then it has the lock."""
    if not store.exists():
        return
    with open(store / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
