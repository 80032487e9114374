"""What lies inside: unlocked LUKS volumes, and mirrors of md made byte by byte from the specification."""

import struct
from dataclasses import dataclass

import pytest

from etsclone.disk.crypt import CryptMapping, parse_table
from etsclone.errors import FormatError
from etsclone.model.disk import Content, Partition
from etsclone.model.extents import Extent, Extents
from etsclone.model.plan import UsedMap
from etsclone.units import KIB, MIB
from etsclone.usedmap import md, partclone
from etsclone.usedmap.content import used_map
from etsclone.usedmap.md import parse_superblock, with_uuid
from etsclone.usedmap.region import Finding, Region, Unlocked

from .fakes import FakeDisk

START, SIZE = 3 * MIB, 200 * MIB
DATA, DATA_SIZE = 2 * MIB, 150 * MIB


def superblock(
    *,
    level: int = 1,
    features: int = 9,
    position: int = 4 * KIB,
    devices: int = 3,
    uuid: bytes = bytes(16),
    bitmap: int = 8,
) -> bytes:
    """A superblock of version 1 that lies `position` bytes into its member, and its bitmap so many sectors behind."""
    block = bytearray(4 * KIB)
    block[16:32] = uuid
    struct.pack_into("<i", block, 96, bitmap)
    struct.pack_into("<III", block, 0, 0xA92B4EFC, 1, features)
    struct.pack_into("<iIQ", block, 72, level, 0, DATA_SIZE // 512)
    struct.pack_into("<QQQ", block, 128, DATA // 512, DATA_SIZE // 512, position // 512)
    struct.pack_into("<I", block, 220, devices)
    covered = block[: 256 + 2 * devices]
    total = sum(int.from_bytes(covered[at : at + 4], "little") for at in range(0, len(covered), 4))
    struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    return bytes(block)


def member(block: bytes, position: int = 4 * KIB) -> FakeDisk:
    inside = Extent(START + DATA, START + DATA + DATA_SIZE)
    return FakeDisk(bytes(START + position) + block, {inside: "ext4"})


def find(kind: str, disk: FakeDisk) -> UsedMap:
    return used_map(Partition(7, "", START, SIZE, "", content=Content(kind)), disk)


@pytest.fixture(autouse=True)
def _used(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_used(_kind: str, region: Region) -> Finding:
        return Finding(Extents.between(0, 1000) | Extents.between(5000, region.size), "told")

    monkeypatch.setattr(partclone, "find_used", find_used)


@pytest.mark.parametrize(
    "position", [0, 4 * KIB, SIZE - 8 * KIB], ids=["version 1.1", "version 1.2", "version 1.0"]
)
def test_of_a_mirror_the_free_blocks_inside_are_left_out(position: int) -> None:
    found = find(md.CONTENT, member(superblock(position=position), position))
    free = Extents.between(START + DATA + 1000, START + DATA + 5000)
    assert found.extents == Extents.between(START, START + SIZE) - free
    assert found.method == "md mirror, told"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (superblock(level=5), "a member of an md array, which may use all of it"),
        (superblock(level=-1), "a member of an md array, which may use all of it"),
        (superblock(features=2), "not in sync, or changes its shape"),
        (superblock(features=4), "not in sync, or changes its shape"),
        (superblock()[:100] + b"x" + superblock()[101:], "its superblock of md is damaged"),
        (superblock(position=8 * KIB), "a member of an md array, which may use all of it"),
        (bytes(4 * KIB), "a member of an md array, which may use all of it"),
    ],
)
def test_of_other_members_everything(changed: bytes, why: str) -> None:
    found = find(md.CONTENT, member(changed))
    assert found.extents == Extents.between(START, START + SIZE)
    assert found.note.startswith("everything is copied: ")
    assert why in found.note


@pytest.mark.parametrize("position", [0, 4 * KIB, SIZE - 8 * KIB])
def test_another_uuid_of_an_array(position: int) -> None:
    fresh = superblock(position=position, uuid=bytes(range(16)), bitmap=8)
    data = bytes(position) + superblock(position=position, bitmap=8)

    def read(start: int, size: int) -> bytes:
        return data[start : start + size].ljust(size, b"\0")

    changes = with_uuid(read, SIZE, bytes(range(16)))
    assert changes == ((position, fresh), (position + 4 * KIB + 8, bytes(range(16))))
    assert parse_superblock(changes[0][1], position) is not None


def test_without_a_bitmap_and_without_a_superblock() -> None:
    data = bytes(4 * KIB) + superblock(features=8)
    ((position, _),) = with_uuid(
        lambda start, size: data[start : start + size].ljust(size, b"\0"), SIZE, b"u" * 16
    )
    assert position == 4 * KIB
    with pytest.raises(FormatError, match="no superblock"):
        with_uuid(lambda _, size: bytes(size), SIZE, b"u" * 16)


def test_a_count_that_does_not_fit_is_damage() -> None:
    block = bytearray(superblock())
    struct.pack_into("<I", block, 220, 1 << 31)
    with pytest.raises(FormatError, match="damaged"):
        parse_superblock(bytes(block), 4 * KIB)


def test_data_beyond_the_end_is_not_believed() -> None:
    part = Partition(7, "", START, DATA + MIB, "", content=Content(md.CONTENT))
    found = used_map(part, member(superblock()))
    assert found.extents == Extents.between(START, START + DATA + MIB)
    assert "it names the bytes" in found.note


@dataclass(frozen=True)
class Encrypted(FakeDisk):
    """A disk whose partition shows `clear` when it is unlocked."""

    clear: FakeDisk | None = None
    clear_size: int = DATA_SIZE

    def unlocked(self, extent: Extent) -> Unlocked | None:
        assert extent == Extent(START, START + SIZE)
        return Unlocked(16 * MIB, self.clear_size, self.clear) if self.clear else None


def test_of_an_unlocked_volume_whole_sectors_of_what_is_used() -> None:
    clear = FakeDisk(b"", {Extent(0, DATA_SIZE): "xfs"})
    found = find("crypto_LUKS", Encrypted(b"", clear=clear))
    # 1000 to 5000 is free: of two sectors of ciphertext, the first and the second are used in part.
    assert found.extents == Extents.between(START, START + SIZE)
    assert found.method == "LUKS, told"
    assert found.note == ""


def test_of_an_unlocked_volume_with_much_free(monkeypatch: pytest.MonkeyPatch) -> None:
    used = Finding(Extents.between(0, 5000), "told")
    monkeypatch.setattr(partclone, "find_used", lambda _kind, _region: used)
    clear = FakeDisk(b"", {Extent(0, DATA_SIZE): "xfs"})
    found = find("crypto_LUKS", Encrypted(b"", clear=clear))
    payload = START + 16 * MIB
    free = Extents.between(payload + 8 * KIB, payload + DATA_SIZE)
    assert found.extents == Extents.between(START, START + SIZE) - free
    assert [volume.extent for volume in found.volumes] == [Extent(payload, payload + DATA_SIZE)]


def test_encryption_inside_encryption_is_not_looked_into() -> None:
    clear = FakeDisk(b"", {Extent(0, DATA_SIZE): "crypto_LUKS"})
    found = find("crypto_LUKS", Encrypted(b"", clear=clear))
    assert found.extents == Extents.between(START, START + SIZE)
    assert found.note == "everything is copied: it holds another LUKS volume"


def test_a_mapping_that_does_not_fit_is_not_believed() -> None:
    found = find("crypto_LUKS", Encrypted(b"", clear=FakeDisk(b""), clear_size=SIZE))
    assert found.note == "everything is copied: its encrypted data does not fit the partition"


def test_what_dmsetup_prints_of_a_mapping() -> None:
    text = "0 1000 crypt aes-xts-plain64 :64:logon:cryptsetup:1 0 254:33 32768 1 allow_discards\n"
    assert parse_table(text, "/dev/dm-3") == CryptMapping("/dev/dm-3", 32768 * 512, 1000 * 512)
    assert parse_table(text + "1000 8 linear 254:33 0\n", "/dev/dm-3") is None
    assert parse_table("0 1000 linear 254:33 0\n", "/dev/dm-3") is None
    assert parse_table("", "/dev/dm-3") is None
