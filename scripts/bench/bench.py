"""Measures etsclone beside a C program that does only the copying, and beside other tools; docs/performance.md."""

import argparse
import compileall
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

import captures
import disks
import rebuilds
import trees
from contestants import (
    BRD_DIFF,
    CONTESTANTS,
    DIFF_INVENTORIES,
    DIFF_MANY,
    DIFF_RQ,
    DIFF_TREES,
    DOMAIN,
    DOMAIN_QUICK,
    ETSCLONE,
    ETSCLONE_VERIFIED,
    LIMIT_VERIFIED,
    PACKAGES,
    PLAN,
    READ_ONCE,
    REFRESH,
    Contestant,
)
from measure import (
    MIB,
    BenchError,
    Row,
    Sample,
    markdown,
    median_of,
    median_ratio,
    number,
    timed,
    tool,
    traffic,
)

from etsclone.model.extents import Extents

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(sys.executable).parent / "etsclone")
DISK_MIB = 8192
READERS = {1: "vfat", 2: "ext4"}
CHANGED_PART = 0.02
BIG_DISK_MIB = 500 * 1024
MANY_FILES = 1_000_000
BIG_FILESYSTEMS = ("ext4", "xfs", "btrfs")


@dataclass(frozen=True, slots=True)
class Job:
    """What the command lines are filled with, and where the disks are."""

    work: Path
    names: dict[str, str]

    def with_disks(self, source: disks.Disk, target: disks.Disk) -> "Job":
        """The same with the names of two disks."""
        more = {
            "source": source.device,
            "target": target.device,
            "source_file": str(source.file),
            "last_mib": str(source.size_mib - 1),
        }
        return replace(self, names=self.names | more)


def main() -> None:
    """Run the job that the command line names."""
    arguments = _parser().parse_args()
    for number_of_signal in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_of_signal, _interrupt)
    try:
        arguments.run(arguments)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        _say("bench: interrupted")
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__)
    jobs = parser.add_subparsers(metavar="JOB", required=True)
    for name, run, rounds, purpose in (
        (
            "clone",
            run_clone,
            5,
            "an 8 GiB server disk, 40 %% full, from one loop device to another",
        ),
        ("refresh", run_refresh, 5, "the same clone again, after 2 %% of the data changed"),
        ("plan", run_plan, 3, "planning alone, for sparse disks of 8 and of 500 GiB"),
        ("diff", run_diff, 5, "brd diff of two inventories, and diff -rq of the trees"),
        ("capture", run_capture, 5, "an overlay of a tree of 100,000 paths, beside rsync and find"),
        ("rebuild", run_rebuild, 5, "a role of 60 files on mounted sparse disks of 1 to 100 GiB"),
        ("memory", run_memory, 1, "what captures of a million small files take; best on a tmpfs"),
    ):
        job = jobs.add_parser(name, help=purpose)
        job.set_defaults(run=run, job=name)
        job.add_argument(
            "--where", default="tmpfs", metavar="PLACE",
            help="where the images lie: tmpfs (/dev/shm; the default), disk ($TMPDIR or /var/tmp), or a folder",
        )  # fmt: skip
        job.add_argument(
            "--rounds", type=int, default=rounds, metavar="N", help="default: %(default)s"
        )
        if name == "clone":
            job.add_argument(
                "--only",
                default="",
                metavar="WORDS",
                help="contestants that have one of these words in their names: dd,limit",
            )
        job.add_argument(
            "--etsclone",
            default=PROGRAM,
            metavar="PROGRAM",
            help="another version to measure (default: the one of this repository)",
        )
        job.add_argument(
            "--out", type=Path, default=PROJECT / "build" / "bench", metavar="FOLDER",
            help="where the tables and the figures of each run go (default: build/bench)",
        )  # fmt: skip
    return parser


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _job(arguments: argparse.Namespace, need_mib: int) -> Iterator[Job]:
    """Check what is needed, build the limit, and make a folder for it all."""
    _require_root_and_programs()
    place = _place(arguments)
    disks.require_memory(place, need_mib)
    with (
        disks.work_folder(place) as images,
        tempfile.TemporaryDirectory(prefix="etsclone-bench.") as small,
    ):
        work = Path(small)
        os.environ["ETSCLONE_STATE"] = str(work / "state")
        # As whoever installs the package has it; the environment may forbid Python to write it on its own.
        compileall.compile_dir(PROJECT / "etsclone", quiet=1)
        limit = work / "clone-limit"
        tool("cc", "-O2", "-pthread", "-o", limit, Path(__file__).with_name("clone-limit.c"))
        files = ("extents", "domain", "bmap", "fresh", "log", "output")
        names = {name: str(work / name) for name in files}
        yield Job(images, names | {"limit": str(limit), "etsclone": arguments.etsclone})


def _place(arguments: argparse.Namespace) -> Path:
    disk = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 - a folder with a random name is made in it
    places = {"tmpfs": "/dev/shm", "disk": disk}  # noqa: S108
    return Path(places.get(arguments.where, arguments.where))


def _require_root_and_programs() -> None:
    if os.geteuid() != 0:
        raise BenchError("root is needed, for loop devices and mounts")
    missing = sorted({package for name, package in PACKAGES.items() if not shutil.which(name)})
    if missing:
        raise BenchError(
            f"not all is installed: apt install --no-install-recommends {' '.join(missing)}"
        )


def _say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


# --- clone -------------------------------------------------------------------------------------


def run_clone(arguments: argparse.Namespace) -> None:
    """Every contestant once in every round, in an order that is turned from round to round."""
    contestants = _entered(arguments)
    with (
        _job(arguments, 13_000) as plain,
        disks.loop_disk(plain.work / "source.raw", DISK_MIB) as source,
        disks.loop_disk(plain.work / "target.raw", DISK_MIB) as target,
    ):
        job = plain.with_disks(source, target)
        _say(f"making {DISK_MIB} MiB of a server's disk in {plain.work}")
        disks.fill_server_disk(source, job.work, seed=1)
        used = _write_lists(job, source)
        tool("bmaptool", "create", "-o", job.names["bmap"], source.file)
        rows = []
        for turn in range(arguments.rounds):
            for each in _rotated(contestants, turn, arguments.rounds):
                disks.wipe(target)
                rows.append(_measure(each.name, each.commands, job, turn))
                if turn == 0:
                    _require_equal(each.name, source, target, used, each.left_out)
    _report(arguments, rows, _clone_table(contestants, rows, used.size), {"used": used.size})


def _write_lists(job: Job, source: disks.Disk) -> Extents:
    used = disks.used_extents(source, READERS, job.work)
    disks.write_extents(used, Path(job.names["extents"]))
    disks.write_domain(used, DISK_MIB * MIB, Path(job.names["domain"]))
    _say(f"{used.size / MIB:.0f} MiB are used, in {len(used)} extents")
    return used


def _entered(arguments: argparse.Namespace) -> list[Contestant]:
    known = tool(arguments.etsclone, "clone", "--help")
    words = [word for word in arguments.only.split(",") if word]
    chosen = [each for each in CONTESTANTS if not words or any(word in each.name for word in words)]
    for each in chosen:
        if each.needs not in known:
            _say(f"left out: {each.name}: etsclone clone has no option {each.needs}")
    return [each for each in chosen if each.needs in known]


def _rotated(contestants: list[Contestant], turn: int, turns: int) -> list[Contestant]:
    shift = turn * max(1, len(contestants) // turns) % len(contestants)
    return contestants[shift:] + contestants[:shift]


def _measure(name: str, commands: Sequence[str], job: Job, turn: int, *, changed: int = 0) -> Row:
    source, target = job.names["source"], job.names["target"]
    before = traffic(source)[0], traffic(target)[1]
    sample = timed(commands, job.names, target)
    read, written = traffic(source)[0] - before[0], traffic(target)[1] - before[1]
    _say(
        f"round {turn + 1}  {sample.wall:7.2f} s  {sample.cpu:6.2f} s CPU  "
        f"{read / MIB:6.0f} MiB read  {written / MIB:6.0f} MiB written  {name}"
    )
    return Row(turn, name, sample.wall, sample.cpu, sample.peak, read, written, changed)


def _require_equal(
    name: str, source: disks.Disk, target: disks.Disk, used: Extents, left_out: int = 0
) -> None:
    different = disks.changed_bytes(source, target, used)
    if different > left_out:
        raise BenchError(f"{name} made no right copy: {different} bytes of used blocks differ")


def _clone_table(contestants: Sequence[Contestant], rows: Sequence[Row], used: int) -> str:
    head = (
        "tool",
        "wall s",
        "CPU s",
        "to its limit",
        "to etsclone",
        "MB/s of used data",
        "peak MiB",
    )
    lines = []
    for each in contestants:
        own = ETSCLONE_VERIFIED if each.limit == LIMIT_VERIFIED else ETSCLONE
        wall = median_of(rows, each.name, "wall")
        lines.append(
            (
                each.name,
                number(wall),
                number(median_of(rows, each.name, "cpu")),
                number(median_ratio(rows, each.name, each.limit)),
                number(median_ratio(rows, each.name, own)),
                number(used / wall / 1e6, 0),
                number(median_of(rows, each.name, "peak") / MIB, 0),
            )
        )
    return markdown(head, lines)


# --- refresh -----------------------------------------------------------------------------------


def run_refresh(arguments: argparse.Namespace) -> None:
    """Clone once; then change, refresh, and change again, against reading the source once."""
    if "--refresh" not in tool(arguments.etsclone, "clone", "--help"):
        raise BenchError("etsclone clone has no option --refresh")
    changes = {"clustered": disks.change_clustered, "scattered": disks.change_scattered}
    with (
        _job(arguments, 9_000) as plain,
        disks.loop_disk(plain.work / "source.raw", DISK_MIB) as source,
        disks.loop_disk(plain.work / "target.raw", DISK_MIB) as target,
    ):
        job = plain.with_disks(source, target)
        _say(f"making {DISK_MIB} MiB of a server's disk in {plain.work}")
        disks.fill_server_disk(source, job.work, seed=1)
        tool(arguments.etsclone, "clone", source.device, target.device, "--yes")
        rows = []
        for turn in range(arguments.rounds):
            for kind, change in changes.items():
                change(source, job.work, int(_write_lists(job, source).size * CHANGED_PART), turn)
                rows += _refresh_round(job, source, target, kind, turn)
    _report(arguments, rows, _refresh_table(list(changes), rows), {})


def _refresh_round(
    job: Job, source: disks.Disk, target: disks.Disk, kind: str, turn: int
) -> list[Row]:
    used = _write_lists(job, source)
    changed = disks.changed_bytes(source, target, used)
    pairs = [(f"read once, {kind}", READ_ONCE), (f"refresh, {kind}", REFRESH)]
    rows = [
        _measure(name, [command], job, turn, changed=changed)
        for name, command in (pairs if turn % 2 == 0 else reversed(pairs))
    ]
    _require_equal(f"refresh, {kind}", source, target, used)
    return rows


def _refresh_table(kinds: Sequence[str], rows: Sequence[Row]) -> str:
    head = (
        "changes",
        "changed MiB",
        "reading once s",
        "refresh s",
        "ratio",
        "CPU s",
        "written MiB",
        "written/changed",
    )
    lines = []
    for kind in kinds:
        name = f"refresh, {kind}"
        changed, written = (median_of(rows, name, what) for what in ("changed", "written"))
        lines.append(
            (
                kind,
                number(changed / MIB, 1),
                number(median_of(rows, f"read once, {kind}", "wall")),
                number(median_of(rows, name, "wall")),
                number(median_ratio(rows, name, f"read once, {kind}")),
                number(median_of(rows, name, "cpu")),
                number(written / MIB, 0),
                number(written / changed, 1),
            )
        )
    return markdown(head, lines)


# --- plan --------------------------------------------------------------------------------------


def run_plan(arguments: argparse.Namespace) -> None:
    """Only the maps and the plan, of a small and of a big disk."""
    rows: list[Row] = []
    with _job(arguments, 5_000) as job:
        for kind in BIG_FILESYSTEMS:
            for size in (DISK_MIB, BIG_DISK_MIB):
                with disks.loop_disk(job.work / "source.raw", size) as source:
                    _say(f"making {size // 1024} GiB with {kind}")
                    disks.fill_root(source, kind, job.work)
                    for turn in range(arguments.rounds):
                        rows += _plan_round(job, source, kind, turn)
    _report(arguments, rows, _plan_table(rows), {})


def _plan_round(job: Job, source: disks.Disk, kind: str, turn: int) -> Iterator[Row]:
    disk = f"{kind}, {source.size_mib // 1024} GiB"
    names = job.names | {"source": source.device}
    for what, command in (("partclone", DOMAIN), ("partclone -f 0", DOMAIN_QUICK)):
        samples = [
            timed([command], names | {"reader": reader, "partition": source.partition(at)})
            for at, reader in ((1, "vfat"), (2, kind))
        ]
        yield _plan_row(f"{disk}: {what}", turn, *samples)
    yield _plan_row(f"{disk}: etsclone", turn, timed([PLAN], names))


def _plan_row(name: str, turn: int, *samples: Sample) -> Row:
    wall, cpu = sum(each.wall for each in samples), sum(each.cpu for each in samples)
    _say(f"round {turn + 1}  {wall:7.2f} s  {name}")
    return Row(turn, name, wall, cpu, max(each.peak for each in samples))


def _plan_table(rows: Sequence[Row]) -> str:
    tools = ("partclone", "partclone -f 0", "etsclone")
    head = ("disk", *(f"{tool} s" for tool in tools), *(f"{tool} peak MiB" for tool in tools[1:]))
    disks_measured = dict.fromkeys(row.name.split(":")[0] for row in rows)
    return markdown(
        head,
        [
            (
                disk,
                *(number(median_of(rows, f"{disk}: {tool}", "wall")) for tool in tools),
                *(
                    number(median_of(rows, f"{disk}: {tool}", "peak") / MIB, 0)
                    for tool in tools[1:]
                ),
            )
            for disk in disks_measured
        ],
    )


# --- diff --------------------------------------------------------------------------------------


def run_diff(arguments: argparse.Namespace) -> None:
    """Two trees of 100,000 files and overlays of them; and overlays with a million files each.

    In memory all caches are warm, as the trees themselves are; on a disk all are cold.
    """
    rows: list[Row] = []
    warm = arguments.where == "tmpfs"
    with _job(arguments, 7_000) as job, trees.trees(job.work, 100_000, in_memory=warm) as folders:
        _say("capturing both trees")
        overlays = trees.captured(arguments.etsclone, job.work, folders)
        _say("making inventories of a million files")
        many = trees.synthetic(job.work, 1_000_000)
        signers = job.work / "store" / "allowed_signers"
        for turn in range(arguments.rounds):
            for name, command, sides in (
                (DIFF_TREES, DIFF_RQ, folders),
                (DIFF_INVENTORIES, BRD_DIFF, overlays),
                (DIFF_MANY, BRD_DIFF, many),
            ):
                names = {"left": sides[0], "right": sides[1], "signers": signers}
                filled = job.names | {key: str(value) for key, value in names.items()}
                sample = timed([command], filled, warm=warm)
                _say(
                    f"round {turn + 1}  {sample.wall:7.2f} s  {sample.peak / MIB:4.0f} MiB  {name}"
                )
                rows.append(Row(turn, name, sample.wall, sample.cpu, sample.peak))
    _report(arguments, rows, _diff_table(rows), {})


def _diff_table(rows: Sequence[Row]) -> str:
    return markdown(
        ("what", "wall s", "CPU s", "diff -rq to it", "peak MiB"),
        [
            (
                name,
                number(median_of(rows, name, "wall")),
                number(median_of(rows, name, "cpu")),
                number(1 / median_ratio(rows, name, DIFF_TREES), 1) if name != DIFF_MANY else "-",
                number(median_of(rows, name, "peak") / MIB, 0),
            )
            for name in (DIFF_TREES, DIFF_INVENTORIES, DIFF_MANY)
        ],
    )


# --- capture -----------------------------------------------------------------------------------


def run_capture(arguments: argparse.Namespace) -> None:
    """Everything once in every round; warm caches, since each reads what the one before it read."""
    names, rows = list(captures.COMMANDS), []
    with _server(arguments, 6_000) as server:
        _say(f"making a server's tree in {server.tree}")
        paths = captures.fill(server.tree)
        tool("cp", "--archive", server.tree, server.names["copy"])
        _capture_round(server, names, None)
        for turn in range(arguments.rounds):
            captures.change_few(server.tree, turn)
            tool("rsync", "--archive", f"{server.tree}/", server.names["copy"])
            captures.settle()
            shift = turn % 2 * 2  # find and the second capture stay together
            rows += _capture_round(server, names[shift:] + names[:shift], turn)
        size = captures.newest(server).stat().st_size
        captures.forget(server)
    table = _capture_table(rows)
    _report(arguments, rows, table, {"paths": paths, "overlay": size})
    _say(f"{paths} paths; the overlay has {captures.mib(size)} MiB")


def run_memory(arguments: argparse.Namespace) -> None:
    """A first and a second capture of many small files; how much memory all processes had together."""
    with _server(arguments, 5_000) as server:
        _say(f"making {MANY_FILES} files in {server.tree}")
        captures.fill_small(server.tree, MANY_FILES)
        captures.settle()
        rows, lines = [], []
        for name in (captures.FIRST, captures.AGAIN):
            together: list[int] = []
            with captures.memory_watched(together):
                rows.append(_capture_run(server, name, 0))
            each = rows[-1]
            lines.append(
                (name, number(each.wall), captures.mib(each.peak), captures.mib(together[0]))
            )
    head = ("capture of a million files", "wall s", "largest process MiB", "all processes MiB")
    _report(arguments, rows, markdown(head, lines), {"files": MANY_FILES})


def run_rebuild(arguments: argparse.Namespace) -> None:
    """Each size in every round, there and back; what is not the disk's time must not grow with it."""
    if os.geteuid() != 0:
        raise BenchError("root is needed, for loop devices and mounts")
    place = _place(arguments)
    with disks.work_folder(place) as work, ExitStack() as mounted:
        os.environ["ETSCLONE_STATE"] = str(work / "state")
        pairs = [
            mounted.enter_context(rebuilds.pair(work, size, sys.executable, arguments.etsclone))
            for size in rebuilds.SIZES_GIB
        ]
        rows = []
        for turn in range(arguments.rounds):
            for each in pairs:
                rows.append(each.rebuild(rebuilds.ROLES[turn % 2]))
                _say(f"round {turn + 1}  {rows[-1]}")
    head = ("rebuild of 60 files", "wall s", "in fsync s", "beside s", "CPU s")
    table = markdown(head, rebuilds.table_lines(rows))
    _report(
        arguments,
        [Row(0, f"{row.size_gib} GiB", row.wall, row.cpu, 0) for row in rows],
        table,
        {"fsync": [row.synced for row in rows]},
    )


@contextmanager
def _server(arguments: argparse.Namespace, need_mib: int) -> Iterator[captures.Server]:
    _require_root_and_programs()
    place = _place(arguments)
    disks.require_memory(place, need_mib)
    with disks.work_folder(place) as work:
        os.environ["ETSCLONE_STATE"] = str(work / "state")
        with captures.server(work, arguments.etsclone) as server:
            log = {"fresh": str(work / "fresh"), "output": str(work / "output")}
            yield replace(server, names=server.names | log)


def _capture_round(server: captures.Server, names: Sequence[str], turn: int | None) -> list[Row]:
    return [_capture_run(server, name, turn) for name in names]


def _capture_run(server: captures.Server, name: str, turn: int | None) -> Row:
    sample = timed([captures.COMMANDS[name]], server.names, warm=True)
    _say(
        f"round {0 if turn is None else turn + 1}  {sample.wall:7.2f} s  {sample.cpu:6.2f} s CPU  {name}"
    )
    return Row(turn or 0, name, sample.wall, sample.cpu, sample.peak)


def _capture_table(rows: Sequence[Row]) -> str:
    head = ("", "wall s", "CPU s", "ratio", "peak MiB")
    return markdown(
        head,
        [
            (
                name,
                number(median_of(rows, name, "wall")),
                number(median_of(rows, name, "cpu")),
                number(median_ratio(rows, name, captures.RATIOS[name]))
                if name in captures.RATIOS
                else "1.00",
                number(median_of(rows, name, "peak") / MIB, 0),
            )
            for name in captures.COMMANDS
        ],
    )


# --- results -----------------------------------------------------------------------------------


def _report(
    arguments: argparse.Namespace, rows: Sequence[Row], table: str, facts: dict[str, object]
) -> None:
    """Print the table, and keep it and the figures of each run."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = facts | {
        "job": arguments.job,
        "where": arguments.where,
        "rounds": arguments.rounds,
        "processors": os.cpu_count(),
        "kernel": os.uname().release,
        "table": table,
        "rows": [asdict(row) for row in rows],
    }
    place = Path(arguments.where).name
    path = arguments.out / f"{arguments.job}-{place}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table, end="")
    _say(f"kept as {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
