"""The tree of errors and the exit codes that scripts rely on."""

import argparse
import logging
from collections.abc import Iterator

import pytest

from etsclone import cli, errors
from etsclone.errors import EtscloneError, ExitCode
from etsclone.model.boot import Finding, Firmware, Way
from etsclone.model.edit import Edit
from etsclone.plan.bootentries import BootEntry
from etsclone.plan.bootwork import BootCommand

FAMILIES = {
    errors.UsageError: 2,
    errors.Refused: 3,
    errors.VerificationFailed: 4,
    errors.DeviceError: 5,
    errors.Interrupted: 130,
}


def tree(root: type[EtscloneError] = EtscloneError) -> Iterator[type[EtscloneError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_the_codes_are_the_documented_ones() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "REFUSED": 3,
        "VERIFICATION": 4,
        "DEVICE": 5,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize("error", [*tree()], ids=lambda error: error.__name__)
def test_every_error_has_the_code_of_its_family(error: type[EtscloneError]) -> None:
    expected = next((code for family, code in FAMILIES.items() if issubclass(error, family)), 1)
    assert error("what is wrong").exit_code == expected


@pytest.mark.parametrize("error", [*tree()], ids=lambda error: error.__name__)
def test_every_error_is_explained(error: type[EtscloneError]) -> None:
    assert error.__doc__


def test_an_error_carries_a_message_and_a_hint() -> None:
    error = errors.TargetRefused("it is mounted", hint="unmount it")
    assert (str(error), error.message, error.hint) == (
        "it is mounted",
        "it is mounted",
        "unmount it",
    )
    assert errors.TargetRefused("it is mounted").hint == ""


BAD = "a\x1b[2J\rb\nc\x9b\u202e\udcff"
SHOWN = r"a\x1b[2J\rb\nc\x9b\u202e\udcff"


def test_no_text_of_a_clone_writes_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.CannotBoot(f"it said: {BAD}", hint=f"look at {BAD}")
    assert cli._fail(error, argparse.Namespace()) == error.exit_code
    assert capsys.readouterr().err == f"etsclone: it said: {SHOWN}\nhint: look at {SHOWN}\n"


def test_no_word_of_a_command_writes_to_the_terminal() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "run: %s", (BAD,), None)
    assert cli._Printable("etsclone: %(message)s").format(record) == f"etsclone: run: {SHOWN}"


@pytest.mark.parametrize(
    "shown",
    [
        Finding(BAD, path=b"/boot/\x1b"),
        Way(Firmware.UEFI, BAD),
        BootCommand((BAD,), BAD),
        BootEntry("label", "/dev/sda", 1, "x", BAD),
        Edit(b"/etc/\x1b", b"", b"x", (BAD,)),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_what_is_shown_before_the_yes_is_one_printable_line(shown: object) -> None:
    assert str(shown).isprintable()
    assert SHOWN in str(shown)
