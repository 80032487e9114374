"""The one door to other programs: argv lists, a fixed locale, no standard input, every command logged.

The only importer of `subprocess` (why not of `sh`: docs/decisions.md).
"""

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from etsclone.errors import INTERRUPTIONS, CommandFailed, MissingProgram

logger = logging.getLogger(__name__)

ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Searched after $PATH: a plain user's $PATH lacks the folders of the disk tools."""

_READERS = ("partclone.", "xfs_logprint", "dumpe2fs", "fsck.fat")
"""Programs (or how their names begin) that only read: they can be ended at any moment with nothing left half done."""

_reading: set[subprocess.Popen[bytes]] = set()
"""Those of them that are running."""

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


_PATIENCE = 5.0
"""Seconds that an ended program's own children have to end too."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that etsclone calls: its command name, the Debian package that brings it, what it is for.

    Without an `optional` one etsclone does all that it promises, for the systems that do not need it.
    """

    name: str
    package: str
    purpose: str
    optional: bool = False


PROGRAMS = {
    program.name: program
    for program in (
        Program("sfdisk", "fdisk", "reads partition tables"),
        Program("losetup", "mount", "attaches image files as disks"),
        Program("partx", "util-linux", "tells the kernel of the partitions of a disk"),
        Program("fallocate", "util-linux", "gives back the unused space of an image file"),
        Program("dumpe2fs", "e2fsprogs", "tells where ext2, ext3 and ext4 keep metadata"),
        Program(
            "debugfs",
            "e2fsprogs",
            "names the files that lost blocks of ext2, ext3 and ext4 belonged to, and gives new ones mount options",
        ),
        Program("xfs_db", "xfsprogs", "names the files that lost blocks of xfs belonged to"),
        Program("ionice", "util-linux", "lets others use the disks first"),
        Program("mount", "mount", "mounts the filesystems of a clone"),
        Program("umount", "mount", "unmounts them"),
        Program("partclone.ext4", "partclone", "finds the used blocks of ext2, ext3 and ext4"),
        Program("partclone.xfs", "partclone", "finds the used blocks of xfs"),
        Program("partclone.btrfs", "partclone", "finds the used blocks of btrfs"),
        Program("partclone.exfat", "partclone", "finds the used blocks of exFAT"),
        Program("partclone.ntfs", "partclone", "finds the used blocks of NTFS"),
        Program("partclone.f2fs", "partclone", "finds the used blocks of F2FS"),
        Program(
            "btrfs",
            "btrfs-progs",
            "tells where a btrfs keeps second copies, and what lost blocks belonged to",
        ),
        Program("e2fsck", "e2fsprogs", "checks ext2, ext3 and ext4"),
        Program("fsck.fat", "dosfstools", "checks FAT, as EFI system partitions have it"),
        Program("resize2fs", "e2fsprogs", "enlarges ext2, ext3 and ext4"),
        Program("xfs_growfs", "xfsprogs", "enlarges xfs"),
        Program("xfs_repair", "xfsprogs", "checks xfs"),
        Program("lvm", "lvm2", "takes snapshots of LVM volumes, and enlarges physical ones"),
        Program("dmsetup", "dmsetup", "tells how snapshots and unlocked LUKS volumes are doing"),
        Program(
            "cryptsetup",
            "cryptsetup-bin",
            "opens volumes encrypted with LUKS, and gives them another UUID",
            optional=True,
        ),
        Program("modprobe", "kmod", "loads the driver of mirrors of md", optional=True),
        Program("udevadm", "udev", "has udev leave alone what is opened of a clone", optional=True),
        Program("unshare", "util-linux", "mounts a filesystem where nobody else sees it"),
        Program("findmnt", "util-linux", "tells which device is mounted"),
        Program("mke2fs", "e2fsprogs", "makes ext2, ext3 and ext4 on a smaller disk"),
        Program("tune2fs", "e2fsprogs", "gives ext2, ext3 and ext4 the source's options"),
        Program("xfs_admin", "xfsprogs", "gives xfs another UUID"),
        Program("btrfstune", "btrfs-progs", "gives btrfs another UUID"),
        Program("swaplabel", "util-linux", "gives swap space another UUID"),
        Program("mkfs.xfs", "xfsprogs", "makes xfs on a smaller disk"),
        Program("xfs_info", "xfsprogs", "tells the features of xfs"),
        Program("mkswap", "util-linux", "makes swap space on a smaller disk"),
        Program("cp", "coreutils", "copies files to a smaller disk"),
        Program("xfs_logprint", "xfsprogs", "tells whether the log of an xfs is clean"),
        Program("ssh-keygen", "openssh-client", "signs with keys in ssh-agent or in a token"),
        Program("ssh-add", "openssh-client", "tells which keys ssh-agent holds"),
        Program("efibootmgr", "efibootmgr", "makes boot entries of UEFI machines", optional=True),
        Program(
            "rpm", "rpm", "names the packages of systems that have an RPM database", optional=True
        ),
    )
}
"""Every program that etsclone may call. `run` refuses any other, so that `etsclone doctor` knows them all."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended: its exit status, and what it wrote (undecodable bytes become surrogates)."""

    status: int
    stdout: str
    stderr: str


def find_program(name: str) -> str | None:
    """The full path of a program of `PROGRAMS`, or None when it is not installed."""
    folders = [*os.environ.get("PATH", "").split(":"), ADMIN_PATH]
    # An empty folder in $PATH would mean the current one.
    return shutil.which(name, path=":".join(folder for folder in folders if folder))


def require_program(name: str) -> str:
    """The full path of a program of `PROGRAMS`.

    Raises:
        MissingProgram: when it is not installed; the hint names its package.
    """
    program = PROGRAMS[name]
    path = find_program(name)
    if path is None:
        raise MissingProgram(
            f"{name} is not installed: it {program.purpose}", hint=f"apt install {program.package}"
        )
    return path


def run(
    name: str,
    arguments: Sequence[str | os.PathLike[str]],
    *,
    accept: Sequence[int] = (0,),
    feed: bytes = b"",
) -> Completed:
    """Run a program of `PROGRAMS` to its end and return what it wrote.

    Args:
        name: the command name, a key of `PROGRAMS`.
        arguments: the rest of argv; never seen by a shell.
        accept: exit statuses that are no failure.
        feed: what it reads from its standard input.

    Raises:
        MissingProgram: when it is not installed; the hint names its package.
        CommandFailed: for any other exit status, with the last lines that it wrote to stderr, or else to stdout.
    """
    path = require_program(name)
    argv = [os.fspath(argument) for argument in arguments]
    logger.info("run: %s", shlex.join([name, *argv]))
    completed = _completed([path, *argv], feed)
    if completed.status < 0:
        raise CommandFailed(
            f"{name} was ended by {signal.Signals(-completed.status).name}: {shlex.join([name, *argv])}"
        )
    if completed.status not in accept:
        # Some, such as e2fsck, tell what is wrong on stdout.
        words = completed.stderr.strip() or completed.stdout.strip()
        said = "; ".join(words.splitlines()[-3:]) or "it said nothing"
        raise CommandFailed(
            f"{name} failed with status {completed.status}: {said}",
            hint=f"the command was: {shlex.join([name, *argv])}",
        )
    return completed


def _completed(argv: list[str], feed: bytes = b"") -> Completed:
    process: subprocess.Popen[bytes] | None = None
    try:
        with uninterrupted():
            process = subprocess.Popen(  # noqa: S603 - argv lists, no shell
                argv,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # In a session of its own it does not see the terminal's ^C: we end it ourselves, so that it is never
                # half done when our own cleaning up begins.
                start_new_session=True,
            )
        if os.path.basename(argv[0]).startswith(_READERS):
            _reading.add(process)
        stdout, stderr = process.communicate(feed or None)
    except BaseException:
        if process is not None:
            _end(process)
        raise
    finally:
        _reading.discard(process)
    return Completed(
        process.returncode,
        stdout.decode("utf-8", "surrogateescape"),
        stderr.decode("utf-8", "surrogateescape"),
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program, and wait until the processes that it started are gone too: they may still be using a mount."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    until = time.monotonic() + _PATIENCE
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.01)


def side_by_side(work: Callable[[_Item], _Found], items: Iterable[_Item]) -> list[_Found]:
    """What `work` finds for each item, in their order; a few threads do it at a time.

    When it fails for one (also by ^C in the calling thread), the programs that only read are ended, wherever a thread
    waits for one, and others waited for, so that no thread is at work any more when the exception is raised.
    """
    futures: list[Future[_Found]] = []
    with ThreadPoolExecutor(max_workers=4) as pool:
        try:
            with uninterrupted():  # a thread that nobody knows of could not be told to end
                futures += [pool.submit(work, item) for item in items]
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # More than once: where one reader fails, its thread may well try another.
            while not all(future.done() for future in futures):
                for process in list(_reading):
                    # After the first ^C the others are ignored, also by whatever is started from then on.
                    process.kill()
                time.sleep(0.02)
            raise


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back ^C and termination signals until the context ends, where the first of them takes effect.

    Between an effect on the system and the note of how to undo it there must be no interrupt. Only the main thread
    ever receives one, so in other threads there is nothing to hold back.
    """
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    heeded = [
        number
        for number in INTERRUPTIONS
        if main and signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {
        number: signal.signal(number, lambda which, _: came.append(which)) for number in heeded
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)
