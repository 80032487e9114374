"""Reading and writing whole blocks around any bytes, and knowing a disk again, on plain files."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.disk.device import check_identity, flush, opened, read_bytes, write_bytes
from etsclone.disk.images import image_identity
from etsclone.errors import DeviceError, TargetChanged, TargetRefused
from etsclone.model.extents import Extent

SIZE = 3 * 4096
CONTENT = bytes(range(256)) * (SIZE // 256)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    return str(path)


@pytest.fixture(scope="module")
def descriptor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("device") / "disk.img"
    path.write_bytes(CONTENT)
    with opened(str(path), writable=True) as opened_disk:
        yield opened_disk


@given(st.integers(0, SIZE - 1), st.integers(1, 5000))
def test_any_bytes_can_be_read(descriptor: int, start: int, size: int) -> None:
    write_bytes(descriptor, 0, CONTENT)
    extent = Extent(start, min(start + size, SIZE))
    assert read_bytes(descriptor, extent) == CONTENT[extent.start : extent.end]


@given(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=5000))
def test_any_bytes_can_be_written_and_no_other_changes(
    descriptor: int, start: int, data: bytes
) -> None:
    write_bytes(descriptor, 0, CONTENT)
    data = data[: SIZE - start]
    write_bytes(descriptor, start, data)
    flush(descriptor)
    expected = CONTENT[:start] + data + CONTENT[start + len(data) :]
    assert read_bytes(descriptor, Extent(0, SIZE)) == expected


@pytest.mark.parametrize("size", [SIZE, SIZE + 512, 100])
def test_a_disk_need_not_be_whole_blocks(tmp_path: Path, size: int) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with opened(str(path), writable=True) as descriptor:
        write_bytes(descriptor, size - 7, b"the end")
        assert read_bytes(descriptor, Extent(size - 8, size)) == b"\0the end"
    assert path.stat().st_size == size


def test_nothing_lies_beyond_the_end(image: str) -> None:
    with opened(image, writable=True) as descriptor:
        with pytest.raises(DeviceError, match="ends early, at byte 12288"):
            read_bytes(descriptor, Extent(SIZE - 1, SIZE + 1))
        with pytest.raises(DeviceError, match="ends early, at byte 12288"):
            write_bytes(descriptor, SIZE, b"x")
    assert os.path.getsize(image) == SIZE


def test_what_is_open_for_reading_cannot_be_written(image: str) -> None:
    with (
        opened(image, writable=False) as descriptor,
        pytest.raises(DeviceError, match="cannot be written"),
    ):
        write_bytes(descriptor, 0, b"x")


def test_two_cannot_write_to_one_image(image: str) -> None:
    with (
        opened(image, writable=True),
        pytest.raises(TargetRefused, match="is busy"),
        opened(image, writable=True),
    ):
        pass


def test_a_claim_ends_with_its_context(image: str) -> None:
    for _ in range(2):
        with opened(image, writable=True):
            pass


def test_a_disk_that_cannot_be_opened() -> None:
    running = os.path.realpath(sys.executable)  # a program that runs cannot be written to (ETXTBSY)
    with pytest.raises(DeviceError, match="cannot be opened"), opened(running, writable=True):
        pass


def test_an_unchanged_image_is_known_again(image: str) -> None:
    check_identity(image_identity(image))


def test_a_grown_image_is_another(image: str) -> None:
    before = image_identity(image)
    with open(image, "ab") as file:
        file.write(bytes(512))
    with pytest.raises(TargetChanged, match="is not the disk that the plan was made for"):
        check_identity(before)


def test_another_file_under_the_same_name_is_another(image: str) -> None:
    before = image_identity(image)
    Path(f"{image}.new").write_bytes(CONTENT)
    os.replace(f"{image}.new", image)
    with pytest.raises(TargetChanged, match="is not the disk"):
        check_identity(before)


def test_a_missing_image_is_gone(image: str) -> None:
    with pytest.raises(TargetChanged, match="is gone"):
        check_identity(replace(image_identity(image), path=f"{image}.gone"))


def test_an_image_counts_in_whole_sectors(tmp_path: Path) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(1500))
    assert image_identity(str(path)).size == 1024
