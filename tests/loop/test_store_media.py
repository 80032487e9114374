"""Stores on what they are really kept on: sticks with exFAT, read-only and full media, media that are pulled out."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from stores import ROLES, START, Made, contents, etsclone, make, make_keys

from etsclone.commands import history
from etsclone.commands.brd import capture
from etsclone.store import files, folder
from loop import disks
from loop.disks import MIB, loop_device, tool
from loop.killing import run_killed
from loop.small_system import mounted_system
from loop.test_store_kills import capture as capture_words
from loop.test_store_kills import verified, wait_for_writers

pytestmark = pytest.mark.loop


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store with three generations of each role."""
    folder = tmp_path_factory.mktemp("media")
    made = make(folder / "store", make_keys(folder))
    for role in ROLES:
        for number in range(3):
            made.capture(role, content=os.urandom(100_000 + number))
    return made


def _wait_for(mount: Path) -> None:
    for _ in range(disks.SECONDS * 50):
        if os.path.ismount(mount):
            return
        time.sleep(0.02)
    raise AssertionError("the stick is not mounted")


def before_call(
    patch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
    number: int,
    happen: Callable[[], None],
) -> None:
    """Let something happen before the `number`-th call of a function."""
    work, left = vars(module)[function], number

    def wrapper(*positional: object, **named: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            happen()
        return work(*positional, **named)

    patch.setattr(module, function, wrapper)


@contextmanager
def stick(image: Path, *options: str) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """An image with exFAT, mounted, and the process that serves it: whoever kills it has pulled out the stick."""
    mount = image.with_suffix(".mnt")
    mount.mkdir(exist_ok=True)
    with loop_device(image) as device:
        argv = ["mount.exfat-fuse", "-d", *options, str(device), str(mount)]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as server:
            try:
                _wait_for(mount)
                yield mount, server
            finally:
                tool("umount", *(["--lazy"] if server.poll() is not None else []), mount)
                server.wait(disks.SECONDS)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small stick."""
    path = disks.blank(tmp_path / "stick.img", 16 * MIB)
    tool("mkfs.exfat", path)
    return path


def verify(path: Path, trust: Path) -> int:
    return etsclone("brd", "verify", path, "--trust", trust).code


def prune(path: Path, trust: Path) -> tuple[str | Path, ...]:
    return ("brd", "prune", path, "--keep-last", "1", "--trust", trust, "--yes")


def test_a_store_lives_on_exfat(pristine: Made, image: Path, tmp_path: Path) -> None:
    with stick(image) as (mount, _):
        there = pristine.at(mount / "BRD")
        assert etsclone("brd", "copy", pristine.path, there.path).code == 0
        assert contents(there.path) == contents(pristine.path)
        there.capture(content=b"on the stick")
        there.check("secondary", START)
        assert etsclone(*prune(there.path, pristine.trust)).code == 0
        there.store.write_receipt("rebuild.json", b"{}")
    with stick(image) as (mount, _):
        assert verify(mount / "BRD", pristine.trust) == 0
        names = {path.name for path in (mount / "BRD").glob("primary/*")}
        assert names == {
            *(f"primary-00000{number}.header" for number in (1, 2, 3)),
            "primary-000004.brd",
        }
        assert etsclone("brd", "copy", mount / "BRD", tmp_path / "back").code == 0
        assert contents(tmp_path / "back") == contents(mount / "BRD")


def test_a_store_in_the_root_of_a_stick(image: Path, pristine: Made) -> None:
    with stick(image) as (mount, _):
        assert etsclone("brd", "copy", pristine.path, mount).code == 0
        assert verify(mount, pristine.trust) == 0


def test_a_read_only_stick_is_read_without_a_lock(
    pristine: Made, image: Path, tmp_path: Path
) -> None:
    with stick(image) as (mount, _):
        shutil.copytree(pristine.path, mount / "store")
        (mount / "store" / ".lock").unlink(missing_ok=True)
    with stick(image, "-o", "ro") as (mount, _):
        store, trust = mount / "store", pristine.trust
        assert verify(store, trust) == 0
        assert etsclone("brd", "list", store).code == 0
        assert etsclone("brd", "show", store / "primary" / "primary-000001.brd").code == 0
        check = ("brd", "check", store, "--max-age", "1000w", "--trust", trust)
        assert etsclone(*check).code == 0
        assert etsclone("brd", "copy", store, tmp_path / "copy").code == 0
        result = etsclone(*prune(store, trust))
        assert result.code == 3
        assert "lies on a read-only medium" in result.err
        assert "hint: " in result.err


def test_a_copy_to_a_full_stick_is_completed_once_there_is_room(
    pristine: Made, image: Path
) -> None:
    with stick(image) as (mount, _):
        filler = mount / "filler"
        fill(filler)
        os.truncate(filler, filler.stat().st_size - MIB // 4)
        result = etsclone("brd", "copy", pristine.path, mount / "store")
        assert result.code == 1, result.err
        assert "no space left" in result.err
        assert "hint: " in result.err
        there = {n: data for n, data in contents(mount / "store").items() if n.endswith(".brd")}
        assert 0 < len(there) < 6
        assert there.items() <= contents(pristine.path).items()
        filler.unlink()
        assert etsclone("brd", "copy", pristine.path, mount / "store").code == 0
        assert contents(mount / "store") == contents(pristine.path)


def test_pruning_needs_no_space(pristine: Made, image: Path) -> None:
    with stick(image) as (mount, _):
        shutil.copytree(pristine.path, mount / "store")
        (mount / "store" / ".lock").touch()
        fill(mount / "filler")
        assert etsclone(*prune(mount / "store", pristine.trust)).code == 0
        assert verify(mount / "store", pristine.trust) == 0


def fill(path: Path) -> None:
    """Take all the space there is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    size = MIB
    while size:
        try:
            os.write(descriptor, bytes(size))
        except OSError:
            size //= 2
    os.close(descriptor)


def test_a_stick_that_is_pulled_out_is_told(pristine: Made, image: Path, tmp_path: Path) -> None:
    with stick(image) as (mount, server):
        shutil.copytree(pristine.path, mount / "store")
        server.send_signal(signal.SIGKILL)
        server.wait()
        store, trust = mount / "store", pristine.trust
        for words in (
            ("brd", "list", store),
            ("brd", "verify", store, "--trust", trust),
            ("brd", "check", store, "--max-age", "1d", "--trust", trust),
            prune(store, trust),
            ("brd", "copy", store, tmp_path / "copy"),
            ("brd", "copy", pristine.path, store),
        ):
            result = etsclone(*words)
            assert result.code == 5, (words, result)
            assert "failed" in result.err
            assert "hint: check that it is still plugged in" in result.err


@pytest.mark.parametrize("command", ["copy to", "copy from", "prune", "verify"])
def test_a_stick_that_is_pulled_out_in_the_middle(
    command: str, pristine: Made, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stick(image) as (mount, server):
        store = mount / "store"
        if command != "copy to":
            shutil.copytree(pristine.path, store)

        def pull_out() -> None:
            server.send_signal(signal.SIGKILL)
            server.wait()

        words, module, function, call = {
            "copy to": (("brd", "copy", pristine.path, store), folder, "copy_file", 4),
            "copy from": (("brd", "copy", store, tmp_path / "copy"), folder, "copy_file", 4),
            "prune": (prune(store, pristine.trust), folder, "cut_off", 2),
            "verify": (
                ("brd", "verify", store, "--trust", pristine.trust),
                history,
                "open_verified",
                2,
            ),
        }[command]
        with monkeypatch.context() as patch:
            before_call(patch, module, function, call, pull_out)
            result = etsclone(*words)
        assert result.code == 5, result
        assert "hint: " in result.err
    with stick(image) as (mount, _):
        assert etsclone(*words).code == 0
        assert verify(mount / "store", pristine.trust) == 0


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        pytest.param(folder, "aside", 1, id="before it is written"),
        pytest.param(capture, "write_overlay", 1, id="while it is written"),
        pytest.param(files, "sync_folder", 1, id="when it has its name"),
        pytest.param(capture, "keep_check", 1, id="when it is unchanged"),
    ],
)
def test_a_stick_that_is_pulled_out_in_the_middle_of_a_capture(
    module: ModuleType,
    function: str,
    call: int,
    pristine: Made,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, before = pristine.path.parent / "primary", contents(pristine.path)
    with mounted_system(tmp_path / "system") as system:
        words = ("brd", "capture", "--role", "primary", "--key", key, "--root", system)
        with stick(image) as (mount, server):
            store = mount / "store"
            shutil.copytree(pristine.path, store)
            if function == "keep_check":
                assert etsclone(*words, store).code == 0
                before = contents(store)

            def pull_out() -> None:
                server.send_signal(signal.SIGKILL)
                server.wait()

            with monkeypatch.context() as patch:
                before_call(patch, module, function, call, pull_out)
                result = etsclone(*words, store)
            assert result.code == 5, result
            assert "failed" in result.err
            assert "hint: check that it is still plugged in" in result.err
        with stick(image) as (mount, _):
            assert verify(store, pristine.trust) == 0
            assert before.items() <= contents(store).items()
            assert etsclone(*words, store).code == 0
            assert before.items() <= contents(store).items()
            assert verify(store, pristine.trust) == 0
            assert [name for name in contents(store) if name.endswith(".new")] == []


@pytest.mark.parametrize("command", ["capture", "copy", "prune"])
def test_a_command_that_is_killed_on_a_stick(
    command: str, pristine: Made, image: Path, tmp_path: Path, state_folder: Path
) -> None:
    before = contents(pristine.path)
    with mounted_system(tmp_path / "system") as system, stick(image) as (mount, _):
        store = mount / "store"
        words = {
            "capture": capture_words(store, pristine.path.parent / "primary", system),
            "copy": ("brd", "copy", pristine.path, store),
            "prune": prune(store, pristine.trust),
        }[command]
        for moment in range(1, 1000, 5):
            if command != "copy":
                shutil.copytree(pristine.path, store)
            code = run_killed(moment, *words)
            assert code in (0, -signal.SIGKILL)
            wait_for_writers(store)
            verified(store, pristine.trust, tmp_path)
            assert run_killed(0, *words) == 0
            verified(store, pristine.trust, tmp_path)
            after = contents(store)
            assert [name for name in after if name.endswith(".new")] == []
            assert before == contents(pristine.path)
            assert command == "prune" or before.items() <= after.items()
            assert command != "copy" or after == before
            shutil.rmtree(store)
            shutil.rmtree(state_folder, ignore_errors=True)
            if code == 0:
                break
        assert moment > 5


@pytest.mark.parametrize("bound", ["", "primary"])
def test_a_store_is_not_copied_into_what_is_mounted_from_it(
    pristine: Made, tmp_path: Path, bound: str
) -> None:
    mount, before = tmp_path / "elsewhere", contents(pristine.path)
    mount.mkdir()
    tool("mount", "--bind", pristine.path / bound, mount)
    try:
        for target in (mount, mount / "second"):
            words = ("brd", "copy", pristine.path, target, "--trust", pristine.trust)
            result = etsclone(*words)
            assert result.code == 3, result.err
            assert "hint: name a folder on another medium" in result.err
            assert contents(pristine.path) == before
    finally:
        tool("umount", mount)
