"""Stores on media that are full: a typed error, nothing lost, and work as before once there is room."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import Made, Result, contents, etsclone, generation, make, make_keys, verify

from loop import disks
from loop.disks import MIB, loop_device, tool
from loop.small_system import mounted_system
from loop.test_store_media import fill

pytestmark = pytest.mark.loop

SIZE = 300_000


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store with two generations of the primary."""
    folder = tmp_path_factory.mktemp("full")
    made = make(folder / "store", make_keys(folder))
    for _ in range(2):
        made.capture(content=os.urandom(SIZE))
    return made


@contextmanager
def medium(image: Path) -> Iterator[Path]:
    """A small ext4, mounted."""
    mount = image.with_suffix(".mnt")
    mount.mkdir()
    with loop_device(disks.blank(image, 8 * MIB)) as device:
        tool("mkfs.ext4", "-q", "-m", "0", device)
        tool("mount", device, mount)
        try:
            yield mount
        finally:
            tool("umount", mount)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Path]:
    """A system to capture, whose overlay is not small."""
    with mounted_system(tmp_path / "system") as tree:
        (tree / "etc/dhcp/leases").write_bytes(os.urandom(SIZE))
        yield tree


@pytest.fixture
def full(pristine: Made, tmp_path: Path) -> Iterator[Made]:
    """The store on a medium that is full."""
    with medium(tmp_path / "medium.img") as mount:
        made = pristine.at(Path(shutil.copytree(pristine.path, mount / "store")))
        fill(mount / "filler")
        yield made


def capture(made: Made, pristine: Made, system: Path) -> Result:
    key = pristine.path.parent / "primary"
    return etsclone(
        "brd", "capture", made.path, "--role", "primary", "--key", key, "--root", system
    )


def give_back(made: Made, room: int) -> None:
    """Make some room on the medium."""
    filler = made.path.parent / "filler"
    os.truncate(filler, filler.stat().st_size - room)


def is_full(result: Result, where: Path) -> None:
    assert result.code == 1, result
    assert f"no space left for {where}" in result.err
    assert "hint: " in result.err


def test_a_capture_is_whole_or_leaves_nothing(full: Made, pristine: Made, system: Path) -> None:
    before, failed = contents(full.path), 0
    while (result := capture(full, pristine, system)).code != 0:
        is_full(result, generation(full, 3))
        assert contents(full.path) == before
        assert verify(full).code == 0
        failed += 1
        give_back(full, SIZE // 6)
    assert failed > 4
    after = contents(full.path)
    assert after.keys() - before.keys() == {"primary/primary-000003.brd"}
    assert before.items() <= after.items()
    assert verify(full).code == 0


def test_what_was_found_unchanged_before_is_still_said(
    full: Made, pristine: Made, system: Path
) -> None:
    give_back(full, 2 * SIZE)
    assert capture(full, pristine, system).code == 0
    assert "is unchanged since generation 3" in capture(full, pristine, system).out
    fill(full.path.parent / "more")
    before = contents(full.path)
    is_full(capture(full, pristine, system), full.store.checked_path("primary"))
    assert contents(full.path) == before
    assert verify(full).code == 0
    give_back(full, SIZE)
    assert capture(full, pristine, system).code == 0
    assert contents(full.path).keys() == before.keys()
    assert verify(full).code == 0


def test_a_copy_goes_on_where_it_ended(full: Made, pristine: Made) -> None:
    target = full.at(full.path.parent / "copy")
    words = ("brd", "copy", pristine.path, target.path)
    source, failed, there = contents(pristine.path), 0, set[str]()
    while (result := etsclone(*words)).code != 0:
        is_full(result, target.path)
        found = {name: data for name, data in contents(target.path).items() if data}
        assert there <= found.keys()
        assert found.items() <= source.items()
        there = set(found)
        failed += 1
        give_back(full, SIZE // 3)
    assert failed > 4
    assert contents(target.path) == source
    assert verify(target).code == 0
    assert contents(full.path) == source


def test_no_space_for_temporary_files(
    full: Made, pristine: Made, system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pristine.at(Path(shutil.copytree(pristine.path, tmp_path / "store")))
    before = contents(made.path)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(full.path))
        result = capture(made, pristine, system)
        assert result.code == 1, result
        assert f"no space left in {full.path} for temporary files" in result.err
        assert "hint: free some space, or set TMPDIR" in result.err
    assert contents(made.path) == before
    assert contents(full.path) == contents(pristine.path)
    assert capture(made, pristine, system).code == 0


def test_no_space_to_remember_what_was_captured(
    full: Made,
    pristine: Made,
    system: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = pristine.at(Path(shutil.copytree(pristine.path, tmp_path / "store")))
    monkeypatch.setenv("ETSCLONE_STATE", str(full.path.parent / "state"))
    assert capture(made, pristine, system).code == 0
    assert generation(made, 3).exists()
    assert "what was seen of role primary cannot be remembered: no space left" in caplog.text
