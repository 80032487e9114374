"""Systems that stay mounted when the command that mounted them has ended, and how all of it is undone.

What was opened is read from the kernel: devices of our own names above the disk's. Only which folder belongs to which
disk is noted, in a file under /run, which does not outlive the machine's running either.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from etsclone.disk import md
from etsclone.disk.filesystems import forget_btrfs
from etsclone.disk.images import is_image, loops_of, wait_until_gone
from etsclone.disk.mapper import MARK, patiently
from etsclone.disk.mounts import mounts_of_system
from etsclone.disk.snapshots import mapper_fact
from etsclone.errors import CommandFailed, FormatError
from etsclone.run import run

_NOTES = "/run/etsclone/mounted"
_BLOCK = "/sys/class/block"


@dataclass(frozen=True, slots=True)
class Standing:
    """A system that is mounted at `folder`, from the disk or image file at the path `disk`."""

    folder: str
    disk: str

    @property
    def _note(self) -> str:
        return f"{_NOTES}/{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]}.json"

    def remember(self) -> None:
        """Note it; to be done before anything is mounted."""
        os.makedirs(_NOTES, mode=0o700, exist_ok=True)
        with open(f"{self._note}.new", "w", encoding="utf-8") as file:
            json.dump({"folder": self.folder, "disk": self.disk}, file)
        os.rename(file.name, self._note)

    def forget(self) -> None:
        """Remove the note."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._note)

    def undo(self) -> None:
        """Unmount it, and close all that was opened for it. What was undone before is passed over.

        Raises:
            CommandFailed: when something is in use; what is above it is undone. Or when the disk is gone, and what is
                still open may have been opened for this.
        """
        mounts = [each for each in mounts_of_system() if is_beneath(each.where, self.folder)]
        for mount in reversed(mounts):
            run("umount", ["--", mount.where])
        forget_btrfs(
            os.path.basename(os.path.realpath(each.source))
            for each in mounts
            if each.type == "btrfs"
        )
        if os.path.exists(self.disk):
            close_volumes(self.disk)
        elif left := _of_no_other(self):
            raise CommandFailed(
                f"{self.disk} is not there any more, and what was opened of it may be still: {', '.join(left)}",
                hint="attach the disk again, or close them by hand (dmsetup remove, mdadm --stop); then do this again",
            )
        self.forget()


def close_volumes(disk: str) -> tuple[str, ...]:
    """Close all volumes under our own names that are open on a disk or image file, whoever opened them.

    Returns:
        The names that the kernel had for them.

    Raises:
        UsageError: when `disk` is neither.
        CommandFailed: when one is in use; what is above it is closed.
    """
    loops = loops_of(disk) if is_image(disk) else ()
    names = _open_on(disk)
    for name in names:
        _close(name)
    for loop in loops:  # they end by themselves
        wait_until_gone(loop, disk)
    return names


def standing_systems() -> Iterator[Standing]:
    """All that is noted.

    Raises:
        FormatError: when a note makes no sense.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(_NOTES)):
            path = f"{_NOTES}/{name}"
            if name.endswith(".json"):
                try:
                    with open(path, encoding="utf-8") as file:
                        facts = json.load(file)
                    yield Standing(str(facts["folder"]), str(facts["disk"]))
                except (ValueError, KeyError, TypeError) as error:
                    raise FormatError(f"{path} makes no sense: {error}") from error


def is_beneath(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _open_on(disk: str) -> tuple[str, ...]:
    """Our own devices that lie on a disk or image file, each before those that it lies on."""
    devices = loops_of(disk) if is_image(disk) else (os.path.realpath(disk),)
    return tuple(name for device in devices for name in _above(os.path.basename(device)))


def _of_no_other(standing: Standing) -> list[str]:
    """Our own devices that lie on the disk of no other system that stands."""
    others = {each.disk for each in standing_systems()} - {standing.disk}
    known = {name for disk in others if os.path.exists(disk) for name in _open_on(disk)}
    return [name for name in _entries(_BLOCK) if _is_ours(name) and name not in known]


def _above(name: str) -> Iterator[str]:
    """The names of our own devices that lie on a device and its partitions, each before those that it lies on."""
    seen: set[str] = set()

    def walk(name: str) -> Iterator[str]:
        folder = f"{_BLOCK}/{name}"
        parts = [each for each in _entries(folder) if os.path.exists(f"{folder}/{each}/partition")]
        for above in (*parts, *_entries(f"{folder}/holders")):
            if above not in seen:
                seen.add(above)
                yield from walk(above)
                if above not in parts and _is_ours(above):
                    yield above

    yield from walk(name)


def _entries(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _is_ours(name: str) -> bool:
    return name.startswith(md.MARK) or mapper_fact(name, "name").startswith(MARK)


def _close(name: str) -> None:
    node = mapper_fact(name, "name")
    if name.startswith(md.MARK):
        md.stop(name)
    elif mapper_fact(name, "uuid").startswith("CRYPT-"):
        patiently(lambda: run("cryptsetup", ["close", node]))
    else:
        patiently(lambda: run("dmsetup", ["remove", "--retry", node]))
