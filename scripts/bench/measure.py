"""Runs command lines to their end, counts seconds and bytes, and makes tables of it."""

import fcntl
import math
import os
import shlex
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BLKFLSBUF = 0x1261
SECTOR = 512  # the unit of /sys/block/*/stat, whatever the sectors of the device are
MIB = 1 << 20


class BenchError(Exception):
    """Something that the bench needs is not there, or a contestant failed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run took: wall and CPU seconds, the largest resident set (bytes) of any of its processes."""

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True, slots=True)
class Row:
    """One run of one contestant in one round."""

    round: int
    name: str
    wall: float
    cpu: float
    peak: int
    read: int = 0
    written: int = 0
    changed: int = 0


def tool(*argv: str | os.PathLike[str], accept: Sequence[int] = (0,), feed: str = "") -> str:
    """Run a program that is not measured, with `feed` as its standard input, and return its standard output.

    Raises:
        BenchError: when it fails.
    """
    done = subprocess.run(  # noqa: S603 - argv lists of this folder, no shell
        [os.fspath(word) for word in argv],
        input=feed,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in accept:
        said = (done.stderr.strip() or done.stdout.strip())[-500:]
        raise BenchError(f"{' '.join(map(str, argv))} failed ({done.returncode}): {said}")
    return done.stdout


def timed(
    commands: Sequence[str], names: Mapping[str, str], target: str = "", *, warm: bool = False
) -> Sample:
    """Run commands one after another, with cold caches unless `warm`, and measure them as whole processes.

    The clock stops when all data has reached the device `target`, whether or not the commands saw to that. CPU time
    is that of the processes; what the kernel does for them in threads of its own (loop devices, writing back) is
    not in it.

    Raises:
        BenchError: when a command fails.
    """
    fresh = Path(names["fresh"])
    for old in fresh.parent.glob(f"{fresh.name}*"):
        old.unlink()
    argvs = [shlex.split(command.format_map(names)) for command in commands]
    if not warm:
        drop_caches()
    start = time.perf_counter()
    usages = [_run(argv, names["output"]) for argv in argvs]
    if target:
        flush(target)
    wall = time.perf_counter() - start
    return Sample(
        wall,
        sum(cpu for cpu, _ in usages),
        max(peak for _, peak in usages),
    )


def _run(argv: Sequence[str], output: str) -> tuple[float, int]:
    """Run one command; the CPU seconds and the peak memory of it and of the processes that it waited for."""
    peak = f"{output}.peak"
    # time(1), because the peak that wait4 tells is at least that of the process that started the command: this one.
    watched = ["time", "--format=%M", f"--output={peak}", *argv]
    with open(output, "wb") as log, open(os.devnull, "rb") as nothing:
        process = subprocess.Popen(  # noqa: S603 - as in tool
            watched, stdin=nothing, stdout=log, stderr=log, process_group=0
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGINT)  # time(1) ignores it, and waits for the command
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        said = Path(output).read_text(errors="replace").strip()[-500:]
        raise BenchError(f"{shlex.join(argv)} failed ({process.returncode}): {said}")
    return usage.ru_utime + usage.ru_stime, int(Path(peak).read_text(encoding="ascii")) * 1024


def drop_caches() -> None:
    """Write back and forget all that the kernel caches (what lies on a tmpfs stays)."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def flush(device: str) -> None:
    """Make all that was written to a block device durable, and drop its cache."""
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        fcntl.ioctl(descriptor, BLKFLSBUF)
    finally:
        os.close(descriptor)


def traffic(device: str) -> tuple[int, int]:
    """The bytes that were ever read from and written to a block device, partitions included."""
    fields = Path(f"/sys/block/{os.path.basename(device)}/stat").read_text(encoding="ascii").split()
    return int(fields[2]) * SECTOR, int(fields[6]) * SECTOR


def median_of(rows: Sequence[Row], name: str, attribute: str) -> float:
    """The median over all rounds of one number of one contestant; NaN when it did not run."""
    values = [getattr(row, attribute) for row in rows if row.name == name]
    return statistics.median(values) if values else float("nan")


def median_ratio(rows: Sequence[Row], name: str, base: str) -> float:
    """The median of the ratios of wall time to that of `base` in the same round; NaN when either did not run."""
    bases = {row.round: row.wall for row in rows if row.name == base}
    ratios = [
        row.wall / bases[row.round] for row in rows if row.name == name and row.round in bases
    ]
    return statistics.median(ratios) if ratios else float("nan")


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def number(value: float, digits: int = 2) -> str:
    """A number for a table; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
