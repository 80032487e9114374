"""A server that was fitted onto a smaller disk boots, although its boot loader had to move."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .qemu import boot
from .servers import etsclone

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

MIB = 1 << 20
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"


def run(*argv: str | Path, typed: str = "") -> str:
    done = subprocess.run(argv, input=typed, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def with_loader_at_the_end(image: Path, disk: Path, folder: Path) -> Path:
    """A copy of a server's disk whose boot loader was installed, by its own grub-install, behind everything else."""
    shutil.copy(image, disk)
    with disk.open("r+b") as file:
        file.truncate(image.stat().st_size + 4 * MIB)
        file.seek(MIB)
        file.write(bytes(MIB))  # no old core may be found
    run("sgdisk", "--move-second-header", "--delete=1", disk)
    run("sfdisk", "--quiet", "--append", disk, typed=f"size=1MiB, type={BIOS_BOOT}, name=bios\n")
    loop = run("losetup", "--find", "--show", "--partscan", disk).strip()
    try:
        if not Path(f"{loop}p2").exists():
            run("partx", "--add", loop)
        run("mount", f"{loop}p2", folder)
        try:
            for kind, name in (("tmpfs", "dev"), ("proc", "proc"), ("sysfs", "sys")):
                run("mount", "--types", kind, "none", folder / name)
            # Nothing but this disk: GRUB would look at all that there are.
            run(
                "cp",
                "--archive",
                "/dev/null",
                *Path("/dev").glob(f"{Path(loop).name}*"),
                folder / "dev",
            )
            run("chroot", folder, "grub-install", "--target=i386-pc", loop)
        finally:
            run("umount", "--recursive", folder)
    finally:
        subprocess.run(["partx", "--delete", loop], check=False)
        run("losetup", "--detach", loop)
    return disk


def test_a_fitted_server_boots_with_a_boot_loader_that_moved(
    server_image: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    source = with_loader_at_the_end(server_image, tmp_path / "source.raw", folder)
    target = tmp_path / "target.raw"
    with target.open("wb") as file:
        file.truncate(source.stat().st_size // 2)
    etsclone("clone", source, target, "--fit", "--yes")
    assert "No problems found" in run("sgdisk", "--verify", target)
    with boot(target, tmp_path / "console.log") as console:
        console.log_in()
        state = console.run("systemctl is-system-running --wait")
        failed = console.run("systemctl --failed --no-legend")
        assert state.output.strip() == "running", failed.output
        size = console.run("findmnt --noheadings --bytes --output SIZE /")
        assert int(size.output) < target.stat().st_size
        swaps = console.run("swapon --noheadings --show=NAME")
        assert "/dev/" in swaps.output
        console.power_off()
    source.unlink()
    target.unlink()
