"""What people and programs are told of how far an operation is."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pexpect
import pytest

from etsclone import progress as module
from etsclone.progress import Phase, Report, Shown, print_event, progress, tell_state
from etsclone.units import KIB, MIB

ENVIRONMENT: Any = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def events_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_what_is_told_in_words() -> None:
    report = Report(Shown.TEXT, expected=("copying", "verifying"))
    report.phases.append(Phase("verifying", 10 * MIB, 4 * MIB, 6 * MIB, started=100, ended=104))
    assert report.line() == ("verifying 2/2: 6.00 MiB of 10.0 MiB (60 %), 512 KiB/s, 0:00:08 left")
    report.phases.append(Phase("rescuing", MIB, 0, 0, started=100, ended=104))
    report.unreadable = 3 * KIB
    assert report.line() == (
        "rescuing: 0 B of 1.00 MiB (0 %), 0 B/s, time left unknown, 3.00 KiB bad"
    )


def test_what_a_program_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Shown.EVENTS)
    with progress("copying", 100, shown=report, done=40) as advance:
        advance(10)
        advance(0, 7)
        advance(5, -2)
    with progress("verifying", 60, shown=report) as advance:
        advance(60)
    out, err = capsys.readouterr()
    assert err == ""
    events = events_of(out)
    assert {event["event"] for event in events} == {"progress"}
    assert [(e["phase"], e["done"], e["total"], e["unreadable"]) for e in events[1:4:2]] == [
        ("copying", 55, 100, 5),
        ("verifying", 60, 60, 5),
    ]
    assert len(events) == 4  # as each began, and as it ended
    for event in events:
        assert datetime.fromisoformat(event["time"]).utcoffset() is not None
        assert event["rate"] >= 0
    assert events[-1]["seconds_left"] == 0
    assert [(phase.name, phase.done - phase.before) for phase in report.phases] == [
        ("copying", 15),
        ("verifying", 60),
    ]


def test_programs_are_told_again_and_again_also_when_nothing_moves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_EVENTS", 0.02)
    out, patience = "", time.monotonic() + 60
    with progress("copying", 100, shown=Report(Shown.EVENTS)):
        while out.count("\n") < 5 and time.monotonic() < patience:
            time.sleep(0.02)
            out += capsys.readouterr().out
    assert len(events_of(out)) >= 5


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.1)
    with progress("copying", 4 * MIB, shown=Report(Shown.TEXT)) as advance:
        advance(MIB)
        time.sleep(0.55)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 2 <= len(lines) <= 5
    assert "\r" not in err
    for line in lines:
        told = r"etsclone: copying: 1.00 MiB of 4.00 MiB \(25 %\), .* [KM]iB/s, 0:00:\d\d left"
        assert re.fullmatch(told, line)


def test_that_is_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    assert module._SECONDS_BETWEEN_LINES == 60
    with progress("copying", 4 * MIB, shown=Report(Shown.TEXT)) as advance:
        advance(MIB)
        time.sleep(0.5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shown", [Shown.EVENTS, Shown.TEXT])
def test_of_nothing_to_do_nothing_is_told(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(shown)
    with progress("rescuing", 0, shown=report) as advance:
        advance(0)
    assert capsys.readouterr() == ("", "")
    assert report.phases == []


def test_a_failure_inside_comes_out_and_ends_the_phase(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Shown.EVENTS)
    with pytest.raises(KeyError), progress("copying", 10, shown=report):
        raise KeyError
    assert len(events_of(capsys.readouterr().out)) == 2
    assert report.phases[0].ended is not None


def test_the_state_is_told_when_it_is_asked_for(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = Report(Shown.NOTHING, expected=("copying",), mapfile=tmp_path / "map")
    tell_state()
    with progress("copying", 2 * MIB, shown=report) as advance:
        advance(MIB)
        tell_state()
    tell_state()
    nothing, told, again = capfd.readouterr().err.splitlines()
    assert nothing == again == "etsclone: nothing is being copied at the moment"
    assert told.startswith("etsclone: copying 1/1: 1.00 MiB of 2.00 MiB (50 %), ")
    assert told.endswith(f" left; map: {tmp_path}/map")


BAR = """\
import time
from etsclone.progress import Report, Shown, progress
with progress("copying", 4 << 20, shown=Report(Shown.TEXT, ("copying", "verifying")), done=1 << 20) as advance:
    advance(1 << 20, 4096)
    time.sleep(1)
    advance(2 << 20)
"""


def test_at_a_terminal_there_is_a_bar() -> None:
    terminal = pexpect.spawn(
        sys.executable, ["-c", BAR], encoding="utf-8", timeout=30, env=ENVIRONMENT
    )
    terminal.expect_exact("copying 1/2:  50%|")
    terminal.expect(r"2\.00M/4\.00M \[00:0\d<00:0\d, .*B/s, 4\.00 KiB bad\]")
    terminal.expect_exact("copying 1/2: 100%|")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def test_what_is_not_needed_is_not_imported() -> None:
    code = """
        import sys
        import etsclone.commands.clone
        from etsclone.progress import Report, Shown, progress
        with progress("copying", 10, shown=Report(Shown.TEXT)) as advance:
            advance(10)
        print(sorted({"tqdm", "cryptography"} & sys.modules.keys()))
        """
    done = subprocess.run(python(code), capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_when_nobody_reads_any_more_the_work_goes_on() -> None:
    code = """
        import sys, time
        from etsclone import progress as module
        module._SECONDS_BETWEEN_EVENTS = 0.01
        from etsclone.streams import lasting
        with lasting():
            report = module.Report(module.Shown.EVENTS)
            with module.progress("copying", 10, shown=report) as advance:
                sys.stdin.readline()
                time.sleep(0.2)
                advance(10)
            module.print_event("done", {})
        sys.stderr.write("worked to its end")
        """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        python(code), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdin and process.stdout and process.stderr  # noqa: PT018
        assert json.loads(process.stdout.readline())["event"] == "progress"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == "worked to its end"
        assert process.wait() == 0


def test_an_event_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_event("error", {"message": "two\nlines, \udcff and \u00e4"})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["message"] == "two\nlines, \udcff and \u00e4"
