"""What commands print and ask, and how the command line turns errors into exit codes."""

import errno
import io
import json
import os
import signal
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest

from etsclone import cli
from etsclone.commands import brd, doctor
from etsclone.commands.diskwords import disk_facts, disk_line
from etsclone.commands.late import add_commands
from etsclone.commands.output import confirm, print_table
from etsclone.errors import (
    DeviceError,
    EtscloneError,
    ExitCode,
    Interrupted,
    NotConfirmed,
    Refused,
    StoreFull,
    VerificationFailed,
)
from etsclone.model.disk import Content, Disk, DiskIdentity, Partition, PartitionTable
from etsclone.overlay.temporary import room_needed
from etsclone.run import PROGRAMS
from etsclone.units import GIB, MIB

PARTITIONS = (
    Partition(1, "/dev/sda1", MIB, MIB, "EF"),
    Partition(2, "/dev/sda2", 2 * MIB, MIB, "83", content=Content("ext4")),
)
DISK = Disk(
    DiskIdentity("/dev/sda", 8 * GIB, serial="A1"),
    model="Fast Disk",
    transport="usb",
    table=PartitionTable("gpt", "id", PARTITIONS),
)


def run_cli(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


def test_doctor_finds_every_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_program", lambda name: f"/sbin/{name}")
    assert run_cli("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["PROGRAM", "FOUND", "PACKAGE", "PURPOSE"]
    assert [line.split()[:2] for line in lines[1:]] == [[n, f"/sbin/{n}"] for n in PROGRAMS]


def test_doctor_names_the_packages_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"sfdisk", "partclone.xfs", "partclone.ntfs"}
    monkeypatch.setattr(doctor, "find_program", lambda name: None if name in missing else name)
    assert run_cli("doctor", "--json") == 3
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert {fact["program"] for fact in facts if fact["path"] is None} == missing
    assert all(fact["package"] and fact["purpose"] for fact in facts)
    assert err == (
        "etsclone: not installed: sfdisk, partclone.xfs, partclone.ntfs\n"
        "hint: apt install fdisk partclone\n"
    )


@pytest.mark.parametrize("command", [("mount",), ("brd", "list")])
def test_an_unknown_option_is_answered_with_the_usage_of_the_command(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(*command, "one", "two", "--what") == ExitCode.USAGE
    said = capsys.readouterr().err
    name = " ".join(("etsclone", *command))
    assert said.startswith(f"usage: {name} [-h]")
    assert f"{name}: error: unrecognized arguments: " in said


def test_doctor_does_without_optional_programs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_program", lambda name: None if name == "rpm" else name)
    assert run_cli("doctor") == 0
    (line,) = (each for each in capsys.readouterr().out.splitlines() if each.startswith("rpm "))
    assert line.split()[1] == "(optional)"


def failing(error: BaseException) -> Callable[..., None]:
    def run(_arguments: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EtscloneError("it failed"), ExitCode.FAILED),
        (Refused("no"), ExitCode.REFUSED),
        (VerificationFailed("differs"), ExitCode.VERIFICATION),
        (DeviceError("broken"), ExitCode.DEVICE),
        (Interrupted("stopped"), ExitCode.INTERRUPTED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_an_error_becomes_its_exit_code(
    error: BaseException,
    code: ExitCode,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "run", failing(error))
    assert run_cli("doctor") == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"etsclone: {getattr(error, 'message', 'interrupted')}\n")


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN, errno.EBADMSG])
def test_a_medium_that_is_gone_or_damaged_is_told_wherever_it_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    gone = OSError(number, "Input/output error", "/media/brd/x")
    monkeypatch.setattr(doctor, "run", failing(gone))
    assert run_cli("doctor") == ExitCode.DEVICE
    assert capsys.readouterr().err == (
        "etsclone: the medium of /media/brd/x failed: Input/output error\n"
        "hint: check that it is still plugged in\n"
    )


def test_what_nobody_expected_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", failing(OSError(errno.ELOOP, "strange")))
    with pytest.raises(OSError, match="strange"):
        cli.main(["doctor"])


def test_a_hint_has_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "run", failing(Refused("it is mounted", hint="unmount it")))
    run_cli("doctor")
    assert capsys.readouterr().err == "etsclone: it is mounted\nhint: unmount it\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_cut_the_cleaning_up_short(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned = []

    def run(_arguments: object) -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    monkeypatch.setattr(doctor, "run", run)
    assert run_cli("doctor") == 130
    assert cleaned


def test_nohup_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", lambda _arguments: signal.raise_signal(signal.SIGHUP))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert run_cli("doctor") == 0


@pytest.mark.parametrize("argv", [[], ["frobnicate"], ["clone", "a"], ["clone"], ["disks", "x"]])
def test_a_wrong_command_line_is_a_usage_error(argv: list[str]) -> None:
    assert run_cli(*argv) == 2


@pytest.mark.parametrize(("name", "purpose"), cli.COMMANDS.items())
def test_every_command_explains_itself(
    name: str, purpose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(name, "--help") == 0
    assert purpose[1:] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("name", "purpose"), [(n, each[1]) for n, each in brd.COMMANDS.items()])
def test_every_brd_command_explains_itself(
    name: str, purpose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("brd", name, "--help") == 0
    assert purpose[1:] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("argv", [["clone", "a", "b"], ["verify", "a", "b"], ["disks"]])
def test_root_rights_are_needed(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run_cli(*argv) == 3
    assert capsys.readouterr().err == (
        "etsclone: root rights are needed\nhint: run the command again with sudo, or as root\n"
    )


def test_json_shows_no_plan_to_confirm(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("clone", "a", "b", "--json") == 2
    assert capsys.readouterr().err.splitlines() == [
        "etsclone: --json shows no plan to confirm",
        "hint: give --dry-run to see the plan, --yes to execute it",
    ]


def test_a_failure_is_an_event_where_events_were_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli("clone", "a", "b", "--json") == 2
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert event.pop("time")
    assert event == {
        "event": "error",
        "message": "--json shows no plan to confirm",
        "hint": "give --dry-run to see the plan, --yes to execute it",
        "exit_code": 2,
    }


@pytest.mark.parametrize("argv", [["clone", "a", "b", "--retries=-1"], ["doctor", "--json"]])
def test_a_failure_is_no_event_elsewhere(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "run", failing(Refused("no")))
    assert run_cli(*argv) != 0
    assert capsys.readouterr().out == ""


def test_who_asks_for_the_state_does_not_end_the_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "run", lambda _arguments: signal.raise_signal(signal.SIGUSR1))
    assert run_cli("doctor") == 0
    assert capfd.readouterr().err == "etsclone: nothing is being copied at the moment\n"


@pytest.mark.parametrize("typed", ["sdb\n", "  sdb \n", "sdb"])
def test_the_targets_name_confirms(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    confirm("sdb", yes=False)


@pytest.mark.parametrize("typed", ["", "\n", "y\n", "yes\n", "sda\n", "/dev/sdb\n", "SDB\n"])
def test_nothing_else_confirms(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    with pytest.raises(NotConfirmed, match="not confirmed, nothing was changed"):
        confirm("sdb", yes=False)


def test_yes_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    confirm("sdb", yes=True)


def test_columns_are_as_wide_as_they_need_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "LONG"), [("wide cell", "x"), ("", "")])
    assert capsys.readouterr().out == "A          LONG\nwide cell  x\n\n"


def test_a_person_recognises_a_disk() -> None:
    assert (
        disk_line(DISK) == "/dev/sda  8.00 GiB  usb  Fast Disk  S/N A1  [gpt: 1 (unknown), 2 ext4]"
    )


def test_a_program_gets_all_facts_of_a_disk() -> None:
    facts = json.loads(json.dumps(disk_facts(DISK)))
    assert (facts["path"], facts["size"], facts["serial"]) == ("/dev/sda", 8 * GIB, "A1")
    assert facts["partitions"][1]["content"] == "ext4"
    assert facts["table"] == {"label": "gpt", "uuid": "id"}


def test_a_command_that_is_only_listed_answers_what_argparse_asks_of_a_parser() -> None:
    """From Python 3.14 on, `add_parser` lets the parser that it has just made check its help."""
    parser = ArgumentParser(prog="some")
    add_commands(parser, {"one": ("etsclone.commands.doctor.configure", "do it")})
    (listed,) = (each.choices for each in parser._actions if isinstance(each.choices, dict))
    assert listed["one"].format_usage() == "usage: some one [-h]\n"


def test_where_no_folder_takes_a_temporary_file_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a rescue system that is full: /tmp, /var/tmp and the working folder are all on it."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    full = pytest.raises(StoreFull, match="no folder for temporary files")
    with full as caught, room_needed(), tempfile.TemporaryFile():
        pass
    assert "TMPDIR" in caught.value.hint
    with room_needed(), tempfile.SpooledTemporaryFile(max_size=10) as small:
        small.write(b"in memory")
    with pytest.raises(StoreFull), room_needed(), tempfile.SpooledTemporaryFile(max_size=10) as one:
        one.write(b"no more in memory")


def test_what_is_missing_is_not_told_as_a_lack_of_space(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"), room_needed():
        (tmp_path / "none").read_bytes()
