"""What an installed GRUB says of where it looks for its files."""

import struct
import time

import pytest
from grubs import boot_code, installed, kernel, reader
from hypothesis import given
from hypothesis import strategies as st

from etsclone.model.boot import Core
from etsclone.plan.grubcore import core_start, is_grub, read_core, read_image
from etsclone.units import MIB, SECTOR

PREFIX = "(,gpt2)/boot/grub"
CONFIG = "search.fs_uuid 11111111-2222-4333-8444-555555555555 root hd0,gpt2\n"


@pytest.mark.parametrize("config", ["", CONFIG])
def test_a_core_tells_its_prefix_and_its_commands(config: str) -> None:
    sectors = installed(PREFIX, config)
    assert is_grub(sectors[0])
    assert core_start(sectors[0]) == 2048
    assert read_core(sectors[0], reader(sectors)) == Core(PREFIX, config)


def test_where_there_is_no_core_none_is_found() -> None:
    assert read_core(boot_code(2048), reader({})) is None
    assert read_core(boot_code(2**63), lambda _: b"") is None


@pytest.mark.parametrize("wide", [False, True])
def test_a_core_for_uefi_is_read_as_it_is(*, wide: bool) -> None:
    image = b"MZ" + bytes(4096) + kernel("/EFI/debian", CONFIG, wide=wide) + bytes(512)
    assert read_image(image) == Core("/EFI/debian", CONFIG)
    assert read_image(b"MZ" + bytes(4096) + b"mimg") is None


@given(damage=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=20))
def test_a_damaged_core_is_none_or_another_one(damage: list[tuple[int, int]]) -> None:
    sectors = {lba: bytearray(sector) for lba, sector in installed(PREFIX, CONFIG).items()}
    for place, value in damage:
        lba = sorted(sectors)[place // SECTOR % len(sectors)]
        sectors[lba][place % SECTOR] = value
    now = {lba: bytes(sector) for lba, sector in sectors.items()}
    found = read_core(now[0], reader(now))
    assert found is None or isinstance(found, Core)


@given(st.binary(max_size=2000))
def test_no_image_makes_it_fail(noise: bytes) -> None:
    image = noise + b"mimg" + noise
    assert read_image(image) is None or b"mimg" in image


@pytest.mark.parametrize("modules", [b"", struct.pack("<II", 1, 8) * 8])
def test_an_image_full_of_lists_of_modules_is_looked_through_at_once(modules: bytes) -> None:
    size = 4 * MIB
    piece = struct.pack("<4sII", b"mimg", 12, size // 2) + modules
    start = time.process_time()
    assert read_image(piece * (size // len(piece))) is None
    assert time.process_time() - start < 2
