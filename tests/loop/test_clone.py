"""Clones of real disks, judged by the tools of others."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from etsclone import __version__

from . import disks
from .conftest import Cli
from .disks import MIB, Sample, check_clone, loop_device

pytestmark = pytest.mark.loop


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def old_disk(path: Path, size: int) -> Path:
    """A disk that was in use: another table, another filesystem, old boot code, data everywhere."""
    disks.scrawl(disks.blank(path, size), size // 2, 8 * MIB)
    disks.tool("sfdisk", "--quiet", path, typed="label: gpt\nsize=20MiB, name=old\n")
    disks.scrawl(path, 0, 440)
    with loop_device(path) as device:
        disks.tool(*disks.MAKE["ext4"], disks.node(device, 1))
    return path


def test_to_a_new_image(sample: Sample, etsclone: Cli, tmp_path: Path, scratch: Path) -> None:
    before, clone = sha256(sample.image), tmp_path / "clone.img"
    result = etsclone("clone", sample.image, clone, "--yes")
    assert (result.code, result.err) == (0, "")
    assert clone.stat().st_size == sample.size
    assert clone.stat().st_blocks * 512 < sample.size // 2  # zeros and free blocks stay holes
    check_clone(sample, clone, scratch)
    assert sha256(sample.image) == before
    if 0 not in sample.kinds:
        assert disks.table(clone) == disks.table(sample.image)
        assert disks.part_of(clone, 0, MIB) == disks.part_of(sample.image, 0, MIB)
    assert etsclone("verify", sample.image, clone).code == 0


def test_to_a_larger_disk_that_was_in_use(
    sample: Sample, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    target = old_disk(tmp_path / "target.img", sample.size + 37 * MIB)
    result = etsclone("clone", sample.image, target, "--yes")
    assert (result.code, result.err) == (0, "")
    assert target.stat().st_size == sample.size + 37 * MIB
    check_clone(sample, target, scratch)
    assert disks.signatures(target) == disks.signatures(sample.image)
    if 0 not in sample.kinds:
        assert disks.table(target) == disks.table(sample.image)
        assert "old" not in disks.tool("sfdisk", "--dump", target)
    if "gpt" in disks.signatures(sample.image):
        assert disks.is_sound_gpt(target)
    assert etsclone("verify", sample.image, target).code == 0


def test_between_block_devices(
    sample: Sample, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    target = old_disk(tmp_path / "target.img", sample.size + MIB)
    with (
        loop_device(sample.image, read_only=True) as source_device,
        loop_device(target) as target_device,
    ):
        result = etsclone("clone", source_device, target_device, "--yes")
        assert (result.code, result.err) == (0, "")
        check_clone(sample, target_device, scratch)
        assert etsclone("verify", source_device, target_device).code == 0
        assert etsclone("verify", sample.image, target_device).code == 0


def test_a_clone_of_a_clone_is_a_clone(small_disk: Sample, etsclone: Cli, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{number}.img" for number in range(3))
    disks.blank(second, small_disk.size + 5 * MIB)
    for source, target in ((small_disk.image, first), (first, second), (second, third)):
        assert etsclone("clone", source, target, "--yes").code == 0
    assert etsclone("verify", small_disk.image, third).code == 0
    assert disks.is_sound_gpt(third)


def test_sectors_of_4096_bytes_by_way_of_an_image(
    four_k_disk: Sample, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    image, target = (
        tmp_path / "clone.img",
        disks.blank(tmp_path / "target", four_k_disk.size + 9 * MIB),
    )
    with loop_device(four_k_disk.image, sector_size=4096, read_only=True) as source:
        assert etsclone("clone", source, image, "--yes").code == 0
    check_clone(four_k_disk, image, scratch)
    with loop_device(target, sector_size=4096) as device:
        assert etsclone("clone", image, device, "--yes").code == 0
        check_clone(four_k_disk, device, scratch)
        assert disks.is_sound_gpt(device)
        assert etsclone("verify", image, device).code == 0


def test_an_image_that_ends_within_a_sector(
    small_disk: Sample, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    odd, clone = Path(shutil.copy(small_disk.image, tmp_path / "odd.img")), tmp_path / "clone.img"
    with odd.open("ab") as file:
        file.write(b"what no disk has")
    assert etsclone("clone", odd, clone, "--yes").code == 0
    assert clone.stat().st_size == small_disk.size
    check_clone(small_disk, clone, scratch)


def test_a_filesystem_without_direct_access(
    small_disk: Sample, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    # An image of 512-byte sectors on a disk with 4096-byte sectors cannot be attached past the page cache.
    volume = disks.blank(tmp_path / "volume", 256 * MIB)
    with loop_device(volume, sector_size=4096) as device:
        disks.tool(*disks.MAKE["ext4"], device)
        with disks.mounted(device, scratch):
            source = Path(shutil.copy(small_disk.image, scratch / "source.img"))
            clone = scratch / "clone.img"
            assert etsclone("clone", source, clone, "--yes").code == 0
            assert etsclone("verify", source, clone).code == 0
            assert disks.loops_of(scratch) == []


def test_free_blocks_are_not_copied(small_disk: Sample, etsclone: Cli, tmp_path: Path) -> None:
    facts = etsclone("clone", small_disk.image, tmp_path / "x.img", "--dry-run", "--json").facts
    (root,) = (part for part in facts["partitions"] if part["content"] == "ext4")
    assert root["method"] == "block bitmaps"
    assert 4 * MIB < root["used"] < root["size"] // 2
    assert root["used"] < facts["bytes"] < facts["source"]["size"] // 2


def test_an_unclean_filesystem_is_copied_whole_and_that_is_told(
    small_disk: Sample, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    source, clone = Path(shutil.copy(small_disk.image, tmp_path)), tmp_path / "clone.img"
    with loop_device(source) as device, disks.mounted(disks.node(device, 2), scratch):
        # As after a power cut: the journal is still needed.
        (scratch / "new").write_text("after the cut\n")
        disks.tool("sync", "--file-system", scratch)
        cut = Path(shutil.copy(source, tmp_path / "cut.img"))
    result = etsclone("clone", cut, clone, "--yes")
    assert result.code == 0
    assert "note: partition 2: everything is copied: it was not cleanly unmounted" in result.out
    assert etsclone("verify", cut, clone).code == 0
    with loop_device(clone) as device, disks.mounted(disks.node(device, 2), scratch):
        assert (scratch / "new").read_text() == "after the cut\n"


def test_the_plan_is_shown_before_the_name_is_asked(
    small_disk: Sample, etsclone: Cli, tmp_path: Path
) -> None:
    result = etsclone("clone", small_disk.image, tmp_path / "clone.img", typed="clone.img\n")
    assert result.code == 0
    before, asked, after = result.out.partition("to go on, type the target's name, clone.img: ")
    assert asked
    assert f"source  {small_disk.image}" in before
    assert "block bitmaps" in before
    assert "clone.img is created" in before
    assert "cloned and verified" in after


@pytest.mark.parametrize("typed", ["", "y\n", "clone\n"])
def test_without_the_name_nothing_happens(
    typed: str, small_disk: Sample, etsclone: Cli, tmp_path: Path, state_folder: Path
) -> None:
    target = old_disk(tmp_path / "clone.img", 64 * MIB)
    before = sha256(target)
    result = etsclone("clone", small_disk.image, target, typed=typed)
    assert result.code == 3
    assert result.err == (
        "etsclone: not confirmed, nothing was changed\nhint: type exactly clone.img, or give --yes\n"
    )
    assert sha256(target) == before
    assert not state_folder.exists()


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_dry_run_changes_nothing(
    form: tuple[str, ...], small_disk: Sample, etsclone: Cli, tmp_path: Path, state_folder: Path
) -> None:
    target, new = old_disk(tmp_path / "target.img", 64 * MIB), tmp_path / "new.img"
    before = [(sha256(path), path.stat().st_mtime_ns) for path in (small_disk.image, target)]
    for path in (target, new):
        assert etsclone("clone", small_disk.image, path, "--dry-run", *form).code == 0
    after = [(sha256(path), path.stat().st_mtime_ns) for path in (small_disk.image, target)]
    assert after == before
    assert not new.exists()
    assert not state_folder.exists()


def test_the_receipt_tells_what_was_done(
    small_disk: Sample, etsclone: Cli, tmp_path: Path, state_folder: Path
) -> None:
    clone = tmp_path / "clone.img"
    facts = etsclone("clone", small_disk.image, clone, "--yes", "--json").facts
    (path,) = (state_folder / "receipts").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    receipt = json.loads(path.read_text())
    about = {"receipt": "clone", "format": 1, "etsclone": __version__, "signed": False}
    told = {name: fact for name, fact in facts.items() if name not in {"receipt", "event", "time"}}
    assert receipt == about | told
    assert facts["receipt"] == str(path)
    assert (receipt["source"]["path"], receipt["target"]["path"]) == (
        str(small_disk.image),
        str(clone),
    )
    assert receipt["source"]["size"] == small_disk.size
    assert receipt["source"]["table"]["label"] == "gpt"
    assert receipt["steps"] == ["CreateImage", "Erase", "Copy", "Seal"]
    assert (receipt["mode"], receipt["verify"]) == ("new", "digests")
    assert receipt["digest"] == "xxh3_128"
    assert (receipt["shared"], receipt["lost"]) == (0, [])
    assert 0 < receipt["written"] <= receipt["bytes"]  # holes are not written
    assert len(receipt["tree_hash"]) == 64
    assert receipt["started"] < receipt["copied_at"] < receipt["finished"]


def test_two_clones_of_one_disk_have_one_hash(
    small_disk: Sample, etsclone: Cli, tmp_path: Path
) -> None:
    hashes = {
        etsclone("clone", small_disk.image, tmp_path / name, "--yes", "--json").facts["tree_hash"]
        for name in ("a.img", "b.img")
    }
    assert len(hashes) == 1


def test_disks_are_listed_with_a_verdict(
    small_disk: Sample, etsclone: Cli, tmp_path: Path, scratch: Path
) -> None:
    with (
        loop_device(Path(shutil.copy(small_disk.image, tmp_path))) as device,
        disks.mounted(disks.node(device, 2), scratch),
    ):
        listed = {disk["path"]: disk for disk in etsclone("disks", "--json").facts}
        (line,) = (
            line for line in etsclone("disks").out.splitlines() if line.startswith(f"{device} ")
        )
    disk = listed[str(device)]
    assert disk["size"] == small_disk.size
    assert disk["contents"] == "gpt: 1 (unknown), 2 ext4"
    assert disk["uses"] == [{"device": f"{device}p2", "how": "mounted", "where": str(scratch)}]
    assert disk["may_be_target"] is False
    assert [refusal["guard"] for refusal in disk["refusals"]] == ["mounted"]
    assert "48.0 MiB" in line
    assert line.endswith("no: mounted")
