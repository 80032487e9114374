"""Whoever reads what a command prints may go away, or its disk be full: the work goes on, its exit code is told."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from stores import Made

ENVIRONMENT: Any = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
KEYGEN = ["-m", "etsclone", "brd", "keygen", "--no-passphrase"]
FULL = "etsclone: what is printed cannot be written to standard output: No space left on device\n"

LONG = """
import sys
from etsclone import cli
from etsclone.commands import {name} as command
from etsclone.commands.output import confirm
from etsclone.errors import VerificationFailed

def run(arguments):
    for _ in range(10_000):
        print("what is done, in words")
        print("what is done, in words", file=sys.stderr, flush=True)
    {end}
    with open({proof!r}, "w") as proof:
        proof.write("worked to its end")

command.run = run
cli.main()
"""


Lose = Callable[[list[str]], tuple[int, str]]


def ended(argv: list[str], stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *argv],
        stdout=stdout,
        stderr=stderr,
        text=True,
        env=ENVIRONMENT,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


def unread(argv: list[str], *, both: bool = False) -> tuple[int, str]:
    """Exit code and words on stderr, with a stdout, or both streams, that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return ended(argv, writer, writer if both else subprocess.PIPE)
    finally:
        os.close(writer)


def on_full_disk(argv: list[str]) -> tuple[int, str]:
    with open("/dev/full", "w") as full:
        return ended(argv, full.fileno())


def reports(made: Made) -> Mapping[str, list[str]]:
    store, newest = str(made.path), str(max((made.path / "primary").glob("*.brd")))
    return {
        "list": ["-m", "etsclone", "brd", "list", store],
        "verify": ["-m", "etsclone", "brd", "verify", store, "--trust", f"{store}/allowed_signers"],
        "show": ["-m", "etsclone", "brd", "show", newest],
        "doctor": ["-m", "etsclone", "doctor", "--help"],
    }


@pytest.mark.parametrize("name", ["list", "verify", "show", "doctor"])
def test_a_report(name: str, made: Made) -> None:
    argv = reports(made)[name]
    assert ended(argv, subprocess.DEVNULL) == (0, "")
    assert unread(argv) == (0, "")
    assert on_full_disk(argv) == (1, FULL)


@pytest.mark.parametrize("lose", [unread, on_full_disk])
def test_a_report_of_a_failure(lose: Lose, tmp_path: Path) -> None:
    argv = ["-m", "etsclone", "brd", "list", str(tmp_path)]
    code, words = lose(argv)
    assert code == 3
    assert "Traceback" not in words


@pytest.mark.parametrize("lose", [unread, on_full_disk])
def test_what_is_done_is_not_reported_as_failed(lose: Lose, tmp_path: Path) -> None:
    code, words = lose([*KEYGEN, str(tmp_path / "key")])
    assert code == 0
    assert (tmp_path / "key").exists()
    told = f"{FULL}hint: the exit code tells what became of the work\n"
    assert words == ("" if lose is unread else told)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("end", "code"), [("", 0), ("raise VerificationFailed('differs')", 4)])
def test_a_long_work_goes_on(both: bool, end: str, code: int, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    argv = ["-c", LONG.format(name="clone", end=end, proof=str(proof)), "clone", "a", "b"]
    found, words = unread(argv, both=both)
    assert found == code
    assert proof.exists() is not bool(end)
    assert both or "Traceback" not in words


def test_nobody_confirms_what_could_not_be_read(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    end = "confirm('sdb', yes=False)"
    argv = ["-c", LONG.format(name="clone", end=end, proof=str(proof)), "clone", "a", "b"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *argv],
        input="sdb\n",
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 3
    assert "nobody can read what is to be done" in done.stderr
    assert not proof.exists()


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_no_file_gets_the_number_of_a_stream_that_was_closed(closed: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    code = f"""
import os, signal
from etsclone import cli
from etsclone.commands import clone

def run(arguments):
    with open({str(target)!r}, "wb") as target:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.write(1, b"words")
        target.write(b"%d" % (target.fileno() > 2))

clone.run = run
cli.main(["clone", "a", "b"])
"""
    script = tmp_path / "script"
    script.write_text(code)
    shell = f"exec {sys.executable} {script} {closed}"
    assert subprocess.run(["sh", "-c", shell], env=ENVIRONMENT, check=False).returncode == 0
    assert target.read_bytes() == b"1"
