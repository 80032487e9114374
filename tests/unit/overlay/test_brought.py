"""What packages brought is parsed once, and anew when a record of dpkg changed."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from etsclone.model.packages import NO_PACKAGES, Installed, Package
from etsclone.overlay import brought, inventory
from etsclone.overlay.brought import NOTHING, Brought, brought_by_dpkg, keep_brought
from etsclone.overlay.packages import dpkg_packages

LATER = 10**20
"""Nanoseconds: so late that everything that is there now may be remembered."""


@pytest.fixture
def system(tmp_path: Path) -> Path:
    root = tmp_path / "system"
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (root / "usr").mkdir()
    (root / "bin").symlink_to("usr/bin")
    (root / "var/lib/dpkg/status").write_text(
        "Package: one\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n"
        "Package: two\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2:2~b+1\n"
    )
    (info / "one.list").write_text("/.\n/usr\n/bin/one\n/usr/share/one\n")
    (info / "two:amd64.list").write_text("/.\n/usr\n/usr/lib/\xff two\n", encoding="latin-1")
    return root


class Memory:
    """What a state folder would keep, and how often the records were parsed."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.parsed = 0

        def counted(root: str) -> Installed:
            self.parsed += 1
            return dpkg_packages(root)

        monkeypatch.setattr(brought, "dpkg_packages", counted)

    def ask(self, root: Path, started_ns: int = LATER) -> Brought:
        new = self.path.with_suffix(".new")
        with new.open("w+b") as keep:
            if self.path.exists():
                with self.path.open("rb") as old:
                    found = brought_by_dpkg(str(root), old)
            else:
                found = brought_by_dpkg(str(root))
            keep_brought(found, str(root), keep, started_ns=started_ns)
        if new.stat().st_size:
            new.replace(self.path)
        return found


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    return Memory(tmp_path / "memory", monkeypatch)


def facts(found: Brought) -> tuple[bytes, dict[bytes, str], bytes]:
    return found.head, dict(found.owners), found.digest


def test_the_second_time_nothing_is_parsed(system: Path, memory: Memory) -> None:
    first, again = memory.ask(system), memory.ask(system)
    assert memory.parsed == 1
    assert facts(again) == facts(first) == facts(Brought.by(dpkg_packages(str(system))))
    assert again.head == inventory.head(
        (Package("one", "all", "1"), Package("two", "amd64", "2:2~b+1"))
    )
    assert again.owners.get(b"/usr/bin/one") == "one"
    assert again.owners.get(b"/usr/lib/\xff two") == "two"
    assert again.owners.get(b"/usr", "") == ""
    assert len(again.owners) == 3
    memory.ask(system)
    assert memory.parsed == 1  # what still holds stays, though nothing new was kept


def keep_size_and_times(system: Path) -> None:
    """An upgrade that leaves size and time of the status: only the time of change of the inode tells."""
    status = system / "var/lib/dpkg/status"
    before, text = status.stat(), status.read_text()
    status.write_text(text.replace("Version: 1", "Version: 9"))
    os.utime(status, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: list[Callable[[Path], object]] = [
    keep_size_and_times,
    lambda root: (root / "var/lib/dpkg/info/one.list").write_text("/usr/bin/two\n"),
    lambda root: (root / "var/lib/dpkg/info/one.list").unlink(),
    lambda root: (root / "var/lib/dpkg/info/three.list").write_text("/usr/share/three\n"),
    lambda root: (root / "var/lib/dpkg/info/one.list").rename(
        root / "var/lib/dpkg/info/other.list"
    ),
    lambda root: (root / "bin").unlink(),
    lambda root: (root / "lib").symlink_to("usr/lib"),
    lambda root: (root / "var/lib/dpkg/info").rename(root / "var/lib/dpkg/away"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_noticed(
    system: Path, memory: Memory, change: Callable[[Path], object]
) -> None:
    memory.ask(system)
    time.sleep(0.02)  # the clock of a file system goes in ticks
    change(system)
    found = memory.ask(system)
    assert memory.parsed == 2
    assert facts(found) == facts(Brought.by(dpkg_packages(str(system))))


def test_another_system_is_another(system: Path, memory: Memory, tmp_path: Path) -> None:
    memory.ask(system)
    other = tmp_path / "other"
    other.mkdir()
    assert facts(memory.ask(other)) == facts(NOTHING) == facts(Brought.by(NO_PACKAGES))
    assert memory.parsed == 2
    assert memory.ask(system).owners.get(b"/usr/share/one") == "one"


def test_what_was_just_changed_is_not_kept(system: Path, memory: Memory) -> None:
    """A change within the same tick of the clock would leave no trace."""
    now = time.time_ns()
    memory.ask(system, now)
    memory.ask(system, now)
    assert memory.parsed == 2
    assert not memory.path.exists()


def test_damage_is_ignored(system: Path, memory: Memory) -> None:
    wanted = facts(memory.ask(system))
    sound = memory.path.read_bytes()
    noise = random.Random(0)
    for number in range(200):
        data = bytearray(sound)
        if number % 2:
            del data[noise.randrange(len(data)) :]
        else:
            data[noise.randrange(len(data))] ^= 1 << noise.randrange(8)
        memory.path.write_bytes(bytes(data))
        parsed = memory.parsed
        assert facts(memory.ask(system)) == wanted
        assert memory.parsed == parsed + 1
    for other in (
        b"",
        bytes(10),
        os.urandom(5000),
        sound + b"x",
        b"etsclone packages 1\n" + sound[20:],
    ):
        memory.path.write_bytes(other)
        parsed = memory.parsed
        assert facts(memory.ask(system)) == wanted
        assert memory.parsed == parsed + 1


def test_a_full_state_folder_only_makes_the_next_capture_slow(
    system: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = brought_by_dpkg(str(system))
    with open("/dev/full", "wb", buffering=0) as full:
        keep_brought(found, str(system), full, started_ns=LATER)
    assert "No space left" in caplog.text


def test_a_record_that_cannot_be_is_not_kept(system: Path, memory: Memory) -> None:
    """What parts the paths in the file must not be in them."""
    (system / "var/lib/dpkg/info/one.list").write_bytes(b"/usr/sh\0are/one\n/usr/share/one\n")
    memory.ask(system)
    assert memory.ask(system).owners.get(b"/usr/share/one") == "one"
    assert memory.parsed == 2
