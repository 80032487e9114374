"""Mirrors of md that members on one disk can show alone: started degraded, under names of our own, always stopped.

By the kernel's own files and not with mdadm, which does not start an array whose UUID is that of another one: the
twin's. Nothing is written to a member, not even its superblock, before something is written to the array; then its
superblock says that the others are out of date.

Source: the kernel's Documentation/admin-guide/md.rst.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from etsclone.disk.mapper import patiently, quiet_udev
from etsclone.errors import CommandFailed, FormatError
from etsclone.model.disk import Content
from etsclone.run import find_program, run, uninterrupted

CONTENT = "linux_raid_member"
"""What blkid calls a member."""

MARK = "md_etsclone-"
"""How the names of all arrays begin that are started here; those of named arrays begin with `md_`."""

_NEW = "/sys/module/md_mod/parameters/new_array"
_VERSIONS = ("1.2", "1.1", "1.0", "0.90")
"""Where a superblock may be, and what it looks like."""

_MIRROR = "raid1"


def identity(content: Content) -> tuple[str, str]:
    """The UUID of a member's array as mdadm writes it, and its name (for blkid the label) without the host's."""
    digits = content.uuid.replace("-", "")
    groups = [digits[start : start + 8] for start in range(0, len(digits), 8)]
    return ":".join(groups), content.label.rpartition(":")[2]


@contextlib.contextmanager
def started(members: Sequence[str], *, read_only: bool) -> Iterator[str]:
    """The mirror that these devices are members of, for as long as the context lasts; yields its node.

    Raises:
        FormatError: when they are members of something else, or this kernel cannot start it.
        CommandFailed: when it is busy in the end.
    """
    name = f"{MARK}{os.urandom(4).hex()}"
    with contextlib.ExitStack() as stack:
        try:
            with uninterrupted():
                quiet_udev()
                _create(name)
                stack.callback(stop, name)
                _add(name, members)
                _tell(name, "array_state", "readonly" if read_only else "read-auto")
            if _ask(name, "level") != _MIRROR:
                raise FormatError("an array of md that is no mirror")
        except OSError as error:
            why = error.strerror or "it is not told why"
            raise FormatError(f"an array of md that cannot be started here: {why}") from error
        yield f"/dev/{name}"


def stop(name: str) -> None:
    """Stop an array.

    Raises:
        CommandFailed: when it is in use.
    """

    def clear() -> None:
        try:
            _tell(name, "array_state", "clear")
        except FileNotFoundError:  # stopped already
            pass
        except OSError as error:
            raise CommandFailed(
                f"{name} cannot be stopped: {error.strerror}", hint="unmount what is on it"
            ) from error

    patiently(clear)


def _create(name: str) -> None:
    if not os.path.exists(_NEW) and find_program("modprobe"):
        run("modprobe", ["md-mod"], accept=(0, 1))
    with open(_NEW, "w", encoding="ascii") as file:
        file.write(name)


def _add(name: str, members: Sequence[str]) -> None:
    for version in _VERSIONS:
        _tell(name, "metadata_version", version)
        try:
            for member in members:
                number = os.stat(member).st_rdev
                _tell(name, "new_dev", f"{os.major(number)}:{os.minor(number)}")
        except OSError:
            if version == _VERSIONS[-1]:
                raise
        else:
            return


def _tell(name: str, file: str, word: str) -> None:
    with open(f"/sys/block/{name}/md/{file}", "w", encoding="ascii") as answer:
        answer.write(word)


def _ask(name: str, file: str) -> str:
    with open(f"/sys/block/{name}/md/{file}", encoding="ascii") as answer:
        return answer.read().strip()
