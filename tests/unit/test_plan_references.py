"""Identifiers in the files of a system, and others in their places."""

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trees import Tree

from etsclone.plan.references import named_by_label, names_old, rewrite, stale

OLD, NEW = "0b4f2c1a-9d3e-4c55-8a77-0123456789ab", "f1e2d3c4-b5a6-4788-99aa-bbccddeeff00"
LVM_OLD, LVM_NEW = (
    "Yk1aBc-DeF2-gHi3-jKl4-mNo5-pQr6-sTu7vW",
    "Zk9zYx-WvU8-tSr7-qPo6-nMl5-kJi4-hGf3eD",
)


def changed(before: str, mapping: dict[str, str], path: bytes = b"/etc/fstab") -> str:
    """The text that a file has afterwards."""
    edits = rewrite(Tree({path: before.encode()}), mapping)
    assert all(edit.path == path and edit.before == before.encode() for edit in edits)
    return edits[0].after.decode() if edits else before


@pytest.mark.parametrize(
    ("form", "spell"),
    [
        ("UUID={} / ext4", str),
        ('UUID="{}" / ext4', str),
        ("UUID={}", str.upper),
        ("/dev/disk/by-uuid/{}", str),
        ("luks-{} UUID={} none", str),
        ("rd.luks.uuid=luks-{} quiet", str),
        ("rd.luks.name={}=root", str),
        ("root=PARTUUID={}", str),
        ("search --no-floppy --fs-uuid --set=root --hint='hd0,gpt2'  {}\n", str),
        ("systemd-cryptsetup@luks\\x2d{}.service", lambda uuid: uuid.replace("-", "\\x2d")),
        ("After=dev-disk-by\\x2duuid-{}.device", lambda uuid: uuid.replace("-", "\\x2d")),
        ("set root='mduuid/{}'", lambda uuid: uuid.replace("-", "")),
        ("set root='cryptouuid/{}'", lambda uuid: uuid.replace("-", "").upper()),
        ("dm-uuid-CRYPT-LUKS2-{}-root", lambda uuid: uuid.replace("-", "")),
        (
            "ARRAY /dev/md/0 metadata=1.2 UUID={} name=a:0",
            lambda uuid: ":".join(re.findall("[0-9a-f]{8}", uuid.replace("-", ""))),
        ),
    ],
)
def test_spellings_of_a_uuid(form: str, spell: object) -> None:
    assert callable(spell)
    before = form.replace("{}", spell(OLD))
    assert changed(before, {OLD: NEW}) == form.replace("{}", spell(NEW))


@pytest.mark.parametrize(
    ("old", "new", "before", "after"),
    [
        ("ABCD-1234", "0F1E-22AA", "UUID=ABCD-1234 /boot/efi", "UUID=0F1E-22AA /boot/efi"),
        ("ABCD-1234", "0F1E-22AA", "by-uuid/abcd-1234", "by-uuid/0f1e-22aa"),
        ("ABCD-1234", "0F1E-22AA", "uuid-ABCD\\x2d1234.device", "uuid-0F1E\\x2d22AA.device"),
        ("1234-5678", "0F1E-22AA", "UUID=1234-5678", "UUID=0F1E-22AA"),
        ("abcdef12-02", "12fedcba-02", "root=PARTUUID=ABCDEF12-02", "root=PARTUUID=12FEDCBA-02"),
        ("0xabcdef12", "0x12fedcba", "id 0xABCDEF12, 0xabcdef12", "id 0x12FEDCBA, 0x12fedcba"),
        (LVM_OLD, LVM_NEW, f"lvmid/{LVM_OLD}/{LVM_OLD}'", f"lvmid/{LVM_NEW}/{LVM_NEW}'"),
        (
            LVM_OLD,
            LVM_NEW,
            f"PVID={LVM_OLD.replace('-', '')} PART=2",
            f"PVID={LVM_NEW.replace('-', '')} PART=2",
        ),
    ],
)
def test_other_identifiers(old: str, new: str, before: str, after: str) -> None:
    assert changed(before, {old: new}) == after


@pytest.mark.parametrize(
    ("old", "text"),
    [
        (OLD, f"UUID=1{OLD}"),
        (OLD, f"UUID={OLD}f"),
        (OLD, f"UUID={OLD[:-1]}"),
        ("4c55-8a77", OLD),  # a part of a longer one
        ("4c55-8a77", OLD.replace("-", "\\x2d")),
        ("0b4f2c1a-9d", OLD),
        ("0xabcdef12", "abcdef12 0xabcdef123 10xabcdef12"),
        (LVM_OLD, LVM_OLD.lower()),
        (LVM_OLD, LVM_OLD.replace("-", "") + LVM_OLD.replace("-", "")),
    ],
)
def test_what_only_looks_like_it_stays(old: str, text: str) -> None:
    new = {36: NEW, 38: LVM_NEW, 9: "0F1E-22AA", 11: "12fedcba-02", 10: "0x12fedcba"}[len(old)]
    assert changed(text, {old: new}) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/dev/mapper/a--b-root / ext4", "/dev/mapper/c--d_1-root / ext4"),
        ("/dev/a-b/root / ext4", "/dev/c-d_1/root / ext4"),
        ("rd.lvm.lv=a-b/root rd.lvm.vg=a-b quiet", "rd.lvm.lv=c-d_1/root rd.lvm.vg=c-d_1 quiet"),
        ("dev-mapper-a\\x2d\\x2db\\x2droot.device", "dev-mapper-c\\x2d\\x2dd_1\\x2droot.device"),
        ("dev-a\\x2db-root.device", "dev-c\\x2dd_1-root.device"),
        ("set root='lvm/a--b-root'", "set root='lvm/c--d_1-root'"),
        ("/dev/mapper/a--b--c-root a-b /dev/a-bc/x rd.lvm.vg=a-b2", ""),
        ("/srv/a-b/root dev-mapper-a\\x2d\\x2db\\x2d\\x2dc\\x2droot", ""),
    ],
)
def test_names_of_volume_groups(before: str, after: str) -> None:
    edits = rewrite(Tree({b"/etc/fstab": before.encode()}), {}, {"a-b": "c-d_1"})
    assert [edit.after.decode() for edit in edits] == ([after] if after else [])
    assert all(edit.reasons == ("the volume group a-b is c-d_1 now",) for edit in edits)


def test_two_that_change_places() -> None:
    assert changed(f"{OLD} {NEW} {OLD}", {OLD: NEW, NEW: OLD}) == f"{NEW} {OLD} {NEW}"


def test_what_stays_is_no_edit() -> None:
    assert rewrite(Tree({b"/etc/fstab": OLD.encode()}), {OLD: OLD}) == ()
    assert rewrite(Tree({b"/etc/fstab": b"/dev/sda1 / ext4"}), {OLD: NEW}) == ()
    assert rewrite(Tree(), {OLD: NEW}) == ()


@pytest.mark.parametrize("pair", [(OLD, "ABCD-1234"), ("root", "home"), (OLD, LVM_NEW), ("", "")])
def test_other_forms_are_refused(pair: tuple[str, str]) -> None:
    old, new = pair
    if old == new:
        assert rewrite(Tree(), {old: new}) == ()
        return
    with pytest.raises(ValueError, match="identifiers"):
        rewrite(Tree(), {old: new})


PLACES = (
    "/etc/fstab", "/etc/crypttab", "/etc/default/grub", "/etc/default/grub.d/50-cloud.cfg", "/etc/grub.d/40_custom",
    "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/grub/device.map", "/boot/grub2/grubenv",
    "/etc/kernel/cmdline", "/etc/initramfs-tools/conf.d/resume", "/etc/dracut.conf", "/etc/dracut.conf.d/resume.conf",
    "/etc/mdadm/mdadm.conf", "/etc/mdadm.conf", "/boot/loader/entries/a.conf", "/boot/efi/loader/entries/a.conf",
    "/boot/efi/EFI/debian/grub.cfg", "/efi/EFI/debian/grub.cfg", "/etc/systemd/system/srv.mount",
    "/etc/systemd/system/a.swap", "/etc/systemd/system/srv.mount.d/a.conf",
)  # fmt: skip


def test_the_files_that_are_looked_at() -> None:
    tree = Tree({path.encode(): f"x {OLD} y".encode() for path in PLACES})
    edits = rewrite(tree, {OLD: NEW})
    assert {edit.path for edit in edits} == set(tree.files)
    assert {edit.after for edit in edits} == {f"x {NEW} y".encode()}
    assert {edit.reasons for edit in edits} == {(f"{OLD} is {NEW} now",)}


def test_other_files_are_left_alone() -> None:
    paths = (b"/etc/hosts", b"/home/a/fstab", b"/boot/vmlinuz", b"/etc/systemd/system/a.link")
    assert rewrite(Tree(dict.fromkeys(paths, OLD.encode())), {OLD: NEW}) == ()


def test_what_cannot_follow_by_an_edit() -> None:
    escaped = OLD.replace("-", "\\x2d")
    unit = f"/etc/systemd/system/dev-disk-by\\x2duuid-{escaped}.swap"
    tree = Tree(
        {
            unit.encode(): b"",
            b"/etc/systemd/system/srv.mount": OLD.encode(),
            b"/boot/efi/EFI/debian/grubx64.efi": b"\0search.fs_uuid %s root\0" % OLD.encode(),
            b"/boot/efi/EFI/debian/shimx64.efi": b"\0\0",
        }
    )
    assert stale(tree, {OLD: NEW}) == (
        f"{unit} is called by an old identifier: give it another name",
        "/boot/efi/EFI/debian/grubx64.efi names an old identifier: install the boot loader again",
    )
    assert stale(tree, {NEW: OLD}) == ()


def test_whether_anything_in_an_initramfs_names_one() -> None:
    contents = {b"conf/conf.d/resume": f"RESUME=UUID={OLD}\n".encode(), b"etc/crypttab": b""}
    assert names_old(contents, {OLD: NEW})
    assert not names_old(contents, {NEW: OLD})


def test_what_is_mounted_by_label() -> None:
    fstab = (
        b"LABEL=root / ext4\nUUID=1 /a ext4\n # LABEL=x\n\n/dev/disk/by-partlabel/home /home ext4\n"
    )
    assert named_by_label(Tree({b"/etc/fstab": fstab})) == (
        "fstab names LABEL=root, which source and clone have in common: name it by UUID",
        "fstab names /dev/disk/by-partlabel/home, which source and clone have in common: name it by UUID",
    )
    assert named_by_label(Tree()) == ()


HEX = "0123456789abcdef"


def grouped(alphabet: str, sizes: tuple[int, ...]) -> st.SearchStrategy[str]:
    return st.tuples(*(st.text(alphabet, min_size=n, max_size=n) for n in sizes)).map("-".join)


KINDS = (
    grouped(HEX, (8, 4, 4, 4, 12)),
    grouped(HEX.upper(), (4, 4)),
    grouped(HEX, (8, 2)),
    grouped(string.ascii_letters + string.digits, (6, 4, 4, 4, 4, 4, 6)),
)


def has_case(text: str) -> bool:
    return text.lower() != text.upper()


@given(st.data())
def test_the_way_back(data: st.DataObject) -> None:
    mapping = {}
    for kind in KINDS:
        new, old = data.draw(kind), data.draw(kind)
        assume(has_case(new) and has_case(old) and old.lower() != new.lower())
        mapping[old] = new
    lowered = [each.lower() for pair in mapping.items() for each in pair]
    assume(len(set(lowered)) == len(lowered))
    noise = st.binary(max_size=20).map(lambda raw: b"/" + raw + b"/")
    named = st.sampled_from(sorted(mapping)).map(str.encode)
    pieces = data.draw(st.lists(noise | named, max_size=12))
    content = b" ".join(pieces)
    assume(not any(new.lower().encode() in content.lower() for new in mapping.values()))
    edits = rewrite(Tree({b"/etc/fstab": content}), mapping)
    after = edits[0].after if edits else content
    # Only what is named differs, and nothing else.
    assert after == b" ".join(
        mapping.get(p.decode(errors="replace"), "").encode() or p for p in pieces
    )
    back = rewrite(Tree({b"/etc/fstab": after}), {new: old for old, new in mapping.items()})
    assert (back[0].after if back else after) == content
