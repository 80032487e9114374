"""Image files on one filesystem that shares blocks, and image files with holes: what need not be copied is not."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from . import disks
from .conftest import Cli, Stop
from .disks import MIB, Sample, loop_device, tool

pytestmark = pytest.mark.loop

MAKE = {
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "xfs without reflinks": ("mkfs.xfs", "-q", "-f", "-m", "reflink=0"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
}

Volume = Callable[[str], AbstractContextManager[Path]]


@pytest.fixture
def volume(tmp_path: Path, scratch: Path) -> Volume:
    """A filesystem of its own, with some room, mounted."""

    @contextmanager
    def mounted(kind: str, size: int = 512 * MIB) -> Iterator[Path]:
        image = disks.blank(tmp_path / "volume.img", size)
        tool(*MAKE[kind], image)
        with loop_device(image) as device, disks.mounted(device, scratch):
            yield scratch

    return mounted


def used_by(folder: Path) -> int:
    os.sync()
    tool("sync", "--file-system", folder)
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


Judge = Callable[[Path], None]


@pytest.fixture
def sound(small_disk: Sample, tmp_path: Path) -> Judge:
    """Make sure that an image is a clone of the small disk."""
    return lambda clone: disks.check_clone(small_disk, clone, tmp_path / "look")


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_blocks_are_shared(
    kind: str, small_disk: Sample, etsclone: Cli, volume: Volume, sound: Judge
) -> None:
    with volume(kind) as folder:
        source = Path(shutil.copy(small_disk.image, folder / "source.img"))
        before = used_by(folder)
        result = etsclone("clone", source, folder / "clone.img", "--yes", "--json")
        assert (result.code, result.err) == (0, "")
        facts = result.facts
        assert facts["share"] is True
        assert facts["shared"] == facts["bytes"]
        assert facts["written"] == 0
        # The head is written, and a filesystem has its own to say about what it shares.
        assert used_by(folder) - before < 4 * MIB
        assert etsclone("verify", source, folder / "clone.img").code == 0
        sound(folder / "clone.img")
        # What is written to the source from now on does not show on the clone.
        disks.scrawl(source, 4 * MIB, MIB)
        sound(folder / "clone.img")
        assert etsclone("verify", source, folder / "clone.img").code == 4


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_only_what_changed_is_shared_anew(
    kind: str, small_disk: Sample, etsclone: Cli, volume: Volume
) -> None:
    with volume(kind) as folder:
        source = Path(shutil.copy(small_disk.image, folder / "source.img"))
        clone = folder / "clone.img"
        assert etsclone("clone", source, clone, "--yes").code == 0
        disks.flip(clone, 8 * MIB)
        result = etsclone("clone", source, clone, "--refresh", "--yes", "--json")
        assert (result.code, result.facts["written"]) == (0, 0)
        assert etsclone("verify", source, clone).code == 0


def test_shared_blocks_can_be_compared_too(
    small_disk: Sample, etsclone: Cli, volume: Volume
) -> None:
    with volume("xfs") as folder:
        source = Path(shutil.copy(small_disk.image, folder / "source.img"))
        result = etsclone("clone", source, folder / "clone.img", "--yes", "--verify=full")
        assert (result.code, result.err) == (0, "")
        assert "share their blocks with" in result.out
        assert "it is no second copy on another medium" in result.out


@pytest.mark.parametrize("kind", ["xfs without reflinks", "ext4"])
def test_where_nothing_can_be_shared_all_is_copied(
    kind: str, small_disk: Sample, etsclone: Cli, volume: Volume, sound: Judge
) -> None:
    with volume(kind) as folder:
        source = Path(shutil.copy(small_disk.image, folder / "source.img"))
        result = etsclone("clone", source, folder / "clone.img", "--yes", "--json")
        assert (result.code, result.err) == (0, "")
        assert (result.facts["share"], result.facts["shared"]) == (False, 0)
        assert result.facts["tree_hash"]
        sound(folder / "clone.img")


def test_a_file_that_may_not_share_is_copied(
    small_disk: Sample, etsclone: Cli, volume: Volume, sound: Judge
) -> None:
    """btrfs does not let a file with checksums share blocks with one without them."""
    with volume("btrfs") as folder:
        source = Path(shutil.copy(small_disk.image, folder / "source.img"))
        clone = disks.blank(folder / "clone.img", 0)
        tool("chattr", "+C", clone)
        os.truncate(clone, source.stat().st_size)
        result = etsclone("clone", source, clone, "--yes", "--json")
        assert result.code == 0
        assert "the filesystem does not share these blocks: they are copied" in result.err
        assert result.facts["shared"] == 0
        assert result.facts["written"] == result.facts["bytes"]
        sound(clone)


def test_images_on_two_filesystems_are_copied(
    small_disk: Sample, etsclone: Cli, volume: Volume, sound: Judge
) -> None:
    with volume("xfs") as folder:
        clone = folder / "clone.img"
        result = etsclone("clone", small_disk.image, clone, "--yes", "--json")
        assert (result.code, result.facts["share"]) == (0, False)
        sound(clone)


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGINT])
def test_sharing_that_was_interrupted_goes_on(
    what: signal.Signals,
    small_disk: Sample,
    etsclone: Cli,
    stopped: Stop,
    volume: Volume,
    sound: Judge,
) -> None:
    with volume("xfs") as folder:
        source = Path(shutil.copy(small_disk.image, folder / "source.img"))
        clone = folder / "clone.img"
        map_ = folder / "map"
        words = ("clone", source, clone, "--map", map_, "--yes")
        result = stopped("clone_range:2", what, *words)
        assert result.code == {signal.SIGKILL: -9, signal.SIGINT: 130}[what]
        assert disks.looks_unfinished(clone)
        result = etsclone(*words, "--resume")
        assert (result.code, result.err) == (0, "")
        sound(clone)


def test_holes_stay_holes(small_disk: Sample, etsclone: Cli, tmp_path: Path, sound: Judge) -> None:
    source = Path(shutil.copy(small_disk.image, tmp_path / "source.img"))
    tool("fallocate", "--dig-holes", source)
    clone = tmp_path / "clone.img"
    result = etsclone("clone", source, clone, "--yes", "--json")
    assert (result.code, result.err) == (0, "")
    assert (
        clone.stat().st_blocks <= source.stat().st_blocks + 2 * MIB // 512
    )  # the head, and pieces at edges
    sound(clone)
    assert etsclone("verify", source, clone).code == 0


@pytest.mark.parametrize(("what", "code"), [(signal.SIGKILL, 0), (signal.SIGINT, 4)])
def test_what_somebody_wrote_into_a_hole_does_not_stay(
    what: int,
    code: int,
    small_disk: Sample,
    etsclone: Cli,
    stopped: Stop,
    tmp_path: Path,
    sound: Judge,
) -> None:
    """Where the map does not vouch for the hole it is copied; where it does, verification tells."""
    source = Path(shutil.copy(small_disk.image, tmp_path / "source.img"))
    tool("fallocate", "--dig-holes", source)
    clone, map_ = tmp_path / "clone.img", tmp_path / "map"
    words = ("clone", source, clone, "--map", map_, "--yes")
    assert stopped("write_block:2", what, *words).code in {-9, 130}
    with source.open("rb") as file:
        hole = os.lseek(file.fileno(), 3 * MIB, os.SEEK_HOLE)
    disks.scrawl(clone, hole, 4096)
    assert etsclone(*words, "--resume").code == code
    assert etsclone("clone", source, clone, "--map", map_, "--yes", "--refresh").code == 0
    assert etsclone("verify", source, clone).code == 0
    sound(clone)
