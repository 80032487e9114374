"""Bringing clones up to date: right in the end whatever happened before, and with few writes."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import disks
from .conftest import Cli, Stop
from .disks import MIB, Sample, loop_device

pytestmark = pytest.mark.loop

PIECE = 64 * 1024
KILL = signal.SIGKILL.value


@pytest.fixture
def source(small_disk: Sample, tmp_path: Path) -> Path:
    """A disk that a test may write to."""
    return Path(shutil.copy(small_disk.image, tmp_path / "source.img"))


@pytest.fixture
def target(etsclone: Cli, source: Path, tmp_path: Path) -> Path:
    """Its clone."""
    path = tmp_path / "target.img"
    assert etsclone("clone", source, path, "--yes").code == 0
    return path


@contextmanager
def root_of(image: Path, scratch: Path) -> Iterator[Path]:
    """The root filesystem of a small disk, to be written to."""
    with loop_device(image) as device, disks.mounted(disks.node(device, 2), scratch) as root:
        yield root


def change(image: Path, scratch: Path, kind: str) -> None:
    """Use a disk for a while."""
    with root_of(image, scratch) as root:
        if kind == "clustered":
            (root / "new").write_bytes(b"new" * MIB)
            (root / "small7").unlink()
        else:
            with (root / "data").open("r+b") as file:
                for position in range(0, 4 * MIB, 256 * 1024):
                    file.seek(position + 4096)
                    file.write(b"x" * 4096)


def differing_pieces(one: Path, other: Path) -> int:
    with one.open("rb") as first, other.open("rb") as second:
        pairs = iter(lambda: (first.read(PIECE), second.read(PIECE)), (b"", b""))
        return sum(left != right for left, right in pairs)


@pytest.mark.parametrize("kind", ["clustered", "scattered"])
@pytest.mark.parametrize("verify", ["digests", "full"])
def test_only_what_changed_is_written(
    kind: str, verify: str, etsclone: Cli, source: Path, target: Path, scratch: Path
) -> None:
    change(source, scratch, kind)
    most = differing_pieces(source, target) * PIECE
    result = etsclone("clone", source, target, "--refresh", "--yes", "--json", f"--verify={verify}")
    assert (result.code, result.err) == (0, "")
    assert result.facts["mode"] == "refresh"
    assert 0 < result.facts["written"] <= most < result.facts["bytes"]
    assert etsclone("verify", source, target).code == 0
    with loop_device(source) as device:
        expected = disks.sight(device, 2, "ext4", scratch)
    with loop_device(target) as device:
        assert disks.sight(device, 2, "ext4", scratch) == expected
    again = etsclone("clone", source, target, "--refresh", "--yes", "--json").facts
    assert again["written"] == 0


def test_it_says_what_it_saved(etsclone: Cli, source: Path, target: Path, scratch: Path) -> None:
    change(source, scratch, "scattered")
    out = etsclone("clone", source, target, "--refresh", "--yes").out
    assert f"are read and compared with kept digests; what differs is written to {target}" in out
    assert " were read, " in out
    assert " saved\n" in out


def test_between_block_devices(etsclone: Cli, source: Path, target: Path, scratch: Path) -> None:
    change(source, scratch, "clustered")
    with loop_device(source, read_only=True) as first, loop_device(target) as second:
        assert etsclone("clone", first, second, "--refresh", "--yes").code == 0
        assert etsclone("verify", first, second).code == 0
        assert disks.is_sound_gpt(second)


def test_without_a_record_both_sides_are_compared(
    etsclone: Cli, source: Path, target: Path, scratch: Path, state_folder: Path
) -> None:
    shutil.rmtree(state_folder / "clones")
    change(source, scratch, "scattered")
    most = differing_pieces(source, target) * PIECE
    facts = etsclone("clone", source, target, "--refresh", "--yes", "--json").facts
    assert 0 < facts["written"] <= most
    assert etsclone("verify", source, target).code == 0


def test_any_old_disk_can_be_refreshed(
    etsclone: Cli, source: Path, tmp_path: Path, small_disk: Sample
) -> None:
    target = disks.blank(tmp_path / "old.img", small_disk.size + 3 * MIB)
    disks.scrawl(target, 0, 30 * MIB)
    assert etsclone("clone", source, target, "--refresh", "--yes").code == 0
    assert etsclone("verify", source, target).code == 0
    assert disks.is_sound_gpt(target)


def test_a_target_that_was_used_meanwhile(
    etsclone: Cli, source: Path, target: Path, scratch: Path
) -> None:
    change(target, scratch, "clustered")
    assert etsclone("clone", source, target, "--refresh", "--yes").code == 0
    assert etsclone("verify", source, target).code == 0


def test_a_bit_that_changed_on_the_target(etsclone: Cli, source: Path, target: Path) -> None:
    disks.flip(target, 2 * MIB + 1030)
    facts = etsclone("clone", source, target, "--refresh", "--yes", "--json").facts
    assert facts["written"] == PIECE
    assert etsclone("verify", source, target).code == 0


@pytest.mark.parametrize("clearing", ["--discard", "--wipe"])
def test_what_was_cleared_comes_back_when_it_is_used_again(
    clearing: str,
    etsclone: Cli,
    stopped: Stop,
    source: Path,
    target: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = source.read_bytes()
    with root_of(source, scratch) as root:
        (root / "data").unlink()
    assert etsclone("clone", source, target, "--refresh", clearing, "--yes").code == 0
    assert etsclone("verify", source, target).code == 0
    source.write_bytes(before)  # in place: it is the same disk, as it once was
    monkeypatch.setenv("BELIEVE", "1")
    result = stopped("never:1", 0, "clone", source, target, "--refresh", "--yes", "--json")
    assert result.code == 0
    assert result.facts["written"] >= 4 * MIB
    assert etsclone("verify", source, target).code == 0


@pytest.mark.parametrize(
    ("moment", "how"),
    [
        ("refresh:1", "--refresh"),
        ("write_block:2", "--resume"),
        ("write_block:9", "--refresh"),
        ("write_bytes:3", "--resume"),
    ],
)
def test_killed_in_the_middle_it_can_be_repeated(
    moment: str, how: str, etsclone: Cli, stopped: Stop, source: Path, target: Path, scratch: Path
) -> None:
    change(source, scratch, "scattered")
    words = ("clone", source, target, "--yes")
    assert stopped(moment, KILL, *words, "--refresh", "--block-size=64K").code == -KILL
    assert disks.looks_unfinished(target)
    assert etsclone(*words, how).code == 0
    assert etsclone("verify", source, target).code == 0


def test_a_target_that_is_not_there(etsclone: Cli, source: Path, tmp_path: Path) -> None:
    result = etsclone("clone", source, tmp_path / "none.img", "--refresh", "--yes")
    assert result.code == 3
    assert "does not exist: there is nothing to go on with" in result.err
