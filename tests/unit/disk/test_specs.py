"""What fstab calls the volumes of a disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.disk.specs import (
    AUTO,
    INSIDE,
    Volume,
    Words,
    array_names,
    content_names,
    logical_names,
    matching,
    name_of,
    only_array,
    parse_mdadm_conf,
    partition_names,
    stem_of,
)
from etsclone.model.disk import ESP, Content, Disk, DiskIdentity, Partition, PartitionTable

UUID = "6F1F4D2E-3D3B-4AC7-9F5E-0123456789AB"


def volume(*names: str) -> Volume:
    return Volume("/dev/x", Content("ext4"), frozenset(names), "x")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (f"UUID={UUID}", f"UUID={UUID.lower()}"),
        (f'UUID="{UUID}"', f"UUID={UUID.lower()}"),
        (f"/dev/disk/by-uuid/{UUID.lower()}", f"UUID={UUID.lower()}"),
        ("LABEL=Root", "LABEL=Root"),
        ("/dev/disk/by-label/My\\x20disk", "LABEL=My disk"),
        ("/dev/disk/by-partlabel/ESP", "PARTLABEL=ESP"),
        ("/dev/disk/by-partuuid/AB-01", "PARTUUID=ab-01"),
        ("/dev/pair-vg/root", "/dev/mapper/pair--vg-root"),
        ("/dev/vg/var-log", "/dev/mapper/vg-var--log"),
        ("/dev/mapper/pair--vg-root", "/dev/mapper/pair--vg-root"),
        ("/dev/disk/by-id/dm-name-vg-root", "/dev/mapper/vg-root"),
        ("ID=dm-name-vg-root", "/dev/mapper/vg-root"),
        ("/dev/md0", "MD=0"),
        ("/dev/md/0", "MD=0"),
        ("/dev/md/host:boot", "MD=boot"),
        ("/dev/disk/by-id/md-uuid-AB:cd", "MDUUID=ab:cd"),
        ("/dev/disk/by-id/md-name-host:boot", "MD=boot"),
        ("/dev/sda1", "PART=1"),
        ("/dev/sdaa12", "PART=12"),
        ("/dev/vdb3", "PART=3"),
        ("/dev/nvme0n1p2", "PART=2"),
        ("/dev/mmcblk0p1", "PART=1"),
        ("/dev/disk/by-id/ata-X-Y_Z123-part5", "PART=5"),
        ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part2", "PART=2"),
        ("/dev/sda", "/dev/sda"),
        ("/dev/nvme0n1", "/dev/nvme0n1"),
    ],
)
def test_one_spelling(spec: str, name: str) -> None:
    assert name_of(spec) == name


def test_the_disk_that_a_number_is_counted_on() -> None:
    assert stem_of("/dev/sda1") == "/dev/sda"
    assert stem_of("/dev/nvme0n1p2") == "/dev/nvme0n1"
    assert stem_of("/dev/disk/by-id/ata-X-part5") == "/dev/disk/by-id/ata-X"
    assert stem_of("/dev/md0") == stem_of("UUID=1") == stem_of("/dev/vg/root") == ""


def test_numbers_count_on_the_disks_own_stems_alone() -> None:
    first, second = volume("PART=1"), volume("PART=2")
    words = Words(stems=frozenset({"/dev/sda", "/dev/disk/by-id/ata-X"}))
    for spec in ("/dev/sda1", "/dev/disk/by-id/ata-X-part1"):
        assert matching(spec, (first, second), words) == (first,)
    for spec in ("/dev/sdb1", "/dev/sdaa1", "/dev/disk/by-id/ata-Y-part1", "/dev/nvme0n1p1"):
        assert matching(spec, (first, second), words) == ()
        assert matching(spec, (first, second), Words()) == ()


def test_a_name_of_crypttab() -> None:
    inside = volume(f"{INSIDE}UUID=ab", "UUID=cd")
    words = Words({"/dev/mapper/secret": f"{INSIDE}{name_of('UUID=AB')}"})
    assert matching("/dev/mapper/secret", (volume("UUID=ab"), inside), words) == (inside,)
    assert matching("/dev/mapper/secret", (inside,), Words()) == ()


def test_arrays_by_name_by_configuration_and_by_being_the_only_one() -> None:
    boot, root = (
        volume(*array_names("aa:bb", "server:0".rpartition(":")[2])),
        volume(*array_names("cc:dd", "root")),
    )
    both = (boot, root)
    assert matching("/dev/md0", both, Words()) == (boot,)
    assert matching("/dev/md/root", both, Words()) == (root,)
    conf = "# arrays\nARRAY /dev/md127  metadata=1.2 name=server:x UUID=CC:dd\nMAILADDR root\n"
    assert matching("/dev/md127", both, Words(parse_mdadm_conf(conf))) == (root,)
    assert matching("/dev/md127", both, Words()) == ()


def array(name: str) -> Volume:
    return volume(*array_names("aa:bb", name))


@pytest.mark.parametrize(
    ("spec", "name", "meant"),
    [
        ("/dev/md127", "root", True),  # given at start
        ("/dev/md0", "", True),  # superblocks of version 0.90 hold no name
        ("/dev/md1", "0", False),  # an array of other disks
        ("/dev/md/data", "0", False),
        ("/dev/md/data", "", False),
        ("/dev/md1270", "root", False),
    ],
)
def test_the_only_array_is_meant_by_numbers_that_say_nothing(
    spec: str, name: str, meant: bool
) -> None:
    here, words = (array(name), volume("PART=1")), Words(array=name_of(spec))
    assert matching(spec, here, words) == ()
    assert only_array(spec, here, words) == ((here[0],) if meant else ())
    # Not where the files name other arrays too, or say which one is called so, or there are two.
    assert only_array(spec, here, Words()) == ()
    elsewhere = Words({name_of(spec): "MDUUID=ee:ff"}, array=name_of(spec))
    assert only_array(spec, here, elsewhere) == ()
    assert only_array(spec, (*here, volume(*array_names("cc:dd", "x"))), words) == ()


def test_what_mdadm_conf_says_is_called_so_is_it_and_nothing_else() -> None:
    words = Words(parse_mdadm_conf("ARRAY /dev/md1 UUID=ee:ff\n"))
    assert matching("/dev/md1", (array("1"),), words) == ()


def test_names_of_a_partition() -> None:
    part = Partition(10, "/dev/x10", 0, 1, "8300", "AB-CD", "root")
    gpt = Disk(DiskIdentity("/dev/x", 1), table=PartitionTable("gpt", "1", (part,)))
    assert set(partition_names(part, gpt)) == {
        "PART=10",
        "TYPE=8300",
        "PARTTYPE=8300",
        "PARTUUID=ab-cd",
        "PARTLABEL=root",
    }


HOME = "933AC7E1-2EB4-4F13-B844-0E14E2AEF915"
USR = "8484680C-9521-48C6-9C11-B0720656F69E"
NO_AUTO, NO_BLOCK_IO = 1 << 63, 1 << 1


def automatic(kind: str, *attributes: int) -> list[int]:
    """Which of the partitions of one type are mounted for it; they lie on the disk in the other order."""
    parts = tuple(
        Partition(number, "", 100 - number, 1, kind, attributes=bits)
        for number, bits in enumerate(attributes, 1)
    )
    disk = Disk(DiskIdentity("/dev/x", 1), table=PartitionTable("gpt", "1", parts[::-1]))
    return [each.number for each in parts if f"{AUTO}{kind}" in set(partition_names(each, disk))]


@pytest.mark.parametrize(
    ("kind", "attributes", "mounted"),
    [
        (HOME, (0, 0), [1]),
        (HOME, (NO_AUTO, 0, 0), [2]),
        (HOME, (NO_AUTO,), []),
        (HOME, (NO_BLOCK_IO,), [1]),
        (ESP, (NO_AUTO, 0), [1]),
        (ESP, (NO_BLOCK_IO, 0), [2]),
        (USR, (0, 0), [1, 2]),  # by the highest version: not judged, so it is refused
    ],
)
def test_of_a_type_the_first_that_is_not_marked_is_mounted(
    kind: str, attributes: tuple[int, ...], mounted: list[int]
) -> None:
    assert automatic(kind, *attributes) == mounted


NAMES = st.text(
    st.characters(codec="ascii", categories=("L", "N")) | st.sampled_from("-_."), min_size=1
)


@given(NAMES, NAMES)
def test_both_spellings_of_a_logical_volume_are_one(group: str, name: str) -> None:
    if group in {"disk", "md", "mapper", "block", "shm", "pts"} or "." in {group, name}:
        return
    (mapped,) = logical_names(group, name)
    assert name_of(f"/dev/{group}/{name}") == mapped == name_of(mapped)


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_logical_volumes_are_never_one(one: str, two: str, three: str, four: str) -> None:
    same = (one, two) == (three, four)
    ambiguous = any(name.startswith("-") or name.endswith("-") for name in (one, two, three, four))
    assert ambiguous or ([*logical_names(one, two)] == [*logical_names(three, four)]) == same


@given(st.text(min_size=1).filter(lambda text: '"' not in text and "/" not in text))
def test_a_label_by_tag_and_by_link(label: str) -> None:
    escaped = "".join(
        letter
        if letter.isascii() and letter.isalnum()
        else "".join(f"\\x{byte:02x}" for byte in letter.encode())
        for letter in label
    )
    found = volume(*content_names(Content("ext4", "", label)))
    assert matching(f"/dev/disk/by-label/{escaped}", (found,), Words()) == (found,)
    assert matching(f"LABEL={label}", (found,), Words()) == (found,)


@given(st.text())
def test_any_text_is_a_name(text: str) -> None:
    assert name_of(name_of(text)) == name_of(text)


@pytest.mark.parametrize("spec", ["/dev/sda", "/dev/nvme0n1p", "/dev/md", "/dev/disk/by-id/a-part"])
@pytest.mark.parametrize("digit", ["1", "\u0661"])
def test_numbers_that_no_partition_has_are_names_like_others(spec: str, digit: str) -> None:
    long = spec + digit * 5000
    assert not name_of(long).startswith("PART=")
    assert stem_of(long) == ""
    parse_mdadm_conf(f"ARRAY {long} UUID=1:2:3:4")
