"""The door to other programs, with small programs of our own behind it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etsclone import run as door
from etsclone.errors import CommandFailed, MissingProgram
from etsclone.run import PROGRAMS, find_program, run, side_by_side, uninterrupted

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install(name, script)` puts a shell script first in $PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


pytestmark = pytest.mark.usefixtures("real_programs")


def test_what_a_program_wrote(install: Install) -> None:
    install("dumpe2fs", 'echo "out $1"; echo err >&2; exit 2')
    done = run("dumpe2fs", ["an argument"], accept=(0, 2))
    assert (done.status, done.stdout, done.stderr) == (2, "out an argument\n", "err\n")


def test_arguments_are_never_seen_by_a_shell(install: Install) -> None:
    install("dumpe2fs", 'for each in "$@"; do printf "<%s>" "$each"; done')
    words = ["$HOME", "a b", "*", "; reboot", "--x=y", "", "'"]
    assert run("dumpe2fs", words).stdout == "".join(f"<{word}>" for word in words)


def test_the_locale_is_fixed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    install("dumpe2fs", 'echo "$LC_ALL"')
    assert run("dumpe2fs", []).stdout == "C.UTF-8\n"


def test_a_program_reads_what_it_is_fed(install: Install) -> None:
    install("dumpe2fs", "exec cat")
    fed = bytes(range(1, 128)) * 2000
    assert run("dumpe2fs", [], feed=fed).stdout.encode() == fed


def test_a_program_that_does_not_read_is_no_failure(install: Install) -> None:
    install("dumpe2fs", "echo done")
    assert run("dumpe2fs", [], feed=bytes(1 << 20)).stdout == "done\n"


def test_a_program_has_nothing_to_read(install: Install) -> None:
    install("dumpe2fs", "exec cat")
    assert run("dumpe2fs", []).stdout == ""


def test_undecodable_output_survives(install: Install) -> None:
    install("dumpe2fs", r"printf '\377'")
    assert os.fsencode(run("dumpe2fs", []).stdout) == b"\xff"


def test_a_failure_tells_status_last_words_and_command(install: Install) -> None:
    install("dumpe2fs", "for n in 1 2 3 4; do echo line $n >&2; done; exit 7")
    with pytest.raises(CommandFailed) as caught:
        run("dumpe2fs", ["/dev/my disk"])
    assert caught.value.message == "dumpe2fs failed with status 7: line 2; line 3; line 4"
    assert caught.value.hint == "the command was: dumpe2fs '/dev/my disk'"


def test_a_failure_that_is_told_on_stdout(install: Install) -> None:
    install("e2fsck", "echo RUN fsck MANUALLY; exit 4")
    with pytest.raises(CommandFailed, match="status 4: RUN fsck MANUALLY"):
        run("e2fsck", [])


def test_a_silent_failure(install: Install) -> None:
    install("dumpe2fs", "exit 1")
    with pytest.raises(CommandFailed, match="status 1: it said nothing"):
        run("dumpe2fs", [])


def test_a_program_that_a_signal_ended(install: Install) -> None:
    install("dumpe2fs", "kill -SEGV $$")
    with pytest.raises(CommandFailed, match="ended by SIGSEGV"):
        run("dumpe2fs", [])


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "find_program", lambda _name: None)
    with pytest.raises(MissingProgram) as caught:
        run("partclone.xfs", [])
    assert caught.value.message == "partclone.xfs is not installed: it finds the used blocks of xfs"
    assert caught.value.hint == "apt install partclone"


def test_only_listed_programs_are_run() -> None:
    with pytest.raises(KeyError):
        run("rm", ["-rf", "/nowhere"])


def test_programs_are_found_beyond_a_plain_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_program("losetup") == "/usr/sbin/losetup"


@pytest.mark.parametrize("path", ["", ":/nowhere", "/nowhere:", "/nowhere::/nowhere"])
def test_a_program_is_never_taken_from_the_current_folder(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("losetup").write_text("#!/bin/sh\n")
    Path("losetup").chmod(0o755)
    monkeypatch.setenv("PATH", path)
    assert find_program("losetup") == "/usr/sbin/losetup"


def test_every_program_has_a_package_and_a_purpose() -> None:
    for name, program in PROGRAMS.items():
        assert program.name == name
        assert program.package
        assert program.purpose


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_program_before_it_goes_on(
    number: signal.Signals, install: Install, tmp_path: Path
) -> None:
    # The program tells that it is at work by a line in a FIFO, and its end by the FIFO's end of file.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    install("dumpe2fs", f"exec > '{fifo}'; echo at work; exec sleep 600")
    ours = textwrap.dedent("""
        import signal, sys
        from etsclone.run import run
        def interrupt(*_): raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, interrupt)
        try:
            run("dumpe2fs", [])
        except KeyboardInterrupt:
            sys.exit(130)
        """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        subprocess.Popen([sys.executable, "-c", ours], env=environment) as process,
        fifo.open() as tidings,
    ):
        assert tidings.readline() == "at work\n"
        process.send_signal(number)
        assert process.wait() == 130
        assert tidings.read() == ""


def test_an_interrupt_ends_what_threads_wait_for(install: Install, tmp_path: Path) -> None:
    # What only reads is ended, whatever its thread begins next; what changes something is waited for.
    fifo, changed = tmp_path / "fifo", tmp_path / "changed"
    os.mkfifo(fifo)
    install("partclone.xfs", f"exec >> '{fifo}'; echo at work; exec sleep 600")
    install("losetup", f"exec >> '{fifo}'; echo at work; sleep 3; touch '{changed}'")
    ours = textwrap.dedent("""
        import sys
        from etsclone.errors import CommandFailed
        from etsclone.run import run, side_by_side
        def work(name):
            try:
                run(name, [])
            except CommandFailed:
                run(name, [])
        try:
            side_by_side(work, ["partclone.xfs", "losetup", *["partclone.xfs"] * 6])
        except KeyboardInterrupt:
            sys.exit(130)
        """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        subprocess.Popen([sys.executable, "-c", ours], env=environment) as process,
        fifo.open() as tidings,
    ):
        for _ in range(4):
            assert tidings.readline() == "at work\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert len(tidings.readlines()) <= 3  # the second tries
    assert changed.exists()


def test_an_interrupt_as_they_begin_ends_them_all(install: Install) -> None:
    """The signal comes when a few are at work and the others not yet handed out."""
    install("partclone.xfs", "exec sleep 600")

    def names() -> Iterator[str]:
        yield "partclone.xfs"
        signal.raise_signal(signal.SIGINT)
        yield "partclone.xfs"

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        side_by_side(lambda name: run(name, []), names())
    assert time.monotonic() - began < 60


def test_a_failure_beside_others_ends_them_too(install: Install) -> None:
    install("partclone.xfs", "exec sleep 600")
    install("partclone.ext4", "exit 3")
    began = time.monotonic()
    with pytest.raises(CommandFailed, match="status 3"):
        side_by_side(lambda name: run(name, []), ["partclone.ext4", *["partclone.xfs"] * 6])
    assert time.monotonic() - began < 60


def test_what_is_found_keeps_its_order() -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (9 - number))
        return number * number

    assert side_by_side(work, range(9)) == [number * number for number in range(9)]


def test_interrupts_wait_for_what_must_not_be_cut_short() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - where it comes out is the point
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(signal.SIGINT)
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
