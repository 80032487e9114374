"""Initramfs that say something else: by what comes last in them, as the kernel reads it."""

import gzip
import os
from pathlib import Path

import cpio
import pytest

from etsclone.boot.amending import amended
from etsclone.boot.initramfs import members
from etsclone.boot.initramfsnames import telling_files
from etsclone.errors import FormatError

OLD, NEW = b"11111111-old", b"22222222-new-and-longer"
MADE = ("conf/initramfs.conf", b"MODULES=most\n")
TABLE = ("cryptroot/crypttab", b"root UUID=" + OLD + b" none luks\n")
PLAIN = ("conf/conf.d/zz", b"nothing that changes")
INIT = ("init", b"#!/bin/sh " + OLD)


def changed(content: bytes) -> bytes:
    return content.replace(OLD, NEW)


def image(folder: Path, *files: tuple[str, bytes], more: bytes = b"") -> bytes:
    path = folder / "initrd.img-1"
    early = cpio.archive(("kernel/x86/microcode/x.bin", bytes(700)))
    path.write_bytes(early + bytes(512) + gzip.compress(cpio.archive(*files)) + more)
    return os.fsencode(path)


def test_what_is_changed_comes_last_and_counts(tmp_path: Path) -> None:
    path = image(tmp_path, MADE, TABLE, PLAIN, INIT)
    before = dict(telling_files(path))
    edit = amended(path, changed)
    assert edit is not None
    assert edit.after.startswith(edit.before)
    assert edit.reasons == ("new cryptroot/crypttab in it",)
    Path(os.fsdecode(path)).write_bytes(edit.after)
    assert telling_files(path) == before | {b"cryptroot/crypttab": changed(TABLE[1])}
    with open(path, "rb") as file:
        last = [(each.name, each.mode, each.read()) for each in members(file)][-1]
    assert last == (b"cryptroot/crypttab", 0o100644, changed(TABLE[1]))
    # The kernel takes for an archive only what begins at a multiple of four.
    assert edit.after.rindex(b"070701", 0, edit.after.rindex(b"TRAILER!!!") - 110) % 4 == 0
    assert amended(path, changed) is None


@pytest.mark.parametrize(
    ("files", "more"),
    [
        ((MADE, PLAIN, INIT), b""),  # nothing names it
        ((TABLE, PLAIN), b""),  # not initramfs-tools'
        ((MADE, TABLE), b"\x02\x21\x4c\x18" + bytes(8)),  # lz4
    ],
)
def test_what_is_not_certain_is_left_alone(
    tmp_path: Path, files: tuple[tuple[str, bytes], ...], more: bytes
) -> None:
    assert amended(image(tmp_path, *files, more=more), changed) is None


def test_what_is_damaged_is_said(tmp_path: Path) -> None:
    path = image(tmp_path, MADE, TABLE)
    os.truncate(path, os.path.getsize(path) - 100)
    with pytest.raises(FormatError, match=r"initramfs is (damaged|cut off)"):
        amended(path, changed)
