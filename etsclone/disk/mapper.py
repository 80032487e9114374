"""Devices of device-mapper under names of our own, and udev asked to leave them alone."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from etsclone.errors import CommandFailed
from etsclone.run import find_program, run, uninterrupted

MARK = "etsclone-"
"""How the names of all devices begin that are made here."""

_RULES = "/run/udev/rules.d"
_LEAVE_ALONE = 'ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}="1", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1"'
_QUIET = f"{_RULES}/09-etsclone.rules"
_RULE = f"""\
SUBSYSTEM=="block", ATTR{{dm/name}}=="{MARK}*", {_LEAVE_ALONE}
SUBSYSTEM=="block", KERNEL=="md_{MARK}*", OPTIONS+="link_priority=-100", {_LEAVE_ALONE}
"""
"""What is opened of a clone must not be taken for its twin's, nor be put together by others. The rules stand before
all that heed these flags (libdevmapper.h): 13-dm-disk and 69-dm-lvm, which Debian calls 60-persistent-storage-dm and
69-lvm."""

_TRIES = 20
_PAUSE = 0.25


def new_name(word: str) -> str:
    """A name that no device has: random, with a word that tells people what it is."""
    kept = "".join(letter if letter.isalnum() or letter in "._+" else "-" for letter in word)
    return f"{MARK}{os.urandom(4).hex()}-{kept[:80]}"


def node_of(name: str) -> str:
    """The device node of a name."""
    return f"/dev/mapper/{name}"


@contextlib.contextmanager
def mapping(name: str, table: str, *, read_only: bool) -> Iterator[str]:
    """A device that shows what a table says, for as long as the context lasts; yields its node.

    Raises:
        CommandFailed: when device-mapper does not take the table, or keeps the device busy in the end.
    """
    access = ["--readonly"] if read_only else []
    with contextlib.ExitStack() as stack:
        with uninterrupted():
            quiet_udev()
            run("dmsetup", ["create", name, *access], feed=table.encode())
            stack.callback(patiently, lambda: run("dmsetup", ["remove", "--retry", name]))
        yield node_of(name)


def quiet_udev() -> None:
    """Let udev, where it runs, make no links to our devices and start nothing on them."""
    if os.path.exists(_QUIET) or not os.path.isdir("/run/udev"):
        return
    os.makedirs(_RULES, exist_ok=True)
    with open(f"{_QUIET}.new", "w", encoding="utf-8") as file:
        file.write(_RULE)
    os.rename(file.name, _QUIET)
    if find_program("udevadm"):
        # Where it does not answer, it sees it within some seconds by itself.
        run("udevadm", ["control", "--reload"], accept=range(256))


def patiently(undo: Callable[[], object]) -> None:
    """Undo something that udev may be looking at just now: for some seconds try again.

    Raises:
        CommandFailed: what the last try said.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(CommandFailed):
            undo()
            return
        time.sleep(_PAUSE)
    undo()


def size_of(device: str) -> int:
    """The bytes that a block device has now."""
    with open(device, "rb") as file:
        return file.seek(0, os.SEEK_END)


def holders_of(device: str) -> list[str]:
    """The devices that lie on a device now: mappings, arrays."""
    name = os.path.basename(os.path.realpath(device))
    try:
        return sorted(f"/dev/{each}" for each in os.listdir(f"/sys/class/block/{name}/holders"))
    except FileNotFoundError:
        return []
