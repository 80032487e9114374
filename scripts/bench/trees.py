"""Two trees as a pair of servers has them, and overlays of them: what `brd diff` is measured on."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from measure import MIB, BenchError, tool

from etsclone.model.brd import CloneIdentity, Header
from etsclone.model.scope import Scope
from etsclone.model.tree import Entry, Kind
from etsclone.overlay import inventory
from etsclone.overlay.container import measure, write_overlay
from etsclone.overlay.header import INVENTORY, PAYLOAD
from etsclone.overlay.payload import write_payload
from etsclone.overlay.signing import load_private_key, sign

LARGEST = 16 * MIB
"""Of the files of /usr that are taken. Larger ones would need memory, and time of diff alone."""

CHANGED_EVERY = 500
ROLES = ("primary", "secondary")


@contextmanager
def trees(work: Path, files: int, *, in_memory: bool) -> Iterator[tuple[Path, Path]]:
    """Two trees of `files` files, each a mount point as a capture wants it; every 500th differs in the second."""
    first, second = (work / role for role in ROLES)
    mounted: list[Path] = []
    try:
        for folder in (first, second):
            folder.mkdir()
            _mount(folder, in_memory=in_memory)
            mounted.append(folder)
        _fill(first, files)
        tool("cp", "-a", f"{first}/.", second)
        _change(second)
        yield first, second
    finally:
        for folder in mounted:
            tool("umount", folder)


def captured(etsclone: str, work: Path, folders: tuple[Path, Path]) -> tuple[Path, Path]:
    """Overlays of two trees, made as everybody makes them; whom to trust is in `work/store/allowed_signers`."""
    store = work / "store"
    tool(etsclone, "brd", "init", store, "--pair", "bench", "--profile", "base-debian")
    for role, folder in zip(ROLES, folders, strict=True):
        key = work / f"{role}.key"
        tool(etsclone, "brd", "keygen", key, "--no-passphrase")
        tool(etsclone, "brd", "trust", store, "--role", role, f"{key}.pub")
        tool(etsclone, "brd", "capture", store, "--role", role, "--key", key, "--root", folder)
    first, second = (store / role / f"{role}-000001.brd" for role in ROLES)
    return first, second


def synthetic(work: Path, files: int) -> tuple[Path, Path]:
    """Overlays with inventories of trees that never were; every 500th file differs."""
    first, second = (work / f"{role}-{files}.brd" for role in ROLES)
    for role, path in zip(ROLES, (first, second), strict=True):
        with path.open("wb") as out:
            _write(out, work, role, files)
    return first, second


def _mount(folder: Path, *, in_memory: bool) -> None:
    if in_memory:
        tool("mount", "-t", "tmpfs", "-o", "size=8g", "tmpfs", folder)
        return
    image = folder.with_suffix(".raw")
    with image.open("wb") as file:
        file.truncate(12 << 30)
    tool("mkfs.ext4", "-q", "-F", "-N", "400000", image)
    tool("mount", "-o", "loop", image, folder)


def _fill(root: Path, files: int) -> None:
    (root / "etc").mkdir()
    for name in ("etc/fstab", "etc/passwd"):
        (root / name).touch()
    count, rounds = 0, 0
    while count < files:
        rounds += 1
        for source in _small_files("/usr"):
            target = root / str(rounds) / source.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
            count += 1
            if count == files:
                return
        if not count:
            raise BenchError("/usr holds no files")


def _small_files(top: str) -> Iterator[str]:
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if (
                os.path.isfile(path)
                and not os.path.islink(path)
                and os.path.getsize(path) <= LARGEST
            ):
                yield path


def _change(root: Path) -> None:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    for path in paths[::CHANGED_EVERY]:
        with path.open("ab") as file:
            file.write(b"changed")


def _write(out: BinaryIO, work: Path, role: str, files: int) -> None:
    with (work / "payload").open("w+b") as payload, (work / "listing").open("w+b") as listing:
        write_payload(payload, "/", {})
        with inventory.writing(listing) as add:
            for entry in _entries(role, files):
                add(entry)
        payload.seek(0)
        listing.seek(0)
        members = (measure(PAYLOAD, payload), measure(INVENTORY, listing))
        header = Header(
            pair="bench",
            role=role,
            host="bench",
            profile="base-debian",
            profile_sha256=hashlib.sha256().hexdigest(),
            scope=Scope(("/etc/hostname",), (), ("/var/log",)),
            generation=1,
            created=datetime(2026, 11, 22, tzinfo=UTC),
            previous=None,
            clone=CloneIdentity(),
            members=members,
        )
        payload.seek(0)
        listing.seek(0)
        key = load_private_key(work / f"{role}.key", lambda: b"")
        write_overlay(out, header, partial(sign, key=key), payload, listing)


def _entries(role: str, files: int) -> Iterator[Entry]:
    """Thirty files a folder."""
    owner = {"uid": 0, "gid": 0, "uname": "root", "gname": "root"}
    yield Entry(b"/", Kind.FOLDER, 0o755, mtime_ns=0, **owner)
    for number in range(files):
        folder = b"/srv/data/folder-%06d" % (number // 30)
        common = owner | {"mtime_ns": number * 10**9}
        if number % 30 == 0:
            yield Entry(folder, Kind.FOLDER, 0o755, **common)
        content = f"{role if number % CHANGED_EVERY == 0 else ''}{number}".encode()
        digest = hashlib.sha256(content).hexdigest()
        path = folder + b"/file-%07d" % number
        yield Entry(path, Kind.FILE, 0o644, size=len(content), sha256=digest, **common)
