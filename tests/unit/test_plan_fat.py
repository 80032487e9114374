"""The files of FAT filesystems that mkfs.vfat and mtools made."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsclone.errors import FormatError
from etsclone.plan.fat import FatTree, Read
from etsclone.units import KIB, MIB

SIZES = {12: 2 * MIB, 16: 16 * MIB, 32: 40 * MIB}
LONG = "A rather long name, with blanks.efi"


def reader(content: bytes) -> Read:
    def read(start: int, size: int) -> bytes:
        piece = content[start : start + size]
        if len(piece) < size:
            raise FormatError("too short")
        return piece

    return read


def tools(*argv: str | Path) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PATH": path})


def make(folder: Path, width: int, files: dict[str, bytes]) -> bytes:
    image, scratch = folder / "fat.raw", folder / "scratch"
    with image.open("wb") as file:
        file.truncate(SIZES[width])
    tools("mkfs.vfat", "-F", str(width), "-n", "BOOT", image)
    for name in ("EFI", "EFI/BOOT", "EFI/debian"):
        tools("mmd", "-i", image, f"::/{name}")
    for path, content in files.items():
        scratch.write_bytes(content)
        tools("mcopy", "-i", image, scratch, f"::{path}")
    return image.read_bytes()


@pytest.fixture(scope="module", params=SIZES)
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {
        "/EFI/BOOT/BOOTX64.EFI": os.urandom(300 * KIB + 17),
        "/EFI/debian/grub.cfg": b"search.fs_uuid x\n",
        f"/EFI/debian/{LONG}": b"long",
        "/EFI/debian/empty": b"",
    } | {f"/EFI/debian/file{number}.mod": bytes([number]) for number in range(100)}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, width: int, files: dict[str, bytes]) -> bytes:
    return make(tmp_path_factory.mktemp("fat"), width, files)


def test_every_file_is_read(image: bytes, files: dict[str, bytes]) -> None:
    tree = FatTree(reader(image))
    for path, content in files.items():
        assert tree.read(path, MIB) == content
        assert tree.read(path.upper(), MIB) == content
        assert tree.read(path, 3) == content[:3]


def test_folders_are_listed(image: bytes, files: dict[str, bytes]) -> None:
    tree = FatTree(reader(image))
    assert [each.name for each in tree.entries("/")] == ["EFI"]
    assert [each.name for each in tree.entries("/EFI")] == ["BOOT", "debian"]
    inside = {f"/EFI/debian/{each.name}": each.size for each in tree.entries("/EFI/debian")}
    assert inside == {
        path: len(content) for path, content in files.items() if path.startswith("/EFI/debian/")
    }


def test_what_is_not_there_is_not_read(image: bytes) -> None:
    tree = FatTree(reader(image))
    assert tree.read("/EFI/BOOT/BOOTAA64.EFI", 1) is None
    assert tree.read("/EFI/BOOT", 1) is None
    assert tree.entries("/EFI/fedora") == ()
    assert tree.entries("/EFI/debian/grub.cfg") == ()


def test_a_removed_file_is_gone(tmp_path: Path) -> None:
    make(tmp_path, 16, {f"/EFI/BOOT/{LONG}": b"x", "/EFI/BOOT/stays": b"y"})
    tools("mdel", "-i", tmp_path / "fat.raw", f"::/EFI/BOOT/{LONG}")
    tree = FatTree(reader((tmp_path / "fat.raw").read_bytes()))
    assert [each.name for each in tree.entries("/EFI/BOOT")] == ["stays"]


@given(data=st.data())
def test_damage_is_an_error_or_goes_unnoticed(image: bytes, data: st.DataObject) -> None:
    tables = 64 * KIB if len(image) < SIZES[32] else 700 * KIB
    start = bytearray(image[:tables])
    for _ in range(data.draw(st.integers(1, 8))):
        start[data.draw(st.integers(0, 511) | st.integers(0, tables - 1))] = data.draw(
            st.integers(0, 255)
        )

    def read(at: int, size: int) -> bytes:
        piece = bytes(start[at : at + size]) + image[max(at, tables) : at + size]
        if len(piece) < size:
            raise FormatError("too short")
        return piece

    with contextlib.suppress(FormatError):
        tree = FatTree(read)
        for folder in ("/", "/EFI", "/EFI/BOOT"):
            for entry in tree.entries(folder):
                tree.read(f"{folder}/{entry.name}", MIB)


def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    raw = bytearray(make(tmp_path, 16, {"/EFI/BOOT/two": bytes(8 * KIB)}))
    tree = FatTree(reader(bytes(raw)))
    (entry,) = tree.entries("/EFI/BOOT")
    table = 4 * 512
    tables = [at for at in (512, table) if raw[at : at + 2] == b"\xf8\xff"]
    for at in tables:
        place = at + 2 * entry.cluster
        raw[place : place + 2] = entry.cluster.to_bytes(2, "little")
    assert tables
    content = FatTree(reader(bytes(raw))).read("/EFI/BOOT/two", 8 * KIB)
    assert content == bytes(8 * KIB)
