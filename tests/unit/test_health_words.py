"""How health is told: to people, to programs, in receipts; and when it fails."""

import json

import pytest

from etsclone.commands.health import health_section, require_healthy, told
from etsclone.confined import OUTPUT_LIMIT, End, Ended
from etsclone.errors import ExitCode, HealthFailed
from etsclone.execute.health import FEW_LINES, _finding
from etsclone.model.health import Finding, Health, Verdict
from etsclone.model.profile import Check

HEALTH = Health(
    filesystems=(
        Finding("ext4 on partition 2", Verdict.OK),
        Finding("xfs on vg/srv", Verdict.SKIPPED, "a mount must replay its journal first"),
    ),
    checks=(
        Finding("DHCP", Verdict.FAILED, "dhcpd ended with status 1", ("line 3", 'secret "x";')),
        Finding("clock", Verdict.SKIPPED, "chronyd is not installed there"),
    ),
    notes=("the checks are those of profile p as it is here",),
)
CHECK = Check("DHCP", ("dhcpd", "-t"))


def test_people_are_told_all() -> None:
    assert (
        "\n".join(health_section(HEALTH).lines)
        == """\
filesystem ext4 on partition 2: ok
filesystem xfs on vg/srv: skipped, a mount must replay its journal first
check DHCP: failed, dhcpd ended with status 1
  | line 3
  | secret "x";
check clock: skipped, chronyd is not installed there
note: the checks are those of profile p as it is here"""
    )


OK, SKIPPED = Finding("x", Verdict.OK), Finding("y", Verdict.SKIPPED, "there is no e2fsck")
UNKNOWN = "whether it is sound is not known: not all of it was looked at"


@pytest.mark.parametrize(
    ("health", "healthy", "unchecked"),
    [
        (Health((OK,), (OK,)), True, []),
        (Health((OK,), (Finding("z", Verdict.NOTHING, "there is no /x"),)), True, []),
        (Health((OK,), (OK,), notes=("another profile",)), True, []),
        (Health((OK,), (SKIPPED,)), None, ["y: there is no e2fsck"]),
        (Health((SKIPPED,), (OK,)), None, ["y: there is no e2fsck"]),
        (Health((OK,), unseen=("not asked for",)), None, ["not asked for"]),
        (Health(unseen=("not asked for",)), None, ["not asked for"]),
        (Health(checks=(Finding("z", Verdict.NOTHING),)), None, []),
        (Health(), None, []),
    ],
)
def test_healthy_is_what_was_looked_at_as_a_whole(
    health: Health, healthy: bool | None, unchecked: list[str]
) -> None:
    section = health_section(health)
    assert section.facts is not None
    assert section.facts["healthy"] is healthy
    assert section.facts["unchecked"] == unchecked
    assert (UNKNOWN in section.lines) is (healthy is None)
    for note in health.unseen:
        assert f"note: {note}" in section.lines
    require_healthy(health, "x.raw is primary")


def test_what_failed_is_not_healthy_whatever_else_was_looked_at() -> None:
    section = health_section(HEALTH)
    assert section.facts is not None
    assert section.facts["healthy"] is False
    assert section.facts["unchecked"] == [
        "xfs on vg/srv: a mount must replay its journal first",
        "clock: chronyd is not installed there",
    ]


def test_receipts_hold_no_output() -> None:
    section = health_section(HEALTH)
    assert section.facts is not None
    assert section.facts["healthy"] is False
    assert "secret" not in json.dumps(section.facts)
    assert told(HEALTH)["health"] != section.facts
    assert "secret" in json.dumps(told(HEALTH))


def test_only_what_failed_is_a_failure() -> None:
    with pytest.raises(HealthFailed) as caught:
        require_healthy(HEALTH, "x.raw is primary")
    assert caught.value.message == (
        "x.raw is primary, but it is not healthy: DHCP: dhcpd ended with status 1"
    )
    assert caught.value.exit_code is ExitCode.FAILED
    require_healthy(Health(HEALTH.filesystems, HEALTH.checks[1:]), "x.raw is primary")


@pytest.mark.parametrize(
    ("ended", "verdict", "why"),
    [
        (Ended(End.ITSELF), Verdict.OK, ""),
        (Ended(End.ITSELF, 3), Verdict.FAILED, "dhcpd ended with status 3"),
        (Ended(End.ITSELF, -11), Verdict.FAILED, "dhcpd was ended by SIGSEGV"),
        (Ended(End.ITSELF, -40), Verdict.FAILED, "dhcpd was ended by signal 40"),
        (Ended(End.TIME), Verdict.FAILED, "dhcpd did not end within 60 seconds"),
        (Ended(End.PROCESSES), Verdict.FAILED, "dhcpd started too many processes"),
        (Ended(End.MISSING), Verdict.SKIPPED, "dhcpd is not installed there"),
    ],
)
def test_each_end(ended: Ended, verdict: Verdict, why: str) -> None:
    found = _finding(CHECK, ended, 60)
    assert (found.verdict, found.why) == (verdict, why)


def test_of_the_output_the_last_lines_are_shown_as_a_terminal_may_see_them() -> None:
    lines = [f"line {number}" for number in range(50)]
    output = "\n".join((*lines, "\x1b[2Jred\tx", "long " * 200)).encode() + b"\n\xff"
    shown = _finding(CHECK, Ended(End.ITSELF, 1, output), 60).output
    assert len(shown) == FEW_LINES + 1
    assert shown[0] == "[...]"
    assert shown[-3] == "\\x1b[2Jred x"
    assert len(shown[-2]) == 303
    assert shown[-1] == "\\xff"


def test_what_was_dropped_is_marked() -> None:
    ended = Ended(End.ITSELF, 1, b"the end\n", dropped=OUTPUT_LIMIT)
    assert _finding(CHECK, ended, 60).output == ("[...]", "the end")
    assert _finding(CHECK, Ended(End.ITSELF, 1), 60).output == ()
