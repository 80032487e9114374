"""What is refused, each with its own message, hint and exit code; and that nothing was changed by then."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import disks
from .conftest import Cli, Result
from .disks import MIB, Sample, loop_device

pytestmark = pytest.mark.loop


@pytest.fixture
def target(tmp_path: Path, small_disk: Sample) -> Iterator[Path]:
    """A disk with a table and a filesystem, which must be the same after the refusal."""
    image = Path(shutil.copy(small_disk.image, tmp_path / "target.img"))
    before = image.read_bytes()
    yield image
    assert image.read_bytes() == before


def refused(result: Result, *lines: str, code: int = 3) -> None:
    assert result.err == "".join(f"{line}\n" for line in lines)
    assert result.code == code
    assert result.out == ""


def let_go(target: Path) -> str:
    return (
        "stop what uses it: losetup --detach, vgchange -an, mdadm --stop or cryptsetup close;"
        f" what `etsclone mount` or a killed etsclone left, `etsclone umount {target}` closes"
    )


def test_target_mounted(etsclone: Cli, small_disk: Sample, tmp_path: Path, scratch: Path) -> None:
    image = Path(shutil.copy(small_disk.image, tmp_path / "target.img"))
    with loop_device(image) as device, disks.mounted(disks.node(device, 2), scratch):
        refused(
            etsclone("clone", small_disk.image, device, "--yes"),
            f"etsclone: {device} is mounted ({device}p2 mounted {scratch})",
            f"hint: umount {scratch}",
        )
        # Also by way of the file behind it.
        refused(
            etsclone("clone", small_disk.image, image, "--yes"),
            f"etsclone: {image} is mounted ({device}p2 mounted {scratch});"
            f" {image} is held by another device ({image} held by {device})",
            f"hint: umount {scratch}; {let_go(image)}",
        )
        assert (scratch / "etc" / "hostname").read_text() == "primary\n"


def test_target_held(etsclone: Cli, small_disk: Sample, target: Path) -> None:
    with loop_device(target) as device:
        refused(
            etsclone("clone", small_disk.image, target, "--yes"),
            f"etsclone: {target} is held by another device ({target} held by {device})",
            f"hint: {let_go(target)}",
        )


def disk_of_root() -> str | None:
    """The whole disk that carries this machine's root filesystem, where that is a plain disk."""
    number = os.stat("/").st_dev
    path = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    if not path.exists() or "virtual" in path.parts:
        return None
    return f"/dev/{path.parent.name if (path / 'partition').exists() else path.name}"


def test_target_holds_the_running_system(etsclone: Cli, small_disk: Sample) -> None:
    disk = disk_of_root()
    if disk is None:
        pytest.skip("the root of this machine is no plain disk")
    # Without --yes, with --dry-run, and with nothing to type: whatever breaks, this disk stays what it is.
    result = etsclone("clone", small_disk.image, disk, "--dry-run")
    assert result.code == 3
    message, hint = result.err.splitlines()
    assert message.startswith(f"etsclone: {disk} holds the running system (/dev/")
    assert " mounted /" in message
    assert "hint: start a rescue system from another medium, or name another disk" in hint


def test_target_is_the_source(etsclone: Cli, target: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.img"
    link.symlink_to(target)
    hard = tmp_path / "hard.img"
    hard.hardlink_to(target)
    for other in (target, link, hard):
        result = etsclone("clone", target, other, "--yes")
        assert result.code == 3
        # Not that it is held: that is the loop device that the source is read through.
        assert result.err == (
            f"etsclone: {target} and {other} are the same disk\n"
            "hint: name another disk as the target\n"
        )


def test_target_is_the_source_by_way_of_a_loop_device(
    etsclone: Cli, target: Path, tmp_path: Path
) -> None:
    with loop_device(target) as device, loop_device(target) as twin:
        link = tmp_path / "disk"
        link.symlink_to(device)
        for source, other in ((target, device), (device, target), (device, twin), (device, link)):
            result = etsclone("clone", source, other, "--yes")
            assert result.code == 3
            assert "are the same disk" in result.err


def test_target_too_small(etsclone: Cli, small_disk: Sample, tmp_path: Path) -> None:
    small = disks.blank(tmp_path / "small.img", small_disk.size - 4096)
    refused(
        etsclone("clone", small_disk.image, small, "--yes"),
        f"etsclone: {small} is too small: it has 48.0 MiB, 48.0 MiB are needed (4096 bytes are missing)",
        "hint: use a disk of at least the source's size, or try --fit, which makes filesystems smaller",
    )


def test_target_empty(etsclone: Cli, small_disk: Sample, tmp_path: Path) -> None:
    empty = disks.blank(tmp_path / "empty.img", 0)
    result = etsclone("clone", small_disk.image, empty, "--yes")
    assert result.code == 3
    assert f"{empty} is too small: it has 0 B" in result.err


def test_target_image_without_write_permission(
    etsclone: Cli, small_disk: Sample, target: Path
) -> None:
    target.chmod(0o444)
    refused(
        etsclone("clone", small_disk.image, target, "--yes"),
        f"etsclone: {target} is read-only",
        "hint: look for a write-protect switch, or the file's mode",
    )


def test_target_device_read_only(etsclone: Cli, small_disk: Sample, target: Path) -> None:
    with loop_device(target, read_only=True) as device:
        refused(
            etsclone("clone", small_disk.image, device, "--yes"),
            f"etsclone: {device} is read-only",
            "hint: look for a write-protect switch, or the file's mode",
        )


def test_target_with_other_sectors(etsclone: Cli, small_disk: Sample, target: Path) -> None:
    with loop_device(target, sector_size=4096) as device:
        refused(
            etsclone("clone", small_disk.image, device, "--yes"),
            f"etsclone: {device} has sectors of 4096 bytes, {small_disk.image} of 512",
            "hint: use a disk with the same logical sector size: positions in the partition table count sectors",
        )


def test_source_mounted_for_writing(
    etsclone: Cli, small_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    image = Path(shutil.copy(small_disk.image, tmp_path / "source.img"))
    with loop_device(image) as device, disks.mounted(disks.node(device, 2), scratch):
        for source in (device, image):
            refused(
                etsclone("clone", source, tmp_path / "clone.img", "--yes"),
                f"etsclone: {source} is in use and could change while it is copied"
                f" ({device}p2 mounted {scratch})",
                "hint: start a rescue system, or unmount it; --live copies what is not the running system",
            )
    assert not (tmp_path / "clone.img").exists()


def test_a_source_that_is_mounted_read_only_is_copied(
    etsclone: Cli, small_disk: Sample, tmp_path: Path, scratch: Path
) -> None:
    with (
        loop_device(small_disk.image, read_only=True) as device,
        disks.mounted(disks.node(device, 2), scratch, "ro,noload"),
    ):
        assert etsclone("clone", device, tmp_path / "clone.img", "--yes").code == 0


def test_source_without_content(etsclone: Cli, target: Path, tmp_path: Path) -> None:
    empty = disks.blank(tmp_path / "blank.img", MIB)
    refused(
        etsclone("clone", empty, target, "--yes"),
        f"etsclone: {empty} has neither a partition table nor a filesystem",
        "hint: is this the right disk? `etsclone disks` shows what each holds",
    )


def test_a_source_that_was_cut_off(
    etsclone: Cli, small_disk: Sample, target: Path, tmp_path: Path
) -> None:
    cut = Path(shutil.copy(small_disk.image, tmp_path / "cut.img"))
    os.truncate(cut, 30 * MIB)
    for words in (("clone", cut, target, "--yes"), ("verify", cut, target)):
        result = etsclone(*words)
        assert result.code == 3
        assert (
            f"etsclone: {cut} has a GPT that cannot be read: it is damaged or cut off" in result.err
        )


def test_an_mbr_source_that_was_cut_off(etsclone: Cli, mbr_disk: Sample, tmp_path: Path) -> None:
    cut = Path(shutil.copy(mbr_disk.image, tmp_path / "cut.img"))
    os.truncate(cut, 30 * MIB)
    result = etsclone("clone", cut, tmp_path / "clone.img", "--yes")
    assert result.code == 3
    assert f"etsclone: {cut} is cut off: its partitions reach" in result.err


def test_a_damaged_table_is_no_source(
    etsclone: Cli, small_disk: Sample, target: Path, tmp_path: Path
) -> None:
    # sfdisk would read the backup; a clone of it would carry the damage on.
    damaged = Path(shutil.copy(small_disk.image, tmp_path / "damaged.img"))
    disks.flip(damaged, 512 + 60)
    refused(
        etsclone("clone", damaged, target, "--yes"),
        "etsclone: GPT header with a wrong checksum",
        "hint: repair the table of the source with gdisk first",
        code=1,
    )


def test_a_partition_in_place_of_a_disk(etsclone: Cli, small_disk: Sample, target: Path) -> None:
    with loop_device(target) as device:
        for words in ((small_disk.image, f"{device}p2"), (f"{device}p2", "/nowhere.img")):
            refused(
                etsclone("clone", *words, "--yes"),
                f"etsclone: {device}p2 is a partition, not a disk",
                f"hint: name the whole disk: {device}",
                code=2,
            )


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("/nowhere.img", "/nowhere2.img", "/nowhere.img: No such file or directory"),
        ("/dev/null", "/nowhere2.img", "/dev/null is neither a disk nor an image file"),
        ("SOURCE", "/dev/nowhere", "/dev/nowhere does not exist"),
        ("SOURCE", "/nowhere/clone.img", "cannot make /nowhere/clone.img: /nowhere is no folder"),
        ("SOURCE", "/tmp", "/tmp is neither a disk nor an image file"),
        ("SOURCE", "/dev/null", "/dev/null is neither a disk nor an image file"),
    ],
)
def test_what_is_no_disk(
    source: str, target: str, message: str, etsclone: Cli, small_disk: Sample
) -> None:
    result = etsclone("clone", source.replace("SOURCE", str(small_disk.image)), target, "--yes")
    assert (result.code, result.err.splitlines()[0]) == (2, f"etsclone: {message}")


@pytest.mark.parametrize("words", [("clone", "SOURCE", "TARGET", "--yes"), ("disks",)])
def test_no_root_rights(words: tuple[str, ...], small_disk: Sample, target: Path) -> None:
    places = {"SOURCE": str(small_disk.image), "TARGET": str(target)}
    words = tuple(places.get(word, word) for word in words)
    # The rights are dropped only when all is imported, so that the checkout may lie where nobody else may look.
    module = f"etsclone.commands.{words[0]}"
    program = (
        f"import os, sys, {module}; from etsclone.cli import main; os.setgroups([]);"
        " os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534); main(sys.argv[1:])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    refused(
        Result(done.returncode, done.stdout, done.stderr),
        "etsclone: root rights are needed",
        "hint: run the command again with sudo, or as root",
    )


@pytest.mark.parametrize(
    ("program", "package", "purpose"),
    [
        ("partx", "util-linux", "tells the kernel of the partitions of a disk"),
        ("losetup", "mount", "attaches image files as disks"),
    ],
)
def test_a_missing_program(
    program: str, package: str, purpose: str, etsclone: Cli, small_disk: Sample, target: Path
) -> None:
    # In a mount namespace of its own, something that is no program lies over it.
    path = shutil.which(program, path="/usr/sbin:/usr/bin")
    hide = f'mount --bind /dev/null {path} && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", hide, "sh")
    refused(
        etsclone("clone", small_disk.image, target, "--yes", before=before),
        f"etsclone: {program} is not installed: it {purpose}",
        f"hint: apt install {package}",
    )
    result = etsclone("doctor", before=before)
    assert result.code == 3
    assert f"etsclone: not installed: {program}\n" in result.err
