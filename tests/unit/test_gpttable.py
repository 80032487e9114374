"""The reader of sound GPTs: it says what sfdisk says, or nothing."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etsclone.disk.gpttable import parse_gpt
from etsclone.disk.probe import parse_table
from etsclone.units import MIB

SIZE = 40 * MIB
TYPES = "URLSH"
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="\"'\\,;"),
    max_size=36,
)
ATTRIBUTES = st.lists(
    st.sampled_from(["RequiredPartition", "NoBlockIOProtocol", "LegacyBIOSBootable"])
    | st.integers(48, 63).map("GUID:{}".format)
)
PARTS = st.lists(
    st.tuples(
        st.integers(1, 5000), st.integers(0, 3000), st.sampled_from(TYPES), NAMES, ATTRIBUTES
    ),
    max_size=8,
)


def sfdisk(*arguments: str | Path, script: str = "") -> str:
    argv = ["/usr/sbin/sfdisk", *map(str, arguments)]
    done = subprocess.run(argv, input=script, text=True, check=True, capture_output=True)
    return done.stdout


def table_in(image: Path, script: str) -> bytes:
    """The bytes of an image with a table that sfdisk makes."""
    image.write_bytes(b"")
    with image.open("r+b") as file:
        file.truncate(SIZE)
    sfdisk("--quiet", "--no-tell-kernel", image, script=script)
    return image.read_bytes()


@settings(max_examples=25)
@given(parts=PARTS)
def test_it_says_what_sfdisk_says(
    parts: list[tuple[int, int, str, str, list[str]]], tmp_path: Path
) -> None:
    lines, start = ["label: gpt"], 2048
    for size, gap, kind, name, bits in parts:
        attributes = f'attrs="{" ".join(bits)}"'
        lines.append(f'start={start}, size={size}, type={kind}, name="{name}", {attributes}')
        start += size + gap
    image = tmp_path / "disk.img"
    data = table_in(image, "\n".join(lines) + "\n")
    nodes = {2048 * 512: "/dev/first"}
    assert parse_gpt(data[:MIB], 512, SIZE, nodes) == parse_table(sfdisk("--json", image), nodes)


@pytest.fixture
def sound(tmp_path: Path) -> bytes:
    """The first MiB of a disk with two partitions, 1 and 3."""
    script = "label: gpt\n1: size=8MiB, type=U\n3: size=20MiB, type=L\n"
    return table_in(tmp_path / "disk.img", script)[:MIB]


def test_attributes_are_bits_of_the_entry(tmp_path: Path) -> None:
    script = 'label: gpt\nsize=8MiB, attrs="RequiredPartition GUID:60,63"\n'
    table = parse_gpt(table_in(tmp_path / "disk.img", script)[:MIB], 512, SIZE, {})
    assert table is not None
    assert [each.attributes for each in table.partitions] == [1 | 1 << 60 | 1 << 63]


def test_numbers_may_be_left_out(sound: bytes) -> None:
    table = parse_gpt(sound, 512, SIZE, {})
    assert table is not None
    assert [part.number for part in table.partitions] == [1, 3]


def test_sectors_of_4096_bytes(sound: bytes) -> None:
    # The table of one kind of disk is none on the other.
    assert parse_gpt(sound, 4096, SIZE, {}) is None


@given(at=st.integers(0, 32 * 512 - 1), bit=st.integers(0, 7))
def test_what_counts_has_checksums(at: int, bit: int, sound: bytes) -> None:
    damaged = bytearray(sound)
    damaged[1024 + at] ^= 1 << bit
    assert parse_gpt(bytes(damaged), 512, SIZE, {}) is None
    header = bytearray(sound)
    header[512 + at % 92] ^= 1 << bit
    assert parse_gpt(bytes(header), 512, SIZE, {}) is None


@pytest.mark.parametrize(
    ("place", "value"),
    [(510, 0), (446 + 4, 0x83), (446 + 8, 2), (462 + 4, 0x0C)],
    ids=["no mark", "not protected", "protected from elsewhere", "hybrid"],
)
def test_other_boot_sectors_are_left_to_sfdisk(place: int, value: int, sound: bytes) -> None:
    odd = bytearray(sound)
    odd[place] = value
    assert parse_gpt(bytes(odd), 512, SIZE, {}) is None


def test_another_size_of_disk_is_left_to_sfdisk(sound: bytes) -> None:
    for size in (SIZE - 512, SIZE + 512, 10 * MIB):
        assert parse_gpt(sound, 512, size, {}) is None


@given(head=st.binary(max_size=2048))
def test_other_bytes_are_no_table(head: bytes) -> None:
    assert parse_gpt(head, 512, SIZE, {}) is None
