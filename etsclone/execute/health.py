"""Looks whether a rebuilt disk is sound: its filesystems, each by its own tool, and the profile's checks in the clone.

Nothing is written. A filesystem must not be mounted; one whose journal is still to be replayed is not checked, since
its tools would tell of damage that the replay mends.
"""

import contextlib
import os
import signal
from collections.abc import Collection, Iterable, Iterator, Sequence

from etsclone.chroot import in_chroot
from etsclone.confined import End, Ended, World, run_confined
from etsclone.disk.fatcheck import check_fat
from etsclone.disk.luks import Keys
from etsclone.disk.mounts import system_mounts
from etsclone.disk.resize import check, is_mounted_btrfs
from etsclone.disk.specs import Volume
from etsclone.disk.stack import Stack, opened
from etsclone.errors import CommandFailed, FormatError, KeyRefused, MissingProgram, SourceRefused
from etsclone.model.disk import Disk
from etsclone.model.health import Finding, Verdict
from etsclone.model.profile import Check
from etsclone.run import run
from etsclone.units import KIB
from etsclone.usedmap.unsettled import UNCLEAN, check_btrfs, check_ext, check_xfs_log

FEW_LINES = 20
"""How much of a failed check's output is shown."""

_LONGEST = 300


# --- filesystems ---------------------------------------------------------------------------------------------------


def check_filesystems(disk: Disk, keys: Keys) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Check each filesystem of a disk that is not in use; also those in layers, of which encrypted ones are unlocked.

    Args:
        disk: a snapshot with partition nodes.
        keys: what opens encrypted volumes.

    Returns:
        The findings, and why some layers were not opened.
    """
    with opened(disk, keys, read_only=True) as layers:
        closed = tuple(_unlock_all(layers))
        found = tuple(map(_filesystem, (each for each in layers.volumes if _is_filesystem(each))))
        return found, (*layers.missing, *closed)


def _unlock_all(layers: Stack) -> Iterator[str]:
    """Open what is encrypted, also inside of what was; yields why some of it is not opened."""
    tried: list[Volume] = []
    while left := [each for each in layers.locked if each not in tried]:
        tried.append(left[0])
        try:
            layers.unlock(left[0])
        except KeyRefused:
            yield f"{left[0].where} is locked"
        except (CommandFailed, MissingProgram, SourceRefused) as error:
            yield f"{left[0].where} is encrypted, and was not opened: {error.message}"


def _is_filesystem(volume: Volume) -> bool:
    return volume.content.type not in ("", "swap")


def _filesystem(volume: Volume) -> Finding:
    kind = volume.content.type
    name = f"{kind} on {volume.where}"

    def skipped(why: str) -> Finding:
        return Finding(name, Verdict.SKIPPED, why)

    if kind not in ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat"):
        return skipped(f"no program is known that checks {kind}")
    if kind == "btrfs" and is_mounted_btrfs(volume.content.uuid):
        return skipped("a btrfs with its UUID is mounted: its tools could take one for the other")
    note = ""
    try:
        if kind == "vfat":
            note = check_fat(volume.device)
        else:
            _check_settled(volume.device, kind)
            check(volume.device, kind)
    except MissingProgram as error:
        return skipped(error.message)
    except FormatError as error:
        unclean = error.message == UNCLEAN
        return skipped("a mount must replay its journal first" if unclean else error.message)
    except CommandFailed as error:
        return Finding(name, Verdict.FAILED, error.message)
    except OSError as error:
        return Finding(name, Verdict.FAILED, f"it cannot be read: {error.strerror}")
    return Finding(name, Verdict.OK, note)


def _check_settled(device: str, kind: str) -> None:
    """Raises `FormatError` when the journal is to be replayed."""
    if kind == "xfs":
        check_xfs_log(run("xfs_logprint", ["-t", device]).stdout)
    elif kind == "btrfs":
        check_btrfs(_read(device, 64 * KIB, 4 * KIB))
    else:
        check_ext(_read(device, KIB, KIB))


def _read(device: str, start: int, size: int) -> bytes:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


# --- the profile's checks ------------------------------------------------------------------------------------------


def run_checks(root: str, checks: Iterable[Check], timeout: float) -> tuple[Finding, ...]:
    """Run the checks of a profile in the clone mounted at `root`, one after another, confined.

    Args:
        root: where the clone's root is mounted, with all that belongs to it.
        checks: what is run.
        timeout: seconds for each.

    Raises:
        EtscloneError: when this kernel cannot confine them.
    """
    checks = tuple(checks)
    needed = {path for check in checks for path in check.needs}
    missing = in_chroot(root, lambda: {each for each in needed if not os.path.lexists(each)})
    mounts = system_mounts(root)
    return tuple(_checked(root, each, mounts, missing, timeout) for each in checks)


def _checked(
    root: str, check: Check, mounts: Sequence[str], missing: Collection[str], timeout: float
) -> Finding:
    for path in check.needs:
        if path in missing:
            return Finding(check.name, Verdict.NOTHING, f"there is no {path}")
    ended = run_confined(root, check.argv, World(mounts, check.scratch), timeout=timeout)
    return _finding(check, ended, timeout)


def _finding(check: Check, ended: Ended, timeout: float) -> Finding:
    if ended.end is End.MISSING:
        return Finding(check.name, Verdict.SKIPPED, f"{check.argv[0]} is not installed there")
    if ended.end is End.ITSELF and ended.status == 0:
        return Finding(check.name, Verdict.OK)
    return Finding(check.name, Verdict.FAILED, _why(check, ended, timeout), _lines(ended))


def _why(check: Check, ended: Ended, timeout: float) -> str:
    program = check.argv[0]
    match ended.end:
        case End.TIME:
            return f"{program} did not end within {timeout:g} seconds"
        case End.PROCESSES:
            return f"{program} started too many processes"
        case _ if ended.status < 0:
            return f"{program} was ended by {_signal(-ended.status)}"
        case _:
            return f"{program} ended with status {ended.status}"


def _signal(number: int) -> str:
    with contextlib.suppress(ValueError):  # real-time signals have no names
        return signal.Signals(number).name
    return f"signal {number}"


def _lines(ended: Ended) -> tuple[str, ...]:
    """The last lines of the output, as a terminal may see them."""
    lines: Sequence[str] = ended.output.decode("utf-8", "backslashreplace").splitlines()
    shown = [_printable(line) for line in lines[-FEW_LINES:]]
    if ended.dropped or len(lines) > FEW_LINES:
        shown.insert(0, "[...]")
    return tuple(shown)


def _printable(line: str) -> str:
    text = "".join(
        char if char.isprintable() else repr(char)[1:-1] for char in line.expandtabs()[:_LONGEST]
    )
    return text + "..." * (len(line) > _LONGEST)
