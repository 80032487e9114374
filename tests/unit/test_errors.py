"""The tree of errors and the exit codes that scripts rely on."""

from collections.abc import Iterator

import pytest

from etsclone import errors
from etsclone.errors import EtscloneError, ExitCode

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
