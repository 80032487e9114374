"""Trees for the captures of the bench, what is measured on them, and how much memory it takes."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measure import MIB, BenchError, tool

COMPARED = "rsync -anc against a copy"
LISTED = "find -printf"
FIRST = "etsclone brd capture --full"
AGAIN = "etsclone brd capture, again"
COMMANDS = {
    COMPARED: "rsync -anc {tree}/ {copy}/",
    FIRST: "{etsclone} brd capture {store} --role primary --key {key} --root {tree} --full",
    LISTED: "find {tree} -fprintf /dev/null '%p %s %T@ %i\\n'",
    AGAIN: "{etsclone} brd capture {store} --role primary --key {key} --root {tree}",
}
RATIOS = {FIRST: COMPARED, AGAIN: LISTED}

PATHS = 100_000
LARGEST_MIB = 4
IMAGE_MIB, INODES = 6_000, 1_200_000
FEW = 20
"""How many files change between two captures."""

_PER_FOLDER = 500
_SMALL = 100


@dataclass(frozen=True, slots=True)
class Server:
    """A tree that is mounted as a server's root, the store for its captures, and what commands are filled with."""

    tree: Path
    names: dict[str, str]


@contextmanager
def server(work: Path, etsclone: str) -> Iterator[Server]:
    """An empty tree, mounted so that it can be captured, and a store that trusts a new key."""
    tree, store, key = work / "tree", work / "store", work / "key"
    tree.mkdir()
    tool(etsclone, "brd", "init", store, "--pair", "bench", "--profile", "base-debian")
    tool(etsclone, "brd", "keygen", key, "--no-passphrase")
    tool(etsclone, "brd", "trust", store, "--role", "primary", f"{key}.pub")
    image = work / "image"
    with image.open("xb") as file:
        file.truncate(IMAGE_MIB * MIB)
    tool("mkfs.ext4", "-q", "-N", str(INODES), "-E", "lazy_itable_init=0", image)
    tool("mount", "-o", "loop", image, tree)
    try:
        names = {"tree": tree, "copy": work / "copy", "store": store, "key": key}
        yield Server(tree, {key: str(path) for key, path in names.items()} | {"etsclone": etsclone})
    finally:
        tool("umount", tree)


def fill(tree: Path) -> int:
    """Make it this machine's system, without large files, and again as data until it has `PATHS`; how many it has.

    Large files are left out so that both copies stay in the page cache; reading them is what rsync and etsclone do
    equally well.
    """
    options = ("--archive", f"--max-size={LARGEST_MIB}M")
    (tree / "var/lib").mkdir(parents=True)
    tool("rsync", *options, "/usr", "/etc", tree)
    tool("rsync", *options, "/var/lib/dpkg", tree / "var/lib")
    for number in range(100):
        if (paths := count(tree)) >= PATHS:
            return paths
        tool("rsync", *options, "/usr/share/", tree / f"srv/{number}/")
    raise BenchError("this machine has too small a system to make a large one of")


def count(tree: Path) -> int:
    """How many paths a tree has."""
    return sum(1 + len(files) for _, _, files in os.walk(tree))


def fill_small(tree: Path, files: int) -> None:
    """Make empty and small files, `_PER_FOLDER` in a folder."""
    for name in ("etc", "usr"):
        (tree / name).mkdir()
    for start in range(0, files, _PER_FOLDER):
        folder = tree / f"srv/{start // _SMALL // _PER_FOLDER}/{start // _PER_FOLDER}"
        folder.mkdir(parents=True)
        for number in range(_PER_FOLDER):
            (folder / f"file-{number}").write_bytes(b"%d" % start if number % 2 else b"")


def change_few(tree: Path, turn: int) -> None:
    """Change files here and there, and wait until that is old enough to be remembered."""
    found = sorted((tree / "usr/share").glob("*/*"))
    files = [path for path in found if path.is_file() and not path.is_symlink()]
    for path in files[:: max(1, len(files) // FEW)][:FEW]:
        path.write_text(f"changed in round {turn}\n", encoding="utf-8")


def forget(server_: Server) -> None:
    """Empty the store, so that none grows from round to round."""
    shutil.rmtree(Path(server_.names["store"]) / "primary")
    (Path(server_.names["store"]) / "primary").mkdir(mode=0o700)


def newest(server_: Server) -> Path:
    """The last overlay in the store."""
    return max((Path(server_.names["store"]) / "primary").glob("*.brd"))


@contextmanager
def memory_watched(told: list[int]) -> Iterator[None]:
    """Append the most memory (bytes, shared pages counted once) that all children had at once; looks often."""
    end = threading.Event()

    def watch() -> None:
        most = 0
        while not end.wait(0.05):
            most = max(most, _memory_below(os.getpid()))
        told.append(most)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _memory_below(process: int) -> int:
    total = 0
    for child in _children(process):
        try:
            text = Path(f"/proc/{child}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue  # it has ended
        total += sum(
            int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")
        )
        total += _memory_below(child)
    return total


def _children(process: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        return [int(child) for each in threads for child in (each / "children").read_text().split()]
    except OSError:
        return []


def settle() -> None:
    """Wait for longer than a filesystem's clock may stand still: what has just changed is never remembered."""
    time.sleep(2.5)


def mib(size: float) -> str:
    """Bytes in MiB, for a table."""
    return f"{size / MIB:.2f}"
