"""Law 8 for programs of the clone that are run: hostile ones, in a clone of its own with this system's /usr in it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from errno import EINVAL, ENOSYS
from pathlib import Path

import pytest
from oracle import look

from etsclone import kernel, seccomp
from etsclone.confined import (
    CAPABILITIES,
    MOST_THREADS,
    OUTPUT_LIMIT,
    End,
    Ended,
    World,
    run_confined,
)
from etsclone.errors import EtscloneError
from etsclone.units import MIB

pytestmark = pytest.mark.loop

SYS_CHROOT = 18
"""linux/capability.h: what the boot loader's programs have."""

CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
"""The number of clone(2)."""

FOREVER = "86399.{}"
"""Seconds for sleep(1), by which a process of one test is known."""


def tool(*argv: str | Path) -> None:
    subprocess.run(argv, check=True)


@dataclass(frozen=True)
class Clone:
    """A mounted system, writable as far as the mounts go, and the folder of the host around it."""

    root: Path
    host: Path

    def run(
        self, *argv: str, timeout: float = 30, capabilities: Collection[int] = CAPABILITIES
    ) -> Ended:
        world = World((str(self.root / "usr"),), capabilities=capabilities)
        return run_confined(str(self.root), argv, world, timeout=timeout)

    def shell(self, script: str, timeout: float = 30) -> Ended:
        return self.run("sh", "-c", script, timeout=timeout)

    def python(self, program: str, capabilities: Collection[int] = CAPABILITIES) -> str:
        """What a program prints. A line of it that begins with `!` must fail."""
        lines = []
        for number, line in enumerate(program.splitlines()):
            if line.startswith("!"):
                line = (  # noqa: PLW2901
                    f"try: {line[1:]}\nexcept OSError as e: print(errno.errorcode[e.errno])\n"
                    f"else: print('line {number} worked')"
                )
            lines.append(line)
        text = "\n".join(("import ctypes, errno, os, socket", *lines))
        ended = self.run("python3", "-c", text, capabilities=capabilities)
        assert (ended.end, ended.status) == (End.ITSELF, 0), ended.output
        return ended.output.decode()


@pytest.fixture(params=["pivoted", "covered"])
def clone(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Clone]:
    if request.param == "covered":
        monkeypatch.setattr(kernel, "pivot_root", initial_root)
    host, root = tmp_path / "host", tmp_path / "clone"
    root.mkdir()
    host.mkdir()
    (host / "canary").write_text("of the host\n")
    with ExitStack() as cleanup:
        tool("mount", "-t", "tmpfs", "clone", root)
        cleanup.callback(tool, "umount", root)
        for name in ("dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "var/tmp"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            (root / name).symlink_to(f"usr/{name}")
        (root / "etc/config").write_text("of the clone\n")
        tool("mount", "--bind", "/usr", root / "usr")
        cleanup.callback(tool, "umount", root / "usr")
        yield Clone(root, host)


def initial_root(_new: str, _old: str) -> None:
    """What the kernel says in a system that runs in its initramfs."""
    raise OSError(EINVAL, os.strerror(EINVAL))


def running(marker: str) -> list[int]:
    """The processes of this machine that have a word on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def wait_until(true: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


# --- what it is for ------------------------------------------------------------------------------------------------


def test_a_program_is_run_as_root_in_the_clone(clone: Clone) -> None:
    ended = clone.shell('read line < /etc/config; echo "$line"; id -u; pwd; echo bad >&2; exit 3')
    assert ended == Ended(End.ITSELF, 3, b"of the clone\n0\n/\nbad\n")


def test_it_may_write_where_running_services_do(clone: Clone) -> None:
    script = "mkdir /run/sshd && echo x > /tmp/x && echo x > /var/tmp/x && echo x > /dev/null"
    assert clone.shell(script).status == 0
    assert [list((clone.root / name).iterdir()) for name in ("run", "tmp", "var/tmp")] == [[]] * 3


def test_it_may_have_further_folders_to_write_to(clone: Clone) -> None:
    (clone.root / "var/lib/nfs").mkdir(parents=True)
    (clone.root / "var/lib/nfs/etab").write_text("of the clone\n")
    script = "ls -ld /run/sshd; ls /var/lib/nfs; echo x > /var/lib/nfs/etab && echo x > /var/lib/y"
    world = World((str(clone.root / "usr"),), scratch=("/run/sshd", "/var/lib/nfs", "/no/such"))
    ended = run_confined(str(clone.root), ["sh", "-c", script], world, timeout=30)
    first, second = ended.output.decode().splitlines()
    assert first.startswith("drwxr-xr-x 2 0 0 ")
    assert "/var/lib/y: Read-only file system" in second
    assert (clone.root / "var/lib/nfs/etab").read_text() == "of the clone\n"


def test_what_is_not_there_is_missing(clone: Clone) -> None:
    for name in ("no-such-program", "/etc/no/such", "/etc"):
        assert clone.run(name).end is End.MISSING


def test_what_cannot_be_executed_has_failed(clone: Clone) -> None:
    (clone.root / "etc/tool").write_text("#!/no/interpreter\n")
    assert clone.run("/etc/tool") == Ended(End.ITSELF, 126, b"/etc/tool: Permission denied\n")
    (clone.root / "etc/tool").chmod(0o755)
    assert clone.run("/etc/tool").output == b"/etc/tool: No such file or directory\n"


def test_a_signal_that_ended_it_is_told(clone: Clone) -> None:
    assert clone.shell("kill -SEGV $$").status == -signal.SIGSEGV


def test_a_program_of_another_user_configuration_is_read(clone: Clone) -> None:
    secret = clone.root / "etc/secret"
    secret.write_text("readable\n")
    secret.chmod(0)
    os.chown(secret, 33, 33)
    assert clone.run("cat", "/etc/secret").output == b"readable\n"


def test_where_namespaces_are_refused_nothing_is_run(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_flags: int) -> None:
        raise OSError(EINVAL, os.strerror(EINVAL))

    monkeypatch.setattr(kernel, "unshare", refused)
    with pytest.raises(EtscloneError, match="cannot be confined") as caught:
        clone.shell("echo x > /etc/written")
    assert "--no-checks" in caught.value.hint
    assert not (clone.root / "etc/written").exists()


def test_where_a_mount_is_refused_nothing_is_run(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = kernel.mount

    def refused(
        source: str, target: str, kind: str = "", flags: int = 0, options: str = ""
    ) -> None:
        if kind == "proc":
            raise OSError(EINVAL, os.strerror(EINVAL), target)
        real(source, target, kind, flags, options)

    monkeypatch.setattr(kernel, "mount", refused)
    with pytest.raises(EtscloneError, match=r"cannot be confined here: .*'/proc'"):
        clone.shell("true")


# --- what it cannot do ---------------------------------------------------------------------------------------------


def test_nothing_of_the_clone_can_be_written(clone: Clone) -> None:
    before = look(clone.root / "etc")
    said = clone.python(
        "!open('/etc/config', 'w')\n!open('/usr/x', 'w')\n!os.chmod('/etc', 0)\n!os.mkdir('/mnt/x')\n"
        "!open('/proc/sys/kernel/core_pattern', 'w')\n!open('/proc/self/oom_score_adj', 'w')\n!os.mknod('/dev/x')"
    )
    assert said == "EROFS\n" * 7
    assert look(clone.root / "etc") == before


def test_no_way_leads_out(clone: Clone) -> None:
    canary = clone.host / "canary"
    (clone.root / "etc/link").symlink_to(canary)
    up = "../" * 40
    said = clone.python(
        f"!open('{canary}')\n!open('/etc/link')\n!open('/{up}{canary}')\n"
        f"os.chdir('/tmp')\n!open('{up}{canary}')\n"
        "!os.chroot('/tmp')\n!open('/proc/1/root/etc')\n!open('/proc/1/mem')\n!os.listdir('/proc/1/cwd')"
    )
    assert said == "ENOENT\n" * 4 + "EPERM\n" + "EACCES\n" * 3


def test_no_open_file_is_inherited(clone: Clone) -> None:
    folder = os.open(clone.host, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        said = clone.python(
            "for name in os.listdir('/proc/self/fd'):\n"
            "    try: print(name, os.readlink(f'/proc/self/fd/{name}').split(':')[0])\n"
            "    except FileNotFoundError: pass"
        )
    finally:
        os.close(folder)
    assert sorted(said.splitlines()) == ["0 /dev/null", "1 pipe", "2 pipe"]


def test_it_can_neither_mount_nor_make_devices_nor_change_the_system(clone: Clone) -> None:
    said = clone.python(
        "def mount(*words):\n"
        "    if ctypes.CDLL(None, use_errno=True).mount(*words): raise OSError(ctypes.get_errno(), '')\n"
        "!mount(b'x', b'/tmp', b'tmpfs', 0, None)\n"
        "!mount(b'', b'/', None, 32, None)\n"
        "!os.mknod('/tmp/disk', 0o60600, os.makedev(7, 0))\n"
        "!socket.sethostname('other')\n"
        "!os.nice(-5)\n"
        "!os.setxattr('/tmp', 'trusted.x', b'')\n"
        "!socket.socket(socket.AF_INET, socket.SOCK_RAW)\n"
    )
    assert said.splitlines()[:4] == ["EPERM"] * 4
    assert "worked" not in said


def test_its_capabilities_are_few_and_stay_few(clone: Clone) -> None:
    said = clone.run("cat", "/proc/self/status").output.decode()
    words = dict(line.split(":\t", 1) for line in said.splitlines())
    kept = f"{sum(1 << number for number in CAPABILITIES):016x}"
    assert {words[f"Cap{name}"] for name in ("Prm", "Eff", "Bnd")} == {kept}
    assert words["CapInh"] == words["CapAmb"] == "0" * 16
    assert words["NoNewPrivs"] == "1"


CALLS = """\
libc = ctypes.CDLL(None, use_errno=True)
space = os.open('/proc/self/ns/user', os.O_RDONLY)
def call(function, *words):
    if function(*words) == -1: raise OSError(ctypes.get_errno(), '')
"""
NEW_USER_NAMESPACE = f"""\
!call(libc.unshare, 0x10000000)
!call(libc.unshare, 0x10020000)
!call(libc.syscall, {CLONE}, 0x10000011, 0, 0, 0, 0)
!call(libc.syscall, 435, (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17), 64)
!call(libc.setns, space, 0)
"""
REFUSED = ["EPERM", "EPERM", "EPERM", "ENOSYS", "EPERM"]


def test_it_gets_no_user_namespace_to_be_mighty_in(clone: Clone) -> None:
    assert clone.python(CALLS + NEW_USER_NAMESPACE).split() == REFUSED


def test_nor_does_it_get_one_where_it_may_leave_its_root(clone: Clone) -> None:
    leave = (
        "os.chroot('/tmp')\nfor _ in range(50): os.chdir('..')\nos.chroot('.')\n"
        "print(*sorted(os.listdir('/')))\n!open('/x', 'w')\n"
    )
    said = clone.python(CALLS + leave + NEW_USER_NAMESPACE, {*CAPABILITIES, SYS_CHROOT})
    assert said.splitlines() == ["clone proc", "EROFS", *REFUSED]


def test_threads_and_children_are_no_user_namespaces(clone: Clone) -> None:
    said = clone.python(
        "import threading, subprocess\n"
        "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()\n"
        "print(subprocess.run(['echo', 'child'], capture_output=True).stdout)"
    )
    assert said == "thread\nb'child\\n'\n"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a second way of this machine")
def test_no_other_architecture_is_a_way_around(clone: Clone) -> None:
    x32 = 0x40000000 + 272
    assert clone.python(f"{CALLS}!call(libc.syscall, {x32}, 0x10000000)") == "ENOSYS\n"
    # push rbx; mov eax, 310; mov ebx, CLONE_NEWUSER; int 0x80; pop rbx; ret: unshare() of 32 bits
    said = clone.python(
        "import mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('53b836010000bb00000010cd805bc3'))\n"
        "run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "print(run())"
    )
    assert said == f"-{ENOSYS}\n"


def test_where_the_calls_are_not_known_nothing_is_run(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seccomp, "_MACHINES", {})
    with pytest.raises(EtscloneError, match=r"cannot be confined here: .*no filter is known"):
        clone.shell("true")


def test_there_is_no_network(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as other:
        other.bind("\0etsclone-test")
        other.listen()
        said = clone.python(
            f"!socket.create_connection({server.getsockname()}, 2)\n"
            "!socket.socket(socket.AF_UNIX).connect('\\0etsclone-test')\n"
            "print(socket.if_nameindex())"
        )
    assert said == "ENETUNREACH\nECONNREFUSED\n[(1, 'lo')]\n"


def test_other_processes_are_neither_seen_nor_reached(clone: Clone) -> None:
    said = clone.python(
        f"print(sorted(int(name) for name in os.listdir('/proc') if name.isdecimal()))\n"
        f"!os.kill({os.getpid()}, 0)\nos.kill(1, 9)\nprint('alive')"
    )
    assert said == "[1, 2]\nESRCH\nalive\n"


def test_foreign_mounts_beneath_the_clone_are_not_there(clone: Clone) -> None:
    tool("mount", "--bind", clone.host, clone.root / "mnt")
    try:
        assert clone.shell("echo /mnt/*").output == b"/mnt/*\n"
    finally:
        tool("umount", clone.root / "mnt")


def test_links_in_place_of_its_folders_cover_nothing(clone: Clone) -> None:
    for name in ("tmp", "run", "dev", "proc"):
        (clone.root / name).rmdir()
        (clone.root / name).symlink_to("/etc")
    ended = clone.shell("echo /tmp/* /dev/* /proc/* && echo x > /tmp/x")
    assert ended.output.startswith(b"/tmp/config /dev/config /proc/config\n")
    assert ended.status != 0


# --- what is left of it --------------------------------------------------------------------------------------------


def test_what_it_left_running_ends_with_it(clone: Clone, tmp_path: Path) -> None:
    marker = FOREVER.format(abs(hash(tmp_path)))
    ended = clone.shell(f"setsid sleep {marker} & (trap '' TERM HUP; sleep {marker}) & echo left")
    assert ended == Ended(End.ITSELF, 0, b"left\n")
    assert running(marker) == []


def test_time_is_up_for_all_of_its_children(clone: Clone, tmp_path: Path) -> None:
    marker = FOREVER.format(abs(hash(tmp_path)))
    began = time.monotonic()
    ended = clone.shell(
        f"trap '' TERM INT HUP; echo begun; setsid sleep {marker} & sleep {marker}", timeout=1
    )
    assert ended == Ended(End.TIME, 0, b"begun\n")
    assert time.monotonic() - began < 5
    assert running(marker) == []


def test_time_is_up_although_it_writes_without_end(clone: Clone) -> None:
    ended = clone.shell("exec yes", timeout=1)
    assert ended.end is End.TIME
    assert len(ended.output) == OUTPUT_LIMIT


def test_it_may_close_its_output_and_is_still_waited_for(clone: Clone) -> None:
    assert clone.shell("exec >&- 2>&-; sleep 0.5; exit 7").status == 7
    assert clone.shell("exec >&- 2>&-; sleep 100", timeout=1).end is End.TIME


def test_forking_without_end_is_ended(clone: Clone, tmp_path: Path) -> None:
    marker = FOREVER.format(abs(hash(tmp_path)))
    ended = clone.shell(f"while :; do setsid sleep {marker} & done", timeout=60)
    assert ended.end is End.PROCESSES
    assert running(marker) == []


@pytest.mark.parametrize("hidden", [False, True])
def test_threads_without_end_are_ended(clone: Clone, hidden: bool) -> None:
    if hidden:
        (clone.root / "proc").rmdir()
        (clone.root / "proc").symlink_to("/etc")
    program = (
        "import threading, time\n"
        "threading.stack_size(1 << 16)\n"
        f"for _ in range({2 * MOST_THREADS}): threading.Thread(target=time.sleep, args=(20,)).start()"
    )
    assert clone.run("python3", "-c", program, timeout=60).end is End.PROCESSES


def test_some_processes_are_no_crime(clone: Clone) -> None:
    script = f"i=0; while [ $i -lt {MOST_THREADS // 2} ]; do sleep 0.5 & i=$((i + 1)); done; wait"
    assert clone.shell(script).end is End.ITSELF


def test_of_much_output_the_end_is_kept(clone: Clone) -> None:
    ended = clone.shell("yes | head -c 100000000; echo the end")
    assert ended.end is End.ITSELF
    assert len(ended.output) == OUTPUT_LIMIT
    assert ended.output.endswith(b"y\nthe end\n")
    assert len(ended.output) + ended.dropped == 100_000_000 + len("the end\n")


def test_memory_that_it_may_fill_is_bounded(clone: Clone) -> None:
    ended = clone.shell("head -c 200M /dev/zero > /tmp/a; wc -c < /tmp/a")
    assert int(ended.output.split()[-1]) <= 64 * MIB


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_etsclone_ends_so_does_it(
    clone: Clone, tmp_path: Path, number: signal.Signals
) -> None:
    marker = FOREVER.format(abs(hash(tmp_path)))
    program = (
        "import sys\nfrom etsclone.confined import World, run_confined\nimport signal\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "run_confined(sys.argv[1], sys.argv[3:], World([sys.argv[2]]), timeout=100)"
    )
    words = [*map(str, (clone.root, clone.root / "usr")), "sh", "-c", f"sleep {marker}; true"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stderr=subprocess.DEVNULL
    ) as running_it:
        wait_until(lambda: running(marker))
        running_it.send_signal(number)
    wait_until(lambda: not running(marker))
