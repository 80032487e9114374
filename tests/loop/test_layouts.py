"""Systems laid out in ways that this kernel can mount: separate filesystems, btrfs subvolumes, partitions by type."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import disks
from .conftest import Cli, Result
from .disks import MIB, loop_device, node, tool

pytestmark = pytest.mark.loop

ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
HOME_TYPE = "933AC7E1-2EB4-4F13-B844-0E14E2AEF915"
VAR_TYPE = "4D21B016-B534-45C2-A9FB-5C16E091FD2D"
XBOOTLDR = "BC13C2FF-59E6-4262-A352-B275FD6F7172"


def uuid_of(device: Path) -> str:
    return tool("blkid", "--probe", "--match-tag", "UUID", "--output", "value", device).strip()


def files(root: Path, fstab: str | None) -> None:
    """A small system; `fstab` None means that it has none."""
    for folder in ("etc", "var/log", "home", "boot", "srv"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "etc/hostname").write_text("primary\n")
    if fstab is not None:
        (root / "etc/fstab").write_text(fstab)


def marked(folder: Path, word: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mark").write_text(word)


def image_of(path: Path, size: int, table: str, kinds: dict[int, str]) -> Path:
    disks.blank(path, size * MIB)
    tool("sfdisk", "--quiet", path, typed=table)
    with loop_device(path) as device:
        for number, kind in kinds.items():
            tool(*disks.MAKE[kind], node(device, number))
    return path


@contextmanager
def seen(etsclone: Cli, image: Path, where: Path, *options: str) -> Iterator[Path]:
    """The system of an image, as `etsclone mount` shows it."""
    where.mkdir(exist_ok=True)
    done = etsclone("mount", image, where, *options)
    assert done.code == 0, done.err
    try:
        yield where
    finally:
        done = etsclone("umount", where)
        assert done.code == 0, done.err
    assert not where.is_mount()
    assert disks.loops_of(image) == []


def refused(done: Result, code: int, word: str) -> None:
    assert done.code == code, done.err
    assert word in done.err


Make = Callable[[str], Path]


@pytest.fixture
def scattered(tmp_path: Path) -> Make:
    """A disk with /boot, /var and /home beside the root, with a table of some kind."""

    def made(label: str) -> Path:
        table = f"label: {label}\n" + "".join(
            f"size={size}MiB, type=linux\n" for size in (24, 16, 300, 16)
        )
        kinds = {1: "ext4", 2: "ext2", 3: "xfs", 4: "ext4"}
        image = image_of(tmp_path / f"{label}.img", 360, table, kinds)
        with loop_device(image) as device:
            tool("e2label", node(device, 4), "far away")
            by_number = (
                f"PARTUUID={tool('sfdisk', '--part-uuid', image, '2').strip()}"
                if label == "gpt"
                else "/dev/sda2"
            )
            lines = (
                "/dev/disk/by-label/far\\x20away /home ext4 defaults 0 2",
                f"{by_number} /boot ext2 defaults 0 2",
                f"UUID={uuid_of(node(device, 1)).upper()} / ext4 defaults 0 1",
                f"UUID={uuid_of(node(device, 3))} /var xfs defaults 0 2",
                "UUID=11111111-1111-1111-1111-111111111111 none swap sw 0 0",
                "UUID=22222222-2222-2222-2222-222222222222 /srv ext4 nofail 0 2",
            )
            for number, word in {1: "", 2: "boot", 3: "var", 4: "home"}.items():
                with disks.mounted(node(device, number), tmp_path / "mnt") as root:
                    if word:
                        marked(root, word)
                        (root / "grub").mkdir()  # for /boot: what is named by number is looked at
                    else:
                        files(root, "\n".join(lines) + "\n")
        return image

    return made


def twin_of(image: Path) -> Path:
    twin = image.with_suffix(".twin")
    subprocess.run(["cp", "--sparse=always", image, twin], check=True)
    return twin


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_filesystems_where_fstab_says_while_the_twin_is_mounted(
    scattered: Make, label: str, etsclone: Cli, tmp_path: Path
) -> None:
    image = scattered(label)
    twin = twin_of(image)
    with loop_device(twin) as device:
        with disks.mounted(node(device, 1), tmp_path / "mnt") as root:
            (root / "etc/hostname").write_text("twin\n")
        with (
            disks.mounted(node(device, 3), tmp_path / "mnt", "nouuid"),
            disks.mounted(node(device, 1), tmp_path / "mnt1"),
            seen(etsclone, image, tmp_path / "system") as system,
        ):
            assert (system / "etc/hostname").read_text() == "primary\n"
            for name in ("boot", "var", "home"):
                assert (system / name / "mark").read_text() == name
                assert (system / name).is_mount()
            assert not (system / "srv").is_mount()
            with pytest.raises(OSError, match="Read-only"):
                (system / "var/new").write_text("")


def test_what_is_written_through_the_mount_is_on_the_disk(
    scattered: Make, etsclone: Cli, tmp_path: Path
) -> None:
    image = scattered("gpt")
    with seen(etsclone, image, tmp_path / "system", "--rw") as system:
        (system / "var/new").write_text("new\n")
        refused(etsclone("clone", image, tmp_path / "other.img", "--yes"), 3, "in use")
        refused(etsclone("clone", scattered("dos"), image, "--yes"), 3, "mounted")
        refused(etsclone("mount", image, tmp_path / "mnt", "--rw"), 3, "mounted")
    with loop_device(image) as device, disks.mounted(node(device, 3), tmp_path / "mnt") as var:
        assert (var / "new").read_text() == "new\n"


def test_a_system_is_undone_by_its_disk_and_only_when_nothing_is_in_the_way(
    scattered: Make, etsclone: Cli, tmp_path: Path
) -> None:
    image, where = scattered("gpt"), tmp_path / "system"
    where.mkdir()
    refused(etsclone("umount", where), 2, "nothing is mounted")
    assert etsclone("mount", image, where).code == 0
    refused(etsclone("mount", image, where), 2, "not empty")
    tool("mount", "-t", "tmpfs", "none", where / "srv")
    refused(etsclone("umount", where), 3, "/srv")
    tool("umount", where / "srv")
    with (where / "etc/hostname").open():
        assert etsclone("umount", image).code == 1
    assert etsclone("umount", image).code == 0
    assert disks.loops_of(image) == []
    refused(etsclone("umount", image), 2, "nothing is mounted")


def test_what_fstab_wants_must_be_on_the_disk(
    scattered: Make, etsclone: Cli, tmp_path: Path
) -> None:
    image = scattered("gpt")
    with loop_device(image) as device:
        with disks.mounted(node(device, 1), tmp_path / "mnt") as root:
            fstab = root / "etc/fstab"
            fstab.write_text(fstab.read_text().replace(" nofail ", " defaults "))
        where = tmp_path / "system"
        where.mkdir()
        refused(etsclone("mount", device, where), 3, "no such volume")
        assert not where.is_mount()
    assert not list(Path("/run/etsclone/mounted").glob("*")) or not where.is_mount()


@pytest.mark.parametrize("fstab", [None, "", "# nothing\nUUID=1 none swap sw 0 0\n"])
def test_partitions_by_type_where_fstab_says_nothing(
    fstab: str | None, etsclone: Cli, tmp_path: Path
) -> None:
    table = "label: gpt\n" + "".join(
        f"size=24MiB, type={kind}\n" for kind in (HOME_TYPE, ROOT_TYPE, VAR_TYPE, XBOOTLDR)
    )
    image = image_of(tmp_path / "typed.img", 100, table, dict.fromkeys((1, 2, 3, 4), "ext4"))
    with loop_device(image) as device:
        for number, word in {1: "home", 2: "", 3: "var", 4: "boot"}.items():
            with disks.mounted(node(device, number), tmp_path / "mnt") as root:
                if word:
                    marked(root, word)
                else:
                    files(root, fstab)
    with seen(etsclone, image, tmp_path / "system") as system:
        for name in ("home", "var", "boot"):
            assert (system / name / "mark").read_text() == name


def subvolumes(image: Path, where: Path, default: str, fstab_root: str) -> str:
    """Make a btrfs with the subvolumes @, @home and a snapshot of @; returns its UUID."""
    with loop_device(image) as device:
        uuid = uuid_of(node(device, 1))
        with disks.mounted(node(device, 1), where) as top:
            for name in ("@", "@home"):
                tool("btrfs", "subvolume", "create", top / name)
            files(
                top / "@",
                f"UUID={uuid} / btrfs {fstab_root} 0 0\nUUID={uuid} /home btrfs subvol=@home 0 0\n",
            )
            marked(top / "@home", "home")
            tool("btrfs", "subvolume", "snapshot", "-r", top / "@", top / "@snapshot")
            (top / "@" / "etc/hostname").write_text("now\n")
            if default:
                tool("btrfs", "subvolume", "set-default", top / default)
    return uuid


@pytest.fixture
def btrfs(tmp_path: Path) -> Path:
    return image_of(tmp_path / "btrfs.img", 220, "label: gpt\ntype=linux\n", {1: "btrfs"})


@pytest.mark.parametrize(
    ("default", "root"),
    [
        ("", "subvol=@"),
        ("", "subvol=/@,compress=zstd"),
        ("@", "defaults"),
        ("@snapshot", "subvol=@"),
    ],
)
def test_the_root_in_a_subvolume(
    btrfs: Path, default: str, root: str, etsclone: Cli, tmp_path: Path
) -> None:
    subvolumes(btrfs, tmp_path / "mnt", default, root)
    for options in ((), ("--rw",)):
        with seen(etsclone, btrfs, tmp_path / "system", *options) as system:
            assert (system / "etc/hostname").read_text() == "now\n"
            assert (system / "home/mark").read_text() == "home"


def test_a_subvolume_is_mounted_by_no_options_of_its_name(
    btrfs: Path, etsclone: Cli, tmp_path: Path
) -> None:
    name = "@,suid,dev,rw"
    with loop_device(btrfs) as device, disks.mounted(node(device, 1), tmp_path / "mnt") as top:
        tool("btrfs", "subvolume", "create", top / name)
        files(top / name, f"UUID={uuid_of(node(device, 1))} / btrfs defaults 0 0\n")
        tool("btrfs", "subvolume", "create", top / "x\nID 5 gen 1 top level 5 path host")
        (top / "host").symlink_to("/")
    with seen(etsclone, btrfs, tmp_path / "system") as system:
        options = (
            tool("findmnt", "--noheadings", "--output", "VFS-OPTIONS", system).strip().split(",")
        )
        assert {"ro", "nosuid", "nodev"} <= set(options)
        assert not {"rw", "suid", "dev"} & set(options)


def test_two_subvolumes_that_could_be_the_root(btrfs: Path, etsclone: Cli, tmp_path: Path) -> None:
    subvolumes(btrfs, tmp_path / "mnt", "", "defaults")
    (tmp_path / "system").mkdir()
    refused(etsclone("mount", btrfs, tmp_path / "system"), 3, "more than one system")


def test_a_btrfs_whose_twin_is_mounted_is_refused_and_one_that_is_only_there_is_not(
    btrfs: Path, etsclone: Cli, tmp_path: Path
) -> None:
    subvolumes(btrfs, tmp_path / "mnt", "", "subvol=@")
    twin = twin_of(btrfs)
    system = tmp_path / "system"
    with loop_device(twin) as device:
        with disks.mounted(node(device, 1), tmp_path / "mnt") as root:
            (root / "@" / "etc/hostname").write_text("twin\n")
            system.mkdir()
            refused(etsclone("mount", btrfs, system), 3, "same UUID")
        # The kernel knows the twin now, which is newer too.
        tool("btrfs", "device", "scan", node(device, 1))
        with seen(etsclone, btrfs, system, "--rw"):
            assert (system / "etc/hostname").read_text() == "now\n"
            (system / "etc/hostname").write_text("written\n")
        with disks.mounted(node(device, 1), tmp_path / "mnt") as root:
            assert (root / "@" / "etc/hostname").read_text() == "twin\n"


def test_nothing_changes_on_a_disk_that_is_only_looked_at(
    scattered: Make, btrfs: Path, etsclone: Cli, tmp_path: Path
) -> None:
    subvolumes(btrfs, tmp_path / "mnt", "", "subvol=@")
    for image in (scattered("gpt"), btrfs):
        with loop_device(image) as device:
            before = tool("sha256sum", device)
            with seen(etsclone, device, tmp_path / "system"):
                pass
            tool("blockdev", "--flushbufs", device)
            assert tool("sha256sum", device) == before
