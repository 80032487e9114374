"""Names of disks that are gone, in files as systems have them: which are found, and which are mended."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import Tree

from etsclone.model.boot import Names
from etsclone.model.disk import Content, Partition, mbr_partuuid
from etsclone.plan.bootids import (
    Use,
    boot_editor,
    find_references,
    is_stale,
    mend,
    references_in,
    unknown_inside,
    unknown_names,
)
from etsclone.units import KIB, MIB

ROOT = "11111111-2222-4333-8444-555555555555"
SWAP = "22222222-aaaa-4bbb-8ccc-dddddddddddd"
DATA = "33333333-aaaa-4bbb-8ccc-dddddddddddd"
LOST, ALSO_LOST = "9999ffff-0000-4111-8222-333333333333", "8888ffff-0000-4111-8222-333333333333"
PARTUUID = "aaaa1111-2222-4333-8444-555555555555"
MENU = (Path(__file__).parent / "samples" / "debian12-grub.cfg").read_text()

EFI = Partition(
    1, "", 0, MIB, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", content=Content("vfat", "ABCD-1234")
)
SYSTEM = Partition(2, "", MIB, MIB, "", PARTUUID, content=Content("ext4", ROOT, "system"))
SWAPPED = Partition(3, "", 2 * MIB, MIB, "", content=Content("swap", SWAP))
EXTRA = Partition(4, "", 3 * MIB, MIB, "", content=Content("ext4", DATA))
NAMES = Names((EFI, SYSTEM, SWAPPED, EXTRA), root=SYSTEM, boot=SYSTEM)
FSTAB, CFG = "/etc/fstab", "/boot/grub/grub.cfg"


def system(**texts: str) -> Tree:
    """Files by their paths, written with __ for a slash."""
    return Tree({name.encode(): text.encode() for name, text in texts.items()})


def mended(text: str, path: str = FSTAB, names: Names = NAMES, **others: str) -> str:
    tree = system(**{path: text}, **others)
    after = tree.after(mend(tree, names, {}))
    return after.files[path.encode()].decode()


def lines(text: str, path: str = FSTAB, names: Names = NAMES) -> list[str]:
    return [finding.message for finding in unknown_names(system(**{path: text}), names)]


SOUND = f"""# <file system> <mount point> <type> <options> <dump> <pass>
UUID={ROOT}  /     ext4  errors=remount-ro  0  1
UUID={SWAP}  none  swap  sw  0  0
UUID=ABCD-1234 /boot/efi vfat umask=0077 0 1
/dev/disk/by-uuid/{DATA} /srv ext4 defaults 0 2
LABEL=system /mnt ext4 noauto 0 0
PARTUUID={PARTUUID.upper()} /again ext4 noauto 0 0
# UUID={LOST} /was ext4
tmpfs /tmp tmpfs defaults 0 0
/dev/mapper/vg-x /x ext4 noauto 0 0
"""


def test_what_is_on_the_disk_is_left_alone() -> None:
    menu = {CFG: MENU, RESUME: f"RESUME=UUID={SWAP}\n"}
    tree = system(**{FSTAB: SOUND}, **menu)
    assert mend(tree, NAMES, {}) == ()
    assert unknown_names(tree, NAMES) == ()


def test_every_name_is_found() -> None:
    found = find_references(system(**{FSTAB: SOUND}))
    assert [(each.tag, each.value, each.use, each.line) for each in found] == [
        ("UUID", ROOT, Use.ROOT, 2),
        ("UUID", SWAP, Use.SWAP, 3),
        ("UUID", "ABCD-1234", Use.ESP, 4),
        ("UUID", DATA, Use.OTHER, 5),
        ("LABEL", "system", Use.OTHER, 6),
        ("PARTUUID", PARTUUID.upper(), Use.OTHER, 7),
    ]


def test_a_menu_that_names_another_root_follows() -> None:
    menu = MENU.replace(ROOT, LOST)
    tree = system(**{CFG: menu})
    (edit,) = mend(tree, NAMES, {})
    assert edit.after.decode() == MENU
    assert edit.reasons == (f"{LOST} is {ROOT} now",)


RESUME = "/etc/initramfs-tools/conf.d/resume"


@pytest.mark.parametrize(
    ("path", "text", "old", "new"),
    [
        (FSTAB, "UUID={} none swap sw 0 0\n", LOST, SWAP),
        (FSTAB, 'UUID="{}" / ext4 defaults 0 1\n', LOST, ROOT),
        (FSTAB, "UUID={} /boot/efi vfat nofail 0 1\n", "9999-0000", "ABCD-1234"),
        (FSTAB, "{} none swap sw 0 0\n", "/dev/sda3", f"UUID={SWAP}"),
        (FSTAB, "{} / ext4 defaults 0 1\n", "/dev/nvme0n1p2", f"UUID={ROOT}"),
        (FSTAB, "{} / ext4 defaults 0 1\n", "/dev/disk/by-id/ata-X_1-part2", f"UUID={ROOT}"),
        (RESUME, "RESUME=UUID={}\n", LOST, SWAP),
        (RESUME, "RESUME={}\n", "/dev/sda3", f"UUID={SWAP}"),
        ("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet resume=UUID={}"\n', LOST, SWAP),
        ("/etc/default/grub", 'X="root={} quiet"\n', "/dev/sda2", f"PARTUUID={PARTUUID}"),
        ("/etc/kernel/cmdline", "root=PARTUUID={} ro\n", LOST, PARTUUID),
        ("/etc/dracut.conf.d/a.conf", 'x="resume=/dev/disk/by-uuid/{}"\n', LOST, SWAP),
        ("/boot/loader/entries/a.conf", "options root=UUID={} ro\n", LOST, ROOT),
        ("/boot/efi/EFI/debian/grub.cfg", "search.fs_uuid {} root hd0,gpt2 \n", LOST, ROOT),
    ],
)
def test_where_one_part_can_be_meant_it_is_named(path: str, text: str, old: str, new: str) -> None:
    assert mended(text.format(old), path) == text.format(new)


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("menuentry A {\n linux /v root=/dev/sda ro\n}\nmenuentry B {\n initrd /i\n}\n", False),
        ("menuentry A {\n initrd /i\n}\nmenuentry B {\n linux /v root=/dev/sda ro\n}\n", False),
        ("menuentry A {\n linux /v root=/dev/sda ro\n\tinitrd /i\n}\n", True),
        ("title A\ninitrd /i\noptions root=/dev/sda ro\n", True),
        ("title A\n# initrd /i\noptions root=/dev/sda ro\n", False),
        ("LABEL a\n KERNEL v\n APPEND initrd=i root=/dev/sda ro\n", True),
        ("LABEL a\n KERNEL v\n APPEND root=/dev/sda ro\nLABEL b\n INITRD i\n", False),
    ],
)
def test_a_root_without_partuuid_is_named_by_uuid_only_to_an_initramfs(
    text: str, follows: bool
) -> None:
    whole = Partition(0, "", 0, MIB, "", content=Content("ext4", ROOT))
    names = Names((whole,), root=whole, boot=whole)
    due = text.replace("/dev/sda", f"UUID={ROOT}") if follows else text
    assert mended(text, CFG, names) == due


def test_the_partitions_of_an_mbr_have_names_too() -> None:
    root = replace(SYSTEM, uuid=mbr_partuuid(0x1234ABCD, 10))
    names = Names((root,), root=root, boot=root)
    assert root.uuid == "1234abcd-0a"
    for right in ("root=PARTUUID=1234abcd-0a", "root=PARTUUID=1234ABCD-0A"):
        assert lines(f"linux /v {right}\n", CFG, names) == []
        assert mended(f"linux /v {right}\n", CFG, names) == f"linux /v {right}\n"
    for wrong in ("/dev/sda2", "PARTUUID=1234abcd-10", "PARTUUID=deadbeef-0a"):
        assert mended(f"linux /v root={wrong} ro\n", CFG, names) == (
            "linux /v root=PARTUUID=1234abcd-0a ro\n"
        )


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (FSTAB, f"UUID={LOST} /data ext4 nofail 0 2\n"),
        (FSTAB, "/dev/sdb1 /data ext4 nofail 0 2\n"),
        (FSTAB, f"UUID={SWAP} none swap sw 0 0\nUUID={LOST} none swap sw 0 0\n"),
        (FSTAB, "LABEL=other none swap sw 0 0\n"),
        (CFG, f"linux /vmlinuz root=UUID={ROOT}\nlinux /other root=UUID={LOST}\n"),
        (CFG, f"linux /vmlinuz root=UUID={ALSO_LOST}\nlinux /other root=UUID={LOST}\n"),
        (CFG, f"linux /vmlinuz root=UUID={ROOT}\nlinux /other root=/dev/sdb2\n"),
        (CFG, "search --no-floppy --fs-uuid --set=root 9999-0000\nchainloader +1\n"),
        (FSTAB, "/dev/sda3 none swap sw 0 0\n/dev/sdb3 none swap sw 0 0\n"),
        ("/etc/crypttab", f"data UUID={LOST} none luks\n"),
        # Made anew with a random key at every boot: a wrong name would wipe what is there.
        ("/etc/crypttab", "swap /dev/sda3 /dev/urandom swap\n"),
    ],
)
def test_what_may_mean_something_else_is_only_told(path: str, text: str) -> None:
    assert mended(text, path) == text
    assert lines(text, path)


def test_the_entries_of_a_menu_are_judged_together() -> None:
    entries = {
        f"/boot/loader/entries/{name}.conf": f"options root=UUID={uuid}\n"
        for name, uuid in (("a", ROOT), ("b", LOST))
    }
    assert mend(system(**entries), NAMES, {}) == ()
    both = {path: text.replace(ROOT, LOST) for path, text in entries.items()}
    assert len(mend(system(**both), NAMES, {})) == 2


def test_a_name_after_this_very_disks_serial_number_is_right() -> None:
    names = replace(NAMES, serial="WX12")
    text = "/dev/disk/by-id/ata-DISK_WX12-part2 / ext4 defaults 0 1\n"
    assert mended(text, names=names) == text
    assert lines(text, names=names) == []


def test_a_locked_volume_is_never_named_anew() -> None:
    locked = Partition(5, "", 4 * MIB, MIB, "", content=Content("crypto_LUKS", ALSO_LOST))
    names = replace(NAMES, parts=(*NAMES.parts, locked))
    for text in (f"x UUID={LOST} none luks\n", "swap /dev/sda3 /dev/urandom swap\n"):
        assert mended(text, "/etc/crypttab", names) == text


def test_with_two_swaps_the_lost_one_stays_lost() -> None:
    second = Partition(5, "", 4 * MIB, MIB, "", content=Content("swap", ALSO_LOST))
    names = Names((*NAMES.parts, second), root=SYSTEM, boot=SYSTEM)
    text = f"RESUME=UUID={LOST}\n"
    assert mended(text, RESUME, names) == text
    fstab = f"UUID={SWAP} none swap sw 0 0\nUUID={LOST} none swap sw 0 0\n"
    assert mended(fstab, FSTAB, names) == fstab.replace(LOST, ALSO_LOST)


def test_where_volumes_are_not_open_no_filesystem_is_missed() -> None:
    names = Names(NAMES.parts, whole=False)
    text = f"UUID={LOST} / ext4 defaults 0 1\nPARTUUID={LOST} /x ext4 nofail 0 1\n"
    assert mended(text, names=names) == text
    assert lines(text, names=names) == [
        f"PARTUUID={LOST} (something else, line 2) is not on this disk"
    ]


def test_what_is_known_goes_before_what_is_inferred() -> None:
    tree = system(
        **{FSTAB: f"UUID={LOST} none swap sw 0 0\nUUID={ALSO_LOST} /srv ext4 nofail 0 2\n"}
    )
    edits = boot_editor(NAMES, {ALSO_LOST: DATA})(tree)
    assert tree.after(edits).files[b"/etc/fstab"].decode() == (
        f"UUID={SWAP} none swap sw 0 0\nUUID={DATA} /srv ext4 nofail 0 2\n"
    )


def test_kernels_names_are_told() -> None:
    (message,) = lines("/dev/sdb1 /data ext4 nofail 0 2\n")
    assert message == "/dev/sdb1 (something else, line 1) may be another disk's, or nobody's"


def test_the_files_of_an_initramfs_are_judged_too() -> None:
    contents = {
        b"conf/conf.d/resume": f"RESUME=UUID={LOST}\n".encode(),
        b"conf/conf.d/sound": f"RESUME=UUID={SWAP}\n".encode(),
    }
    (finding,) = unknown_inside(b"/boot/initrd.img-6.1", contents, NAMES)
    assert str(finding) == (
        f"/boot/initrd.img-6.1: conf/conf.d/resume in it: UUID={LOST} (the resume device, line 1) is not on this disk"
    )


def test_an_initramfs_is_stale_when_what_it_is_made_from_has_moved_on() -> None:
    contents = {b"conf/conf.d/resume": f"RESUME=UUID={LOST}\n".encode()}
    assert is_stale(system(**{RESUME: f"RESUME=UUID={SWAP}\n"}), contents, NAMES)
    # To make it anew would change nothing.
    assert not is_stale(system(**{RESUME: f"RESUME=UUID={LOST}\n"}), contents, NAMES)
    assert not is_stale(system(), {b"conf/conf.d/resume": f"UUID={SWAP}".encode()}, NAMES)


SPECS = st.sampled_from(
    [f"UUID={value}" for value in (ROOT, SWAP, DATA, LOST, ALSO_LOST, "ABCD-1234", "9999-0000")]
    + ["/dev/sda2", "/dev/vdb", "LABEL=system", "LABEL=x", "tmpfs", f"/dev/disk/by-uuid/{LOST}"]
)
FSTAB_LINES = st.builds(
    "{0} {1} {2} defaults 0 0".format,
    SPECS,
    st.sampled_from(["/", "none", "/boot/efi", "/srv"]),
    st.sampled_from(["ext4", "swap", "vfat"]),
)
COMMANDS = st.builds(
    "linux /vmlinuz {0}={1} quiet".format, st.sampled_from(["root", "resume", "x"]), SPECS
)


@given(fstab=st.lists(FSTAB_LINES), menu=st.lists(COMMANDS))
def test_mending_twice_is_mending_once_and_adds_no_trouble(
    fstab: list[str], menu: list[str]
) -> None:
    tree = system(**{FSTAB: "\n".join(fstab), CFG: "\n".join(menu)})
    after = tree.after(mend(tree, NAMES, {}))
    assert mend(after, NAMES, {}) == ()
    before = {(each.path, each.message.split()[0]) for each in unknown_names(tree, NAMES)}
    left = {(each.path, each.message.split()[0]) for each in unknown_names(after, NAMES)}
    assert left <= before
    for path, content in tree.files.items():
        assert len(after.files[path].splitlines()) == len(content.splitlines())
        for one, other in zip(content.split(), after.files[path].split(), strict=True):
            known = any(
                value.encode() in one for value in (ROOT, SWAP, DATA, "ABCD-1234", "system")
            )
            assert one == other or not known


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(noise: bytes) -> None:
    tree = Tree({b"/etc/fstab": noise, b"/boot/grub/grub.cfg": noise + b" root=UUID=" + noise})
    after = tree.after(mend(tree, NAMES, {}))
    for finding in unknown_names(after, NAMES):
        assert str(finding).isprintable()


@pytest.mark.parametrize(
    "piece",
    [
        b" --fs-uuid ",
        b" --fs-uuid abcd-",
        b"search.fs_uuid ",
        b"root=",
        b"UUID=1 ",
        b"/dev/nvme0n",
        b"/dev/sda",
        b"1",
        b"abcd-",
        b"luks.uuid=luks-",
    ],
)
@pytest.mark.parametrize("before", [b"", b" --fs-uuid ", b"/dev/nvme0n", b"/dev/sd", b"root="])
@pytest.mark.parametrize("path", [b"/etc/fstab", b"/boot/grub/grub.cfg"])
def test_a_line_of_any_length_is_looked_through_at_once(
    path: bytes, before: bytes, piece: bytes
) -> None:
    line = before + piece * (64 * KIB // len(piece)) + b"x$\n"
    start = time.process_time()
    for _ in references_in(path, line):
        pass
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    "line",
    [
        "linux /v root=UUID={0:08x}-2222-4333-8444-555555555555\n",
        "linux /v root=UUID=9999ffff-2222-4333-8444-555555555555\n",
        "linux /v root=/dev/sda1\n",
        "UUID={0:08x}-2222-4333-8444-555555555555 none swap\n",
        "/dev/sda{0} none swap\n",
    ],
)
@pytest.mark.parametrize("path", ["/etc/fstab", "/boot/grub/grub.cfg"])
def test_names_without_number_are_judged_at_once(path: str, line: str) -> None:
    text = "".join(line.format(number) for number in range(10_000))
    start = time.process_time()
    mend(Tree({path.encode(): text.encode()}), NAMES, {})
    assert time.process_time() - start < 5
