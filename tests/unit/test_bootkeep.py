"""What is kept of a boot loader, and what errors beside its boot code are called."""

import errno
import os
from pathlib import Path

import pytest

from etsclone.errors import DeviceError
from etsclone.execute.bootkeep import Work, code_writer, keep_for, read_code
from etsclone.model.disk import Disk, DiskIdentity, PartitionTable
from etsclone.model.keep import BootCode
from etsclone.model.scope import Scope
from etsclone.plan.bootwork import BootCommand
from etsclone.units import MIB


def work(*paths: Path) -> Work:
    changes = tuple(map(os.fsencode, paths))
    return Work("the boot loader", [BootCommand(("grub-install",), "GRUB", changes)])


def test_of_what_is_written_through_a_link_nothing_is_kept(tmp_path: Path) -> None:
    for name in ("elsewhere", "EFI"):
        (tmp_path / name).mkdir()
    grub = tmp_path / "grub"
    grub.symlink_to("elsewhere")
    keep = keep_for([work(grub, tmp_path / "EFI")], Scope(()), ())
    assert keep.paths == ()
    assert len(keep.lost) == 1
    assert keep.lost[0].startswith(f"the boot loader: {grub} is a symbolic link")


def test_links_inside_of_a_folder_are_kept_with_it(tmp_path: Path) -> None:
    (tmp_path / "grub").mkdir()
    (tmp_path / "grub/link").symlink_to("elsewhere")
    keep = keep_for([work(tmp_path / "grub")], Scope(()), ())
    assert (keep.paths, keep.lost) == ((os.fsencode(tmp_path / "grub"),), ())


def raw_disk(folder: Path) -> Disk:
    path = folder / "disk.raw"
    path.write_bytes(bytes(2 * MIB))
    identity = DiskIdentity(str(path), 2 * MIB)
    return Disk(identity, str(path), table=PartitionTable("gpt", "", ()))


def test_errors_of_the_work_are_not_told_as_errors_of_the_disk(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "no space left on device")
    code = [BootCode(0, bytes(440))]
    with (
        pytest.raises(OSError, match="no space left") as told,
        code_writer(code, raw_disk(tmp_path)),
    ):
        raise full
    assert told.value is full


def test_a_disk_that_cannot_be_opened_or_read_is_told(tmp_path: Path) -> None:
    disk = raw_disk(tmp_path)
    Path(disk.path).unlink()
    with pytest.raises(DeviceError, match="cannot be opened"):
        read_code(disk)
    os.mkfifo(disk.path)
    reader = os.open(disk.path, os.O_RDWR)
    try:
        with pytest.raises(DeviceError, match="cannot be read"):
            read_code(disk)
    finally:
        os.close(reader)
