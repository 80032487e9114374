"""The guard in conftest that keeps unit tests from running other programs by accident."""

import pytest

from etsclone.run import run


def test_a_unit_test_that_did_not_ask_cannot_run_a_program() -> None:
    with pytest.raises(pytest.fail.Exception, match="would run /usr/sbin/losetup"):
        run("losetup", ["--list"])


@pytest.mark.usefixtures("real_programs")
def test_one_that_asked_can() -> None:
    assert run("losetup", ["--version"]).stdout.startswith("losetup from util-linux")
