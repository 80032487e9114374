"""A role of a usual size on disks of several sizes, and how long a rebuild of it waits for the disk."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import MIB, tool

SIZES_GIB = (1, 10, 100)
FILES = 60
"""How many files make the role, and differ between the two."""

COMMON_FILES = 5_000
ROLES = ("primary", "secondary")
_SYNCED = Path(__file__).with_name("synced.py")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One rebuild: seconds from start to end, of them in fsync(2), and of processors."""

    size_gib: int
    wall: float
    synced: float
    cpu: float

    @property
    def beside(self) -> float:
        """What is left without the waiting for the disk."""
        return self.wall - self.synced


@contextmanager
def pair(work: Path, size_gib: int, python: str, etsclone: str) -> Iterator["Pair"]:
    """A mounted sparse disk of this size, and a store with both of its roles."""
    image, root, store = (work / f"{name}-{size_gib}" for name in ("image", "root", "store"))
    root.mkdir()
    with image.open("xb") as file:
        file.truncate(size_gib * 1024 * MIB)
    tool("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image)
    tool("mount", "-o", "loop", image, root)
    try:
        tool(
            etsclone,
            "brd",
            "init",
            store,
            "--pair",
            f"bench-{size_gib}",
            "--profile",
            "ltsp-isc-dhcp",
        )
        _write_common(root)
        for role in ROLES:
            _write_role(root, role)
            key = work / f"{role}-{size_gib}.key"
            tool(etsclone, "brd", "keygen", key, "--no-passphrase")
            tool(etsclone, "brd", "trust", store, "--role", role, f"{key}.pub")
            tool(etsclone, "brd", "capture", store, "--role", role, "--key", key, "--root", root)
        yield Pair(size_gib, root, store, python, work / f"took-{size_gib}")
    finally:
        tool("umount", root)
        image.unlink()


@dataclass(frozen=True, slots=True)
class Pair:
    """See `pair`."""

    size_gib: int
    root: Path
    store: Path
    python: str
    took: Path

    def rebuild(self, role: str) -> Rebuilt:
        """Make the disk a role, without the checks of its services and filesystems; nothing is kept of before."""
        words = ("rebuild", "--root", self.root, "--yes")
        before, began = os.times(), time.monotonic()
        tool(
            *(self.python, _SYNCED, self.took, *words, "--store", self.store, "--role", role),
            *("--trust", self.store / "allowed_signers", "--no-checks"),
        )
        wall, after = time.monotonic() - began, os.times()
        cpu = after.children_user + after.children_system
        cpu -= before.children_user + before.children_system
        tool(self.python, _SYNCED, os.devnull, *words, "--commit")
        return Rebuilt(self.size_gib, wall, json.loads(self.took.read_text()), cpu)


def table_lines(rows: list[Rebuilt]) -> list[tuple[str, ...]]:
    """A line a size: medians of what was measured, in seconds."""
    lines = []
    for size in sorted({row.size_gib for row in rows}):
        own = [row for row in rows if row.size_gib == size]
        figures = ("wall", "synced", "beside", "cpu")
        medians = (median(getattr(row, figure) for row in own) for figure in figures)
        lines.append((f"{size} GiB", *(f"{figure:.2f}" for figure in medians)))
    return lines


def _write_common(root: Path) -> None:
    for name, text in (("fstab", ""), ("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "")):
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc" / name).write_text(text, encoding="ascii")
    for number in range(COMMON_FILES):
        folder = root / f"usr/share/{number // 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(b"common\n" * 100)


def _write_role(root: Path, role: str) -> None:
    for number in range(FILES):
        path = root / (f"etc/dhcp/part-{number}.conf" if number else "etc/hostname")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {role}\n" * (1 + number * 7), encoding="ascii")
